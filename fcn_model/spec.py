"""What a network is: the values from which every layer, shape and offset follows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from fcn_model.errors import SpecError

Head = Literal["fcn32s", "fcn16s", "fcn8s"]
BackboneName = Literal["vgg16"]

MAX_OUTPUTS = 256
"""Masks are one byte per pixel."""

AT_ONCE_SCALES = (0.01, 0.0001)
"""Factors before score_pool4 and score_pool3 of voc-fcn8s-atonce, which trains in one go."""

_TITLES = {"fcn32s": "FCN-32s", "fcn16s": "FCN-16s", "fcn8s": "FCN-8s"}
_SKIPS = {"fcn32s": 0, "fcn16s": 1, "fcn8s": 2}


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """One network of the paper, or a declared variation of it.

    ``num_classes`` is K, the channels of the scores. ``width`` multiplies the channels of every
    trunk convolution and ``fc_width`` is the channels of fc6 and fc7; only width 1 with 4096 is
    called VGG16. ``skip_scales`` are fixed factors before score_pool4 and score_pool3.
    Raises SpecError naming the field and its value.
    """

    num_classes: int
    head: Head = "fcn8s"
    backbone: BackboneName = "vgg16"
    width: float = 1.0
    fc_width: int = 4096
    skip_scales: tuple[float, float] = (1.0, 1.0)
    dropout: float = 0.5

    def __post_init__(self) -> None:
        _check(
            "num_classes",
            self.num_classes,
            1 <= self.num_classes <= MAX_OUTPUTS,
            f"1 to {MAX_OUTPUTS}",
        )
        _check("head", self.head, self.head in get_args(Head), f"one of {get_args(Head)}")
        known = get_args(BackboneName)
        _check("backbone", self.backbone, self.backbone in known, f"one of {known}")
        _check("width", self.width, 1 / 64 <= self.width <= 8, "1/64 to 8")
        _check("fc_width", self.fc_width, 1 <= self.fc_width <= 65536, "1 to 65536")
        _check("dropout", self.dropout, 0 <= self.dropout < 1, "0 up to, not including, 1")
        unused = self.skip_scales[_SKIPS[self.head] :]
        _check(
            "skip_scales",
            self.skip_scales,
            all(scale > 0 for scale in self.skip_scales) and all(scale == 1 for scale in unused),
            f"two positive factors, 1 for a skip that {self.head} does not have",
        )

    @property
    def name(self) -> str:
        """What a report may call this network: "VGG16" only where it is VGG16."""
        title = _TITLES[self.head]
        if self.skip_scales == AT_ONCE_SCALES:
            title += " at-once"
        elif self.skip_scales != (1.0, 1.0):
            title += f" (skips x {self.skip_scales[0]:g}, {self.skip_scales[1]:g})"
        if self.width == 1:
            if self.fc_width == 4096:
                return f"{title} VGG16"
            return f"{title} (VGG16 trunk, fc {self.fc_width})"
        kind = "narrow" if self.width < 1 else "wide"
        return f"{title} {kind} (VGG16 layout, width {self.width:g}, fc {self.fc_width})"

    def to_dict(self) -> dict[str, Any]:
        """A value that JSON can hold; `from_dict` reads it back."""
        return {**asdict(self), "skip_scales": list(self.skip_scales)}

    @classmethod
    def from_dict(cls, value: object) -> NetworkSpec:
        """Read what `to_dict` wrote. Raises SpecError for unknown, missing or mistyped fields."""
        wanted = [field.name for field in fields(cls)]
        if not isinstance(value, Mapping):
            raise SpecError(f"a network is a JSON object with {wanted}, got {str(value)[:200]!r}")
        unknown = sorted(set(map(str, value)) - set(wanted))
        if unknown or "num_classes" not in value:
            raise SpecError(
                f"a network is a JSON object with {wanted} (all but num_classes may be left out), "
                f"got unknown {unknown} in {str(dict(value))[:200]}"
            )
        given = dict(value)
        try:
            if "skip_scales" in given:
                pool4, pool3 = given["skip_scales"]
                given["skip_scales"] = (float(pool4), float(pool3))
            return cls(**given)
        except SpecError:
            raise
        except (TypeError, ValueError) as error:
            raise SpecError(
                f"a field of the network has a wrong type in {str(given)[:200]} ({error})"
            ) from error


def _check(field: str, value: object, valid: bool, wanted: str) -> None:
    if not valid:
        raise SpecError(f"{field} must be {wanted}, got {value!r}")
