"""Searching the index: candidates from postings in answer order, attributes tested, one page emitted.

Studies come newest first, series by Series Number, instances by Instance Number, then by UID: always the same order,
so that pages neither overlap nor leave gaps. A page costs what it emits, not what the archive holds.
PS3.18 10.6, PS3.4 C.2.2
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, NamedTuple, Protocol

import lmdb

from pacs import tags
from pacs.errors import IndexMismatchError
from pacs.storage.index import matching
from pacs.storage.index.matching import DAYS, ORDER, POSTINGS, TEXTS
from pacs.storage.model import InstanceEntry, SeriesEntry, StudyEntry
from pacs.storage.search.answer_order import instance_order, series_order
from pacs.storage.search.compiling import compile_rules
from pacs.storage.search.entry_rules import EntryRules, study_rule_holds
from pacs.storage.search.rules import Level, Match, Rule, TextTest
from pacs.storage.search.streams import Fixed, Opener, Order, Stream, intersection

TOTAL: Final = 10_000
"""Totals are exact up to here, and not counted further."""
COUNTING: Final = 50_000
"""Entries that are read only for the sake of the total; a search that would need more is not counted."""


class View(Protocol):
    """What a search needs of an index inside one read transaction."""

    @property
    def txn(self) -> lmdb.Transaction: ...
    @property
    def databases(self) -> Any: ...
    def study(self, uid: str) -> StudyEntry | None: ...
    def series(self, study: str, uid: str) -> SeriesEntry | None: ...
    def instance(self, uid: str) -> InstanceEntry | None: ...
    def series_of(self, study: str) -> Iterator[SeriesEntry]: ...
    def instances_of(self, series: SeriesEntry) -> Iterator[InstanceEntry]: ...
    def counters(self) -> Any: ...


@dataclass(frozen=True, slots=True)
class Search:
    """One request: what is looked for, below which parent, and which page of it."""

    level: Level
    matches: tuple[Match, ...] = ()
    study: str | None = None
    series: str | None = None
    limit: int = 100
    offset: int = 0
    fuzzy: bool = False


class Item(NamedTuple):
    """One result with its parents."""

    study: StudyEntry
    series: SeriesEntry | None = None
    instance: InstanceEntry | None = None


@dataclass(slots=True)
class Page:
    """The results from `offset` on, at most `limit`."""

    items: list[Item] = field(default_factory=list)
    total: int | None = None
    """All results there are, up to TOTAL; None when there are more, or when counting costs too much."""
    more: bool = False
    """Whether results follow this page."""


def search(view: View, request: Search) -> Page:
    """One page of the results. Raises QueryError for a match that cannot be understood."""
    return _Run(view, request).page()


class _Run:
    """The state of one search: rules by level, entries read, results seen."""

    def __init__(self, view: View, request: Search) -> None:
        self._view = view
        self._request = request
        rules = compile_rules(request.matches, fuzzy=request.fuzzy)
        self._rules = {level: [rule for rule in rules if rule.level is level] for level in Level}
        self._entries = EntryRules(self._rules)
        self._read = 0
        self._seen = 0
        self._items: list[Item] = []
        self._texts: list[tuple[bytes, TextTest]] = []
        self._settled = False
        """Whether every candidate that passes the tests of its study gives a result, so that none is looked for."""
        self._loaded: tuple[bytes, StudyEntry] | None = None
        self._opener = Opener(view.txn, view.databases[POSTINGS], view.databases[ORDER])

    # --- the page and the total -------------------------------------------------------------------------------

    def page(self) -> Page:
        tested, keys = self._candidates()
        if not tested and self._request.level is Level.STUDY and self._settled:
            return self._page_of(keys)
        known = self._known_total()
        beyond = self._settled and not tested and not self._texts and keys.at_least() > TOTAL
        for _ in self._results(tested, keys):
            full = len(self._items) >= self._request.limit
            if full and known is not None:
                break
            more = full and self._seen > self._request.offset + len(self._items)
            if more and (beyond or self._uncountable()):
                return Page(self._items, None, more=True)
        last = self._request.offset + len(self._items)
        total = self._seen if known is None else known
        return Page(self._items, total if total <= TOTAL else None, more=total > last)

    def _page_of(self, keys: Stream) -> Page:
        """A page of studies that need no more test: only what it shows is read."""
        offset, limit = self._request.offset, self._request.limit
        total = keys.exact() if not self._texts else None
        if isinstance(keys, Order) and total is not None and offset:
            skipped = min(offset, total)
            rest = keys.after(skipped, self._view.txn.cursor(self._view.databases[DAYS]))
        else:
            rest = self._tested(keys)
            skipped = sum(1 for _ in islice(rest, offset))
        items = [Item(self._load(at)) for at in islice(rest, limit)]
        last = skipped + len(items)
        if total is None:
            if not self._texts and keys.at_least() > TOTAL:
                return Page(items, None, more=next(rest, None) is not None)
            total = last
            for _ in islice(rest, max(1, TOTAL + 1 - last)):
                total += 1
                if self._read > COUNTING:
                    return Page(items, None, more=True)
        return Page(items, total if total <= TOTAL else None, more=total > last)

    def _below_rules(self) -> bool:
        return bool(self._rules[Level.SERIES] or self._rules[Level.INSTANCE])

    def _uncountable(self) -> bool:
        return self._seen > TOTAL or self._read > COUNTING

    def _known_total(self) -> int | None:
        """The total where the index has it without looking at results."""
        request = self._request
        if any(self._rules.values()) or request.study is not None:
            return None
        counters = self._view.counters()
        totals = {Level.STUDY: counters.studies, Level.SERIES: counters.series, Level.INSTANCE: counters.instances}
        return int(totals[request.level])

    def _skips(self, count: int) -> bool:
        """Counts `count` results at once when none of them is on the page."""
        full = len(self._items) >= self._request.limit
        if full or self._seen + count <= self._request.offset:
            self._seen += count
            return True
        return False

    def _emit(self, at: bytes, series: SeriesEntry | None = None, instance: InstanceEntry | None = None) -> None:
        self._seen += 1
        if self._seen > self._request.offset and len(self._items) < self._request.limit:
            self._items.append(Item(self._load(at), series, instance))

    # --- walking ----------------------------------------------------------------------------------------------

    def _results(self, rules: list[Rule], keys: Stream) -> Iterator[None]:
        """Walks the results in order; yields whenever some have been seen. `rules` of the study are left to test."""
        for at in self._tested(keys):
            if not rules or all(study_rule_holds(rule, self._load(at)) for rule in rules):
                yield from self._below_study(at)

    def _tested(self, keys: Stream) -> Iterator[bytes]:
        """The candidates whose texts satisfy the rules about texts."""
        if not self._texts:
            return keys.walk()
        return self._with_texts(keys)

    def _with_texts(self, keys: Stream) -> Iterator[bytes]:
        get, database = self._view.txn.get, self._view.databases[TEXTS]
        for at in keys.walk():
            self._read += 1
            for prefix, test in self._texts:
                if not test(bytes(get(prefix + at, b"", db=database))):
                    break
            else:
                yield at

    def _below_study(self, at: bytes) -> Iterator[None]:
        level = self._request.level
        below = self._below_rules()
        if level is Level.STUDY:
            if not below or any(map(self._series_passes, self._series(at))):
                self._emit(at)
                yield
            return
        if not below and self._request.series is None:
            study = self._load(at)
            count = study.series if level is Level.SERIES else study.instances
            if self._skips(count):
                yield
                return
        for series in self._series(at):
            if level is Level.SERIES:
                if self._series_passes(series):
                    self._emit(at, series)
                    yield
            elif self._entries.accept_series(series):
                yield from self._below_series(at, series)

    def _below_series(self, at: bytes, series: SeriesEntry) -> Iterator[None]:
        if not self._rules[Level.INSTANCE]:
            before = self._seen
            if not self._skips(series.instances):
                for instance in self._instances(series):
                    self._emit(at, series, instance)
                    if len(self._items) >= self._request.limit:
                        break
                # The rest of the series is known by its number.
                self._seen = before + series.instances
            yield
            return
        for instance in self._instances(series):
            if self._entries.accept_instance(instance):
                self._emit(at, series, instance)
                yield

    def _series_passes(self, series: SeriesEntry) -> bool:
        """The series itself, and, when instances are asked about, one of its instances."""
        if not self._entries.accept_series(series):
            return False
        return not self._rules[Level.INSTANCE] or any(map(self._entries.accept_instance, self._instances(series)))

    def _load(self, at: bytes) -> StudyEntry:
        if self._loaded is not None and self._loaded[0] == at:
            return self._loaded[1]
        self._read += 1
        uid = self._uid(at)
        study = self._view.study(uid)
        if study is None:
            raise IndexMismatchError(f"the index names a study {uid!r} that it does not hold")
        self._loaded = (at, study)
        return study

    def _uid(self, at: bytes) -> str:
        return bytes(self._view.txn.get(at, b"", db=self._view.databases[ORDER])).decode()

    def _series(self, at: bytes) -> list[SeriesEntry]:
        study = self._uid(at)
        wanted = self._uids(Level.SERIES)
        if self._request.series is not None:
            wanted = [self._request.series]
        if wanted is not None:
            found = [entry for uid in wanted if (entry := self._view.series(study, uid)) is not None]
        else:
            found = list(self._view.series_of(study))
        self._read += len(found)
        return sorted(found, key=series_order) if len(found) > 1 else found

    def _instances(self, series: SeriesEntry) -> Iterator[InstanceEntry]:
        wanted = self._uids(Level.INSTANCE)
        found: Iterable[InstanceEntry]
        if wanted is None:
            found = self._view.instances_of(series)
        else:
            named = [entry for uid in wanted if (entry := self._view.instance(uid)) is not None]
            here = (e for e in named if (e.descriptor.study, e.descriptor.series) == (series.study, series.uid))
            found = sorted(here, key=instance_order)
        for entry in found:
            self._read += 1
            yield entry

    # --- candidates -------------------------------------------------------------------------------------------

    def _candidates(self) -> tuple[list[Rule], Stream]:
        """Rules of the study that have to be tested on its entry, and the studies to test. Rules about texts are put
        aside for `_tested`."""
        left: list[Rule] = []
        streams: list[Stream] = []
        below: list[bool] = []
        for level, rules in self._rules.items():
            for rule in rules:
                stream, proven = self._named_studies(rule), False
                if stream is None:
                    stream, proven = self._opener.rule(rule)
                if stream is not None:
                    streams.append(stream)
                if level is not Level.STUDY:
                    below.append(proven)
                elif proven:
                    continue
                elif (field := rule.text_field) is not None:
                    self._texts.append((matching.text_key(field, b""), rule.text_test()))
                elif rule.tag != tags.STUDY_INSTANCE_UID:
                    left.append(rule)
        # One rule about series is settled by its postings: some series gave them. Two may be about different series.
        self._settled = below in ([], [True])
        if self._request.study is not None:
            streams.append(self._fixed([self._request.study]))
        return left, intersection(streams) if streams else self._opener.all()

    def _named_studies(self, rule: Rule) -> Stream | None:
        if rule.tag == tags.STUDY_INSTANCE_UID:
            return self._fixed(rule.unique)
        if rule.tag == tags.SOP_INSTANCE_UID:
            found = (self._view.instance(uid) for uid in rule.unique)
            return self._fixed([entry.descriptor.study for entry in found if entry is not None])
        return None

    def _fixed(self, uids: Iterable[str]) -> Stream:
        found = (self._view.study(uid) for uid in set(uids))
        return Fixed(sorted(entry.sort_key for entry in found if entry is not None))

    def _uids(self, level: Level) -> list[str] | None:
        """The UIDs of this level that the rules name."""
        unique = [set(rule.unique) for rule in self._rules[level] if rule.unique]
        return sorted(set.intersection(*unique)) if unique else None
