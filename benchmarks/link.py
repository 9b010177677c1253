"""A slow, distant link on loopback: a TCP proxy with a rate, a round-trip time, stalls, and faults on demand.

    python -m benchmarks.link --to 127.0.0.1:8080 --rate 4 --rtt 50 [--stalls 1] [--listen 127.0.0.1:0]

Each direction has one token bucket that all connections share, segment by segment in turn, as flows share a line;
then half the round-trip time. A new connection pays one round trip before its first byte, as a handshake does. Of a
hundred segments `stalls` are lost: the connection's later bytes wait the round trip of the repeat, those of other
connections go on. What the link has not taken yet stays with the sender, which so feels the line and can still change
its mind about what to send first.

Not emulated: slow start and congestion windows, packet headers (about 3 %), TLS. Real links are slower than this.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import random
import socket
import struct
import sys
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias, cast

SEGMENT: Final = 1460
"""Bytes that the link carries at a time: the payload of an Ethernet frame."""
_HELD: Final = 32 << 10
"""Bytes that the link takes from a sender ahead of the line, in user space and in the kernel each."""
_UNSENT: Final = 0x894B
"""SIOCOUTQNSD of linux/sockios.h"""
_TICK: Final = 0.001
"""Seconds. Shorter waits are not worth a turn of the event loop; the bucket's clock evens them out."""

Address: TypeAlias = tuple[str, int]
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


class _Pipe(asyncio.Protocol):
    """One end of a connection: what it reads is carried to its peer over the line."""

    def __init__(self, line: _Line, pipes: set[_Pipe], opened: Callable[[_Pipe], None] | None = None) -> None:
        self.line = line
        self.peer: _Pipe | None = None
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
        self.transport.set_write_buffer_limits(high=_HELD)
        raw = self.transport.get_extra_info("socket")
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._pipes.add(self)
        if self._opened is not None:
            self._opened(self)

    def data_received(self, data: bytes) -> None:
        if self.silent or self.finished:
            return
        self._held += data
        if len(self._held) >= _HELD and not self._paused and self.transport is not None:
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
        if self._paused and len(self._held) < _HELD // 2 and self.transport is not None:
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


class _Line:
    """One direction: segments of all connections in turn, at the link's rate."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.count = Count()
        self.cut_after: tuple[int, Cut] | None = None
        self.hold_after: int | None = None
        self._random = random.Random(shape.seed)
        self._turns: deque[_Pipe] = deque()
        self._wake = asyncio.Event()
        self._clock = 0.0
        self._idle = True

    def queue(self, pipe: _Pipe) -> None:
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

    async def _carry(self, pipe: _Pipe, loop: asyncio.AbstractEventLoop) -> None:
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
                pipe.take(_HELD * 2)
                pipe.arrive(how, at)


class Link:
    """A running link to one server. Made by `open_link` or, outside of an event loop, by `link_thread`."""

    def __init__(self, to: Address, shape: Shape) -> None:
        self.to, self.shape = to, shape
        self.address: Address = ("", 0)
        """Where clients connect."""
        self.connections = 0
        """Opened so far."""
        self._up, self._down = _Line(shape), _Line(shape)
        self._source = 1
        self._pipes: set[_Pipe] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._loop = asyncio.get_running_loop()

    @property
    def up(self) -> Count:
        """What clients sent."""
        return self._up.count

    @property
    def down(self) -> Count:
        """What the server sent."""
        return self._down.count

    @property
    def url(self) -> str:
        return f"http://{self.address[0]}:{self.address[1]}"

    def now(self) -> float:
        """The clock of the counts."""
        return self._loop.time()

    def cut_after(self, count: int, how: Cut = "close") -> None:
        """Once `count` more bytes have come down, end the connection that carried the last of them."""
        self._down.cut_after = (count, how)

    def hold_after(self, count: int) -> None:
        """Once `count` more bytes have come down, nothing does until `go_on`, or until more may; what is under way
        arrives."""
        self._down.hold(count)

    def go_on(self) -> None:
        self._down.hold(None)

    def change_address(self, how: Cut = "silence") -> None:
        """What happens when a laptop changes networks: open connections are dead, new ones come from elsewhere."""
        self._source = self._source % 200 + 1
        for pipe in tuple(self._pipes):
            pipe.cut(how)

    def reshape(self, shape: Shape) -> None:
        """Be another link from here on; what is under way arrives as it would have."""
        self.shape = self._up.shape = self._down.shape = shape

    async def start(self, listen: Address) -> None:
        for line in (self._up, self._down):
            self._spawn(line.run())
        # Small receive buffers, inherited by connections: what the kernel takes in must not hide the rate.
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _HELD)
        listener.bind(listen)
        self._server = await self._loop.create_server(
            lambda: _Pipe(self._up, self._pipes, self._accepted), sock=listener
        )
        self.address = listener.getsockname()[:2]

    def _accepted(self, client: _Pipe) -> None:
        self.connections += 1
        self._spawn(self._connect(client))

    async def _connect(self, client: _Pipe) -> None:
        assert client.transport is not None
        client.transport.pause_reading()
        outgoing = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            outgoing.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _HELD)
            if self._source > 1:
                outgoing.bind((f"127.0.0.{self._source}", 0))
            outgoing.setblocking(False)
            await self._loop.sock_connect(outgoing, self.to)
            await asyncio.sleep(self.shape.rtt)
            server = _Pipe(self._down, self._pipes)
            server.peer, client.peer = client, server
            await self._loop.create_connection(lambda: server, sock=outgoing)
        except (OSError, asyncio.CancelledError):
            outgoing.close()
            client.transport.close()
            return
        if not client.transport.is_closing():
            client.transport.resume_reading()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        for pipe in tuple(self._pipes):
            pipe.cut("reset")
        await asyncio.sleep(0)  # transports close their sockets in the next turn


async def open_link(to: Address, shape: Shape, listen: Address = ("127.0.0.1", 0)) -> Link:
    """A link to a server on this machine, listening. The caller closes it."""
    link = Link(to, shape)
    await link.start(listen)
    return link


class ThreadedLink:
    """A link that runs in a thread of its own, for callers without an event loop."""

    def __init__(self, link: Link, loop: asyncio.AbstractEventLoop) -> None:
        self._link, self._loop = link, loop
        self.url, self.address = link.url, link.address

    @property
    def up(self) -> Count:
        return self._link.up

    @property
    def down(self) -> Count:
        return self._link.down

    @property
    def connections(self) -> int:
        return self._link.connections

    def now(self) -> float:
        return self._link.now()

    def cut_after(self, count: int, how: Cut = "close") -> None:
        self._loop.call_soon_threadsafe(self._link.cut_after, count, how)

    def hold_after(self, count: int) -> None:
        self._loop.call_soon_threadsafe(self._link.hold_after, count)

    def go_on(self) -> None:
        self._loop.call_soon_threadsafe(self._link.go_on)

    def reshape(self, shape: Shape) -> None:
        self._loop.call_soon_threadsafe(self._link.reshape, shape)

    def change_address(self, how: Cut = "silence") -> None:
        self._loop.call_soon_threadsafe(self._link.change_address, how)


@contextlib.contextmanager
def link_thread(to: Address, shape: Shape, listen: Address = ("127.0.0.1", 0)) -> Iterator[ThreadedLink]:
    """`with link_thread(("127.0.0.1", 8080), Shape(4e6, 0.05)) as link:` … `link.url`."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="link", daemon=True)
    thread.start()
    try:
        link = asyncio.run_coroutine_threadsafe(open_link(to, shape, listen), loop).result(120)
        try:
            yield ThreadedLink(link, loop)
        finally:
            asyncio.run_coroutine_threadsafe(link.close(), loop).result(120)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(120)
        loop.close()


def _address(text: str) -> Address:
    host, _, port = text.rpartition(":")
    host = host or "127.0.0.1"
    if not port.isdigit() or not (host == "localhost" or host.startswith("127.")):
        raise argparse.ArgumentTypeError(f"{text} is not HOST:PORT on this machine")
    return host.replace("localhost", "127.0.0.1"), int(port)


async def _run(to: Address, shape: Shape, listen: Address) -> None:
    link = await open_link(to, shape, listen)
    print(f"{link.url} is a link to {to[0]}:{to[1]}; Ctrl-C ends it", flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        await link.close()
        for name, count in (("down", link.down), ("up", link.up)):
            seconds = count.last - count.first
            rate = count.bytes * 8 / seconds / 1e6 if seconds else 0.0
            print(f"{name}: {count.bytes} bytes in {seconds:.2f} s, {rate:.2f} Mbit/s, {count.stalls} stalls")


def main() -> int:
    """`python -m benchmarks.link`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.link", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--to", type=_address, required=True, metavar="HOST:PORT", help="the server behind the link")
    parser.add_argument("--listen", type=_address, default=("127.0.0.1", 0), metavar="HOST:PORT")
    parser.add_argument("--rate", type=float, default=4.0, help="Mbit/s each way, 0: no limit (default: %(default)s)")
    parser.add_argument("--rtt", type=float, default=50.0, help="milliseconds there and back (default: %(default)s)")
    parser.add_argument("--stalls", type=float, default=0.0, help="percent of segments lost (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="which segments are lost (default: %(default)s)")
    given = parser.parse_args()
    shape = Shape(given.rate * 1e6, given.rtt / 1e3, given.stalls / 100, seed=given.seed)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_run(given.to, shape, given.listen))
    return 0


if __name__ == "__main__":
    sys.exit(main())
