"""Content negotiation: `Accept` -> what the client takes, best first (PS3.18 8.3.3, 8.7; RFC 9110 12.5)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final, TypeAlias

from aiohttp.web import BaseRequest

from pacs import uids
from pacs.dicomweb import rungs
from pacs.errors import NotAcceptableError, RequestError

DICOM: Final = "application/dicom"
DICOM_JSON: Final = "application/dicom+json"
DICOM_XML: Final = "application/dicom+xml"
OCTET_STREAM: Final = "application/octet-stream"
MULTIPART: Final = "multipart/related"

_MAX_LENGTH: Final = 8192
_MOST_RANGES: Final = 100
"""In one `Accept`: each is compared with each."""
# A quotation that nobody ends goes on to the end: to look for another reading would take quadratic time.
_ITEM = re.compile(r'(?:[^,"]++|"(?:[^"\\]|\\.)*+(?:"|\\?\Z))++', re.DOTALL)
_PARAMETER = re.compile(r';\s*([^\s;="]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;"]*)')
_WEIGHT = re.compile(r"-?(?:\d++\.?\d*+|\.\d++)", re.ASCII)
_MEDIA_TYPE = re.compile(r"[!#$%&'*+.^_`|~\w-]+/[!#$%&'*+.^_`|~\w-]+", re.ASCII)


EITHER: Final = (True, False)
PARTS: Final = (True,)
ALONE: Final = (False,)
"""Ways to send something, best first: True is in parts of a multipart, False is alone."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One media range of an `Accept`."""

    media_type: str
    """Of one part; `*/*`, `image/*` are possible."""
    multipart: bool | None
    """True: `multipart/related`, False: one part, None (for `*/*`): whichever the resource prefers."""
    transfer_syntaxes: tuple[str, ...] = ()
    """UIDs, or `*` for what is stored; () when none is named."""
    quality: float = 1.0
    limits: tuple[Choice, ...] = ()
    """The ranges beside it of less quality: what one of them says more specifically is not taken by this one."""

    def takes(self, media_type: str, transfer_syntax: str) -> bool:
        """Whether a part of this type and Transfer Syntax is within the range.

        Viewers write `application/octet-stream` for bytes of any kind and mean the syntax they name, or with `*`
        what is stored. Without a syntax it is PS3.18's: native.
        """
        named = "*" in self.transfer_syntaxes or transfer_syntax in self.transfer_syntaxes
        if self.media_type == OCTET_STREAM:
            return named or (not self.transfer_syntaxes and media_type == OCTET_STREAM and _native(transfer_syntax))
        return _within(media_type, self.media_type) and (named or not self.transfer_syntaxes)

    def sends(self, media_type: str, transfer_syntax: str, ways: Sequence[bool] = EITHER) -> bool | None:
        """The first of `ways` in which the range takes this; None when it does in none."""
        return self.way(media_type, transfer_syntax, ways) if self.takes(media_type, transfer_syntax) else None

    def sends_type(self, media_type: str, ways: Sequence[bool] = EITHER) -> bool | None:
        """The same, whatever the Transfer Syntax."""
        return self.way(media_type, "", ways) if _within(media_type, self.media_type) else None

    def way(self, media_type: str, transfer_syntax: str, ways: Sequence[bool]) -> bool | None:
        """The first of `ways` that the range has, and that no other forbids for this, which it is known to take."""
        for several in ways:
            if self.multipart in (None, several) and not self._limited(media_type, transfer_syntax, several):
                return several
        return None

    def refuses(self, transfer_syntax: str) -> bool:
        """Whether a range beside it names this Transfer Syntax with quality 0."""
        return any(not other.quality and transfer_syntax in other.transfer_syntaxes for other in self.limits)

    def _limited(self, media_type: str, transfer_syntax: str, several: bool) -> bool:
        if not self.limits:
            return False
        own = self._rank(media_type, transfer_syntax, several) or _UNDER_ANY_NAME
        # Who takes what is stored under another name has no order among names, but may refuse one.
        of_this_name = _within(media_type, self.media_type)
        return any(
            rank > own
            for other in self.limits if of_this_name or not other.quality
            for rank in (other._rank(media_type, transfer_syntax, several),) if rank is not None
        )  # fmt: skip

    def _rank(self, media_type: str, transfer_syntax: str, several: bool) -> _Rank | None:
        """How specifically the range speaks of this; None when it does not.

        What has quality 0 is not understood, be it alone or in parts.
        """
        if self.multipart not in (None, several) and (self.multipart or self.quality):
            return None
        by_uid = transfer_syntax in self.transfer_syntaxes
        within = _within(media_type, self.media_type)
        if not within and not (self.media_type == OCTET_STREAM and by_uid):
            return None
        if self.transfer_syntaxes and not by_uid and "*" not in self.transfer_syntaxes:
            return None
        of_syntax = 0 if not self.transfer_syntaxes else 2 if by_uid else 1
        return self._of_type if within else 1, of_syntax, int(self.multipart is True)

    @property
    def highest_rank(self) -> _Rank:
        """That of what it speaks of most specifically. RFC 9110 12.5.1"""
        syntaxes = self.transfer_syntaxes
        of_syntax = 0 if not syntaxes else 1 if set(syntaxes) == {"*"} else 2
        return self._of_type, of_syntax, int(self.multipart is True)

    @property
    def _of_type(self) -> int:
        """`*/*`, `multipart/related` with parts of any type, `image/*`, `image/jphc`: each says more than the last."""
        if self.media_type == "*/*":
            return int(self.multipart is True)
        return 2 if self.media_type.endswith("/*") else 3


_Rank: TypeAlias = tuple[int, int, int]
"""Of a media range: by type, by Transfer Syntax, as multipart."""
_UNDER_ANY_NAME: Final = (1, 1, 1)


def _native(transfer_syntax: str) -> bool:
    return not uids.transfer_syntax(transfer_syntax).encapsulated


def _within(media_type: str, media_range: str) -> bool:
    media_type = media_type.lower()  # as ranges are read: video/H265 has capitals. RFC 9110 8.3.1
    if media_range == "*/*" or media_type == media_range:
        return True
    return media_range.endswith("/*") and media_type.startswith(media_range[:-1])


ANYTHING: Final = (Choice("*/*", None),)


@lru_cache(maxsize=512)
def choices(accept: str) -> tuple[Choice, ...]:
    """The media ranges of `accept` that take something, best first; an empty header takes anything. RFC 9110 12.5.1

    Raises RequestError when it is too long, NotAcceptableError when nothing in it can be read.
    """
    if len(accept) > _MAX_LENGTH:
        raise RequestError(f"Accept is longer than {_MAX_LENGTH} characters")
    if not accept.strip():
        return ANYTHING
    read = [choice for item in _ITEM.findall(accept) if (choice := _choice(item)) is not None]
    if len(read) > _MOST_RANGES:
        raise RequestError(f"Accept has more than {_MOST_RANGES} media ranges")
    wanted = sorted((choice for choice in read if choice.quality > 0), key=lambda choice: -choice.quality)
    if not wanted:
        raise NotAcceptableError(f"nothing in Accept {accept[:100]!r} is a media type that can be sent")
    return tuple(replace(choice, limits=_limits(choice, read)) for choice in wanted)


def _limits(choice: Choice, beside: Iterable[Choice]) -> tuple[Choice, ...]:
    own = choice.highest_rank
    lower = (other for other in beside if other.quality < choice.quality)
    return tuple(other for other in lower if not other.quality or other.highest_rank > own)


def preferred(named: str, accept: str) -> tuple[Choice, ...]:
    """The media ranges of a query, then those of an `Accept` if there is one. Raises as `choices`. PS3.18 8.7.8.1"""
    if not accept.strip():
        return choices(named)
    try:
        first = choices(named)
    except NotAcceptableError:
        return choices(accept)
    try:
        return first + choices(accept)
    except NotAcceptableError:
        return first


def _choice(item: str) -> Choice | None:
    head, _, _ = item.partition(";")
    # `application/dicom+json` in a query whose + nobody escaped arrives with a space.
    media_type = head.strip().lower().replace(" ", "+")
    if media_type == "*":
        media_type = "*/*"
    if not _MEDIA_TYPE.fullmatch(media_type):
        return None
    part_type = ""
    syntaxes: list[str] = []
    quality = 1.0
    for match in _PARAMETER.finditer(item):
        name = match[1].lower()
        value = match[2].strip()
        if value.startswith('"'):
            value = re.sub(r"\\(.)", r"\1", value[1:-1]).strip()
        if name == "type":
            part_type = value.lower().replace(" ", "+")
        elif name == "transfer-syntax" and value:
            syntaxes.append(value)
        elif name == "q":
            quality = _quality(value)
    if media_type == MULTIPART:
        return Choice(part_type or "*/*", True, tuple(syntaxes), quality)
    if media_type == "multipart/*":
        return Choice("*/*", True, tuple(syntaxes), quality)
    if media_type.startswith("multipart/"):
        return None
    return Choice(media_type, None if media_type == "*/*" else False, tuple(syntaxes), quality)


def _quality(text: str) -> float:
    return min(max(float(text), 0.0), 1.0) if _WEIGHT.fullmatch(text) else 1.0


def single(accept: Sequence[Choice], offered: Sequence[str]) -> str:
    """The first of `offered` (in the server's order) that the best matching choice takes as a single part.

    Raises NotAcceptableError naming what is offered. For JSON, rendered images and the like.
    """
    for choice in accept:
        for media_type in offered:
            if choice.sends_type(media_type, ALONE) is not None:
                return media_type
    raise NotAcceptableError("none of the media types in Accept can be sent", tuple(offered))


def json_type(accept: Sequence[Choice]) -> str:
    """`application/dicom+json`, or `application/json` where only that is taken. PS3.18 8.7.3.2"""
    for choice in accept:
        # Some clients ask for multipart/related; type="application/dicom+xml" first and JSON second.
        if choice.multipart is not True:
            for media_type in (DICOM_JSON, "application/json"):
                if choice.sends_type(media_type, ALONE) is not None:
                    return media_type
        elif choice.sends_type(DICOM_JSON, PARTS):
            return DICOM_JSON
    raise NotAcceptableError("none of the media types in Accept can be sent", (DICOM_JSON, "application/json"))


@lru_cache(maxsize=256)
def prefers_xml(accept: str) -> bool:
    """Whether what can be told in JSON or in XML is to be told in XML: whoever names it, before or without JSON.

    Nothing is refused: what such an answer tells has happened.
    """
    try:
        read = choices(accept)
    except (RequestError, NotAcceptableError):
        return False
    named = (choice.media_type for choice in read if choice.media_type in (DICOM_XML, DICOM_JSON, "application/json"))
    return next(named, "") == DICOM_XML


@lru_cache(maxsize=256)
def content_coding(accept_encoding: str) -> str:
    """The best content coding to send JSON in: `zstd`, `gzip` or `` (identity). RFC 9110 12.5.3"""
    weights: dict[str, float] = {}
    for item in accept_encoding[:1000].lower().split(","):
        name, _, parameters = item.strip().partition(";")
        found = re.search(r"q\s*=\s*([0-9.]+)", parameters)
        weights[name.strip()] = _quality(found[1]) if found else 1.0
    best, best_weight = "", 0.0
    for coding in ("zstd", "gzip"):
        weight = weights.get(coding, weights.get("*", 0.0))
        if weight > best_weight:
            best, best_weight = coding, weight
    return best if best_weight >= weights.get("identity", 0.0) or best_weight == 1.0 else ""


def quality(request: BaseRequest) -> int | None:
    """The query parameter `quality`: how good a frame in a lossy Transfer Syntax has to be; None without.

    Ours: PS3.18 has it for rendered images alone. 1 to 100 for JPEG, PSNR in dB for JPEG 2000. Raises RequestError.
    """
    text = rungs.only(request.query, rungs.QUALITY) if "?" in request.raw_path else None
    return None if text is None else rungs.of_value(rungs.QUALITY, text).value


def describe(media_type: str, transfer_syntaxes: Iterable[str], *, multipart: bool = True) -> tuple[str, ...]:
    """Spellings of media ranges, for the text of a 406."""
    if multipart:
        return tuple(f'multipart/related; type="{media_type}"; transfer-syntax={uid}' for uid in transfer_syntaxes)
    return tuple(f"{media_type}; transfer-syntax={uid}" for uid in transfer_syntaxes)
