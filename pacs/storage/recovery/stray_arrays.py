"""Arrays that no record names: left by batches that were killed, where nothing tells any more that these never ended.

That an array is one of these nobody can prove: the record that named it may be lost without a trace. So somebody has to
ask for it, nothing is deleted, and where there is any doubt the array stays where it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass

from pacs.errors import StorageError
from pacs.storage import layout
from pacs.storage.disk import Disk
from pacs.storage.files import records
from pacs.storage.files.records import LogError, RecordError
from pacs.storage.files.walking import walk_damaged
from pacs.storage.index import Index, ReadView
from pacs.storage.layout import Root
from pacs.storage.locks import alone
from pacs.storage.recovery import recovery, set_aside


@dataclass(slots=True)
class StrayArray:
    """An array that no record of its series names."""

    study: str
    series: str
    k: int
    size: int
    """Bytes on disk."""
    doubt: str
    """Why it may be more than what a killed batch left; "" when nothing says so."""
    moved: str = ""
    """Where it lies now, relative to the archive."""

    @property
    def path(self) -> str:
        return layout.array_path(self.study, self.series, self.k)


def strays(root: Root, *, move: bool = False, disk: Disk | None = None) -> list[StrayArray]:
    """All of them; with `move` those without a doubt are taken to `set-aside/`. The archive is brought in step before.

    Raises ArchiveLockedError while anybody else has the archive open, IndexMismatchError, StorageError.
    """
    with ExitStack() as opened:
        opened.enter_context(alone(root))
        if disk is None:
            disk = Disk()
            opened.callback(disk.close)
        index = opened.enter_context(closing(recovery.open_index(root, disk)))
        with index.read() as view:
            found = list(_find(root, view))
        if move:
            _move(root, disk, index, [stray for stray in found if not stray.doubt])
        return found


def _find(root: Root, view: ReadView) -> Iterator[StrayArray]:
    aside = set_aside.names(root)
    for study, series in layout.series_on_disk(root):
        there = layout.arrays_on_disk(root, study, series)
        if not there:
            continue
        named, doubt = _named(root, view, study, series)
        if set_aside.holds(aside, layout.log_path(study, series)):
            doubt = doubt or f"{set_aside.SET_ASIDE}/ has an end of the log"
        for k in there:
            if k in named:
                continue
            path = f"{root}/{layout.array_path(study, series, k)}"
            shape = "it has a shape, so it was committed" if os.path.lexists(f"{path}/{layout.ZARR_JSON}") else ""
            yield StrayArray(study, series, k, layout.bytes_on_disk(path), doubt or shape)


def _named(root: Root, view: ReadView, study: str, series: str) -> tuple[set[int], str]:
    """(k that index or log name, why there may be more)."""
    entry = view.series(study, series)
    named = {k for k, _ in view.arrays(entry.number)} if entry is not None else set()
    doubt = ""
    if entry is None and view.left_files(study, series).next_array:
        doubt = "records of the series were left out of the index"
    try:
        descriptor, path = records.open_log(root, study, series)
    except LogError as error:
        return named, error.message
    try:
        size, end = os.fstat(descriptor).st_size, view.log_end(study, series)
        if size != end:
            doubt = f"the log has {size} bytes, the index knows {end}"
        count = 0
        for found in walk_damaged(descriptor, path, size):
            if isinstance(found, RecordError):
                doubt = found.message
            else:
                named.add(found.array)
                count += 1
    finally:
        os.close(descriptor)
    known = entry.instances if entry is not None else 0
    return named, doubt or (f"the log has {count} records, the index knows {known}" if count != known else "")


def _move(root: Root, disk: Disk, index: Index, found: list[StrayArray]) -> None:
    """Raises StorageError."""
    with index.write() as view:  # first: what comes later must not take a name that a lost record may have told
        for stray in found:
            view.reserve(stray.study, stray.series, stray.k + 1)
    try:
        for stray in found:
            stray.moved = set_aside.move(root, disk, stray.path)
        disk.syncfs(str(root))
    except OSError as error:
        raise StorageError(f"{error.filename} cannot be moved: {error.strerror}") from error
