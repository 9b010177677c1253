"""Where workers keep the numbers of their metrics: made and removed by their parent, which needs no more of it."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from typing import Final

DIRECTORY: Final = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable that names it, as prometheus_client has it."""


def make() -> str:
    """A new directory: below the one in the environment, in memory, or where temporary files are. Raises OSError."""
    for parent in (os.environ.get(DIRECTORY), "/dev/shm", None):
        if parent is None or os.access(parent, os.W_OK | os.X_OK):
            with suppress(OSError):
                return tempfile.mkdtemp(prefix="pacs-metrics-", dir=parent)
    raise OSError("there is no place for temporary files")


def remove(directory: str) -> None:
    shutil.rmtree(directory, ignore_errors=True)


def mark_dead(directory: str, worker: int) -> None:
    """What a dead worker had in flight and in queues counts no more."""
    from prometheus_client import multiprocess

    with suppress(OSError):
        multiprocess.mark_process_dead(worker, directory)  # type: ignore[no-untyped-call]
