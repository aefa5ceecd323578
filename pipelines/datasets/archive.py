"""An unlabelled archive: any tree of image files."""

from __future__ import annotations

from pipelines.datasets.tree import Listing, Sample, Tree
from pipelines.errors import InputError
from pipelines.suffixes import is_image_name


def read_archive(tree: Tree, split: str | None) -> Listing:
    """Every file with an image suffix, sorted; the key is the path below the root, with suffix.

    Raises InputError if there is none, or if a split is wanted.
    """
    if split is not None:
        raise InputError(f"{tree.root} is an archive without splits, but split {split!r} is wanted")
    samples = [Sample(key, ref, None) for key, ref in tree.objects.items() if is_image_name(key)]
    if not samples:
        raise InputError(
            f"{tree.root} holds no image; an archive is a tree of files named *.jpg, *.png, ..."
        )
    return Listing(None, tuple(samples))
