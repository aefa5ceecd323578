"""What a network is: the values from which every layer, shape and offset follows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from math import inf
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from fcn_model.errors import SpecError

if TYPE_CHECKING:
    from torch import Tensor

Head = Literal["fcn32s", "fcn16s", "fcn8s"]
BackboneName = Literal["vgg16", "caffenet", "alexnet", "googlenet", "googlenet_bn"]
Upsampling = Literal["fixed", "intermediate", "learned"]

MAX_OUTPUTS = 256
"""Masks are one byte per pixel."""

AT_ONCE_SCALES = (0.01, 0.0001)
"""Factors before score_pool4 and score_pool3 of voc-fcn8s-atonce, which trains in one go."""

FC_WIDTH = 4096
FIRST_TASK = "sem"
"""What the first of several tasks is called, as in siftflow-fcn8s."""

_TITLES = {"fcn32s": "FCN-32s", "fcn16s": "FCN-16s", "fcn8s": "FCN-8s"}
SKIPS: Mapping[Head, int] = {"fcn32s": 0, "fcn16s": 1, "fcn8s": 2}
"""How many of the trunk's pooled maps each head adds to the scores of its top, coarse to fine."""

_BACKBONES = {
    "vgg16": "VGG16",
    "caffenet": "CaffeNet",
    "alexnet": "AlexNet (torchvision)",
    "googlenet": "GoogLeNet",
    "googlenet_bn": "GoogLeNet (torchvision)",
}


class Task(NamedTuple):
    """What a network predicts: ``name`` ends its layers' names, empty if it is the only task."""

    name: str
    num_classes: int


class Stream(NamedTuple):
    """A trunk of its own for some channels of the input; ``name`` ends its layers' names."""

    name: str
    channels: int


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """One network of the paper, or a declared variation of it.

    ``num_classes`` is K, the channels of the scores. ``width`` multiplies the channels of every
    trunk convolution and ``fc_width`` is the channels of fc6 and fc7, which GoogLeNet has not; only
    width 1 with 4096 bears the plain name of its backbone. ``skip_scales`` are fixed factors before
    the scores of the two skips, coarse to fine.

    ``more_tasks`` are predicted from the same trunk beside the first, which is then called
    ``sem`` (SIFT Flow: ``(("geo", 3),)``). ``streams`` share out the input's channels: one unnamed
    stream of 3 or, with depth, of 4; or several named ones, each with a trunk and scores of its
    own, which are averaged (NYUDv2: ``(("color", 3), ("hha", 3))``). ``upsampling`` is fixed as in
    the released nets; ``intermediate`` learns all but the last (CVPR text, section 4.3),
    ``learned`` all, each with dense kernels that start bilinear.
    Raises SpecError naming the field and its value.
    """

    num_classes: int
    head: Head = "fcn8s"
    backbone: BackboneName = "vgg16"
    width: float = 1.0
    fc_width: int = FC_WIDTH
    skip_scales: tuple[float, float] = (1.0, 1.0)
    dropout: float = 0.5
    more_tasks: tuple[Task, ...] = ()
    streams: tuple[Stream, ...] = (Stream("", 3),)
    upsampling: Upsampling = "fixed"

    def __post_init__(self) -> None:
        object.__setattr__(self, "more_tasks", tuple(Task(*task) for task in self.more_tasks))
        object.__setattr__(self, "streams", tuple(Stream(*stream) for stream in self.streams))
        for field, names in (
            ("head", get_args(Head)),
            ("backbone", get_args(BackboneName)),
            ("upsampling", get_args(Upsampling)),
        ):
            value = getattr(self, field)
            _check(field, value, value in names, f"one of {names}")
        for field in ("width", "dropout"):
            value = getattr(self, field)
            _check(field, value, isinstance(value, int | float), "a number")
        _check("width", self.width, 1 / 64 <= self.width <= 8, "1/64 to 8")
        whole = _is_whole(self.fc_width) and 1 <= self.fc_width <= 65536
        _check("fc_width", self.fc_width, whole, "1 to 65536")
        _check(
            "fc_width",
            self.fc_width,
            "googlenet" not in self.backbone or self.fc_width == FC_WIDTH,
            f"left at {FC_WIDTH} for {self.backbone}, which has no fc6",
        )
        _check("dropout", self.dropout, 0 <= self.dropout < 1, "0 up to, not including, 1")
        unused = self.skip_scales[SKIPS[self.head] :]
        _check(
            "skip_scales",
            self.skip_scales,
            all(0 < scale < inf for scale in self.skip_scales)
            and all(scale == 1 for scale in unused),
            f"two positive finite factors, 1 for a skip that {self.head} does not have",
        )
        self._check_tasks()
        self._check_streams()

    def _check_tasks(self) -> None:
        for field, tasks in (("num_classes", self.tasks[:1]), ("more_tasks", self.more_tasks)):
            for task in tasks:
                count = task.num_classes
                whole = _is_whole(count) and 1 <= count <= MAX_OUTPUTS
                _check(field, count, whole, f"1 to {MAX_OUTPUTS}")
        names = [task.name for task in self.tasks]
        _check(
            "more_tasks",
            self.more_tasks,
            len(names) == 1 or _distinct_words(names),
            f"named by distinct lower-case words other than {FIRST_TASK!r}",
        )

    def _check_streams(self) -> None:
        names = [stream.name for stream in self.streams]
        _check(
            "streams",
            self.streams,
            names == [""] or (len(names) > 1 and _distinct_words(names)),
            "one unnamed stream, or several named by distinct lower-case words",
        )
        for stream in self.streams:
            whole = _is_whole(stream.channels) and 1 <= stream.channels <= 64
            _check("streams", stream, whole, "of 1 to 64 channels each")

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Every task, the first one first; unnamed if it is the only one."""
        first = Task(FIRST_TASK if self.more_tasks else "", self.num_classes)
        return (first, *self.more_tasks)

    @property
    def in_channels(self) -> int:
        """Channels of the input, all streams together."""
        return sum(stream.channels for stream in self.streams)

    def split(self, scores_NKHW: Tensor) -> tuple[Tensor, ...]:
        """The scores of each task, as views of what the network returns."""
        parts = [task.num_classes for task in self.tasks]
        return scores_NKHW.split(parts, dim=1)  # type: ignore[no-untyped-call]

    @property
    def name(self) -> str:
        """What a report may call this network: "VGG16" only where it is VGG16."""
        title = _TITLES[self.head]
        if self.skip_scales == AT_ONCE_SCALES:
            title += " at-once"
        elif self.skip_scales != (1.0, 1.0):
            title += f" (skips x {self.skip_scales[0]:g}, {self.skip_scales[1]:g})"
        return f"{title} {self._trunk_name}{self._variations}"

    @property
    def _trunk_name(self) -> str:
        plain = _BACKBONES[self.backbone]
        if (self.width, self.fc_width) == (1, FC_WIDTH):
            return plain
        fc = "" if "googlenet" in self.backbone else f", fc {self.fc_width}"
        if self.width == 1:
            return f"({plain} trunk{fc})"
        kind = "narrow" if self.width < 1 else "wide"
        return f"{kind} ({plain} layout, width {self.width:g}{fc})"

    @property
    def _variations(self) -> str:
        notes = []
        if self.more_tasks:
            notes.append(" + ".join(f"{name} {count}" for name, count in self.tasks))
        if len(self.streams) > 1:
            notes.append(" + ".join(stream.name for stream in self.streams))
        elif self.in_channels != 3:
            notes.append(f"{self.in_channels} input channels")
        if self.upsampling != "fixed":
            notes.append(f"{self.upsampling} upsampling")
        return f" [{', '.join(notes)}]" if notes else ""

    def to_dict(self) -> dict[str, Any]:
        """A value that JSON can hold; `from_dict` reads it back.

        Fields that came after the first release are left out where they have their default, so
        that checkpoints keep their digest.
        """
        value = asdict(self)
        for field in fields(self):
            if field.name in _LATER and value[field.name] == field.default:
                del value[field.name]
        value["skip_scales"] = list(self.skip_scales)
        for name in set(value) & {"more_tasks", "streams"}:
            value[name] = [list(item) for item in value[name]]
        return value

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


_LATER = ("more_tasks", "streams", "upsampling")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _distinct_words(names: list[str]) -> bool:
    return len(set(names)) == len(names) and all(re.fullmatch("[a-z]+", name) for name in names)


def _check(field: str, value: object, valid: bool, wanted: str) -> None:
    if not valid:
        raise SpecError(f"{field} must be {wanted}, got {value!r}")
