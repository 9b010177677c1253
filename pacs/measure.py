"""What is measured on the way of an instance into the archive, and who is told.

The layers below HTTP know no metrics: they say how long something took to whoever asked to be told, and to nobody
otherwise.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import StrEnum
from typing import TypeAlias


class Measure(StrEnum):
    """A quantity. Seconds, unless it says otherwise."""

    IDENTIFY = "identify"
    """Scanning the file, and looking whether it is stored already."""
    ENCODE = "encode"
    """Encoding its frames and packing the rest."""
    PROVE = "prove"
    """Rebuilding the received file and comparing its SHA-256."""
    COMMIT_WAIT = "commit_wait"
    """From being ready until a batch has the writer's lock."""
    COMMIT = "commit"
    """Of the batch that it is in, from the lock to durable and visible."""
    SYNC = "sync"
    """Of the file system, within a commit."""
    INDEX = "index"
    """The LMDB transaction within a commit."""
    BATCH = "batch"
    """Instances in a batch, a number."""


Observe: TypeAlias = Callable[[Measure, float], None]
"""Called from any thread; it must not take long, and never raise."""


def nobody(measure: Measure, value: float) -> None:
    """For those who do not measure."""


class timed:
    """Tell `observe` how long the block took, also when it raises."""

    __slots__ = ("_began", "_measure", "_observe")

    def __init__(self, observe: Observe, measure: Measure) -> None:
        self._observe = observe
        self._measure = measure

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._observe(self._measure, time.perf_counter() - self._began)
