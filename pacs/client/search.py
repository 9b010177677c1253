"""Searching, page by page (QIDO-RS, PS3.18 10.6)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

from pacs.client import body, description
from pacs.client import index as indexing
from pacs.client.transport import Transport
from pacs.errors import AnswerError

Level: TypeAlias = Literal["studies", "series", "instances"]
Value: TypeAlias = str | int | float | Sequence[str]

_UIDS: Final[Mapping[str, str]] = {
    "studies": description.STUDY,
    "series": description.SERIES,
    "instances": description.INSTANCE,
}


async def search(
    transport: Transport, level: Level, match: Mapping[str, Value] | None = None, *, study: str | None = None,
    series: str | None = None, include: Sequence[str] = (), fuzzy: bool = False, limit: int | None = None,
    page: int = 500,
) -> AsyncGenerator[dict[str, Any]]:  # fmt: skip
    """See `AsyncClient.search`."""
    url_of, uid_tag = _resource(level, study, series), _UIDS[level]
    query = {name: _text(value) for name, value in (match or {}).items()}
    if include:
        query["includefield"] = ",".join(include)
    if fuzzy:
        query["fuzzymatching"] = "true"
    offset = 0
    last: set[str] = set()
    while limit is None or offset < limit:
        wanted = page if limit is None else min(page, limit - offset)
        url = transport.url(*url_of, query={**query, "limit": str(wanted), "offset": str(offset)})
        answer = await body.read(transport, url, "application/dicom+json")
        found = indexing.json(url, answer)
        uids = {description.text(item, uid_tag) for item in found}
        if not found or uids & last:
            return  # a server that knows no offset sends the same page again
        for item in found[: limit - offset] if limit is not None else found:
            yield item
        offset += len(found)
        last = uids
        total = answer.headers.get("X-Total-Count", "")
        # A short page may be the last one, or all that the server gives at once: only the next one tells.
        if total.isascii() and total.isdigit() and offset >= int(total):
            return


def _resource(level: Level, study: str | None, series: str | None) -> list[str]:
    if level not in _UIDS:
        raise ValueError(f"{level!r} is neither studies nor series nor instances")
    if level == "studies":
        if study is not None or series is not None:
            raise ValueError("studies are searched in the whole archive")
        return ["studies"]
    if series is not None and (study is None or level == "series"):
        raise ValueError("instances of a series are named by its study and series")
    above = [] if study is None else ["studies", study] + ([] if series is None else ["series", series])
    return [*above, level]


def _text(value: Value) -> str:
    return ",".join(value) if isinstance(value, Sequence) and not isinstance(value, str) else str(value)


async def frame_numbers(transport: Transport, study: str, series: str, instance: str) -> range:
    """The numbers of all frames of an instance. Raises AnswerError for one without."""
    path = ("studies", study, "series", series, "instances", instance)
    url = transport.url(*path, "metadata")
    found = indexing.json(url, await body.read(transport, url, "application/dicom+json"))
    count = description.frame_count(found[0]) if found else 0
    if not 0 < count <= indexing.MOST_FRAMES:
        raise AnswerError(url, f"an instance of {count} frames")
    return range(1, count + 1)
