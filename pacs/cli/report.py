"""What commands show while they work and when they are done."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO

from pacs.client.tally import NAMES_KEPT, Group, Status, Tally

if TYPE_CHECKING:
    from tqdm import tqdm


class Progress:
    """A bar on standard error while it is a terminal, nothing otherwise; gone when the work is done."""

    def __init__(self, what: str, total: int | None, unit: str = "file") -> None:
        """`unit` "B" counts bytes, shown as kB, MB, GB."""
        self._bar: tqdm[Any] | None = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            counted = "{desc} {percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt}{unit}, {rate_noinv_fmt}, "
            counted += "{remaining} left{postfix}"
            open_ended = "{desc}: {n_fmt}{unit}, {rate_noinv_fmt}{postfix}"
            plural = unit if unit == "series" else f"{unit}s"
            self._bar = tqdm(
                desc=what, total=total, unit=unit if unit == "B" else f" {plural}", unit_scale=unit == "B",
                file=sys.stderr, leave=False, dynamic_ncols=True, mininterval=0.2,
                bar_format=counted if total is not None else open_ended,
            )  # fmt: skip

    def advance(self, steps: int = 1, note: str = "") -> None:
        if self._bar is not None:
            if note:
                self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(steps)

    def describe(self, what: str) -> None:
        """Another name for what is under way."""
        if self._bar is not None:
            self._bar.set_description_str(what, refresh=False)

    def show(self, done: int, total: int | None, note: str = "") -> None:
        """An absolute position, for work that counts by itself."""
        if self._bar is not None:
            self._bar.total = total
            if note:
                self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(done - self._bar.n)

    def print(self, line: str, file: TextIO | None = None) -> None:
        """A line that does not disturb the bar."""
        if self._bar is not None:
            self._bar.write(line, file=file or sys.stdout)
        else:
            print(line, file=file or sys.stdout, flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()


def size_text(count: float) -> str:
    """Bytes for people: 12.3 MB, decimal as disks are sold."""
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")


def count_text(count: int, unit: str, plural: str | None = None) -> str:
    """1 file, 2,000 files."""
    return f"{count:,} {unit if count == 1 else plural or unit + 's'}"


def summary(tally: Tally, seconds: float) -> Iterable[str]:
    """The lines that `store` and `import` end with: reasons first, so that the counts stay in sight."""
    for warning, group in sorted(tally.warnings.items(), key=lambda item: item[1].count):
        yield f"stored with a warning, {warning}: {group.count:,}"
        yield from _names(group)
        yield ""
    for status in (Status.SKIPPED, Status.UNREADABLE, Status.REFUSED):
        for reason, group in tally.groups(status):
            yield f"{status.value}, {reason}: {group.count:,}"
            yield from _names(group)
            yield ""
    seconds = max(seconds, 0.001)
    stored, amount = tally.files[Status.STORED], tally.bytes[Status.STORED]
    speed = f"{size_text(amount)} in {seconds:.1f} s: {stored / seconds:,.0f}/s, {size_text(amount / seconds)}/s"
    for status in Status:
        count = tally.files[status]
        if count or status in (Status.STORED, Status.DUPLICATE, Status.REFUSED):
            yield f"{status.value:<14}{count:>9,}   {speed if status is Status.STORED and count else ''}".rstrip()


def nothing_found(tally: Tally) -> Iterable[str]:
    """Why there was nothing to send: the paths that cannot be read, else that nothing lies below them."""
    for reason, group in tally.groups(Status.UNREADABLE):
        yield from (f"{path}: {reason}" for path, _ in group.first)
        if group.count > NAMES_KEPT:
            yield f"… and {group.count - len(group.first):,} more: {reason}"
    skipped = tally.files[Status.SKIPPED]
    if not tally.files[Status.UNREADABLE]:
        yield "there is no DICOM file" + (f" among {count_text(skipped, 'file')}" if skipped else "")


def _names(group: Group) -> Iterable[str]:
    for path, detail in group.first:
        yield f"    {path}" + (f": {detail}" if detail else "")
    if group.count > NAMES_KEPT:
        yield f"    … and {group.count - len(group.first):,} more"
