"""Putting right what follows from the order of commits, in a copy that some instances were entered into later."""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeVar

import msgspec

from pacs.storage.index import ReadView, WriteView, matching
from pacs.storage.model import SeriesEntry, StudyEntry

Entry = TypeVar("Entry", StudyEntry, SeriesEntry)


def describe(view: WriteView, theirs: ReadView, earlier: ReadView, late: Collection[tuple[str, str]]) -> None:
    """What studies and series say of themselves, and what array is appended to, of the (study, series) in `late`.

    As the archive, `theirs`, has it where the copy has as much; else of the newest commit that the copy had `earlier`.
    """
    for uid in sorted({study for study, _ in late}):
        entry, study = view.study(uid), theirs.study(uid)
        if entry is None or study is None:
            continue
        if study.instances != entry.instances:
            study = _of_newest(entry, earlier.study(uid))
        view.put_study(study, entry)
        before = _postings(view, study)
        for series in theirs.series_of(uid):
            if (uid, series.uid) in late:
                _describe_series(view, study, series, theirs, earlier)
        matching.update(view.txn, view.databases, before - _postings(view, study), ())


def _describe_series(
    view: WriteView, study: StudyEntry, series: SeriesEntry, theirs: ReadView, earlier: ReadView
) -> None:
    entry = view.series(series.study, series.uid)
    if entry is None:
        return
    view.delete_open_arrays(entry.number)
    if series.instances != entry.instances:
        view.put_series(study, _of_newest(entry, earlier.series(series.study, series.uid)), entry)
        return
    view.put_series(study, msgspec.structs.replace(series, number=entry.number), entry)
    for _, state in theirs.arrays(series.number):
        k = theirs.open_array(series.number, state.key)
        if k is not None:
            view.put_open_array(entry.number, state.key, k)


def _of_newest(entry: Entry, known: Entry | None) -> Entry:
    """The entry, with the commit that the copy had of it `known` before where that is the newer."""
    return msgspec.structs.replace(entry, sequence=max(entry.sequence, known.sequence if known is not None else 0))


def _postings(view: ReadView, study: StudyEntry) -> set[matching.Posting]:
    """All that a study and its series give to the search."""
    found = matching.study_postings(study)
    for series in view.series_of(study.uid):
        found |= matching.series_postings(study, series)
    return found
