"""Memory that answers hold until their readers have taken them: what is made for an answer cannot go before it."""

from __future__ import annotations

import asyncio
from typing import Final

from aiohttp.web import BaseRequest

from pacs import uids
from pacs.dicomweb.offload import ByteSemaphore
from pacs.errors import BusyError
from pacs.storage.model import Encoding, InstanceEntry

_LITTLE: Final = 128 << 10
"""Not counted: connections hold about as much by themselves."""
_PATIENCE: Final = 10.0
"""Seconds that an answer waits for its turn."""


class Outgoing:
    """Admits answers by the memory they hold, first come first served. Stored frames are in files, and need none."""

    def __init__(self, capacity: int) -> None:
        self._memory = ByteSemaphore(capacity)
        self._reserve = capacity // 8
        self._held: dict[int, int] = {}
        """Bytes by the identity of the request, from its first `hold` to its `release`."""

    @property
    def waiting(self) -> int:
        """How many answers wait for their turn."""
        return self._memory.waiting

    async def hold(self, request: BaseRequest, size: int) -> None:
        """Wait until `size` bytes may be held for this request, before they are made. Raises BusyError."""
        more = size - self._held.get(id(request), 0)
        if size <= _LITTLE or more <= 0:
            return
        try:
            async with asyncio.timeout(_PATIENCE):
                taken = await self._memory.acquire(more)
        except TimeoutError:
            raise _busy() from None
        self._held[id(request)] = self._held.get(id(request), 0) + taken

    def hold_made(self, request: BaseRequest, size: int) -> None:
        """The same for what is there already, so that nothing waits. Raises BusyError.

        An eighth more may be held so: lists are not refused because images wait for their readers.
        """
        more = size - self._held.get(id(request), 0)
        if size <= _LITTLE or more <= 0:
            return
        if more > self._memory.free + self._reserve and self._memory.taken:
            raise _busy()
        self._held[id(request)] = self._held.get(id(request), 0) + self._memory.take(more)

    def release(self, request: BaseRequest) -> None:
        """The answer is over, sent or not."""
        held = self._held.pop(id(request), 0)
        if held:
            self._memory.release(held)


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
