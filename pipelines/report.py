"""An evaluation as something to look at: panel.png, and report.html that needs nothing else."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from importlib import resources

import jinja2
import numpy as np

from pipelines import cluster, images, storage
from pipelines.evaluation import Evaluation
from pipelines.label_index import index_labels
from pipelines.mask_parts import list_masks
from pipelines.panel import Example, draw_example, draw_panel
from pipelines.records import LABEL
from pipelines.score_tables import MEAN_IU_RULE
from pipelines.scoring import ImageScore, read_mask_keys, read_part
from pipelines.sources import Source
from pipelines.units import read_unit

EXAMPLES = 6
SHOWN_ERRORS = 20
MAX_HEAT_MAP = 64
"""Classes up to which the report has a confusion table; the Parquet table always has it."""


def write_report(evaluation: Evaluation, labels: Source, output: str) -> dict[str, str]:
    """Write panel.png and report.html; returns their URIs by name. What is there is replaced.

    ``labels`` is the source that was evaluated. The report shows the worst, the median and the
    best images by mean IU.
    """
    root = storage.parse_uri(output)
    chosen = choose(evaluation.images, EXAMPLES)
    examples = _fetch(evaluation, labels, chosen)
    files = {
        "panel": ("panel.png", draw_panel(examples, evaluation.classes)),
        "report": ("report.html", render(evaluation, examples).encode()),
    }
    uris = {}
    for name, (file, data) in files.items():
        uris[name] = storage.join(root, file)
        storage.replace(uris[name], data)
    return uris


def choose(scores: Sequence[ImageScore], count: int) -> list[tuple[str, float]]:
    """Up to ``count`` keys and their mean IUs, spread evenly from the worst to the best image."""
    scored = sorted(
        (image.mean_iu, image.key)
        for image in scores
        if image.status == "ok" and any(image.label_pixels)
    )
    steps = np.linspace(0, len(scored) - 1, min(count, len(scored)))
    return [(scored[round(step)][1], scored[round(step)][0]) for step in steps]


def render(evaluation: Evaluation, examples: Sequence[Example]) -> str:
    """The report as one HTML document: images inlined, every text escaped."""
    confusion, classes = evaluation.confusion, evaluation.classes
    label_pixels = confusion.counts.sum(axis=1)
    shares = confusion.counts / np.maximum(label_pixels, 1)[:, None]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = resources.files("pipelines").joinpath("templates/report.html.j2").read_text("utf-8")
    return environment.from_string(template).render(
        evaluation=evaluation,
        scores=[
            ("mean IU", confusion.mean_iu),
            ("pixel accuracy", confusion.pixel_accuracy),
            ("mean accuracy", confusion.mean_accuracy),
            ("frequency weighted IU", confusion.frequency_weighted_iu),
        ],
        other_rules=[
            ("classes in the labels only", confusion.mean_iu_gt_present),
            ("absent classes as 0", confusion.mean_iu_absent_as_zero),
        ],
        rule=MEAN_IU_RULE,
        classes=[
            {
                "name": name,
                "color": "#{:02x}{:02x}{:02x}".format(*color),
                "iu": iu,
                "accuracy": accuracy,
                "pixels": int(pixels),
                "shares": row.tolist(),
            }
            for name, color, iu, accuracy, pixels, row in zip(
                classes.names,
                classes.palette,
                confusion.iu(),
                confusion.accuracy(),
                label_pixels,
                shares,
                strict=True,
            )
        ],
        examples=[
            {
                "key": example.key,
                "mean_iu": example.mean_iu,
                "jpeg": base64.b64encode(draw_example(example, classes)).decode(),
            }
            for example in examples
        ],
        heat_map=len(classes) <= MAX_HEAT_MAP,
        scored=sum(image.status == "ok" for image in evaluation.images),
        error_keys=[i.key for i in evaluation.images if i.status == "error"][:SHOWN_ERRORS],
        pixels=int(confusion.counts.sum()),
        void=sum(image.void_pixels for image in evaluation.images),
        versions=cluster.versions(),
    )


def _fetch(
    evaluation: Evaluation, labels: Source, chosen: Sequence[tuple[str, float]]
) -> list[Example]:
    """The images, labels and masks of some keys."""
    places = index_labels(labels)
    masks = _masks(evaluation.masks, {key for key, _ in chosen})
    examples = []
    name = evaluation.label_name
    planes = () if name == LABEL else (name,)
    for key, mean_iu in chosen:
        record = read_unit(labels.units[places[key].unit], planes=planes)[places[key].row]
        label = record.label if name == LABEL else record.planes[name]
        assert label is not None, "only labelled images are scored"
        mask = images.decode_label(masks[key], max_pixels=1 << 40)
        examples.append(
            Example(
                key=key,
                mean_iu=mean_iu,
                image=images.decode_image(
                    record.image, max_pixels=max(mask.size, max(mask.shape) ** 2)
                ),
                label=record.rule(name).decode(label, key, max_pixels=mask.size),
                mask=mask,
            )
        )
    return examples


def _masks(masks_uri: str, wanted: set[str]) -> dict[str, bytes]:
    found = {}
    for part in list_masks(masks_uri):
        keys = read_mask_keys(part).keys
        if wanted.isdisjoint(keys):
            continue
        rows = read_part(part, ["key", "mask"]).to_pylist()
        found.update({row["key"]: row["mask"]["bytes"] for row in rows if row["key"] in wanted})
    return found
