"""Job: turn images, labelled or not, into Parquet shards and a manifest."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.options import Layout
from jobs.runtime import ray_session, run_job, say
from pipelines.errors import InputError
from pipelines.sources import open_source


@dataclass(frozen=True, kw_only=True)
class Prepare:
    """Turn images into Parquet shards, a manifest and, for labelled data, a class list.

    Labels are checked: an id outside the class list ends the job and names the image. Doing the
    same again changes nothing.
    """

    input: str
    """Folder or URI of the images."""
    output: str
    """Folder or URI of the shards."""
    layout: Layout = "auto"
    """How the input is laid out, as docs/data.md shows; auto looks."""
    split: str | None = None
    """Split of a data set that has splits, such as train or val."""
    exclude: tuple[str, ...] = ()
    """Lists of images to leave out (files or URIs, a key per line), as VOC's val of SBD's train."""
    shard_mb: int = 64
    """Size of a shard in MiB, about."""


def work(options: Prepare) -> None:
    """Run the job."""
    if options.shard_mb < 1:
        raise InputError(f"--shard-mb must be at least 1, got {options.shard_mb}")
    source = open_source(
        options.input, layout=options.layout, split=options.split, exclude=options.exclude
    )
    if options.exclude:
        total = source.excluded + (source.records or 0)
        say(f"{source.excluded} of {total} images stand in {', '.join(options.exclude)}: left out")
    with ray_session():
        from pipelines.prepare import prepare  # noqa: PLC0415  (Ray reads the environment first)

        result = prepare(
            source,
            options.output,
            shard_bytes=options.shard_mb << 20,
            on_progress=lambda done, total, text: say(f"{done} of {total or '?'} images: {text}"),
        )
    kind = f"{len(result.classes)} classes" if result.classes else "unlabelled"
    kind = ", ".join([kind, *(f"with {name}" for name in source.planes)])
    say(f"{result.records} images, {kind}, {result.bytes / 1e6:.1f} MB in {result.shards} shards")
    say(f"shards: {result.uri}")


def main() -> None:
    """Run the command line."""
    run_job(Prepare, work)


if __name__ == "__main__":
    main()
