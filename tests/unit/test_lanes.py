"""Work of one length never waits for work of another: counted with calls that do not end, not timed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator

import pytest

from pacs.dicomweb.offload import _LANES, _MOST_WAITING, Offload
from pacs.errors import BusyError

SHORT, MIDDLE, LONG = 0.001, 0.1, 2.0


@pytest.fixture
def cores() -> int:
    return 2


@pytest.fixture
async def offload(cores: int, go: threading.Event) -> AsyncIterator[Offload]:
    offload = Offload(cores)
    yield offload
    go.set()  # else it would wait for ever, after a test that failed
    offload.close()


@pytest.fixture
def go() -> threading.Event:
    """What calls that do not end wait for."""
    return threading.Event()


@pytest.mark.parametrize("blocked", [SHORT, MIDDLE, LONG])
async def test_a_lane_that_stands_still_holds_up_no_other(
    offload: Offload, go: threading.Event, blocked: float
) -> None:
    stuck = [offload.compute(blocked, go.wait) for _ in range(40)]
    others = [seconds for seconds in (SHORT, MIDDLE, LONG) if seconds != blocked]
    assert [await offload.compute(seconds, lambda: 7) for seconds in others * 20] == [7] * 40
    assert [await offload.read(lambda: 7) for _ in range(20)] == [7] * 20
    for seconds in (None, *others):
        pieces = [block async for block in offload.stream(lambda: iter([b"a", b"b"]), seconds)]
        assert pieces == [b"ab"]
    assert not any(future.done() for future in stuck)
    go.set()
    assert await asyncio.gather(*stuck) == [True] * 40


async def test_the_longest_calls_leave_half_of_the_cores(offload: Offload, go: threading.Event) -> None:
    running, most = threading.Semaphore(0), 0
    lock = threading.Lock()
    now = 0

    def call() -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        running.release()
        go.wait()
        with lock:
            now -= 1

    stuck = [offload.compute(LONG, call) for _ in range(5)]
    await offload.read(running.acquire)
    go.set()
    await asyncio.gather(*stuck)
    assert most == 1


@pytest.mark.parametrize("cores", [1, 2])
async def test_many_images_of_one_request_take_turns(offload: Offload, go: threading.Event, cores: int) -> None:
    """Of a hundred that streams want, as many as there are cores are before the one that somebody waits for; the eager
    ones have their own."""
    asked, order = asyncio.Semaphore(0), []

    async def of_a_stream(eager: bool, number: int) -> None:
        async with offload.turn(SHORT, eager):
            call = offload.compute(SHORT, lambda: go.wait() and order.append((eager, number)))
            asked.release()
            await call

    streams = [asyncio.ensure_future(of_a_stream(eager, number)) for eager in (False, True) for number in range(50)]
    for _ in range(2 * cores):
        await asked.acquire()
    assert offload.depths()["render"] == 2 * cores
    single = offload.compute(SHORT, lambda: order.append((True, -1)))
    go.set()
    await asyncio.gather(single, *streams)
    assert len(order) == 101
    for eager in (False, True):
        numbers = [number for kind, number in order if kind == eager and number >= 0]
        assert sorted(numbers) == list(range(50))
        # Of two threads one may stand still between taking a call and noting it.
        assert cores > 1 or numbers == list(range(50))
    assert cores > 1 or order.index((True, -1)) == 2


async def test_a_turn_that_is_given_up_is_the_next_ones(offload: Offload) -> None:
    async with offload.turn(LONG, False), offload.turn(LONG, False):
        waiting = asyncio.ensure_future(offload.turn(LONG, False).acquire())
        await asyncio.sleep(0)
        waiting.cancel()
    async with offload.turn(LONG, False), offload.turn(LONG, False):
        assert offload.turn(LONG, False).locked() and not offload.turn(LONG, True).locked()


async def test_a_lane_takes_no_more_than_it_can_bear(offload: Offload, go: threading.Event) -> None:
    stuck = [offload.compute(LONG, go.wait) for _ in range(_MOST_WAITING)]
    with pytest.raises(BusyError):
        offload.compute(LONG, lambda: None)
    assert await offload.compute(SHORT, lambda: 7) == 7
    go.set()
    await asyncio.gather(*stuck)
    assert await offload.compute(LONG, lambda: 7) == 7


async def test_what_fails_or_is_given_up_leaves_its_place(offload: Offload) -> None:
    def fails() -> None:
        raise ValueError

    for _ in range(3):
        with pytest.raises(ValueError):
            await offload.compute(LONG, fails)
        offload.compute(LONG, lambda: None).cancel()
    await offload.compute(LONG, lambda: None)
    await asyncio.sleep(0)
    assert offload._in_work == [0] * len(_LANES)


@pytest.mark.parametrize("seconds", [None, SHORT, LONG])
async def test_nothing_is_made_for_a_reader_that_has_left(
    offload: Offload, go: threading.Event, seconds: float | None
) -> None:
    begun, ended = threading.Event(), threading.Event()

    def pieces() -> Iterator[bytes]:
        try:
            while not go.is_set():
                begun.set()
                yield b""
        finally:
            ended.set()

    async def read() -> None:
        async for _ in offload.stream(pieces(), seconds):
            pass

    reader = asyncio.create_task(read())
    assert await asyncio.to_thread(begun.wait, 120)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert await asyncio.to_thread(ended.wait, 120)
    assert not go.is_set()
