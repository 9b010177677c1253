"""Links that break, stall and move: the client goes on with what it has and shows nothing as final that is not."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from benchmarks.link import Cut, Link, Shape, open_link
from pacs import demo
from pacs.client import AsyncClient, Client, FrameView, Patience
from pacs.errors import UnreachableError
from tests.conftest import Server, StartServer

PATIENCE = Patience(connect=60, answer=60, stall=60, total=180, pause=0.01, longest_pause=0.1)
"""Where a broken connection says so, nobody has to be impatient."""
IMPATIENT = Patience(connect=3, answer=3, stall=3, total=180, pause=0.01, longest_pause=0.1)
"""Where it does not. Also of a busy machine's process, which is then given up as well."""
COUNT = 9
HEADS = 1500
"""Bytes of the head of an answer, and of the head of a part."""
WINDOW = 64 << 10
"""Bytes that may be under way."""


class Series:
    def __init__(self, name: str, rows: int = 130) -> None:
        self.files = list(demo.head_slices(COUNT, rows=rows, name=name))
        data = [pydicom.dcmread(io.BytesIO(file)) for file in self.files]
        self.study: str = data[0].StudyInstanceUID
        self.uid: str = data[0].SeriesInstanceUID
        self.whole: dict[str, NDArray[np.generic]] = {one.SOPInstanceUID: one.pixel_array for one in data}
        self.images: dict[tuple[str, str], NDArray[np.generic]] = {}
        """Every image of an undisturbed reading, by instance and rung."""
        self.longest = 0
        """Bytes of the longest frame."""

    def read(self, url: str) -> None:
        with Client(url) as client:
            client.store(self.files)
            for rungs in (["level:1", "level:2", "level:3", "lossless"], ["level:4", "quality:40", "lossless"]):
                for view in client.series_stream(self.study, self.uid, rungs=rungs):
                    self.images[view.instance, view.rung] = view.array
            self.longest = max(frame.length or 0 for frame in client.index(self.study, self.uid).frames)

    def check(self, views: list[FrameView]) -> None:
        """Every image is that of an undisturbed reading, and what is called final is what was uploaded."""
        finals = []
        for view in views:
            assert np.array_equal(view.array, self.images[view.instance, view.rung]), (view.position, view.rung)
            assert view.final == (view.rung == "lossless")
            if view.final:
                finals.append(view.instance)
                assert np.array_equal(view.array, self.whole[view.instance])
        assert sorted(finals) == sorted(self.whole)


@pytest.fixture(scope="module")
def series(server: Server) -> Series:
    found = Series("client faults")
    found.read(server.url)
    return found


@contextlib.asynccontextmanager
async def linked(
    server: Server, shape: Shape | None = None, patience: Patience = PATIENCE
) -> AsyncIterator[tuple[Link, AsyncClient]]:
    split = urlsplit(server.url)
    link = await open_link((split.hostname or "", split.port or 0), shape or Shape())
    try:
        async with AsyncClient(f"{link.url}/dicomweb", patience=patience) as client:
            yield link, client
    finally:
        await link.close()


async def stream(client: AsyncClient, series: Series, *rungs: str) -> list[FrameView]:
    wanted = rungs or ["level:2", "lossless"]
    return [view async for view in client.series_stream(series.study, series.uid, rungs=wanted)]


async def cost(server: Server, series: Series, *rungs: str) -> int:
    """Bytes that come down when nothing breaks."""
    async with linked(server) as (link, client):
        series.check(await stream(client, series, *rungs))
        return link.down.bytes


@pytest.mark.parametrize("how", ["close", "reset", "silence"])
async def test_a_stream_that_is_cut_anywhere(server: Server, series: Series, how: Cut) -> None:
    whole = await cost(server, series)

    async def cut(after: int) -> None:
        patience = IMPATIENT if how == "silence" else PATIENCE
        async with linked(server, Shape(rate=20e6), patience) as (link, client):
            link.cut_after(after, how)
            series.check(await stream(client, series))
            # The index may have to be sent again; of the frames nothing is, but for what a reset has the kernel drop,
            # and what is under way to a client that gives up a connection which only is slow.
            again = 4 * HEADS + (series.longest if how == "reset" else 0)
            again += max(0, link.connections - 4) * (WINDOW + HEADS) if how == "silence" else 0
            assert link.down.bytes <= whole + again, f"cut after {after} of {whole}"
            assert link.connections >= 2

    if how == "silence":  # each waits for the same patience
        await asyncio.gather(*(cut(after) for after in (*range(1, whole, whole // 5), whole - 1)))
    else:
        for after in (*range(1, whole, whole // 25), whole - 1):
            await cut(after)


async def test_a_stream_that_is_cut_again_and_again(server: Server, series: Series) -> None:
    whole = await cost(server, series)
    async with linked(server) as (link, client):
        views = []
        cuts = 0
        async for view in client.series_stream(series.study, series.uid, rungs=["level:2", "lossless"]):
            views.append(view)
            if len(views) % 3 == 0:
                link.cut_after(series.longest // 3, "reset" if cuts % 2 else "close")
                cuts += 1
        series.check(views)
        assert cuts >= 4
        assert link.down.bytes <= whole + cuts * 2 * HEADS


async def test_a_stream_whose_length_nobody_knows(server: Server, series: Series) -> None:
    """With lossy rungs there is no length and no Range: it goes on after the last whole part."""
    rungs = ("level:4", "quality:40", "lossless")
    whole = await cost(server, series, *rungs)
    for after in range(1, whole, whole // 12):
        async with linked(server) as (link, client):
            link.cut_after(after, "close")
            series.check(await stream(client, series, *rungs))
            assert link.down.bytes <= whole + series.longest + 4 * HEADS, f"cut after {after} of {whole}"


@pytest.mark.parametrize("how", ["silence", "reset"])
async def test_another_address(server: Server, series: Series, how: Cut) -> None:
    """A laptop that changes networks: what was open is dead, and not every dead connection says so."""
    whole = await cost(server, series)
    patience = IMPATIENT if how == "silence" else PATIENCE
    async with linked(server, Shape(rate=4e6, rtt=0.01), patience) as (link, client):
        views = []
        async for view in client.series_stream(series.study, series.uid, rungs=["level:2", "lossless"]):
            views.append(view)
            if len(views) in (2, COUNT + 3):
                link.change_address(how)
        series.check(views)
        # What was under way when the connection died was counted as sent or not at all.
        changes = max(2, link.connections - 2)
        assert link.down.bytes <= whole + changes * (WINDOW + 3 * HEADS)
        assert link.connections >= 3


async def test_a_link_that_stays_down(server: Server, series: Series) -> None:
    patient = Patience(connect=60, answer=60, stall=5, total=0.5, pause=0.01)
    async with linked(server, Shape(rate=2e6), patient) as (link, client):
        link.hold_after(20_000)  # for good, whatever connection it is
        views = []
        with pytest.raises(UnreachableError):
            async for view in client.series_stream(series.study, series.uid, rungs=["level:2", "lossless"]):
                views.append(view)
        assert views
        assert all(np.array_equal(view.array, series.images[view.instance, view.rung]) for view in views)


async def test_a_frame_that_is_cut_on_its_way(server: Server, series: Series) -> None:
    instance = next(iter(series.whole))
    async with linked(server) as (link, client):
        async for array in client.arrays(series.study, series.uid, instance):
            assert np.array_equal(array, series.whole[instance])
        before = link.down.bytes
        for after in (before - 5000, before - 2000, before - 600):
            start = link.down.bytes
            link.cut_after(after, "reset")
            async for array in client.arrays(series.study, series.uid, instance):
                assert np.array_equal(array, series.whole[instance])
            assert link.down.bytes - start <= before + 2 * HEADS


async def test_a_series_that_grows_meanwhile(server: Server) -> None:
    """Instances that arrive while a series is read are read as well, and what was here is not fetched again."""
    series = Series("client faults, growing")
    late = series.files.pop(2)
    with Client(server.url) as store:
        store.store(series.files)
    async with linked(server) as (link, client):
        async for _ in client.series_stream(series.study, series.uid, rungs=["level:2", "lossless"]):
            pass
        part = link.down.bytes * 6 // 10
    async with linked(server, Shape(rate=2e6)) as (link, client):
        views = []
        link.cut_after(part, "close")
        async for view in client.series_stream(series.study, series.uid, rungs=["level:2", "lossless"]):
            views.append(view)
            if len(views) == 1:
                async with AsyncClient(server.url) as other:
                    assert (await other.store(late)).in_order
        series.read(server.url)
        finals = {view.instance for view in views if view.final}
        assert finals == set(series.whole)
        series.check([view for view in views if view.final])
        counts = [view.count for view in views]
        assert counts == sorted(counts) and set(counts) == {COUNT - 1, COUNT}
        assert counts.count(COUNT - 1) > COUNT - 1, "of what was here before the line broke"
        whole = sum(len(file) for file in series.files)
        assert link.down.bytes < whole


async def test_a_server_that_is_killed_and_starts_again(start_server: StartServer, tmp_path: Path) -> None:
    series = Series("client faults, killed", rows=260)
    server = start_server(tmp_path / "archive", workers=1)
    series.read(server.url)
    async with linked(server, Shape(rate=10e6)) as (link, client):
        views = []
        link.hold_after(series.longest * COUNT // 2)
        async for view in client.series_stream(series.study, series.uid, rungs=["level:2", "lossless"]):
            views.append(view)
            if len(views) == COUNT + 2:
                server.kill()
                again = start_server(tmp_path / "archive", workers=1)
                split = urlsplit(again.url)
                link.to = (split.hostname or "", split.port or 0)
                link.go_on()
        series.check(views)
        assert link.connections >= 2
