"""Which frames of a series are on disk while others are still missing: what another run needs to go on."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

from pacs.client.volumes import Volume

_SYNC_SECONDS = 2.0


class Log:
    """The frames that are on disk: a line for each, written once what it speaks of has been synced."""

    def __init__(self, path: Path, plan: str, volumes: Sequence[Volume], *, resume: bool) -> None:
        self._volumes = volumes
        self._file = path.open("a" if resume else "w", encoding="utf-8")
        # A line that was cut off must not swallow the next one.
        self._lines: list[str] = [""] if resume else [json.dumps({"plan": plan})]
        self._synced = time.monotonic()
        if not resume:
            self.sync()

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        self.sync()
        self._file.close()

    def add(self, position: int, rung: str) -> None:
        self._lines.append(json.dumps([position, rung]))
        if time.monotonic() - self._synced > _SYNC_SECONDS:
            self.sync()

    def sync(self) -> None:
        if self._lines:
            for volume in self._volumes:
                volume.sync()
            self._file.write("".join(line + "\n" for line in self._lines))
            self._lines = []
            self._file.flush()
            os.fsync(self._file.fileno())
        self._synced = time.monotonic()


def plan_of(path: Path) -> str:
    """The plan that a description or a log belongs to, "" when it cannot be read."""
    try:
        with path.open(encoding="utf-8") as file:
            first = file.readline()
            found = json.loads(first if first.rstrip().endswith("}") else first + file.read())
    except (OSError, ValueError):
        return ""
    return str(found.get("plan", "")) if isinstance(found, dict) else ""


def logged(path: Path) -> dict[int, str]:
    """What a log says is on disk; a last line that was cut off does not count."""
    found: dict[int, str] = {}
    with path.open(encoding="utf-8") as file:
        next(file, "")
        for line in file:
            try:
                position, rung = json.loads(line)
            except (ValueError, TypeError):
                continue
            if line.endswith("\n"):
                found[int(position)] = str(rung)
    return found
