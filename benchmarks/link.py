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
import socket
import sys
import threading
from collections.abc import Coroutine, Iterator
from typing import Any, TypeAlias

from benchmarks.line import HELD, Count, Cut, Line, Pipe, Shape

__all__ = ["Address", "Count", "Cut", "Link", "Shape", "ThreadedLink", "link_thread", "open_link"]

Address: TypeAlias = tuple[str, int]


class Link:
    """A running link to one server. Made by `open_link` or, outside of an event loop, by `link_thread`."""

    def __init__(self, to: Address, shape: Shape) -> None:
        self.to, self.shape = to, shape
        self.address: Address = ("", 0)
        """Where clients connect."""
        self.connections = 0
        """Opened so far."""
        self._up, self._down = Line(shape), Line(shape)
        self._source = 1
        self._pipes: set[Pipe] = set()
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
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, HELD)
        listener.bind(listen)
        self._server = await self._loop.create_server(
            lambda: Pipe(self._up, self._pipes, self._accepted), sock=listener
        )
        self.address = listener.getsockname()[:2]

    def _accepted(self, client: Pipe) -> None:
        self.connections += 1
        self._spawn(self._connect(client))

    async def _connect(self, client: Pipe) -> None:
        assert client.transport is not None
        client.transport.pause_reading()
        outgoing = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            outgoing.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, HELD)
            if self._source > 1:
                outgoing.bind((f"127.0.0.{self._source}", 0))
            outgoing.setblocking(False)
            await self._loop.sock_connect(outgoing, self.to)
            await asyncio.sleep(self.shape.rtt)
            server = Pipe(self._down, self._pipes)
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
