"""SIGKILL of a worker or of the whole server while clients upload: nothing acknowledged is lost, nothing half there."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.durability.clients import Load, assert_sound, wait_for

STEPS = ("placed", "frames-written", "records-written", "synced", "index-written", "index-committed", "settled")
CRASH = Path(__file__).parent / "crash"


@pytest.fixture
def files(ct_slices: Callable[..., list[bytes]]) -> list[bytes]:
    """Two studies of small slices, mixed."""
    made = [*ct_slices(12, rows=64), *ct_slices(12, rows=64)]
    random.Random(1).shuffle(made)
    return made


def crash_environment(step: str, tmp_path: Path, *, group: bool) -> dict[str, str]:
    return {
        "PYTHONPATH": str(CRASH),
        "CRASH_STEP": step,
        "CRASH_COUNT": "2" if step != "settled" else "1",
        "CRASH_ONCE": str(tmp_path / "crashed"),
        "CRASH_HOW": "group" if group else "kill",
    }


@pytest.mark.parametrize("step", STEPS)
def test_one_worker_killed_at_a_step(
    step: str, tmp_path: Path, files: list[bytes], start_server: Callable[..., Any],
    pacs_command: Callable[..., Any],
) -> None:  # fmt: skip
    server = start_server(tmp_path / "archive", workers=2, env=crash_environment(step, tmp_path, group=False))
    before = set(server.workers)
    load = Load(server.address, files, until_all=True)
    load.join()
    # It may die only now: after the last upload, when it settles.
    wait_for((tmp_path / "crashed").exists)
    wait_for(lambda: len(server.workers) == 2 and set(server.workers) != before)
    assert not load.failures
    assert len(load.acknowledged) == len(files)
    assert_sound(server, load, files, pacs_command)


@pytest.mark.parametrize("step", STEPS)
def test_whole_server_killed_at_a_step(
    step: str, tmp_path: Path, files: list[bytes], start_server: Callable[..., Any],
    pacs_command: Callable[..., Any],
) -> None:  # fmt: skip
    server = start_server(tmp_path / "archive", workers=2, env=crash_environment(step, tmp_path, group=True))
    load = Load(server.address, files, until_all=False)
    load.join()
    wait_for(lambda: server.process.poll() is not None)
    assert_sound(start_server(tmp_path / "archive", workers=2), load, files, pacs_command)


@pytest.mark.parametrize("seed", range(2))
def test_killed_at_random_moments(
    seed: int, tmp_path: Path, ct_slices: Callable[..., list[bytes]], start_server: Callable[..., Any],
    pacs_command: Callable[..., Any],
) -> None:  # fmt: skip
    """Twice a worker, then everything at once, each at any moment of an upload."""
    chance = random.Random(seed)
    files = [*ct_slices(60, rows=64), *ct_slices(30, rows=128)]
    server = start_server(tmp_path / "archive", workers=2)
    load = Load(server.address, files, until_all=True)
    for delay in (chance.uniform(0, 0.3), chance.uniform(0, 0.5)):
        wait_for(lambda: len(server.workers) == 2)
        started = time.monotonic()
        wait_for(lambda started=started, delay=delay: time.monotonic() - started >= delay)
        os.kill(chance.choice(server.workers), signal.SIGKILL)
    load.join()
    assert not load.failures
    late = Load(server.address, ct_slices(60, rows=64, name=f"late {seed}"), until_all=False)
    moment = chance.uniform(0, 0.4)
    started = time.monotonic()
    wait_for(lambda: time.monotonic() - started >= moment)
    server.kill()
    late.join()
    load.acknowledged += late.acknowledged
    assert_sound(start_server(tmp_path / "archive", workers=2), load, files, pacs_command)
