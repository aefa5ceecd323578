"""What the label ids mean: names, colours and the id that counts as void."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fcn_model.errors import SpecError

Color = tuple[int, int, int]

MAX_CLASSES = 256
"""Masks are one byte per pixel."""


def voc_palette(ids: int = 256) -> tuple[Color, ...]:
    """The PASCAL VOC colours of ids 0 .. ids-1, RGB in 0..255.

    The bits of the id are dealt to red, green and blue in turn, most significant bit first
    (VOC devkit, ``VOClabelcolormap.m``). Id 255 gives VOC's border colour (224, 224, 192).
    """

    def color(index: int) -> Color:
        channels = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                channels[channel] |= (index >> (3 * bit + channel) & 1) << (7 - bit)
        return channels[0], channels[1], channels[2]

    return tuple(color(index) for index in range(ids))


@dataclass(frozen=True, kw_only=True)
class ClassList:
    """Names and colours of the classes 0 .. K-1, and the label id that is void.

    ``palette`` may be left empty for the VOC colours. A void pixel counts neither in the loss nor
    in a score. Raises SpecError for an empty list, repeated names, more than 256 ids, a void id
    that is also a class, or a palette that does not fit.
    """

    names: tuple[str, ...]
    palette: tuple[Color, ...] = ()
    void_id: int = 255

    def __post_init__(self) -> None:
        if not 1 <= len(self.names) <= MAX_CLASSES:
            raise SpecError(f"a class list needs 1 to {MAX_CLASSES} names, got {len(self.names)}")
        repeated = sorted({name for name in self.names if self.names.count(name) > 1})
        if repeated:
            raise SpecError(f"class names must differ, but these are repeated: {repeated}")
        if not 0 <= self.void_id <= 255:
            raise SpecError(f"the void id must lie in 0..255, got {self.void_id}")
        if self.void_id < len(self.names):
            taken = self.names[self.void_id]
            raise SpecError(
                f"void id {self.void_id} is also class {taken!r}; "
                f"choose an id from {len(self.names)} to 255"
            )
        if not self.palette:
            object.__setattr__(self, "palette", voc_palette(len(self.names)))
        if len(self.palette) != len(self.names):
            raise SpecError(
                f"the palette has {len(self.palette)} colours for {len(self.names)} classes"
            )
        for color in self.palette:
            if len(color) != 3 or not all(0 <= value <= 255 for value in color):
                raise SpecError(f"palette colours are three values in 0..255, got {color}")

    def __len__(self) -> int:
        return len(self.names)

    def to_dict(self) -> dict[str, Any]:
        """A value that JSON can hold; `from_dict` reads it back."""
        return {
            "names": list(self.names),
            "palette": [list(color) for color in self.palette],
            "void_id": self.void_id,
        }

    @classmethod
    def from_dict(cls, value: object) -> ClassList:
        """Read what `to_dict` wrote. Raises SpecError if a field is missing or of a wrong type."""
        try:
            assert isinstance(value, dict)
            return cls(
                names=tuple(str(name) for name in value["names"]),
                palette=tuple(
                    (int(red), int(green), int(blue))
                    for red, green, blue in value.get("palette", ())
                ),
                void_id=int(value.get("void_id", 255)),
            )
        except SpecError:
            raise
        except (AssertionError, KeyError, TypeError, ValueError) as error:
            raise SpecError(
                'a class list is a JSON object {"names": [...], "palette": [[r, g, b], ...], '
                f'"void_id": 255}}; could not read {str(value)[:200]!r} ({error!r})'
            ) from error
