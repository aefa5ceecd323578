"""What a user points a job at, resolved: its layout, its classes, and its units of work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from fcn_model.classes import ClassList
from pipelines import nyu_records, storage
from pipelines.cutting import UNIT_BYTES, cut_files
from pipelines.datasets import nyud_mat
from pipelines.datasets.layouts import READERS, Folder, detect
from pipelines.datasets.tree import Listing, Tree
from pipelines.errors import InputError, NotFoundError
from pipelines.records import LABEL
from pipelines.shard_footers import OnBadShard, read_shards
from pipelines.storage import ObjectRef
from pipelines.suffixes import is_image_name, suffix_of
from pipelines.units import Unit

Layout = Literal["shards", "tar", Folder]

MANIFEST = "manifest.parquet"


@dataclass(frozen=True)
class Source:
    """Input that was looked at: a canonical URI, its layout, and its units in a fixed order.

    ``classes`` is the class list of labelled data; None for an unlabelled archive. ``planes`` are
    what every record has beside image and label, ``tasks`` the class lists of those that are
    labels. ``excluded`` counts the images that were left out on demand. ``unit_records`` and
    ``unit_bytes`` are the limits by which it was cut, None for as many as are fitting.
    """

    uri: str
    layout: Layout
    classes: ClassList | None
    units: tuple[Unit, ...]
    split: str | None = None
    tasks: Mapping[str, ClassList] = field(default_factory=dict)
    planes: tuple[str, ...] = ()
    excluded: int = 0
    unit_records: int | None = 256
    unit_bytes: int = UNIT_BYTES

    @property
    def records(self) -> int | None:
        """How many images it has, if that is known without reading it."""
        counts = [unit.records for unit in self.units]
        return None if None in counts else sum(count or 0 for count in counts)

    def labels_of(self, task: str | None) -> tuple[str, ClassList]:
        """The name of a task's labels and their classes; None is the first task.

        Raises InputError if there is no such task, or nothing is labelled.
        """
        if self.classes is None:
            raise InputError(
                f"{self.uri} has no class list, so it cannot be used as labelled data; "
                "prepare it from a labelled layout (pairs, voc, ...), or put a classes.json there"
            )
        if task is None:
            return LABEL, self.classes
        if task not in self.tasks:
            raise InputError(
                f"{self.uri} has no labels for task {task!r}; beside those of the first task, "
                f"which need no name, it has {sorted(self.tasks) or 'none'}"
            )
        return task, self.tasks[task]

    def refuse_inside(self, output: str) -> None:
        """Raise InputError if ``output`` lies inside the input, which it would then change."""
        if f"{storage.parse_uri(output)}/".startswith(f"{self.uri}/"):
            raise InputError(
                f"the output {output} lies inside the input {self.uri}; choose another"
            )


def open_source(
    uri: str,
    *,
    layout: Layout | Literal["auto"] = "auto",
    split: str | None = None,
    exclude: Sequence[str] = (),
    unit_records: int | None = 256,
    unit_bytes: int = UNIT_BYTES,
    on_bad_shard: OnBadShard = "fail",
) -> Source:
    """List ``uri``, find out what it is and cut it into units.

    ``uri`` may also be one shard, a ``.parquet`` or ``.tar`` object. ``auto`` takes folders with
    ``*.parquet`` for shards, with ``*.tar`` for tar, folders that show the signs of a known data
    set for that (`pipelines.datasets.layouts`), and any other folder with images for an archive.

    ``exclude`` are URIs of lists of keys, one per line, to leave out: SBD's train without VOC's val
    is a split of its own.

    A unit is one tar; or consecutive row groups of one shard, or consecutive files, of up to
    ``unit_records`` records, or None for as many as are `cutting.fitting`, and ``unit_bytes``
    bytes, but at least one group or file. With ``on_bad_shard`` ``unit`` a shard whose footer
    cannot be read is a unit, too, unless all of them are so (`shard_footers.read_shards`).

    Raises InputError if nothing or a mixture is found, the layout is not as it should be, or a
    limit is below 1, ShardError for a shard whose footer cannot be read, and NotFoundError for what
    is missing.
    """
    if layout not in ("auto", *get_args(Layout)):
        raise InputError(f"layout {layout!r} is not one of auto, {', '.join(get_args(Layout))}")
    for name, limit in (("unit_records", unit_records), ("unit_bytes", unit_bytes)):
        if limit is not None and limit < 1:
            raise InputError(f"{name} must be at least 1, got {limit}")
    root = storage.parse_uri(uri)
    tree = _tree(root)
    layout = _detect(tree) if layout == "auto" else layout
    if layout in READERS:
        listing = READERS[layout](tree, split)
        kept = listing.without(_keys_in(exclude))
        if not kept.samples:
            raise InputError(f"{root}: every image stands in {', '.join(exclude)}; none is left")
        return Source(
            root,
            layout,
            listing.classes,
            tuple(_listed_units(kept, unit_records, unit_bytes)),
            split,
            tasks=listing.tasks,
            planes=_planes_of(listing),
            excluded=len(listing.samples) - len(kept.samples),
            unit_records=unit_records,
            unit_bytes=unit_bytes,
        )
    if split is not None:
        raise InputError(f"{root} has layout {layout}, which has no splits; split is {split!r}")
    if exclude:
        raise InputError(f"{root} has layout {layout}; only images in a list can be left out")
    if layout == "tar":
        refs = _shards(tree, ".tar")
        return Source(root, layout, tree.classes(), tuple(Unit("tar", (ref,)) for ref in refs))
    refs = _shards(tree, ".parquet")
    shards = read_shards(tree, refs, on_bad_shard, unit_records, unit_bytes)
    return Source(
        root,
        "shards",
        shards.classes,
        shards.units,
        tasks=shards.tasks,
        planes=shards.planes,
        unit_records=unit_records,
        unit_bytes=unit_bytes,
    )


def _tree(root: str) -> Tree:
    """The folder, or the one shard that ``root`` names."""
    if root.endswith((".parquet", ".tar")) and (ref := storage.stat(root)) is not None:
        parent, _, name = root.rpartition("/")
        return Tree(parent, {name: ref})
    return Tree.of(root)


def _detect(tree: Tree) -> Layout:
    if nyud_mat.found_in(tree):
        return "nyud-mat"
    kinds = {
        "shards": bool(_named(tree, ".parquet")),
        "tar": bool(_named(tree, ".tar")),
        "images": any(map(is_image_name, tree.objects)),
    }
    found = [kind for kind, there in kinds.items() if there]
    if len(found) != 1:
        raise _unclear(tree, found)
    if kinds["shards"]:
        return "shards"
    return "tar" if kinds["tar"] else detect(tree)


def _unclear(tree: Tree, found: Sequence[str]) -> InputError:
    endings = Counter(f".{suffix_of(key)}" for key in tree.objects).most_common(6)
    seen = ", ".join(f"{count} {ending}" for ending, count in endings) or "nothing at all"
    if found:
        return InputError(
            f"{tree.root} holds {' and '.join(found)} side by side ({seen}); "
            "name one of them with layout, or point to a folder with one kind"
        )
    error = InputError if tree.objects else NotFoundError
    return error(f"{tree.root} holds no images, *.parquet or *.tar; it holds {seen}")


def _named(tree: Tree, ending: str) -> list[ObjectRef]:
    return [
        ref
        for key, ref in tree.objects.items()
        if key.endswith(ending) and key.rpartition("/")[2] != MANIFEST
    ]


def _shards(tree: Tree, ending: str) -> list[ObjectRef]:
    refs = _named(tree, ending)
    if not refs:
        raise NotFoundError(f"{tree.root} holds no *{ending}")
    return refs


def _keys_in(lists: Sequence[str]) -> frozenset[str]:
    """The keys of some lists. Raises NotFoundError for a list that does not exist."""
    found: set[str] = set()
    for uri in lists:
        parent, _, name = storage.parse_uri(uri).rpartition("/")
        tree = Tree(parent, {name: ref} if (ref := storage.stat(f"{parent}/{name}")) else {})
        found.update(tree.lines(name, "it was named with exclude: a list of keys, one per line"))
    return frozenset(found)


def _planes_of(listing: Listing) -> tuple[str, ...]:
    if listing.one_file:
        return ("depth",)
    return tuple(name for name, _ in listing.samples[0].planes)


def _listed_units(listing: Listing, unit_records: int | None, unit_bytes: int) -> Iterator[Unit]:
    samples, rules = listing.samples, tuple(listing.rules.items())
    if listing.one_file:
        file = samples[0].image
        sizes = [nyu_records.record_bytes(file)] * len(samples)
        for start, stop in cut_files(sizes, unit_records, unit_bytes):
            keys = tuple(sample.key for sample in samples[start:stop])
            yield Unit("nyud-mat", (file,), keys=keys, rules=rules)
        return
    sizes = [sample.image.size + sum(ref.size for _, ref in sample.planes) for sample in samples]
    for start, stop in cut_files(sizes, unit_records, unit_bytes):
        group = samples[start:stop]
        labels = tuple(sample.label for sample in group)
        yield Unit(
            "raw",
            objects=tuple(sample.image for sample in group),
            keys=tuple(sample.key for sample in group),
            labels=labels if any(labels) else (),
            planes=tuple(
                (name, tuple(dict(sample.planes)[name] for sample in group))
                for name, _ in group[0].planes
            ),
            rules=rules,
        )
