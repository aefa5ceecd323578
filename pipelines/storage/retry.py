"""An operation is tried until it succeeds, cannot succeed, or its time is over."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError

from fcn_model.errors import FCNError
from pipelines.storage.deadline import Deadline
from pipelines.storage.s3_client import clear_error, is_transient

BASE_PAUSE = 0.1
LONGEST_PAUSE = 8.0

_T = TypeVar("_T")


def persist(call: Callable[[Deadline], _T], verb: str, uri: str, size: int = 0) -> _T:
    """The result of ``call``, which must be harmless to repeat, for an operation on ``size`` bytes.

    The pause after the n-th failure is drawn between nothing and BASE_PAUSE * 2^n, at most
    LONGEST_PAUSE ("full jitter", Brooker, AWS Architecture Blog 2015), so that many clients of a
    throttling store do not come back together. Raises StoreError when the failure is not one that
    may pass or the deadline comes before the next try.
    """
    deadline = Deadline(size)
    for tries in itertools.count(1):
        try:
            return deadline.run(partial(call, deadline))
        except FCNError:
            raise
        except (BotoCoreError, ClientError, HTTPError, OSError) as error:
            pause = random.uniform(0, min(LONGEST_PAUSE, BASE_PAUSE * 2 ** min(tries, 9)))  # noqa: S311
            if not is_transient(error):
                raise clear_error(error, verb, uri) from error
            if pause >= deadline.left:
                tried = f"; tried {tries} times in {deadline.passed:.0f} s"
                raise clear_error(error, verb, uri, tried) from error
        time.sleep(pause)
    raise AssertionError("unreachable: the count has no end")
