"""Rules held against entries of the index: what the postings nominate is tested on the attributes themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from pacs import tags
from pacs.storage.index import matching
from pacs.storage.index.search_fields import Kind
from pacs.storage.model import InstanceEntry, SeriesEntry, StudyEntry
from pacs.storage.search.rules import DATE_AND_TIME, Level, Rule

_REMEMBERED: Final = 1000
"""Elements, and the longest of them, whose match is remembered for the length of a search."""


class EntryRules:
    """The rules of one search about series and instances."""

    def __init__(self, rules: Mapping[Level, Iterable[Rule]]) -> None:
        self._series = tuple(rules[Level.SERIES])
        self._instance = tuple(rules[Level.INSTANCE])
        self._known: dict[tuple[int, bytes | None], bool] = {}

    def accept_series(self, series: SeriesEntry) -> bool:
        """Whether the series satisfies those about series."""
        return all(
            rule.accepts([series.uid]) if rule.tag == tags.SERIES_INSTANCE_UID else self._holds(rule, series.attributes)
            for rule in self._series
        )

    def accept_instance(self, instance: InstanceEntry) -> bool:
        """Whether the instance satisfies those about instances."""
        return all(
            rule.accepts([instance.descriptor.instance])
            if rule.tag == tags.SOP_INSTANCE_UID
            else self._holds(rule, instance.attributes)
            for rule in self._instance
        )

    def _holds(self, rule: Rule, attributes: Mapping[int, bytes]) -> bool:
        """Whether an element matches, remembered: series and instances mostly say the same as the one before."""
        element = attributes.get(rule.tag)
        key = (id(rule), element)
        found = self._known.get(key)
        if found is None:
            found = rule.matches(matching.decode(element))
            if len(self._known) < _REMEMBERED and (element is None or len(element) <= _REMEMBERED):
                self._known[key] = found
        return found


def study_rule_holds(rule: Rule, study: StudyEntry) -> bool:
    """Whether a study satisfies a rule about studies."""
    match rule.tag:
        case tags.MODALITIES_IN_STUDY:
            return rule.accepts([matching.normal(rule.kind, code) for code in study.modalities])
        case tags.SOP_CLASSES_IN_STUDY:
            return rule.accepts(list(study.sop_classes))
        case _ if rule.tag == DATE_AND_TIME:
            date = _first(study, tags.STUDY_DATE, Kind.DATE)
            time = _first(study, tags.STUDY_TIME, Kind.TIME)
            return rule.accepts([date + time] if date and time else [])
        case _:
            return rule.matches(matching.decode(study.attributes.get(rule.tag)))


def _first(study: StudyEntry, tag: int, kind: Kind) -> str:
    return "".join(matching.normal_values(kind, matching.decode(study.attributes.get(tag)))[:1])
