"""What follows from the weights of a network alone, computed once for many images."""

from __future__ import annotations

from fcn_model.convolution import KeptWeights
from fcn_model.ring import KeptZeros


class Kept:
    """Of one network, on one device and in one precision; a segmenter has one.

    Whoever passes it promises that the weights stay as they are, since nothing tells when they
    change: after a step of an optimizer there must be another. Any number of threads may share it.
    """

    def __init__(self) -> None:
        self.zeros = KeptZeros()
        self.weights = KeptWeights()
