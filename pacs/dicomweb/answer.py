"""An answer as handlers describe it: status, headers, and a body that may have its ranges asked for or be made on the
way. `sending.py` sends it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

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
