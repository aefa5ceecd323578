"""A listed folder: what the data set readers look into, whatever store it lies in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

from fcn_model.classes import ClassList
from pipelines import storage
from pipelines.errors import InputError, NotFoundError
from pipelines.label_rules import LabelRule
from pipelines.storage import ObjectRef
from pipelines.suffixes import IMAGE_SUFFIXES, is_image_name, without_suffix


class Sample(NamedTuple):
    """One image of a data set and, if it has such, its label and further planes by name.

    Planes come in the same order in each sample of a set.
    """

    key: str
    image: ObjectRef
    label: ObjectRef | None
    planes: tuple[tuple[str, ObjectRef], ...] = ()


@dataclass(frozen=True)
class Listing:
    """What a data set reader found: samples in the set's own order, and what their ids mean.

    ``rules`` explain the bytes of the label (``label``) and of the planes that are labels, where
    they are no PNGs of ids; ``tasks`` are the class lists of the latter. ``one_file`` says that all
    samples lie in one NYUDv2 file, which is each sample's image.
    """

    classes: ClassList | None
    samples: tuple[Sample, ...]
    rules: Mapping[str, LabelRule] = field(default_factory=dict)
    tasks: Mapping[str, ClassList] = field(default_factory=dict)
    one_file: bool = False

    def without(self, keys: frozenset[str]) -> Listing:
        """The listing without the samples of these keys."""
        kept = tuple(sample for sample in self.samples if sample.key not in keys)
        return replace(self, samples=kept)


@dataclass(frozen=True)
class Tree:
    """The objects below ``root`` by their relative keys, sorted."""

    root: str
    objects: Mapping[str, ObjectRef]

    @classmethod
    def of(cls, root: str) -> Tree:
        """List a canonical URI. Raises NotFoundError if the folder or bucket does not exist."""
        refs = storage.list_objects(root, underscored=True)
        return cls(root, {storage.relative(ref.uri, root): ref for ref in refs})

    @cached_property
    def _stems(self) -> dict[str, list[str]]:
        stems: dict[str, list[str]] = {}
        for key in self.objects:
            if is_image_name(key):
                stems.setdefault(without_suffix(key), []).append(key)
        return stems

    def below(self, folder: str) -> list[str]:
        """The keys of all images below a folder."""
        return [key for key in self.objects if key.startswith(f"{folder}/") and is_image_name(key)]

    def has(self, folder: str) -> bool:
        """Whether anything lies below a folder."""
        return any(key.startswith(f"{folder}/") for key in self.objects)

    def holding(self, name: str) -> Tree:
        """The uppermost folder that has a file or folder ``name`` right in it; else this one."""
        found = [
            key[: f"/{key}/".index(f"/{name}/")]
            for key in self.objects
            if f"/{name}/" in f"/{key}/"
        ]
        inside = min(found, key=lambda prefix: (prefix.count("/"), prefix), default="")
        if not inside:
            return self
        objects = {
            key.removeprefix(inside): ref
            for key, ref in self.objects.items()
            if key.startswith(inside)
        }
        return Tree(storage.join(self.root, inside.rstrip("/")), objects)

    def names(self, folder: str, ending: str) -> list[str]:
        """The names of the objects right in a folder, or the root, that end so, without it."""
        inside = f"{folder}/" if folder else ""
        found = (
            key.removeprefix(inside).removesuffix(ending)
            for key in self.objects
            if key.startswith(inside) and key.endswith(ending)
        )
        return [name for name in found if "/" not in name]

    def ref(self, key: str, needed_by: str) -> ObjectRef:
        """The object of that key. Raises NotFoundError, which says what names it."""
        if key not in self.objects:
            raise NotFoundError(f"{storage.join(self.root, key)} does not exist; {needed_by}")
        return self.objects[key]

    def image(self, stem: str, needed_by: str, what: str = "image") -> ObjectRef:
        """The one image whose key without suffix is ``stem``; ``what`` it is to a reader.

        Raises NotFoundError if there is none, InputError if there are several.
        """
        found = self._stems.get(stem, [])
        if len(found) != 1:
            wanted = storage.join(self.root, stem)
            if found:
                text = f"one {what} {wanted}.* is wanted, but there are {found}; {needed_by}"
                raise InputError(text)
            endings = ", ".join(sorted(IMAGE_SUFFIXES))
            raise NotFoundError(
                f"there is no {what} {wanted}.*; {needed_by}. Looked for were the endings {endings}"
            )
        return self.objects[found[0]]

    def text(self, key: str, needed_by: str) -> str:
        """The text of a small object. Raises InputError if it is not UTF-8."""
        ref = self.ref(key, needed_by)
        try:
            return storage.read_bytes(ref.uri, etag=ref.etag).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InputError(f"{ref.uri} is not UTF-8 text ({error})") from error

    def lines(self, key: str, needed_by: str) -> list[str]:
        """The lines of a small text, stripped, without empty ones."""
        return [line.strip() for line in self.text(key, needed_by).splitlines() if line.strip()]

    def classes(self) -> ClassList | None:
        """The class list in ``classes.json`` at the root, if there is one."""
        return self._class_lists[0]

    def tasks(self) -> dict[str, ClassList]:
        """The class lists of further labels, which stand in ``classes.json`` as ``tasks``."""
        return self._class_lists[1]

    @cached_property
    def _class_lists(self) -> tuple[ClassList | None, dict[str, ClassList]]:
        if "classes.json" not in self.objects:
            return None, {}
        uri = self.objects["classes.json"].uri
        try:
            value = json.loads(self.text("classes.json", ""))
            classes = ClassList.from_dict(value)
            tasks = dict(value.get("tasks", {}))
            return classes, {name: ClassList.from_dict(task) for name, task in tasks.items()}
        except (ValueError, TypeError) as error:  # SpecError and JSON's are ValueErrors
            raise InputError(f"{uri} is no class list: {error}") from error


def check_unique(samples: list[Sample], where: str) -> tuple[Sample, ...]:
    """The samples as a tuple. Raises InputError if there are none or a key is there twice."""
    if not samples:
        raise InputError(f"{where} names no image")
    seen: set[str] = set()
    for sample in samples:
        if sample.key in seen:
            raise InputError(f"{where} names {sample.key!r} twice")
        seen.add(sample.key)
    return tuple(samples)


def read_list(tree: Tree, folder: str, split: str | None, layout: str) -> tuple[str, list[str]]:
    """The URI and the lines of ``<folder>/<split>.txt``, or of the only list that there is.

    ``layout`` says in messages how the data set should lie. Raises NotFoundError if there is no
    list, InputError if no split is named and there are several.
    """
    inside = f"{folder}/" if folder else ""
    splits = [name for name in tree.names(folder, ".txt") if name.lower() not in _NO_SPLITS]
    if not splits:
        raise NotFoundError(f"{tree.root} has no {inside}<split>.txt; {layout}")
    if split is None and len(splits) > 1:
        raise InputError(f"{tree.root} has the splits {splits}; choose one with split")
    key = f"{inside}{split or splits[0]}.txt"
    lines = tree.lines(key, f"the splits here are {splits}; {layout}")
    return storage.join(tree.root, key), lines


_NO_SPLITS = {"classes", "labels", "59_labels", "readme"}
