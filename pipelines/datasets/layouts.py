"""The names of all layouts of files, their readers, and how a folder shows which one it has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from pipelines.datasets import ade20k, context, nyud, nyud_mat, sbd, siftflow
from pipelines.datasets.archive import read_archive
from pipelines.datasets.camvid import read_camvid, splits_of
from pipelines.datasets.pairs import read_pairs
from pipelines.datasets.tree import Listing, Tree
from pipelines.datasets.voc import LISTS, read_voc
from pipelines.errors import InputError

Folder = Literal[
    "archive",
    "pairs",
    "voc",
    "sbd",
    "camvid",
    "nyud",
    "nyud-mat",
    "siftflow",
    "context-59",
    "context-60",
    "ade20k",
]

READERS: Mapping[str, Callable[[Tree, str | None], Listing]] = {
    "archive": read_archive,
    "pairs": read_pairs,
    "voc": read_voc,
    "sbd": sbd.read_sbd,
    "camvid": read_camvid,
    "nyud": nyud.read_nyud,
    "nyud-mat": nyud_mat.read_nyud_mat,
    "siftflow": siftflow.read_siftflow,
    "context-59": context.read_context_59,
    "context-60": context.read_context_60,
    "ade20k": ade20k.read_ade20k,
}

_SIGNS: Mapping[Folder, Callable[[Tree], bool]] = {
    "nyud": nyud.found_in,
    "siftflow": siftflow.found_in,
    "voc": lambda tree: tree.has(LISTS),
    "pairs": lambda tree: bool(tree.below("images") and tree.below("labels")),
    "ade20k": ade20k.found_in,
    "sbd": sbd.found_in,
    "camvid": lambda tree: bool(splits_of(tree)),
}
"""In this order, since several may hold."""


def detect(tree: Tree) -> Folder:
    """The layout of a folder of images. Raises InputError for PASCAL-Context, which has two."""
    if context.found_in(tree):
        raise InputError(
            f"{tree.root} is PASCAL-Context; name layout context-59, where all other labels are "
            "void, or context-60, where they are background"
        )
    return next((name for name, found_in in _SIGNS.items() if found_in(tree)), "archive")
