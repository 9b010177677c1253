"""In which order series and instances are answered: always the same, so that pages neither overlap nor leave gaps."""

from __future__ import annotations

from collections.abc import Mapping

from pacs import tags
from pacs.storage.index import matching
from pacs.storage.index.search_fields import Kind
from pacs.storage.model import InstanceEntry, SeriesEntry


def series_order(series: SeriesEntry) -> tuple[float, str]:
    """By Series Number, those without one last, then UID."""
    return _number(series.attributes, tags.SERIES_NUMBER), series.uid


def instance_order(instance: InstanceEntry) -> tuple[float, str]:
    """By Instance Number, those without one last, then UID."""
    return _number(instance.attributes, tags.INSTANCE_NUMBER), instance.descriptor.instance


def _number(attributes: Mapping[int, bytes], tag: int) -> float:
    values = matching.normal_values(Kind.NUMBER, matching.decode(attributes.get(tag)))
    try:
        return int(values[0]) if values else float("inf")
    except ValueError:
        return float("inf")
