"""The root of the project's error tree, and the errors that the network itself can raise.

Each error is also a built-in, so that a caller who knows nothing of this project can catch it.
A message says what was wanted, what came, where, and what to do.
"""


class FCNError(Exception):
    """Root of every error that this project raises on purpose."""


class SpecError(FCNError, ValueError):
    """A network, class list or normalization was described in a way that cannot be built."""


class WeightsError(FCNError, ValueError):
    """A weights file does not hold the tensors that the network needs."""


class CheckpointError(FCNError, ValueError):
    """A checkpoint directory is incomplete, damaged or of another format."""
