"""Crossing between the event loop and threads, and keeping what is in work within bounds."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, Generic, ParamSpec, TypeVar

from pacs.errors import BusyError

_P = ParamSpec("_P")
_T = TypeVar("_T")

_READERS: Final = 8
"""Threads that wait for the disk; they hold the interpreter only for moments."""
_LONG: Final = 1 << 20
_GATHER: Final = 256 << 10
"""Bytes of a stream read ahead in one crossing: smaller pieces would cost a crossing each."""


_LANES: Final = ((0.03, "render"), (0.2, "encode"), (float("inf"), "transcode"))
"""(seconds that a call takes at most, name): each lane has threads of its own, so that nothing ever waits for work that
takes many times longer than itself. The cores are shared by the kernel."""
_MOST_WAITING: Final = 1000
"""Calls in a lane beyond which no more is taken on."""


class Offload:
    """Pools of threads: one that waits for the disk, and lanes that keep a core busy, by how long a call takes."""

    def __init__(self, codec_threads: int = 0, give_way: Callable[[], Awaitable[None]] | None = None) -> None:
        """`give_way` is awaited before each piece of a stream: whoever is more urgent goes first."""
        self._give_way = give_way
        cores = codec_threads or os.cpu_count() or 1
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="read")
        self._lanes = [
            # Half of the cores for the longest calls, which hold most memory as well.
            ThreadPoolExecutor(cores if most < float("inf") else -(-cores // 2), thread_name_prefix=name)
            for most, name in _LANES
        ]
        self._in_work = [0] * len(_LANES)
        self._turns = {
            (lane, eager): asyncio.Semaphore(cores) for lane in range(len(_LANES)) for eager in (True, False)
        }

    def read(self, call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> asyncio.Future[_T]:
        """Run a call that mostly waits for the disk."""
        return asyncio.wrap_future(self._readers.submit(call, *args, **kwargs))

    def decode(self, call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> asyncio.Future[_T]:
        """Run a call that decodes or draws an image of usual size; as many at a time as there are cores."""
        return self.compute(0.0, partial(call, *args, **kwargs))

    def compute(self, seconds: float, call: Callable[[], _T]) -> asyncio.Future[_T]:
        """Run a call that keeps a core busy for about so long, beside calls of its kind. Raises BusyError."""
        lane = _lane(seconds)
        if self._in_work[lane] >= _MOST_WAITING:
            raise BusyError("too many images are being made, ask again later")
        self._in_work[lane] += 1
        future = asyncio.wrap_future(self._lanes[lane].submit(call))
        future.add_done_callback(partial(self._done, lane))
        return future

    def turn(self, seconds: float, eager: bool) -> asyncio.Semaphore:
        """To be held while one of the many images is made that somebody asked for in one request.

        As many at a time as there are cores, first come first served: the lane never has more of them before an image
        that is asked for by itself. `eager` ones do not wait for the others.
        """
        return self._turns[_lane(seconds), eager]

    def depths(self) -> dict[str, int]:
        """Calls that wait or run, by the name of their lane; of those that read the disk, calls that wait."""
        named = {name: count for (_, name), count in zip(_LANES, self._in_work, strict=True)}
        return {"read": self._readers._work_queue.qsize(), **named}

    def _done(self, lane: int, _: object) -> None:
        self._in_work[lane] -= 1

    async def stream(
        self,
        source: Callable[[], Iterator[bytes | bytearray | memoryview]] | Iterator[bytes | bytearray | memoryview],
        seconds: float | None = None,
    ) -> AsyncIterator[bytes]:
        """The pieces of an iterator, or of one that is yet to be opened, joined to a size worth a crossing.

        `seconds` that making one keeps a core busy; None when they are only read from the disk. When the reader leaves,
        no piece is begun any more.
        """
        run = self.read if seconds is None else partial(self.compute, seconds)
        pieces = _cut(await run(source) if callable(source) else source)
        left = threading.Event()
        try:
            while True:
                if self._give_way is not None:
                    await self._give_way()
                block = await run(partial(_gather, pieces, left))
                if not block:
                    return
                yield block
        finally:
            left.set()

    def close(self) -> None:
        for pool in (self._readers, *self._lanes):
            pool.shutdown(wait=True, cancel_futures=True)


def _lane(seconds: float) -> int:
    return next(number for number, (most, _) in enumerate(_LANES) if seconds <= most)


def _cut(pieces: Iterator[bytes | bytearray | memoryview]) -> Iterator[bytes | bytearray | memoryview]:
    """Long pieces in shorter ones: a video is one piece, mapped and not in memory."""
    for piece in pieces:
        if len(piece) <= _LONG:
            yield piece
        else:
            view = memoryview(piece).cast("B")
            for start in range(0, len(view), _LONG):
                yield view[start : start + _LONG]


def _gather(pieces: Iterator[bytes | bytearray | memoryview], left: threading.Event) -> bytes:
    taken: list[bytes | bytearray | memoryview] = []
    size = 0
    for piece in pieces:
        taken.append(piece)
        size += len(piece)
        if size >= _GATHER or left.is_set():
            break
    return b"".join(taken)


class ByteSemaphore:
    """Admits work by the memory it will hold, first come first served.

    Work larger than the whole capacity is admitted alone: refusing it for ever would be worse.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = max(1, capacity)
        self._free = self._capacity
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def free(self) -> int:
        return self._free

    @property
    def taken(self) -> int:
        return self._capacity - self._free

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return len(self._waiting)

    async def acquire(self, wanted: int) -> int:
        """Wait for `wanted` bytes; what was taken, to be given to `release`."""
        taken = min(max(0, wanted), self._capacity)
        if not self._waiting and taken <= self._free:
            self._free -= taken
            return taken
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((taken, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release(taken)
            else:
                self._waiting.remove((taken, turn))
                self._admit()
            raise
        return taken

    def take(self, wanted: int) -> int:
        """The same for what is there already: before whoever waits, and even if there is no room for it."""
        taken = min(max(0, wanted), self._capacity)
        self._free -= taken
        return taken

    def release(self, taken: int) -> None:
        self._free += taken
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._free:
            taken, turn = self._waiting.popleft()
            if not turn.done():
                self._free -= taken
                turn.set_result(None)


class Once(Generic[_T]):
    """Concurrent askers for one thing share one making of it."""

    def __init__(self) -> None:
        self._running: dict[Hashable, asyncio.Task[_T]] = {}

    async def __call__(self, key: Hashable, make: Callable[[], Awaitable[_T]]) -> _T:
        task = self._running.get(key)
        if task is None:

            async def run() -> _T:
                return await make()

            task = asyncio.ensure_future(run())
            self._running[key] = task
            task.add_done_callback(lambda _: self._running.pop(key, None))
        # Shielded: one asker that goes away must not fail the others.
        return await asyncio.shield(task)


class ByteCache:
    """The most recently used values, within a number of bytes."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._size = 0
        self._values: OrderedDict[Hashable, bytes] = OrderedDict()
        self.hits = self.misses = 0

    def get(self, key: Hashable) -> bytes | None:
        value = self._values.get(key)
        if value is None:
            self.misses += 1
            return None
        self.hits += 1
        self._values.move_to_end(key)
        return value

    def put(self, key: Hashable, value: bytes) -> None:
        """Keep `value`, unless it would take more than a quarter of the whole."""
        if len(value) > self._capacity // 4:
            return
        old = self._values.pop(key, None)
        self._size += len(value) - (len(old) if old is not None else 0)
        self._values[key] = value
        while self._size > self._capacity:
            self._size -= len(self._values.popitem(last=False)[1])
