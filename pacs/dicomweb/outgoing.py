"""Memory that answers hold until their readers have taken them: what is made for an answer cannot go before it."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Final

from aiohttp.web import BaseRequest

from pacs import uids
from pacs.dicomweb.offload import ByteSemaphore
from pacs.errors import BusyError
from pacs.storage.model import Encoding, InstanceEntry

_log = logging.getLogger("pacs.server")

_LITTLE: Final = 128 << 10
"""Not counted: connections hold about as much by themselves."""
_PATIENCE: Final = 10.0
"""Seconds that an answer waits for its turn."""


_STALLED: Final = 60.0
"""Seconds in which a reader has to take something, when what is held for it is wanted."""
_SOMETHING: Final = 64 << 10


@dataclass(slots=True)
class _Reader:
    """Whoever an answer is held for."""

    request: BaseRequest
    held: int = 0
    taken: int = 0
    """Bytes that had left when something was taken last."""
    since: float = 0.0
    """When that was; 0.0 before the first look."""


class Outgoing:
    """Admits answers by the memory they hold, first come first served. Stored frames are in files, and need none."""

    def __init__(self, capacity: int) -> None:
        self._memory = ByteSemaphore(capacity)
        self._reserve = capacity // 8
        self._readers: dict[int, _Reader] = {}
        """By the identity of the request, from its first `hold` to its `release`."""
        self._refused = False
        """Whether there was no room for somebody since the last look."""

    @property
    def waiting(self) -> int:
        """How many answers wait for their turn."""
        return self._memory.waiting

    async def hold(self, request: BaseRequest, size: int) -> None:
        """Wait until `size` bytes may be held for this request, before they are made. Raises BusyError."""
        more = size - self._held(request)
        if size <= _LITTLE or more <= 0:
            return
        try:
            async with asyncio.timeout(_PATIENCE):
                taken = await self._memory.acquire(more)
        except TimeoutError:
            self._refused = True
            raise _busy() from None
        self._hold(request, taken)

    def hold_made(self, request: BaseRequest, size: int) -> None:
        """The same for what is there already, so that nothing waits. Raises BusyError.

        An eighth more may be held so: lists are not refused because images wait for their readers.
        """
        more = size - self._held(request)
        if size <= _LITTLE or more <= 0:
            return
        if more > self._memory.free + self._reserve and self._memory.taken:
            self._refused = True
            raise _busy()
        self._hold(request, self._memory.take(more))

    def release(self, request: BaseRequest) -> None:
        """The answer is over, sent or not."""
        reader = self._readers.pop(id(request), None)
        if reader is not None:
            self._memory.release(reader.held)

    def look(self, now: float) -> None:
        """To be called about once a second: where somebody finds no room, those who take nothing go.

        Nothing else would ever end them: the other side of the connection lives.
        """
        wanted = self._refused or self.waiting > 0
        self._refused = False
        for reader in self._readers.values():
            transport = reader.request.transport
            buffered = transport.get_write_buffer_size() if transport is not None else 0
            taken = reader.request.writer.output_size - buffered
            # With an empty buffer it is the reader who waits.
            if not buffered or not reader.since or taken - reader.taken >= _SOMETHING:
                reader.taken, reader.since = taken, now
            elif wanted and transport is not None and now - reader.since >= _STALLED:
                _log.warning("a reader that took nothing of %d bytes for %.0f s has to go", reader.held, _STALLED)
                transport.abort()

    def _held(self, request: BaseRequest) -> int:
        reader = self._readers.get(id(request))
        return reader.held if reader is not None else 0

    def _hold(self, request: BaseRequest, taken: int) -> None:
        self._readers.setdefault(id(request), _Reader(request)).held += taken


def _busy() -> BusyError:
    return BusyError("too many large answers wait for their readers, ask again later")


def of_frame(entry: InstanceEntry) -> int:
    """Bytes of a frame of the instance that is decoded, or encoded anew."""
    geometry = entry.descriptor.geometry
    return -(-geometry.frame_bits // 8) if geometry is not None else 0


def of_instance(entry: InstanceEntry, transfer_syntax: str) -> int:
    """Bytes that are held at a time while the instance is sent in a Transfer Syntax: a frame, or a piece of it, and
    the Data Set where that is written anew."""
    descriptor = entry.descriptor
    held = _of_pixels(entry, transfer_syntax)
    if transfer_syntax != descriptor.transfer_syntax:
        # As it came and as it goes out. What a deflated one becomes is not known before.
        held += 2 * max(0, descriptor.file_size - (0 if descriptor.whole_file else descriptor.value_length))
    return held


def _of_pixels(entry: InstanceEntry, transfer_syntax: str) -> int:
    descriptor = entry.descriptor
    key = descriptor.array_key
    if key is None:
        return 0
    if key.encoding is Encoding.NATIVE:
        return key.chunk_bytes
    if key.encoding is Encoding.ENCAPSULATED and transfer_syntax == descriptor.transfer_syntax:
        return 0
    stored = uids.HTJ2K_LOSSLESS_RPCL if key.encoding is Encoding.HTJ2K else descriptor.transfer_syntax
    return 0 if transfer_syntax == stored else of_frame(entry)
