"""What a user points a job at, resolved: its layout, its classes, and its units of work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, get_args

from fcn_model.classes import ClassList
from pipelines import storage
from pipelines.datasets.archive import read_archive
from pipelines.datasets.camvid import read_camvid, splits_of
from pipelines.datasets.pairs import read_pairs
from pipelines.datasets.tree import Listing, Sample, Tree
from pipelines.datasets.voc import LISTS, read_voc
from pipelines.errors import InputError, NotFoundError
from pipelines.parquet_records import Footer, read_footer
from pipelines.storage import ObjectRef
from pipelines.suffixes import is_image_name, suffix_of
from pipelines.units import Unit

Layout = Literal["shards", "tar", "archive", "pairs", "voc", "camvid"]

MANIFEST = "manifest.parquet"

_FOLDERS: dict[str, Callable[[Tree, str | None], Listing]] = {
    "archive": read_archive,
    "pairs": read_pairs,
    "voc": read_voc,
    "camvid": read_camvid,
}
_FOOTERS_AT_ONCE = 16


@dataclass(frozen=True)
class Source:
    """Input that was looked at: a canonical URI, its layout, and its units in a fixed order.

    ``classes`` is the class list of labelled data; None for an unlabelled archive.
    """

    uri: str
    layout: Layout
    classes: ClassList | None
    units: tuple[Unit, ...]
    split: str | None = None

    @property
    def records(self) -> int | None:
        """How many images it has, if that is known without reading it."""
        counts = [unit.records for unit in self.units]
        return None if None in counts else sum(count or 0 for count in counts)

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
    unit_records: int = 256,
    unit_bytes: int = 64 << 20,
) -> Source:
    """List ``uri``, find out what it is and cut it into units.

    ``uri`` may also be one shard, a ``.parquet`` or ``.tar`` object. ``auto`` takes folders with
    ``*.parquet`` for shards, with ``*.tar`` for tar, with ``ImageSets/Segmentation`` for voc, with
    ``images/`` and ``labels/`` for pairs, with ``<split>.txt`` beside ``<split>annot/`` for camvid,
    and any other folder with images for an archive.

    A unit is one tar; or consecutive row groups of one shard, or consecutive files, of up to
    ``unit_records`` records and ``unit_bytes`` bytes, but at least one group or file.

    Raises InputError if nothing or a mixture is found, or the layout is not as it should be, and
    NotFoundError for what is missing.
    """
    if layout not in ("auto", *get_args(Layout)):
        raise InputError(f"layout {layout!r} is not one of auto, {', '.join(get_args(Layout))}")
    root = storage.parse_uri(uri)
    tree = _tree(root)
    layout = _detect(tree) if layout == "auto" else layout
    if layout in _FOLDERS:
        listing = _FOLDERS[layout](tree, split)
        units = _raw_units(listing.samples, unit_records, unit_bytes)
        return Source(root, layout, listing.classes, tuple(units), split)
    if split is not None:
        raise InputError(f"{root} has layout {layout}, which has no splits; split is {split!r}")
    if layout == "tar":
        refs = _shards(tree, ".tar")
        return Source(root, layout, tree.classes(), tuple(Unit("tar", (ref,)) for ref in refs))
    refs = _shards(tree, ".parquet")
    with ThreadPoolExecutor(_FOOTERS_AT_ONCE) as pool:
        footers = list(pool.map(read_footer, refs))
    units = (
        unit
        for ref, footer in zip(refs, footers, strict=True)
        for unit in _ranges(ref, footer, unit_records, unit_bytes)
    )
    return Source(root, "shards", _shard_classes(tree, refs, footers), tuple(units))


def _tree(root: str) -> Tree:
    """The folder, or the one shard that ``root`` names."""
    if root.endswith((".parquet", ".tar")) and (ref := storage.stat(root)) is not None:
        parent, _, name = root.rpartition("/")
        return Tree(parent, {name: ref})
    return Tree.of(root)


def _detect(tree: Tree) -> Layout:
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
    if kinds["tar"]:
        return "tar"
    if tree.has(LISTS):
        return "voc"
    if tree.below("images") and tree.below("labels"):
        return "pairs"
    return "camvid" if splits_of(tree) else "archive"


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


def _raw_units(samples: Sequence[Sample], unit_records: int, unit_bytes: int) -> Iterator[Unit]:
    sizes = [sample.image.size for sample in samples]
    for start, stop in cut([1] * len(samples), sizes, unit_records, unit_bytes):
        group = samples[start:stop]
        labels = tuple(sample.label for sample in group)
        yield Unit(
            "raw",
            objects=tuple(sample.image for sample in group),
            keys=tuple(sample.key for sample in group),
            labels=labels if any(labels) else (),
        )


def _ranges(ref: ObjectRef, footer: Footer, unit_records: int, unit_bytes: int) -> Iterator[Unit]:
    """Units of consecutive row groups. Ranges follow from the shard alone, never from load."""
    for start, stop in cut(footer.group_rows, footer.group_bytes, unit_records, unit_bytes):
        first = sum(footer.group_rows[:start])
        rows = sum(footer.group_rows[start:stop])
        if rows:
            yield Unit("parquet", (ref,), start=first, stop=first + rows)


def cut(
    records: Sequence[int], sizes: Sequence[int], max_records: int, max_bytes: int
) -> Iterator[tuple[int, int]]:
    """Consecutive ranges (start, stop) of items, each as long as both limits allow, never empty."""
    start, count, size = 0, 0, 0
    for index, (more, bigger) in enumerate(zip(records, sizes, strict=True)):
        if index > start and (count + more > max_records or size + bigger > max_bytes):
            yield start, index
            start, count, size = index, 0, 0
        count += more
        size += bigger
    if records:
        yield start, len(records)


def _shard_classes(
    tree: Tree, refs: Sequence[ObjectRef], footers: Sequence[Footer]
) -> ClassList | None:
    """``classes.json`` beside the shards, or the class list that all their footers agree on."""
    if (classes := tree.classes()) is not None:
        return classes
    for ref, footer in zip(refs, footers, strict=True):
        if footer.classes != footers[0].classes:
            raise InputError(
                f"{refs[0].uri} and {ref.uri} have different class lists; "
                f"put the right one into {storage.join(tree.root, 'classes.json')}"
            )
    return footers[0].classes
