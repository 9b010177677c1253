"""One direction of an emulated link: segments of all its connections in turn, at its rate, half a round trip late.

`link` puts two of them between clients and a server.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import random
import socket
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias, cast

SEGMENT: Final = 1460
"""Bytes that the link carries at a time: the payload of an Ethernet frame."""
HELD: Final = 32 << 10
"""Bytes that the link takes from a sender ahead of the line, in user space and in the kernel each."""
_UNSENT: Final = 0x894B
"""SIOCOUTQNSD of linux/sockios.h"""
_TICK: Final = 0.001
"""Seconds. Shorter waits are not worth a turn of the event loop; the bucket's clock evens them out."""

Cut: TypeAlias = Literal["close", "reset", "silence"]
"""How a connection ends: bytes and an end, a reset, or nothing ever again, which only a timeout notices."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a link is like. `rate` 0: no limit."""

    rate: float = 0.0
    """Bits per second of payload, each way."""
    rtt: float = 0.0
    """Seconds there and back."""
    stalls: float = 0.0
    """The fraction of segments that come a round trip late."""
    burst: int = 2 * SEGMENT
    """Bytes that may leave at once after a pause."""
    seed: int = 0


@dataclass(slots=True)
class Count:
    """What went over the link in one direction. Times are those of the event loop's clock, at delivery."""

    bytes: int = 0
    """Without what a reset made the sender's kernel drop."""
    first: float = 0.0
    last: float = 0.0
    stalls: int = 0
    marks: list[tuple[float, int]] = field(default_factory=list)
    """(time, bytes until then), at most one every 10 ms."""

    def add(self, now: float, count: int) -> None:
        self.bytes += count
        self.first = self.first or now
        self.last = now
        if not self.marks or now - self.marks[-1][0] >= 0.01:
            self.marks.append((now, self.bytes))
        else:
            self.marks[-1] = (self.marks[-1][0], self.bytes)


class Pipe(asyncio.Protocol):
    """One end of a connection: what it reads is carried to its peer over the line."""

    def __init__(self, line: Line, pipes: set[Pipe], opened: Callable[[Pipe], None] | None = None) -> None:
        self.line = line
        self.peer: Pipe | None = None
        self.transport: asyncio.Transport | None = None
        self.blocked = False
        """The peer's receiver takes nothing at the moment."""
        self.silent = False
        self.finished = False
        """Carries nothing more: its cut is under way."""
        self.ended = False
        self._pipes = pipes
        self._opened = opened
        self._held = bytearray()
        self._paused = False
        self._last = 0.0
        self._under_way: deque[bytes | Cut] = deque()

    # --- asyncio's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=HELD)
        raw = self.transport.get_extra_info("socket")
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._pipes.add(self)
        if self._opened is not None:
            self._opened(self)

    def data_received(self, data: bytes) -> None:
        if self.silent or self.finished:
            return
        self._held += data
        if len(self._held) >= HELD and not self._paused and self.transport is not None:
            self._paused = True
            self.transport.pause_reading()
        self.line.queue(self)

    def eof_received(self) -> bool:
        self.ended = True
        self.line.queue(self)
        return True

    def connection_lost(self, error: Exception | None) -> None:
        self.ended = True
        self._pipes.discard(self)
        if error is not None:
            self._held.clear()
        self.line.queue(self)

    def pause_writing(self) -> None:
        if self.peer is not None:
            self.peer.blocked = True

    def resume_writing(self) -> None:
        if self.peer is not None:
            self.peer.blocked = False
            self.line.queue(self.peer)

    # --- for the line

    @property
    def waiting(self) -> bool:
        return bool(self._held) and not self.blocked and not self.silent

    def take(self, count: int) -> bytes:
        """The next segment; reading goes on when there is room again."""
        data = bytes(self._held[:count])
        del self._held[:count]
        if self._paused and len(self._held) < HELD // 2 and self.transport is not None:
            self._paused = False
            self.transport.resume_reading()
        return data

    def arrive(self, data: bytes | Cut, at: float) -> None:
        """Deliver to the peer at a time of the loop's clock, in order; `b""` is the end of the stream."""
        # The loop keeps no order among equal times: what arrives is the oldest, whichever call it was.
        self._last = max(self._last, at)
        self._under_way.append(data)
        asyncio.get_running_loop().call_at(self._last, self._deliver)

    def _deliver(self) -> None:
        data = self._under_way.popleft()
        peer = self.peer
        if isinstance(data, str):
            self.cut(data)
            return
        if self.silent or peer is None or peer.transport is None or peer.transport.is_closing():
            return
        if data:
            self.line.count.add(asyncio.get_running_loop().time(), len(data))
            peer.transport.write(data)
        elif self.transport is None or self.transport.is_closing():
            peer.transport.close()
        elif peer.transport.can_write_eof():
            with contextlib.suppress(OSError):  # the peer has just gone
                peer.transport.write_eof()

    def cut(self, how: Cut) -> None:
        """End the connection at both ends, now."""
        for end in (self, self.peer):
            if end is None or end.transport is None or end.transport.is_closing():
                continue
            if how == "silence":
                end.silent = True
                end._held.clear()
            elif how == "reset":
                raw = end.transport.get_extra_info("socket")
                if end.peer is not None:
                    end.peer.line.count.bytes -= end.transport.get_write_buffer_size() + _unsent(raw)
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.transport.abort()
            else:
                end.transport.close()


def _unsent(raw: socket.socket) -> int:
    """Bytes that wait in the kernel for room at the receiver."""
    found: int = struct.unpack("i", fcntl.ioctl(raw.fileno(), _UNSENT, bytes(4)))[0]
    return found


class Line:
    """One direction: segments of all connections in turn, at the link's rate."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.count = Count()
        self.cut_after: tuple[int, Cut] | None = None
        self.hold_after: int | None = None
        self._random = random.Random(shape.seed)
        self._turns: deque[Pipe] = deque()
        self._wake = asyncio.Event()
        self._clock = 0.0
        self._idle = True

    def queue(self, pipe: Pipe) -> None:
        if (pipe.waiting or pipe.ended) and pipe not in self._turns:
            self._turns.append(pipe)
            self._wake.set()

    def hold(self, after: int | None) -> None:
        self.hold_after = after
        self._wake.set()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            while not self._turns or self.hold_after == 0:
                self._idle = True
                self._wake.clear()
                await self._wake.wait()
            pipe = self._turns.popleft()
            if pipe.waiting:
                await self._carry(pipe, loop)
            elif pipe.ended and not pipe.blocked:
                pipe.ended = False
                pipe.arrive(b"", loop.time() + self.shape.rtt / 2)
            self.queue(pipe)

    async def _carry(self, pipe: Pipe, loop: asyncio.AbstractEventLoop) -> None:
        shape = self.shape
        size, how = SEGMENT, cast("Cut | None", None)
        if self.cut_after is not None:
            left, how = self.cut_after
            size = min(size, left)
        if self.hold_after is not None:
            size = min(size, self.hold_after)
        data = pipe.take(size)
        if self.hold_after is not None:
            self.hold_after -= len(data)
        now = loop.time()
        if shape.rate:
            if self._idle:
                self._clock = max(self._clock, now - shape.burst * 8 / shape.rate)
                self._idle = False
            # While there is something to carry, what this process sleeps too long is made up for.
            self._clock += len(data) * 8 / shape.rate
            if self._clock - now > _TICK:
                await asyncio.sleep(self._clock - now)
        at = max(self._clock, now) + shape.rtt / 2
        if shape.stalls and self._random.random() < shape.stalls:
            self.count.stalls += 1
            at += shape.rtt
        pipe.arrive(data, at)
        if how is not None and self.cut_after is not None:
            left = self.cut_after[0] - len(data)
            self.cut_after = (left, how) if left > 0 else None
            if left <= 0:
                pipe.finished = True
                pipe.take(HELD * 2)
                pipe.arrive(how, at)
