"""The settings of a training run, each with the sentence that ``--help`` shows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import inf
from typing import Literal

from fcn_model.class_weights import Weighting
from fcn_model.spec import BackboneName, NetworkSpec, Stream, Task, Upsampling
from pipelines.errors import InputError

UNIT_RECORDS = 16
"""Images per reference that training reads: units come in random order, so the fewer the better
mixed; of shards, a unit is at least a row group."""

START_ANEW = "choose another --name to start anew; best/, if the run has one, is as it was"
"""What to do about a run whose files are damaged."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """The network to train."""

    head: Literal["fcn32s", "fcn16s", "fcn8s"] = "fcn8s"
    """fcn32s predicts at stride 32; fcn16s adds pool4, fcn8s adds pool4 and pool3."""
    backbone: BackboneName = "vgg16"
    """caffenet is the paper's AlexNet and googlenet BVLC's; alexnet and googlenet_bn are
    torchvision's."""
    inputs: Literal["color", "color-d", "hha", "color-hha"] = "color"
    """What the network sees: color; color with the depth beside it as a fourth channel; the HHA
    image in the color's place; or a trunk for each of color and HHA, with their scores averaged."""
    init: str | None = None
    """Start weights by path or URI: a weights file (.pth, .safetensors, .npz, .caffemodel) of the
    backbone's ImageNet classifier or of a network like this one, or a checkpoint directory; or a
    torchvision name, VGG16_Weights.IMAGENET1K_V1, given internet."""
    init_hha: str | None = None
    """With inputs color-hha, start weights of the HHA trunk and its scores, as for init; init is
    then for color alone. By default init fills both."""
    normalization: Literal["torchvision", "caffe", "nyud", "siftflow", "pascalcontext"] = (
        "torchvision"
    )
    """How the start weights saw their images: as torchvision's, or BGR in 0..255 less the mean of
    ImageNet (caffe) or of a data set. A checkpoint directory brings its own. Depth and HHA are
    normalized as in the paper's NYUDv2 nets."""
    width: float = 1.0
    """Multiplies the channels of every trunk convolution; below 1 it is no longer VGG16."""
    fc_width: int = 4096
    """Channels of fc6 and fc7."""
    dropout: float = 0.5
    """Share of activations that drop6 and drop7 leave out while training; the paper's is 0.5. A
    short run learns more per image with 0."""
    skip_scales: tuple[float, float] = (1.0, 1.0)
    """Fixed factors on pool4 and pool3; at-once training in the paper has 0.01 0.0001."""
    upsampling: Upsampling = "fixed"
    """fixed keeps the bilinear kernels, as all released nets do; intermediate learns all but the
    last (CVPR 2015); learned learns all."""

    def __post_init__(self) -> None:
        if self.init_hha is not None and (self.inputs != "color-hha" or self.init is None):
            raise InputError(
                f"network init_hha is for inputs color-hha, beside init; inputs is {self.inputs}, "
                f"init {self.init}"
            )

    def spec(self, num_classes: int, more_tasks: tuple[Task, ...] = ()) -> NetworkSpec:
        """The network that these settings ask for, for data with such labels."""
        return NetworkSpec(
            num_classes=num_classes,
            head=self.head,
            backbone=self.backbone,
            width=self.width,
            fc_width=self.fc_width,
            dropout=self.dropout,
            skip_scales=self.skip_scales,
            upsampling=self.upsampling,
            streams=tuple(Stream(*stream) for stream in self.streams),
            more_tasks=more_tasks,
        )

    @property
    def streams(self) -> tuple[tuple[str, int], ...]:
        """Trunks by name, and how many channels each sees."""
        if self.inputs == "color-hha":
            return (("color", 3), ("hha", 3))
        return (("", 4 if self.inputs == "color-d" else 3),)

    @property
    def planes(self) -> tuple[str, ...]:
        """Planes beside the image whose channels follow its three."""
        return {"color-d": ("depth",), "color-hha": ("hha",)}.get(self.inputs, ())

    @property
    def image_plane(self) -> str:
        """The plane that is read in the image's place, or empty."""
        return "hha" if self.inputs == "hha" else ""

    @property
    def needs(self) -> tuple[str, ...]:
        """Every plane that the network needs beside the image."""
        return (self.image_plane, *self.planes) if self.image_plane else self.planes


@dataclass(frozen=True, kw_only=True)
class Solver:
    """How to train."""

    epochs: int = 10
    """Passes over the training images."""
    batch_size: int = 1
    """Images per worker and pass through the network."""
    iter_size: int = 1
    """Passes of each worker whose gradients make one step (Caffe's name)."""
    images_per_step: int | None = None
    """Images per step that lr and momentum are meant for. With another number of workers times
    batch_size times iter_size, SGD is re-timed so that the course per image stays; by default lr
    and momentum are used as they are."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """With either, biases get twice the learning rate and no decay; of CaffeNet and AlexNet only
    those of the score layers."""
    lr: float = 1e-10
    """Base learning rate. The paper's 1e-10 goes with the summed loss; use about 1e-4 with AdamW
    and 1e-3 with SGD and the mean loss."""
    momentum: float = 0.99
    """Of SGD. The paper's 0.99 goes with one image per step."""
    weight_decay: float = 5e-4
    """Decay of weights, not of biases."""
    loss: Literal["sum", "mean", "image-mean"] = "sum"
    """sum: over the valid pixels, mean over images (the paper). mean: over the valid pixels of the
    step. image-mean: the mean of each image's own mean (FCN-AlexNet)."""
    class_weights: Weighting = "none"
    """Of the loss, from the classes' frequencies in the training labels: median-frequency (SegNet)
    or enet, 1 / ln(1.02 + share). The means divide by the summed weights of the pixels."""
    sampling: float = 1.0
    """Share of the final map's cells that the loss keeps, each by itself at random; batches grow by
    the inverse. The paper tried 0.5 and 0.25 and kept 1."""
    schedule: Literal["constant", "poly"] = "constant"
    """poly: the rate falls to zero over the run as (1 - progress) ** 0.9."""
    warmup: float = 0.0
    """Share of the run in which the rate rises from zero."""
    crop: tuple[int, int] | None = None
    """Train on random windows of this height and width; whole images otherwise."""
    mirror: bool = True
    """Mirror half of the images left to right."""
    jitter: int = 0
    """Shift each image by up to so many pixels on either axis; the paper tried 32."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """bf16 is autocast: weights and sums stay fp32. auto: bf16 where the device has instructions
    for it, as GPUs have and some CPUs; elsewhere it would take many times as long."""
    seed: int = 1337
    """Of initialization, order, mirroring, crops, shifts and sampling. As many workers see the same
    images in the same order again, if the run is not stopped; sums may round differently."""

    def __post_init__(self) -> None:
        positive = ("epochs", "batch_size", "iter_size", "images_per_step", "lr")
        for name in positive:
            value = getattr(self, name)
            if value is not None and not 0 < value < inf:
                raise InputError(f"solver {name} must be above 0 and finite, got {value}")
        if not 0 <= self.weight_decay < inf:
            raise InputError(
                f"solver weight_decay must be 0 or above and finite, got {self.weight_decay}"
            )
        for name in ("warmup", "momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"solver {name} must be in [0, 1), got {getattr(self, name)}")
        if not 0 < self.sampling <= 1:
            raise InputError(f"solver sampling is a share in (0, 1], got {self.sampling}")
        if self.jitter < 0:
            raise InputError(f"solver jitter is a number of pixels from 0, got {self.jitter}")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"solver seed must be in [0, 2**63), got {self.seed}")
        if self.crop is not None and min(self.crop) < 1:
            raise InputError(f"solver crop is a height and width of at least 1, got {self.crop}")

    @property
    def images_per_pass(self) -> int:
        """Images of a pass: ``batch_size``, and as many more as sampling leaves out."""
        return round(self.batch_size / self.sampling)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run."""

    storage: str
    """Folder or URI under which the run is kept."""
    name: str
    """Name of the run; the same name again resumes it."""
    network: Network = Network()
    solver: Solver = Solver()
    num_workers: int = 1
    """Data-parallel workers."""
    use_gpu: bool | None = None
    """One GPU per worker. By default: if the cluster has GPUs."""
    shuffle_buffer: int = 128
    """Images from which a worker draws the next batch at random."""

    def __post_init__(self) -> None:
        for name in ("num_workers", "shuffle_buffer"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise InputError(f"name must be letters, digits and . _ -, got {self.name!r}")
