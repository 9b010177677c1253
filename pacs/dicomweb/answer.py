"""An answer as handlers describe it: status, headers, and a body that may have its ranges asked for or be made on the
way. `sending.py` sends it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

SLICE: Final = 128 << 10
"""Bytes handed to the transport at a time: what a slow reader has not taken yet is never more than the write
buffer and one slice, so that the first bytes of the next thing it asks for are not far behind."""

Headers: TypeAlias = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of an entity: its length is known before its bytes are."""

    length: int
    load: Callable[[], Awaitable[bytes | memoryview]]
    cuts: tuple[int, ...] = ()
    """Where to cut it when it is sent in slices: at the ends of resolution levels."""


Piece: TypeAlias = bytes | Segment


@dataclass(frozen=True, slots=True)
class Entity:
    """A body that is the same bytes at every request, so that ranges of it can be asked for."""

    pieces: tuple[Piece, ...]
    length: int

    @classmethod
    def of(cls, *pieces: Piece) -> Entity:
        return cls(pieces, sum(len(piece) if isinstance(piece, bytes) else piece.length for piece in pieces))


@dataclass(frozen=True, slots=True)
class Stream:
    """A body that is made while it is sent. `length` when it is known: then ranges of it can be asked for, too, if
    the answer has a validator; what precedes a range is made and dropped."""

    blocks: AsyncIterator[bytes]
    length: int | None = None


def in_memory(body: bytes | Entity | Stream) -> int:
    """Bytes of a body that are there before it is sent."""
    if isinstance(body, bytes):
        return len(body)
    if isinstance(body, Entity):
        return sum(len(piece) for piece in body.pieces if isinstance(piece, bytes))
    return 0


def blocks_of(head: bytes, data: bytes | bytearray | memoryview) -> Iterator[bytes]:
    """A part of a stream, in slices."""
    view = memoryview(data)
    yield head + view[:SLICE]
    for start in range(SLICE, len(view), SLICE):
        yield bytes(view[start : start + SLICE])


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers and body. `vary` names the request headers that chose the representation, beside Origin."""

    status: int
    content_type: str = ""
    body: bytes | Entity | Stream = b""
    headers: Headers = ()
    etag: str = ""
    """With its quotes; "" without a validator."""
    vary: str = ""
