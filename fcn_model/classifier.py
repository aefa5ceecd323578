"""The ImageNet classifier as a fully convolutional net: a grid of its answers over an image.

The same layers as the classifier's, fully connected ones as convolutions (paper, section 3.1).
On an image of its native size it says what the classifier says. On a larger one each position is
what the classifier's dense layers say of one window of the features.
"""

from __future__ import annotations

import itertools

from torch import Tensor, nn

from fcn_model.backbones import classifier_trunk
from fcn_model.backbones.trunk import Trunk
from fcn_model.convert import identify
from fcn_model.errors import SpecError, WeightsError
from fcn_model.extents import Extents
from fcn_model.geometry import output_size
from fcn_model.layers import Score
from fcn_model.published import CLASSIFIERS, by_our_names
from fcn_model.spec import NetworkSpec
from fcn_model.transplant import as_convolutions, transplant
from fcn_model.weights import WeightsFile


class Classifier(nn.Module):
    """The classifier whose trunk ``spec`` describes; its head and classes mean nothing here.

    The last layer is called ``fc8``, or ``loss3/classifier`` in GoogLeNet, as in Caffe.
    ``least_size`` is the fewest pixels on a side that give an answer.
    """

    def __init__(self, spec: NetworkSpec, num_classes: int) -> None:
        super().__init__()
        self.spec = spec
        self.trunk = classifier_trunk(spec)
        self.least_size = _least_size(self.trunk)
        self.last = _last_layer(self.trunk)
        for name, layer in self.trunk.make_layers().items():
            self.add_module(name, layer)
        self.add_module(self.last, Score(self.trunk.channels(self.trunk.top), num_classes))

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Scores before the softmax (N, K, h, w) of normalized images (N, 3, H, W).

        h = w = 1 for the native size: 224, or 227 for CaffeNet; and for smaller images down to
        ``least_size``. Raises ValueError for those that are smaller still.
        """
        height, width = images_NCHW.shape[2:]
        if min(height, width) < self.least_size:
            raise ValueError(
                f"images for the classifier of {self.spec.backbone} must have {self.least_size} "
                f"pixels or more on each side, got {height} x {width} (height, width)"
            )
        layers = dict(self.named_children())
        features = self.trunk.run(layers, images_NCHW, Extents(None))
        scores_NKhw: Tensor = layers[self.last](features[self.trunk.top])
        return scores_NKhw


def load_classifier(file: WeightsFile) -> Classifier:
    """The classifier in a published file, evaluating.

    Raises WeightsError if the file holds none, or lacks one of its layers.
    """
    spec = identify(file).spec
    trunk = classifier_trunk(spec)
    last = _last_layer(trunk)
    given = by_our_names(file.tensors, trunk, classifier=last)
    bias = given.get(f"{last}.bias")
    if bias is None:
        raise WeightsError(
            f"the file has no last layer of a classifier: wanted is {last} or {trunk.classifier}"
        )
    network = Classifier(spec, bias.numel())
    given = as_convolutions(given, network, (*trunk.fully_connected, last))
    transplant(given, network, f"the classifier of {spec.backbone}", needed=lambda _: True)
    return network.eval()


def _last_layer(trunk: Trunk) -> str:
    return CLASSIFIERS[0] if trunk.fully_connected else CLASSIFIERS[1]


def _least_size(trunk: Trunk) -> int:
    path = trunk.path(trunk.top)

    def fits(size: int) -> bool:
        try:
            return output_size(path, size) > 0
        except SpecError:
            return False

    return next(size for size in itertools.count(1) if fits(size))
