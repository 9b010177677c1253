"""The budget of memory that decoding frames share."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pacs import transcode, uids
from pacs.archive import Archive
from pacs.dicomweb.app import Dicomweb
from pacs.errors import PixelError
from pacs.geometry import FrameGeometry
from pacs.settings import Settings
from pacs.transcode.frames import MEMORY, MemoryBudget

LIMIT = 120
"""Seconds: of waits that end at once when all is well."""


class Holder(threading.Thread):
    """Holds an amount until told to let go."""

    def __init__(self, budget: MemoryBudget, amount: int) -> None:
        super().__init__(daemon=True)
        self.budget, self.amount = budget, amount
        self.held, self.release = threading.Event(), threading.Event()
        self.start()

    def run(self) -> None:
        with self.budget.hold(self.amount):
            self.held.set()
            self.release.wait(3 * LIMIT)

    def finish(self) -> None:
        self.release.set()
        self.join(LIMIT)


@pytest.fixture
def budget() -> MemoryBudget:
    return MemoryBudget(100)


def waiting(budget: MemoryBudget, count: int) -> None:
    """Until so many wait for their turn."""
    deadline = time.monotonic() + LIMIT
    while budget.waiting != count:
        assert time.monotonic() < deadline, f"{budget.waiting} wait, not {count}"
        time.sleep(0.001)


def test_what_fits_goes_on_at_once(budget: MemoryBudget) -> None:
    with budget.hold(60), budget.hold(40):
        assert budget.held == 100
    assert budget.held == 0


def test_what_does_not_fit_waits_in_order(budget: MemoryBudget) -> None:
    first = Holder(budget, 60)
    assert first.held.wait(LIMIT)
    large = Holder(budget, 90)
    waiting(budget, 1)
    # It would fit, but must not let the large one wait for ever.
    small = Holder(budget, 10)
    waiting(budget, 2)
    assert not large.held.is_set() and not small.held.is_set() and budget.held == 60
    first.finish()
    assert large.held.wait(LIMIT) and small.held.wait(LIMIT)
    assert budget.held == 100
    large.finish()
    small.finish()
    assert budget.held == 0


def test_more_than_all_is_done_alone(budget: MemoryBudget) -> None:
    with budget.hold(10):
        huge = Holder(budget, 1000)
        waiting(budget, 1)
        assert not huge.held.is_set()
    assert huge.held.wait(LIMIT)
    other = Holder(budget, 1)
    waiting(budget, 1)
    huge.finish()
    assert other.held.wait(LIMIT)
    other.finish()


def test_a_larger_budget_lets_waiters_in(budget: MemoryBudget) -> None:
    with budget.hold(90):
        waiter = Holder(budget, 90)
        waiting(budget, 1)
        budget.resize(180)
        assert waiter.held.wait(LIMIT)
        waiter.finish()


@pytest.fixture
def narrow() -> Iterator[None]:
    before = MEMORY.capacity
    MEMORY.resize(1)
    yield
    MEMORY.resize(before)


def test_the_setting_is_the_budget(tmp_path: Path, narrow: None) -> None:
    with Archive.open(tmp_path / "archive", create=True, threads=1) as archive:
        Dicomweb(archive, Settings.from_environment({"PACS_DECODE_MEMORY": "12345"})).close()
    assert MEMORY.capacity == 12345


def test_decoding_gives_its_memory_back(narrow: None) -> None:
    samples = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
    geometry = FrameGeometry(64, 64, 1, 16, 16, 15, 0, 0, "MONOCHROME2", 1)
    for rendition in transcode.renditions(uids.EXPLICIT_VR_LITTLE_ENDIAN, geometry):
        if rendition.kind == "encoded":
            encoded = transcode.encode(samples, geometry, rendition)
            transcode.decode_frame(encoded, geometry, rendition.transfer_syntax)
            with contextlib.suppress(PixelError):
                transcode.decode_frame(encoded[: len(encoded) // 9], geometry, rendition.transfer_syntax)
            assert MEMORY.held == 0
    frame = transcode.layered(samples, geometry)
    transcode.decode_frame(frame.codestream, geometry, uids.JPEG_2000_LOSSLESS)
    transcode.irreversible(samples, geometry)
    assert MEMORY.held == 0
