"""What do many slow readers cost, and what does a fast one beside them notice?

Readers of 1 Mbit/s each take the stream of a series from one worker, over and over, from a process of their own.
Beside them one client on the loopback asks for single frames: its latency is compared with that of the same requests
before the readers came.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import socket
from collections.abc import Iterator
from multiprocessing.synchronize import Event

from benchmarks import bench_read, bench_store, machine
from benchmarks.report import Figure
from benchmarks.scale import Scale
from benchmarks.servers import Pacs
from benchmarks.workload import Instance
from pacs.bench import load

_RATE = 1e6 / 8
"""Bytes a second of one reader."""
_INTERVAL = 0.1
_RECEIVE_BUFFER = 32 << 10
"""Of a reader's socket: what the kernel takes ahead would not be memory of the server."""


async def _read_slowly(address: tuple[str, int], request: bytes, started: asyncio.Semaphore) -> None:
    loop = asyncio.get_running_loop()
    while True:
        with socket.socket() as connection:
            connection.setblocking(False)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
            await loop.sock_connect(connection, address)
            await loop.sock_sendall(connection, request)
            due = loop.time()
            while await loop.sock_recv(connection, int(_RATE * _INTERVAL)):
                started.release()
                due += _INTERVAL
                await asyncio.sleep(max(0.0, due - loop.time()))


def _readers(address: tuple[str, int], request: bytes, count: int, ready: Event) -> None:
    async def run() -> None:
        started = asyncio.Semaphore(0)
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(_read_slowly(address, request, started))
            for _ in range(2 * count):
                await started.acquire()
            ready.set()

    asyncio.run(run())


def readers(source: list[Instance], scale: Scale) -> Iterator[Figure]:
    """Latency of a fast client alone and beside the slow readers; memory of the worker with all of them."""
    with Pacs(1) as server:
        series = bench_store.prepare_series(server, source, scale)[-1]
        alone = _latency(server, series, scale)
        assert server.process is not None
        idle = machine.memory(server.process.pid)
        path = f"{server.root}/studies/{series[0].study}/series/{series[0].series}/stream"
        (request,) = load.get(path, server.host, "multipart/related").pieces
        ready = multiprocessing.Event()
        slow = multiprocessing.Process(target=_readers, args=(server.address, request, scale.readers, ready))
        slow.start()
        try:
            if not ready.wait(300):
                raise load.RequestFailedError("the slow readers did not get their first bytes")
            beside = _latency(server, series, scale)
            with_all = machine.memory(server.process.pid)
        finally:
            slow.terminate()
            slow.join()
    name = f"{scale.readers} readers of 1 Mbit/s, one worker"
    for quantile, first, second in (("median", alone.median, beside.median),
                                    ("p95", alone.quantile(0.95), beside.quantile(0.95))):  # fmt: skip
        yield Figure("readers", f"frame to a fast client, alone, {quantile}", "pacs", first, "ms", False)
        yield Figure("readers", f"frame to a fast client beside {name}, {quantile}", "pacs", second, "ms", False,
                     {"times_alone": second / first})  # fmt: skip
    yield Figure("readers", f"memory with {name}", "pacs", with_all / 1e6, "MB", False, {"idle_MB": idle / 1e6})


def _latency(server: Pacs, series: list[Instance], scale: Scale) -> load.Load:
    requests = itertools.cycle(
        load.get(bench_read.frame_path(server, instance), server.host, bench_read.STORED) for instance in series
    )
    load.run(server.address, itertools.islice(requests, len(series)))
    return load.run(server.address, requests, seconds=scale.seconds)
