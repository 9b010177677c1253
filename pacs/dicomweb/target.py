"""Target URI -> which resource it names (PS3.18 8.3, Table 10.1-1 and following). UIDs are checked here, once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias
from urllib.parse import unquote

from pacs import uids
from pacs.errors import RequestError, UnknownResourceError

MAX_FRAMES: Final = 10_000
"""Frame numbers in one list; a longer list is more bytes of URL than HTTP servers take."""

BASE: Final = "/dicomweb"


@dataclass(frozen=True, slots=True)
class ResourceId:
    """What a URL names. `template` has no identifiers in it, so it may be logged."""

    kind: str
    """The path's fixed words joined by dots: `studies`, `study`, `study.metadata`, `instance.frames.rendered` …"""
    template: str
    study: str | None = None
    series: str | None = None
    instance: str | None = None
    frames: tuple[int, ...] = ()
    bulk: str = ""


_Node: TypeAlias = "dict[str, _Node | str]"
"""Children by path segment; `{name}` takes any segment, `*` the rest of the path; `` is the kind that ends here."""

_VIEWS: Final = ("metadata", "rendered", "thumbnail")
_FRAMES: Final[_Node] = {
    "{frames}": {"": "frames", "rendered": {"": "frames.rendered"}, "thumbnail": {"": "frames.thumbnail"}}
}
_INSTANCE: Final[_Node] = {
    "": "instance",
    **{view: {"": f"instance.{view}"} for view in _VIEWS},
    "frames": _FRAMES,
    "bulkdata": {"*": {"": "bulkdata"}},
}
_SERIES: Final[_Node] = {
    "": "series",
    "progressive": {"": "series.progressive"},
    "stream": {"": "series.stream"},
    **{view: {"": f"series.{view}"} for view in _VIEWS},
    "instances": {"": "search.instances", "{instance}": _INSTANCE},
}
_STUDY: Final[_Node] = {
    "": "study",
    **{view: {"": f"study.{view}"} for view in _VIEWS},
    "series": {"": "search.series", "{series}": _SERIES},
    "instances": {"": "search.instances"},
}
_ROOT: Final[_Node] = {
    "studies": {"": "search.studies", "{study}": _STUDY},
    "series": {"": "search.series"},
    "instances": {"": "search.instances"},
}

_NAMES: Final = {
    "study": "Study Instance UID",
    "series": "Series Instance UID",
    "instance": "SOP Instance UID",
}


def parse(path: str) -> ResourceId:
    """The resource that `path` (from `/dicomweb` on, without the query) names.

    Raises UnknownResourceError for a path that names none, UidError and RequestError for a malformed identifier.
    """
    if not path.startswith(BASE + "/"):
        raise UnknownResourceError("there is nothing at this path")
    node: _Node = _ROOT
    found: dict[str, str] = {}
    template = [BASE]
    segments = path[len(BASE) + 1 :].removesuffix("/").split("/")
    if "%" in path:
        segments = [unquote(segment) for segment in segments]  # `1%2E2` is `1.2`. RFC 3986 6.2.2.2
    for position, segment in enumerate(segments):
        child = node.get(segment) if segment and segment[0] not in "{*" else None
        word = segment
        if child is None:
            word = next((key for key in node if key[:1] in ("{", "*") and key), "")
            child = node.get(word) if word else None
        if not isinstance(child, dict):
            raise UnknownResourceError("there is nothing at this path")
        template.append(word)
        node = child
        if word == "*":
            found["bulk"] = "/".join(segments[position:])
            break
        if word[0] == "{":
            found[word[1:-1]] = segment
    kind = node.get("")
    if not isinstance(kind, str):
        raise UnknownResourceError("there is nothing at this path")
    for name, label in _NAMES.items():
        if name in found:
            uids.check(found[name], label)
    return ResourceId(
        kind,
        "/".join(template),
        found.get("study"),
        found.get("series"),
        found.get("instance"),
        frame_list(found["frames"]) if "frames" in found else (),
        found.get("bulk", ""),
    )


def frame_list(text: str) -> tuple[int, ...]:
    """The numbers of a frame list such as `1,3,7`, in the order given. PS3.18 10.4.1.1.4"""
    parts = text.split(",")
    if len(parts) > MAX_FRAMES:
        raise RequestError(f"a frame list may have {MAX_FRAMES} entries, this one has {len(parts)}")
    numbers = []
    for part in parts:
        if not (part.isascii() and part.isdigit() and len(part) <= 10) or int(part) == 0:
            raise RequestError(f"{part[:20]!r} in the frame list is not a number from 1 on")
        numbers.append(int(part))
    return tuple(numbers)
