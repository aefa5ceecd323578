"""Job: segment an archive of images, once each."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.options import Layout
from jobs.runtime import quiet_ray, ray_session, run_job, say
from pipelines.segmentation.moments import Moments
from pipelines.segmentation.settings import SegmentConfig
from pipelines.sources import open_source


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Segment every image of an archive; masks go to Parquet, one file per unit of input.

    What is segmented already is not done again, so a run that was killed goes on where it stopped.
    An image that cannot be read becomes an error row; nothing is skipped. At the end its
    masks are published as a snapshot; until then readers see the one before.
    """

    input: str
    """Folder or URI: Parquet shards, tar shards, or a tree of images."""
    layout: Layout = "auto"
    """How the input is laid out; auto looks."""
    split: str | None = None
    """Split, where the layout has splits."""
    unit_records: int | None = None
    """Images per unit, at most; by default 128, in large archives of small images up to 512. A tar
    is one unit, and a row group of a Parquet shard is not divided, however many it has. What was
    planned before keeps its units."""
    dry_run: bool = False
    """Look, check and estimate; write nothing."""
    run: SegmentConfig


def work(options: Segment) -> None:
    """Run the job."""
    moments = Moments()
    moments.mark("imported")
    source = open_source(
        options.input,
        layout=options.layout,
        split=options.split,
        unit_records=options.unit_records,
        on_bad_shard="unit",
    )
    moments.mark("listed")
    quiet_ray()
    from pipelines import cluster  # noqa: PLC0415  (imports Ray)
    from pipelines.segmentation import preflight  # noqa: PLC0415  (Ray, too)

    ready = preflight.check(options.run, source)  # Ray takes longer to start than all of this
    moments.mark("checked")
    with ray_session(cluster.local_cpus(options.run.num_actors)):
        moments.mark("connected")
        if options.dry_run:
            from pipelines.segmentation.dry_run import dry_run  # noqa: PLC0415  (Ray, too)

            dry_run(options.run, source, say, ready=ready)
            return
        from pipelines.segmentation.night import segment  # noqa: PLC0415  (Ray, too)

        result = segment(options.run, source, progress=say, ready=ready, moments=moments)
    if result.new_records == 0:
        say(f"nothing to do: all {result.units} units were segmented before")
    say(
        f"{result.records} records in {result.units} units, {result.new_records} of them new, "
        f"{result.errors} new error rows, {result.error_rows} in all, "
        f"{result.seconds:.1f} s, {result.images_per_second:.1f} images/s"
    )
    say(f"masks: {result.masks}")
    if result.published:
        say(f"published: snapshot {result.snapshot}")
    else:
        say(f"snapshot {result.snapshot} is not published: {result.unpublished_because}")


def main() -> None:
    """Run the command line."""
    run_job(Segment, work)


if __name__ == "__main__":
    main()
