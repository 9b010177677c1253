"""The arrays that a batch made before it was cut short: they may hold gigabytes, and no record will ever name them.

Why they can be told from frames of what somebody was promised: docs/decisions/arrays-of-a-batch-cut-short.md
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence

from pacs.storage import layout
from pacs.storage.disk import Disk
from pacs.storage.files import records
from pacs.storage.files.records import LogError, Record, RecordError
from pacs.storage.files.walking import walk_damaged
from pacs.storage.index import ReadView
from pacs.storage.layout import Root
from pacs.storage.recovery import set_aside

_log = logging.getLogger(__name__)

Made = tuple[str, str, int]
"""(study, series, k) of `frames-<k>`."""


def unnamed(root: Root, view: ReadView, made: Sequence[Made]) -> list[Made]:
    """Those of the arrays that a batch made which are there, and which nothing names: neither the index, nor the head
    of a record behind the committed end of the log. To be asked before anything is cut off there.

    An array that has a shape was committed, whoever says otherwise.
    """
    found = []
    for study, series, k in made:
        directory = f"{root}/{layout.array_path(study, series, k)}"
        if not os.path.isdir(directory) or os.path.lexists(f"{directory}/{layout.ZARR_JSON}"):
            continue
        if k < _next_array(view, study, series):
            continue
        named = _named(root, study, series, view.log_end(study, series))
        if named is not None and k not in named:
            found.append((study, series, k))
    return found


def remove(root: Root, disk: Disk, arrays: Sequence[Made], ends: Mapping[tuple[str, str], int]) -> None:
    """Remove arrays where the log of the series now ends at `ends`, of (study, series), and nothing that was cut off it
    was set aside. Never raises: what stays harms nothing."""
    for study, series, k in arrays:
        path = layout.array_path(study, series, k)
        log = layout.log_path(study, series)
        try:
            if os.stat(f"{root}/{log}").st_size != ends[study, series] or set_aside.holds(set_aside.names(root), log):
                continue
            size = layout.bytes_on_disk(f"{root}/{path}")
            disk.remove_tree(f"{root}/{path}")
        except OSError as error:
            _log.error("%s of a batch that was cut short stays: %s", path, error.strerror)
        else:
            _log.warning("%s of a batch that was cut short is removed: %d bytes", path, size)


def _next_array(view: ReadView, study: str, series: str) -> int:
    entry = view.series(study, series)
    return (view.files(entry.number) if entry is not None else view.left_files(study, series)).next_array


def _named(root: Root, study: str, series: str, committed: int) -> set[int] | None:
    """k of the arrays that records behind the committed end of a log name; None when nobody can know."""
    try:
        descriptor, path = records.open_log(root, study, series)
    except LogError:
        return None  # a batch makes the logs first
    try:
        size = os.fstat(descriptor).st_size
        return _arrays(walk_damaged(descriptor, path, size, committed)) if size >= committed else None
    finally:
        os.close(descriptor)


def _arrays(found: Iterable[Record | RecordError]) -> set[int] | None:
    named: set[int] = set()
    for each in found:
        if not isinstance(each, RecordError):
            named.add(each.array)
        elif each.unread:
            return None
    return named
