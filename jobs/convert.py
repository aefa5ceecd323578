"""Job: turn a published weights file into a checkpoint directory."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.runtime import run_job, say
from pipelines.conversion import Declared, convert_to


@dataclass(frozen=True, kw_only=True)
class Convert:
    """Turn published weights into a checkpoint directory, ready to segment or to train from.

    Known are VGG16, AlexNet and GoogLeNet of torchvision, VGG16, CaffeNet and GoogLeNet of Caffe,
    the reference's networks as .caffemodel or .npz, and pytorch-fcn's FCN32s, FCN16s, FCN8s and
    FCN8sAtOnce. Backbone, head, classes and widths are read off names and shapes. Weights that do
    not fit are an error that lists both sides.
    """

    weights: str
    """File by path or URI: .pth, .pt, .pth.tar, .safetensors, .npz or .caffemodel; or a torchvision
    weights enum such as VGG16_Weights.IMAGENET1K_V1, which needs internet."""
    output: str
    """Folder or URI of the checkpoint."""
    declared: Declared


def work(options: Convert) -> None:
    """Run the job."""
    config, conversion = convert_to(options.weights, options.output, options.declared)
    parameters = sum(value.numel() for value in conversion.network.parameters())
    say(f"{config.spec.name}: {parameters:,} parameters")
    if conversion.fresh:
        say(f"fresh, for want of weights: {', '.join(conversion.fresh)}")
    for classes in (config.classes, *config.more_classes):
        say(f"{len(classes)} classes: {', '.join(classes.names)}")
    planes = [config.image_plane or "image", *(name for name, _ in config.planes)]
    inputs = [config.normalization, *(normalization for _, normalization in config.planes)]
    for plane, normalization in zip(planes, inputs, strict=True):
        say(
            f"{plane}: {normalization.channel_order}, times {normalization.scale:g}, "
            f"minus {normalization.mean}, over {normalization.std}"
        )
    say(f"checkpoint: {options.output}")


def main() -> None:
    """Run the command line."""
    run_job(Convert, work)


if __name__ == "__main__":
    main()
