"""A listed folder: what the data set readers look into, whatever store it lies in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from fcn_model.classes import ClassList
from fcn_model.errors import SpecError
from pipelines import storage
from pipelines.errors import InputError, NotFoundError
from pipelines.storage import ObjectRef
from pipelines.suffixes import is_image_name, without_suffix


class Sample(NamedTuple):
    """One image of a data set and, if it is labelled, its label."""

    key: str
    image: ObjectRef
    label: ObjectRef | None


@dataclass(frozen=True)
class Listing:
    """What a data set reader found: samples in the set's own order, and what their ids mean."""

    classes: ClassList | None
    samples: tuple[Sample, ...]


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

    def ref(self, key: str, needed_by: str) -> ObjectRef:
        """The object of that key. Raises NotFoundError, which says what names it."""
        if key not in self.objects:
            raise NotFoundError(f"{storage.join(self.root, key)} does not exist; {needed_by}")
        return self.objects[key]

    def image(self, stem: str, needed_by: str) -> ObjectRef:
        """The one image whose key without suffix is ``stem``."""
        found = self._stems.get(stem, [])
        if len(found) != 1:
            wanted = storage.join(self.root, stem)
            what = f"there are {found}" if found else "there is none"
            error = InputError if found else NotFoundError
            raise error(f"one image {wanted}.* is wanted, but {what}; {needed_by}")
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
        if "classes.json" not in self.objects:
            return None
        uri = self.objects["classes.json"].uri
        try:
            return ClassList.from_dict(json.loads(self.text("classes.json", "")))
        except (json.JSONDecodeError, SpecError) as error:
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
