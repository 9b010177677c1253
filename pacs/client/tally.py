"""What became of many files, in constant memory: counts, and the first names of every reason."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

NAMES_KEPT = 3
REASONS_KEPT = 200
OTHER = "other reasons"


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
            key_of_warning = warning if warning in self.warnings or len(self.warnings) < REASONS_KEPT else OTHER
            self.warnings.setdefault(key_of_warning, Group()).add(result.path, "")

    def groups(self, status: Status) -> Iterator[tuple[str, Group]]:
        """Reasons and their files, the most frequent first."""
        chosen = [(reason, group) for (of, reason), group in self._groups.items() if of is status]
        yield from sorted(chosen, key=lambda item: -item[1].count)

    @property
    def offered(self) -> int:
        """Files that looked like instances."""
        return sum(self.files.values()) - self.files[Status.SKIPPED]

    @property
    def in_order(self) -> bool:
        """Whether everything that was offered is stored now."""
        return self.files[Status.REFUSED] == 0 and self.files[Status.UNREADABLE] == 0
