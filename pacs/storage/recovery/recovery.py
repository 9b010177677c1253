"""Putting index and files in step again: at open, and before a batch when another process died in the middle of one.

The records are right; what follows from them is written again. Nothing that was acknowledged is ever cut off: only
bytes behind the committed end of a log that are not whole records of the batch that was going on, with their frames.
What may be anything but what that batch left is copied to `set-aside/` before.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from pacs.errors import ChecksumError, IndexMismatchError, StorageError
from pacs.storage import layout
from pacs.storage.disk import Disk, SyncError
from pacs.storage.files import hierarchy, last_commit, records, staging
from pacs.storage.files.last_commit import LARGEST_BATCH, LastCommit
from pacs.storage.files.records import LogError, Record
from pacs.storage.files.walking import walk_damaged
from pacs.storage.index import Index, ReadView, entering
from pacs.storage.index.entries import Entries
from pacs.storage.index.rows import INDEX_FORMAT, IndexState
from pacs.storage.layout import Root
from pacs.storage.model import Counters
from pacs.storage.recovery import copying, cut_short, set_aside, settling

_log = logging.getLogger(__name__)

_REINDEX = "run `pacs reindex`"


# --- opening --------------------------------------------------------------------------------------------------


def open_index(root: Root, disk: Disk) -> Index:
    """The index of an archive, in step with its records. Only under the writer's lock.

    Raises IndexMismatchError when it is missing, another archive's, or not of the newest commit.
    """
    archive_id = layout.read_description(root).archive_id
    last = LastCommit(root, disk)
    path = f"{root}/{layout.INDEX}"
    put_back_index(root, disk)
    if not os.path.lexists(path) and not _anything_committed(root, last):
        last.create()
        hierarchy.write_groups(disk, root, hierarchy.archive_groups())
        disk.remove_tree(f"{root}/{layout.NEW_INDEX}")
        create_index(f"{root}/{layout.NEW_INDEX}", archive_id).close()
        disk.syncfs(str(root))
        disk.rename(f"{root}/{layout.NEW_INDEX}", path)
        disk.syncfs(str(root))
    index = Index(path)
    try:
        with index.read() as view:
            state = view.state()
        if state.archive_id != archive_id:
            raise IndexMismatchError(f"{path} belongs to another archive: {_REINDEX}")
        copying.undo(root, index, disk)
        boot = boot_id()
        if state.boot != boot:
            _after_boot(root, index, disk, last)
        catch_up(root, index, disk, last)
        if state.boot != boot:
            _note_boot(index, boot)  # not before: what `_never_ended` goes by is when the index was written
        _settle_all(root, index, disk, last)
        staging.remove_abandoned(root, disk)
    except OSError as error:
        index.close()
        raise StorageError(f"{root} cannot be brought in step: {error.filename}: {error.strerror}") from error
    except BaseException:
        index.close()
        raise
    return index


def open_index_as_it_is(root: Root, disk: Disk) -> Index:
    """The index of an archive that could not be brought in step, because LMDB could not write: to read from alone.

    Raises IndexMismatchError when it is not of the newest commit, or of the one before that was cut short.
    """
    index = Index(f"{root}/{layout.INDEX}")
    try:
        with index.read() as view:
            sequence = view.counters().sequence
        newest = LastCommit(root, disk).read()[0].sequence
        if newest not in (sequence, sequence + 1):
            raise _mismatch(index, sequence, newest)
    except BaseException:
        index.close()
        raise
    return index


def _mismatch(index: Index, sequence: int, newest: int) -> IndexMismatchError:
    return IndexMismatchError(f"{index.path} is of commit {sequence}, the archive of commit {newest}: {_REINDEX}")


def put_back_index(root: Root, disk: Disk) -> None:
    """The index that a `reindex` moved away, when it was killed before the new one had its place."""
    path, old = f"{root}/{layout.INDEX}", f"{root}/{layout.OLD_INDEX}"
    if not os.path.lexists(path) and os.path.lexists(old):
        disk.rename(old, path)
        disk.syncfs(str(root))


def create_index(path: str, archive_id: str, *, sync: bool = True) -> Index:
    """An index of an archive without records."""
    os.makedirs(path)
    index = Index(path, create=True, sync=sync)
    with index.write() as view:
        view.put_state(IndexState(INDEX_FORMAT, archive_id, Counters(), boot=boot_id()))
    return index


def _anything_committed(root: Root, last: LastCommit) -> bool:
    return last.read()[0].sequence > 0 or any(
        os.path.lexists(f"{root}/{layout.log_path(study, series)}") for study, series in layout.series_on_disk(root)
    )


def boot_id() -> str:
    """Changes when the machine starts: then unsynced writes may have been lost. "" where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _after_boot(root: Root, index: Index, disk: Disk, last: LastCommit) -> None:
    """Look at the end of every log. After a power loss a log may have grown without `last-commit` telling so, or
    while it still tells of an attempt at the same commit that was taken back."""
    suspects = []
    with index.read() as view:
        for study, series in layout.series_on_disk(root):
            try:
                size = os.stat(f"{root}/{layout.log_path(study, series)}").st_size
            except FileNotFoundError:
                continue
            if size > view.log_end(study, series):
                suspects.append((study, series))
        sequence = view.counters().sequence
    if suspects and last.read()[0].sequence in (sequence, sequence + 1):
        adopt_tails(root, index, disk, suspects)


def _note_boot(index: Index, boot: str) -> None:
    with index.write() as writing:
        state = writing.state()
        state.boot = boot
        writing.put_state(state)


# --- a batch cut short ----------------------------------------------------------------------------------------


def catch_up(root: Root, index: Index, disk: Disk, last: LastCommit) -> int:
    """Finish what a process that died left undone; nothing to do is told by two small reads.

    Returns the last commit whose index blocks and shapes were written by then. Raises IndexMismatchError when the index
    is not the one that the newest batch was written to.
    """
    with index.read() as view:
        sequence = view.counters().sequence
    state, settled = last.read()
    if state.sequence == sequence + 1:
        adopt_tails(root, index, disk, state.series)
        settled = last.read()[1]
    elif state.sequence != sequence:
        raise _mismatch(index, sequence, state.sequence)
    return settled


def adopt_tails(root: Root, index: Index, disk: Disk, suspects: Sequence[tuple[str, str]]) -> None:
    """Make what lies behind the committed end of these logs a commit of its own: enter the records that are whole,
    with their frames, and cut off the rest; arrays of the batch that this leaves without a record are removed.

    Raises SyncError, OSError.
    """
    last = LastCommit(root, disk)
    with index.write() as view:
        sequence = view.counters().sequence + 1
        found: list[Record] = []
        ends: dict[tuple[str, str], int] = {}
        cuts: list[tuple[str, str]] = []
        for study, series in suspects:
            start = view.log_end(study, series)
            whole, size = _whole_records(root, view, (study, series), start, sequence)
            found += whole
            end = ends[study, series] = whole[-1].end if whole else start
            if size > end:
                cuts.append((study, series))
        never_ended = sequence if _never_ended(index, last, sequence) else -1
        newest = last.read()[0]
        made = newest.made if newest.sequence == never_ended else []
        ends = {array[:2]: view.log_end(*array[:2]) for array in made} | ends
        made = cut_short.unnamed(root, view, made)
        kept = {series: _cut(root, disk, series, ends[series], never_ended) for series in cuts}
        cut_short.remove(root, disk, made, ends)
        last.write(sequence, suspects[:LARGEST_BATCH])
        found.sort(key=lambda record: record.ordinal)
        entries = Entries(view, sequence)
        for record in found:
            entering.enter(root, entries, record)
            descriptor = record.descriptor
            hierarchy.write_groups(disk, root, hierarchy.series_groups(descriptor.study, descriptor.series))
        disk.syncfs(str(root))
        entries.put()
        for (study, series), arrays in kept.items():
            if arrays is not None:
                view.keep(study, series, 0, arrays)
        view.put_dirty(entries.add_dirty(view.dirty()))
    if found:
        _log.warning("entered %d instances of a batch that was cut short", len(found))
    _settle_all(root, index, disk, last)


def _never_ended(index: Index, last: LastCommit, sequence: int) -> bool:
    """Whether commit `sequence`, one behind the index, was never acknowledged for certain: before its answer the index
    and `last-commit` would both have been made durable, so either can prove it, where the other is not damaged.

    An index that was put back proves nothing: it has been written since `last-commit` told of the batch. So it has
    when LMDB was writing that batch, of which everything was durable by then.
    """
    try:
        sound = not last_commit.flaws(last.path)
        told = os.stat(last.path).st_ctime_ns
    except OSError:
        return False
    state, settled = last.read()
    if not sound or settled >= sequence:
        return False
    return state.sequence == sequence - 1 or (state.sequence == sequence and index.written <= told)


def _cut(root: Root, disk: Disk, series: tuple[str, str], end: int, never_ended: int) -> int | None:
    """Cut a log off at `end`. What may have been promised to somebody is set aside first, or stays where that fails:
    then the number of arrays that it may have frames in, over which nothing is to be written either.

    `never_ended`: the commit whose records nobody was promised, however whole they are.
    """
    descriptor, path = records.open_log(root, *series)
    try:
        size = os.fstat(descriptor).st_size
        arrays, kept = None, ""
        torn = _behind(descriptor, path, series, end, size, never_ended)
        if _begins_whole(descriptor, path, torn, size) or not records.torn(descriptor, torn, size, never_ended):
            arrays = max((array + 1 for array in _arrays_named(descriptor, path, end, size)), default=0)
            kept = ", kept in " + set_aside.keep(root, disk, descriptor, path, end, size)
    except SyncError:
        raise
    except (OSError, ChecksumError) as error:
        text = error.message if isinstance(error, ChecksumError) else error.strerror
        _log.error("%s: what lies behind byte %d cannot be set aside, and stays: %s", path, end, text)
        return arrays
    finally:
        os.close(descriptor)
    disk.truncate(f"{root}/{path}", end)
    _log.warning("%s/%s: cut at byte %d, behind the last whole record%s", root, path, end, kept)
    return arrays


def _behind(descriptor: int, path: str, series: tuple[str, str], start: int, end: int, sequence: int) -> int:
    """Where the heads that are whole, of records of this series and this commit, end."""
    position = start
    with suppress(ChecksumError):
        while position < end:
            record = records.read_head(descriptor, path, position, end)
            if record.sequence != sequence or (record.descriptor.study, record.descriptor.series) != series:
                break
            position = record.end
    return position


def _arrays_named(descriptor: int, path: str, start: int, end: int) -> Iterator[int]:
    """k that heads which are whole name, also where the log ends before their parts do."""
    for found in walk_damaged(descriptor, path, end, start):
        with suppress(ChecksumError):
            yield records.read_head(descriptor, path, found.offset, sys.maxsize).array


def _begins_whole(descriptor: int, path: str, start: int, end: int) -> bool:
    try:
        records.read_head(descriptor, path, start, end)
    except ChecksumError:
        return False
    return True


def _whole_records(
    root: Root, view: ReadView, series: tuple[str, str], start: int, sequence: int
) -> tuple[list[Record], int]:
    """(the whole records from `start` up to the first that is not, the length of the log)."""
    found: list[Record] = []
    try:
        descriptor, path = records.open_log(root, *series)
    except LogError as error:
        if error.missing:
            return found, 0
        raise StorageError(error.message) from None
    try:
        size = os.fstat(descriptor).st_size
        for record in records.walk(descriptor, path, start, size):
            if record.sequence < sequence or view.instance(record.descriptor.instance) is not None:
                break  # of a batch that failed and could not be taken back: the index has all that was acknowledged
            if record.sequence > sequence:
                raise IndexMismatchError(
                    f"{path} has a record of commit {record.sequence} where {sequence} was to come: {_REINDEX}"
                )
            entering.verify(root, series, descriptor, path, record)
            found.append(record)
    except ChecksumError:
        pass  # torn: this one and what follows was never acknowledged
    finally:
        os.close(descriptor)
    return found, size


# --- what is derived ------------------------------------------------------------------------------------------


def _settle_all(root: Root, index: Index, disk: Disk, last: LastCommit) -> None:
    """Write index blocks and shapes again that may not be as the index has them."""
    with index.read() as view:
        if settling.settle(disk, root, view, view.dirty()):
            last.settle(view.counters().sequence)
