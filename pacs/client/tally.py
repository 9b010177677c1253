"""What became of many files, in constant memory: counts, and the first names of every reason."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

NAMES_KEPT = 3
REASONS_KEPT = 200
OTHER = "other reasons"

_VALUES = re.compile(r"'[^']*'|\b\d+(?:\.\d+)+\b|\b\d{3,}\b")
"""What differs between warnings of one kind: quoted values, UIDs, offsets."""


class Status(StrEnum):
    """What became of one file."""

    STORED = "stored"
    DUPLICATE = "already there"
    REFUSED = "refused"
    SKIPPED = "skipped"
    UNREADABLE = "not read"


@dataclass(frozen=True, slots=True)
class Result:
    """One file's fate. `reason` is what files are grouped by, `detail` what is special about this one."""

    path: Path
    size: int
    status: Status
    reason: str = ""
    detail: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(slots=True)
class Group:
    """Files that share a status and a reason."""

    count: int = 0
    first: list[tuple[Path, str]] = field(default_factory=list)

    def add(self, path: Path, detail: str) -> None:
        self.count += 1
        if len(self.first) < NAMES_KEPT:
            self.first.append((path, detail))


class Tally:
    """Counts of results. Memory does not grow with the number of files."""

    def __init__(self) -> None:
        self.files: dict[Status, int] = dict.fromkeys(Status, 0)
        self.bytes: dict[Status, int] = dict.fromkeys(Status, 0)
        self._groups: dict[tuple[Status, str], Group] = {}
        self.warnings: dict[str, Group] = {}

    def add(self, result: Result) -> None:
        self.files[result.status] += 1
        self.bytes[result.status] += result.size
        if result.status not in (Status.STORED, Status.DUPLICATE):
            key = (result.status, result.reason)
            if key not in self._groups and len(self._groups) >= REASONS_KEPT:
                key = (result.status, OTHER)
            self._groups.setdefault(key, Group()).add(result.path, result.detail)
        for warning in result.warnings:
            kind = _VALUES.sub("…", warning)
            if kind not in self.warnings and len(self.warnings) >= REASONS_KEPT:
                kind = OTHER
            self.warnings.setdefault(kind, Group()).add(result.path, warning if kind != warning else "")

    def groups(self, status: Status) -> Iterator[tuple[str, Group]]:
        """Reasons and their files, the most frequent first."""
        chosen = [(reason, group) for (of, reason), group in self._groups.items() if of is status]
        yield from sorted(chosen, key=lambda item: -item[1].count)

    @property
    def readable(self) -> int:
        """Files that looked like instances and could be read."""
        return sum(self.files.values()) - self.files[Status.SKIPPED] - self.files[Status.UNREADABLE]

    @property
    def in_order(self) -> bool:
        """Whether everything that was offered is stored now."""
        return self.files[Status.REFUSED] == 0 and self.files[Status.UNREADABLE] == 0
