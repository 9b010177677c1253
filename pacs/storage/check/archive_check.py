"""Read-only verification of everything: records, frames, index blocks, shapes, and the index in both directions.

Nothing is written, not even what could be repaired. It works beside a running server: a series is walked to where it
ended in one snapshot of the index, and what looks wrong because it just changed is looked at again under a newer one.
What the index says is compared with what the records say anew, study by study: `expected.py`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from itertools import groupby

from pacs.errors import ChecksumError
from pacs.storage import layout
from pacs.storage.check import index_check, strays
from pacs.storage.check.expected import ExpectedStudy
from pacs.storage.check.findings import Finding, Severity, error, guarded, index_error, note
from pacs.storage.check.series_check import SeriesCheck, Verify
from pacs.storage.disk import Disk
from pacs.storage.files import hierarchy, last_commit, records
from pacs.storage.files.last_commit import LastCommit
from pacs.storage.files.records import RecordError
from pacs.storage.index import Index, ReadView
from pacs.storage.layout import Root
from pacs.storage.model import SeriesEntry

__all__ = ["Finding", "Severity", "Verify", "check"]

Progress = Callable[[str, int, int], None]


def check(
    root: Root, index: Index, *, verify: Verify | None = None, progress: Progress | None = None
) -> Iterator[Finding]:
    """Everything that is wrong with an archive, and what is left over in it. Raises nothing for what is damaged."""
    yield from _Check(root, index, verify, progress or (lambda *_: None)).run()


class _Check:
    def __init__(self, root: Root, index: Index, verify: Verify | None, progress: Progress) -> None:
        self._root = root
        self._index = index
        self._verify = verify
        self._progress = progress
        self._last = LastCommit(root, Disk())
        self._known: set[tuple[str, str]] = set()
        self._sequence = 0
        """Of the index when the check began."""
        self._received = self._stored = 0
        """Bytes of all records that the index has."""
        self._whole = True
        """All records could be read."""

    def run(self) -> Iterator[Finding]:
        yield from self._guarded(layout.INDEX, self._begin())
        yield from self._guarded(layout.LAST_COMMIT, self._check_last_commit())
        yield from self._guarded(layout.ARCHIVE_JSON, self._check_description())
        yield from self._check_groups(list(hierarchy.archive_groups()))
        yield from self._guarded("", strays.of_archive(self._root))
        everything = sorted(self._known | set(layout.series_on_disk(self._root)))
        number = 0
        for study, listed in groupby(everything, key=lambda series: series[0]):
            series = [uid for _, uid in listed]
            for finding in self._guarded(layout.study_path(study), self._check_study(study, series, number)):
                self._progress("check series", number, len(everything))
                yield finding
            number += len(series)
            self._progress("check series", number, len(everything))
        yield from self._guarded("studies and sums", self._again(index_check.whole_index_findings))
        yield from self._guarded("sums", self._again(self._sums))

    def _guarded(self, what: str, findings: Iterator[Finding]) -> Iterator[Finding]:
        return guarded(self._root, what, findings)

    def _again(self, findings: Callable[[ReadView], list[Finding]]) -> Iterator[Finding]:
        """What is found, and still is under a newer snapshot when the archive changed in between."""
        for _ in range(5):
            with self._index.read() as view:
                sequence = view.counters().sequence
                found = findings(view)
            with self._index.read() as view:
                if not found or view.counters().sequence == sequence:
                    break
        yield from found

    # --- the archive ---

    def _begin(self) -> Iterator[Finding]:
        with self._index.read() as view:
            self._sequence = view.counters().sequence
            for study in view.studies():
                self._known.update((study.uid, series.uid) for series in view.series_of(study.uid))
            self._known.update(view.left())
        yield from ()

    def _check_last_commit(self) -> Iterator[Finding]:
        def compare(view: ReadView) -> list[Finding]:
            sequence = view.counters().sequence
            last = self._last.read()[0].sequence
            found = [Finding(Severity.ERROR if wrong else Severity.NOTE, layout.LAST_COMMIT, text)
                     for wrong, text in last_commit.flaws(self._last.path)]  # fmt: skip
            if last == sequence + 1:
                found.append(note(layout.LAST_COMMIT, "a batch is under way, or to be finished at the next open"))
            elif last != sequence:
                text = f"is of commit {last}, the index of {sequence}: run `pacs reindex`"
                found.append(error(layout.LAST_COMMIT, text))
            return found

        return self._again(compare)

    def _check_description(self) -> Iterator[Finding]:
        there = layout.read_description(self._root).archive_id
        with self._index.read() as view:
            known = view.state().archive_id
        if there != known:
            yield error(layout.ARCHIVE_JSON, f"says that the archive is {there!r}, the index that it is {known!r}")

    def _check_groups(self, groups: list[str]) -> Iterator[Finding]:
        content = hierarchy.group_content()
        for group in groups:
            path = f"{group}/{layout.ZARR_JSON}".lstrip("/")
            if hierarchy.read_start(f"{self._root}/{path}", len(content) + 1) != content:
                yield error(path, "is not the description of a Zarr group")

    def _sums(self, view: ReadView) -> list[Finding]:
        """Bytes are compared when nothing was stored meanwhile, and all of them could be counted."""
        counters = view.counters()
        if not self._whole or counters.sequence != self._sequence:
            return []
        sums = (("received", counters.received_bytes, self._received), ("stored", counters.stored_bytes, self._stored))
        return [
            index_error(f"counts {there} bytes {what}, the records have {said}")
            for what, there, said in sums
            if there != said
        ]

    # --- a study ---

    def _check_study(self, study: str, listed: list[str], number: int) -> Iterator[Finding]:
        expected = ExpectedStudy(study)
        whole, self._whole = self._whole, False  # until all of it has been seen
        with self._index.read() as view:
            entry = view.study(study)
            known = {series.uid: series for series in view.series_of(study)}
            ends = {uid: view.log_end(study, uid) for uid in known.keys() | set(listed)}
        for uid, end in sorted(ends.items()):
            path = layout.log_path(study, uid)
            yield from self._guarded(path, self._check_series(study, uid, known.get(uid), end, expected))
        if entry is None:
            if known:
                yield index_error(f"has {len(known)} series of a study that it has not, {study}")
        elif expected.whole and expected.differs(entry):
            path = layout.study_path(study)
            yield error(path, "the index says something else of the study than its records: run `pacs reindex`")
        self._received += expected.received_bytes
        self._stored += expected.stored_bytes
        self._whole = whole and expected.whole

    def _check_series(
        self, study: str, uid: str, entry: SeriesEntry | None, end: int, expected: ExpectedStudy
    ) -> Iterator[Finding]:
        before, expected.whole = expected.whole, False  # also when what follows ends early
        path = layout.log_path(study, uid)
        try:
            descriptor, _ = records.open_log(self._root, study, uid)
        except ChecksumError as failure:
            if entry is not None or end:
                yield error(path, failure.message)
            else:
                expected.whole = before
                yield note(layout.series_path(study, uid), "a directory without a log")
            return
        number = entry.number if entry is not None else -1
        walk = SeriesCheck(self._root, self._index, self._verify, (study, uid), number, expected)
        try:
            size = os.fstat(descriptor).st_size
            if size < end:
                walk.whole = False
                yield error(path, f"has {size} bytes, the index knows {end}")
            yield from walk.walk(descriptor, min(size, end))
            yield from self._check_tail(descriptor, path, study, uid, end)
        finally:
            os.close(descriptor)
        if entry is not None:
            if walk.whole:
                yield from self._agrees(path, entry, walk)
            yield from self._check_groups(list(hierarchy.series_groups(study, uid)))
            yield from self._check_arrays(study, uid, entry.number)
        expected.whole = before and walk.whole

    def _agrees(self, path: str, entry: SeriesEntry, walk: SeriesCheck) -> Iterator[Finding]:
        if walk.expected.differs(entry):
            yield error(path, "the index says something else of the series than its records: run `pacs reindex`")
        with self._index.read() as view:
            if view.series(entry.study, entry.uid) == entry:  # nothing came meanwhile
                yield from index_check.series_findings(view, path, entry, walk.expected)

    def _check_tail(self, descriptor: int, path: str, study: str, series: str, end: int) -> Iterator[Finding]:
        size = os.fstat(descriptor).st_size
        if size <= end:
            return

        def compare(view: ReadView) -> list[Finding]:
            committed = view.log_end(study, series)
            if committed >= size:
                return []  # the server went on meanwhile
            try:
                record = records.read_head(descriptor, path, committed, size)
            except RecordError:
                return [note(path, f"{size - committed} bytes from byte {committed} on were never committed")]
            if record.sequence > view.counters().sequence:
                return [note(path, f"record at byte {committed}: of a batch that is not finished")]
            return [error(path, f"record at byte {committed}: the index does not know it: run `pacs reindex`")]

        yield from self._again(compare)

    # --- its arrays ---

    def _check_arrays(self, study: str, series: str, number: int) -> Iterator[Finding]:
        directory = layout.series_path(study, series)
        there = strays.listed(self._root, directory)
        with self._index.read() as view:
            arrays = {k for k, _ in view.arrays(number)}
        for k in sorted(arrays):
            yield from self._again(partial(self._array_findings, study, series, number, k))
            yield from self._array_strays(study, series, number, k)
        names = {f"frames-{k}" for k in arrays} | {layout.ZARR_JSON, layout.RECORDS_LOG}
        yield from strays.strange(self._root, directory, there, names)

    def _array_findings(self, study: str, series: str, number: int, k: int, view: ReadView) -> list[Finding]:
        # Read before the files: they may be written between.
        settled = self._last.read()[1]
        return index_check.array_findings(self._root, view, study, series, (number, k), settled)

    def _array_strays(self, study: str, series: str, number: int, k: int) -> Iterator[Finding]:
        path = layout.array_path(study, series, k)
        there = strays.listed(self._root, path)
        with self._index.read() as view:
            state = view.array(number, k)
        if state is not None:
            yield from strays.strange(self._root, path, there, index_check.shard_names(state))
