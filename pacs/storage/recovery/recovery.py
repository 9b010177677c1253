"""Putting index and files in step again: at open, and before a batch when another process died in the middle of one.

The records are right; what follows from them is written again. Nothing that was acknowledged is ever cut off: only
bytes behind the committed end of a log that are not whole records of the batch that was going on, with their frames.
What may be anything but what that batch left is copied to `set-aside/` before.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from pacs.errors import IndexMismatchError, StorageError
from pacs.storage import layout
from pacs.storage.disk import Disk
from pacs.storage.files import hierarchy, last_commit, staging
from pacs.storage.files.last_commit import LARGEST_BATCH, LastCommit
from pacs.storage.index import Index, WriteView, entering
from pacs.storage.index.entries import Entries
from pacs.storage.index.rows import INDEX_FORMAT, IndexState
from pacs.storage.layout import Root
from pacs.storage.model import Counters
from pacs.storage.recovery import copying, cut_short, log_tails, settling

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
    try:
        put_back_index(root, disk)
        if not os.path.lexists(path) and not _anything_committed(root, last):
            _make_index(root, disk, last, archive_id)
    except OSError as error:
        raise StorageError(f"{root} cannot be opened: {error.filename}: {error.strerror}") from error
    index = Index(path)
    try:
        with index.read() as view:
            state = view.state()
        if state.archive_id != archive_id:
            raise IndexMismatchError(f"{path} belongs to another archive: {_REINDEX}")
        copying.undo(root, index, disk)
        boot = boot_id()
        if state.boot != boot or not last.complete:
            _look_at_all_logs(root, index, disk, last, booted=state.boot != boot)
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


def _make_index(root: Root, disk: Disk, last: LastCommit, archive_id: str) -> None:
    """What an archive without records has beside its description."""
    last.create()
    hierarchy.write_groups(disk, root, hierarchy.archive_groups())
    new = f"{root}/{layout.NEW_INDEX}"
    disk.remove_tree(new)
    create_index(new, archive_id).close()
    disk.syncfs(str(root))
    disk.rename(new, f"{root}/{layout.INDEX}")
    disk.syncfs(str(root))


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


def _look_at_all_logs(root: Root, index: Index, disk: Disk, last: LastCommit, *, booted: bool) -> None:
    """Look at the end of every log. After a power loss a log may have grown without `last-commit` telling so, or
    while it still tells of an attempt at the same commit that was taken back. Where a slot of it is lost, an index of
    one commit ago may have been put back and look like the newest."""
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
        adopt_tails(root, index, disk, suspects, booted=booted)


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


def adopt_tails(
    root: Root, index: Index, disk: Disk, suspects: Sequence[tuple[str, str]], *, booted: bool = False
) -> None:
    """Make what lies behind the committed end of these logs a commit of its own: enter the records that are whole,
    with their frames, and cut off the rest; arrays of the batch that this leaves without a record are removed.

    `booted`: the machine has been started since the index was written. Raises SyncError, OSError.
    """
    last = LastCommit(root, disk)
    newest = last.read()[0]
    with index.read() as view:
        sequence = view.counters().sequence + 1
        never_ended = sequence if _never_ended(index, last, sequence, booted=booted) else -1
        tails = [log_tails.look(root, view, series, sequence) for series in suspects]
        made = newest.made if newest.sequence == never_ended else []
        ends = {array[:2]: view.log_end(*array[:2]) for array in made} | {tail.series: tail.end for tail in tails}
        made = cut_short.unnamed(root, view, made)
    for tail in tails:
        log_tails.put_aside(root, disk, tail, never_ended)
    kept = {tail.series: tail.arrays for tail in tails if tail.arrays is not None}
    if newest.sequence != sequence:
        # If this is cut short, who finishes it must not take the slot for a proof.
        last.write(sequence, suspects[:LARGEST_BATCH], found=never_ended < 0)
    if kept:
        with index.write() as view:  # before the logs are cut: then nothing else would tell of these frames
            _keep(view, kept)
    for tail in tails:
        tail.cut_off(root, disk)
    cut_short.remove(root, disk, made, ends)
    found = sorted((record for tail in tails for record in tail.whole), key=lambda found: found[2:4])
    with index.write() as view:
        entries = Entries(view, sequence)
        for record in found:
            descriptor = record.descriptor
            if view.instance(descriptor.instance) is not None:
                continue  # in the log of another series, too
            entering.enter(root, entries, record)
            hierarchy.write_groups(disk, root, hierarchy.series_groups(descriptor.study, descriptor.series))
        disk.syncfs(str(root))
        entries.put()
        _keep(view, kept)
        view.put_dirty(entries.add_dirty(view.dirty()))
    if found:
        _log.warning("entered %d instances of a batch that was cut short", len(found))
    _settle_all(root, index, disk, last)


def _keep(view: WriteView, kept: Mapping[tuple[str, str], int]) -> None:
    for (study, series), arrays in kept.items():
        view.keep(study, series, 0, arrays)


def _never_ended(index: Index, last: LastCommit, sequence: int, *, booted: bool) -> bool:
    """Whether commit `sequence`, one behind the index, was never acknowledged for certain: before its answer the index
    and `last-commit` would both have been made durable, so either can prove it, where the other is not damaged.

    An index that was put back proves nothing: it has been written since `last-commit` told of the batch. So it has
    when LMDB was writing that batch, of which everything was durable by then. A slot that says nothing of the batch
    proves something only where a power loss explains it.
    """
    try:
        sound = not last_commit.flaws(last.path)
        told = os.stat(last.path).st_ctime_ns
    except OSError:
        return False
    state, settled = last.read()
    if not sound or settled >= sequence or not (last.complete or state.sequence == 1):
        return False
    if state.sequence == sequence:
        return not state.found and index.written <= told
    return booted and state.sequence == sequence - 1


# --- what is derived ------------------------------------------------------------------------------------------


def _settle_all(root: Root, index: Index, disk: Disk, last: LastCommit) -> None:
    """Write index blocks and shapes again that may not be as the index has them."""
    with index.read() as view:
        if settling.settle(disk, root, view, view.dirty()):
            last.settle(view.counters().sequence)
