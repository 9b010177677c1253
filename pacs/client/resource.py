"""What a URL of a DICOMweb server names (PS3.18 10.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from yarl import URL

from pacs import uids
from pacs.errors import PacsError

_WORDS: Final = ("studies", "series", "instances", "frames")
_NAMES: Final = ("Study Instance UID", "Series Instance UID", "SOP Instance UID")


@dataclass(frozen=True, slots=True)
class Resource:
    """A study, a series, an instance or a frame."""

    root: str
    """The DICOMweb root."""
    study: str
    series: str | None = None
    instance: str | None = None
    frame: int | None = None


def http_url(url: str) -> URL:
    """`url` in its parts. Raises ValueError for what is no URL of http or https with a host."""
    try:
        parsed = URL(url)
    except ValueError as error:
        raise ValueError(f"{url}: {error}") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError(f"{url!r} is not a URL of http or https")
    return parsed


def resource(url: str) -> Resource:
    """The resource at `url`. Raises ValueError for a URL that names none."""
    parsed = http_url(url)
    if parsed.query_string:
        raise ValueError(f"{url}: a study, a series, an instance or a frame has no query")
    path = parsed.path.rstrip("/").split("/")
    start = path.index("studies") if "studies" in path else len(path)
    words, names = path[start::2], path[start + 1 :: 2]
    if not words or len(words) != len(names) or tuple(words) != _WORDS[: len(words)]:
        raise ValueError(f"{url} names no study, series, instance or frame (…/studies/1.2.3/series/…)")
    try:
        for name, word in zip(names[:3], _NAMES, strict=False):
            uids.check(name, word)
    except PacsError as error:
        raise ValueError(f"{url}: {error.message}") from None
    frame = None
    if len(names) == 4:
        if not (names[3].isascii() and names[3].isdigit() and int(names[3][:10]) > 0):
            raise ValueError(f"{url}: {names[3]!r} is not the number of a frame")
        frame = int(names[3])
    root = str(parsed.with_path("/".join(path[:start]) or "/")).rstrip("/")
    series = names[1] if len(names) > 1 else None
    instance = names[2] if len(names) > 2 else None
    return Resource(root, names[0], series, instance, frame)
