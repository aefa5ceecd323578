"""Job: fine-tune an FCN on labelled images."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import dataclass, fields, make_dataclass
from typing import Literal

from jobs.options import Layout
from jobs.recipe import Recipe
from jobs.recipes import RECIPES, RecipeName, describe_all
from jobs.runtime import ray_session, run_job, say
from pipelines.sources import open_source
from pipelines.train_settings import UNIT_RECORDS, Network, Solver, TrainConfig


@dataclass(frozen=True, kw_only=True)
class Train:
    """Fine-tune a Fully Convolutional Network; keep the checkpoint with the best mean IU.

    The run is kept under STORAGE/NAME; the same name again resumes it. The checkpoint to segment
    with is STORAGE/NAME/best. A recipe's values are the defaults of the options below.
    """

    train: str
    """Folder or URI of the labelled training images: shards, or a layout that prepare reads."""
    val: str
    """Folder or URI of the labelled validation images."""
    layout: Layout = "auto"
    """How both are laid out; auto looks."""
    train_split: str | None = None
    """Training split, where the layout has splits."""
    val_split: str | None = None
    """Validation split, where the layout has splits."""
    recipe: RecipeName | Literal["list"] | None = None
    """A net of the papers, with its solver; other options change single values. ``list`` describes
    them all and ends."""
    run: TrainConfig


def work(options: Train) -> None:
    """Run the job."""
    sources = [
        open_source(uri, layout=options.layout, split=split, unit_records=UNIT_RECORDS)
        for uri, split in ((options.train, options.train_split), (options.val, options.val_split))
    ]
    # A plain value again, which any worker can load by the name of its class.
    run = TrainConfig(**{one.name: getattr(options.run, one.name) for one in fields(TrainConfig)})
    with ray_session():
        from pipelines.training import train  # noqa: PLC0415  (Ray reads the environment first)

        result = train(run, sources[0], sources[1], progress=say)
    say(f"checkpoint: {result.checkpoint}")
    say(f"mean IU: {result.mean_iu:.4f} (validation, epoch {result.epoch})")


def options_with(recipe: Recipe) -> type[Train]:
    """`Train` with the recipe's network and solver as its defaults."""
    defaults = [("network", Network, recipe.network), ("solver", Solver, recipe.solver)]
    config = make_dataclass(
        "TrainConfig", defaults, bases=(TrainConfig,), frozen=True, kw_only=True
    )
    options = make_dataclass("Train", [("run", config)], bases=(Train,), frozen=True, kw_only=True)
    options.__doc__ = Train.__doc__
    return options


def recipe_asked_for(arguments: Sequence[str]) -> str | None:
    """The recipe on a command line, which has to be known before its other options are read."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--recipe")
    return parser.parse_known_args(arguments)[0].recipe


def main() -> None:
    """Run the command line."""
    name = recipe_asked_for(sys.argv[1:])
    if name == "list":
        say(describe_all())
        sys.exit(0)
    recipe = next((recipe for known, recipe in RECIPES.items() if known == name), None)
    run_job(Train if recipe is None else options_with(recipe), work)


if __name__ == "__main__":
    main()
