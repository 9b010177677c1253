"""SIGKILL of a writer at every operation of a commit, alone and beside another; processes that write side by side."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.durability.synthetic import create, opened

CHECKOUT = Path(__file__).parents[2]
MEMORY = Path("/dev/shm")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """Memory where there is some: a killed process loses nothing that it has written."""
    if not MEMORY.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=MEMORY) as path:
        yield Path(path)


@contextmanager
def started(task: str, place: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-W", "error", "-m", "tests.durability.killed", task, str(place)]
    with subprocess.Popen(
        command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as running:
        try:
            yield running
        finally:
            if running.poll() is None:
                os.killpg(running.pid, signal.SIGKILL)


def result(running: subprocess.Popen[str]) -> dict[str, int]:
    output, errors = running.communicate(timeout=900)
    assert running.returncode == 0, errors
    found: dict[str, int] = json.loads(output)
    return found


def test_a_kill_at_every_operation(place: Path) -> None:
    with started("everywhere", place) as running:
        assert result(running)["kills"] > 30


def test_a_kill_of_one_of_two_workers(place: Path) -> None:
    with started("one of two", place) as running:
        assert result(running)["kills"] > 10


def test_processes_side_by_side(place: Path) -> None:
    root = create(place / "archive")
    with opened(root):
        pass
    with started("11", root) as one, started("12", root) as other:
        with opened(root) as archive:  # check works beside them, and mistakes nothing that is under way for damage
            while one.poll() is None or other.poll() is None:
                assert archive.errors() == []
        contested = sum(result(each)["contested"] for each in (one, other))
    assert contested == 40, "each contested instance is stored by exactly one"
    with opened(root) as archive:
        assert len(archive.uids()) == 40 * 3
        assert archive.errors() == []
