"""Streams in which a frame has rotted, and many streams at once: what one costs, the others do not pay."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Literal

import aiohttp
import numpy as np
import pytest
import zarr
from aiohttp import web
from numpy.typing import NDArray

from pacs import demo
from pacs.archive import Archive
from pacs.client import AsyncClient, Client, FrameView, Patience
from pacs.client.fetch import Options, fetch_all
from pacs.client.resource import resource
from pacs.dicomweb.app import Dicomweb
from pacs.errors import AnswerError
from pacs.renditions import available
from pacs.settings import Settings
from pacs.storage.model import InstanceEntry
from tests.integration.exchange import Reply, Stored
from tests.objects import images
from tests.unit.origin import Asked, origin
from tests.unit.origin import Reply as Scripted

COUNT = 5
JPEG_2000 = "1.2.840.10008.1.2.4.90"
PATIENCE = Patience(connect=60, answer=60, stall=60, total=60, pause=0.01, longest_pause=0.1)


@contextlib.asynccontextmanager
async def serving(archive: Archive, settings: Settings | None = None) -> AsyncIterator[tuple[Dicomweb, str]]:
    handler = Dicomweb(archive, settings or Settings(frame_cache=0, rendition_cache=0))
    runner = web.ServerRunner(web.Server(handler))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0]
    try:
        yield handler, f"http://{host}:{port}"
    finally:
        await runner.cleanup()
        handler.close()


@pytest.fixture
def files() -> list[bytes]:
    return list(demo.head_slices(COUNT, rows=130, name="one of them rots"))


@pytest.fixture
def archive(tmp_path: Path, files: list[bytes]) -> Iterator[Archive]:
    with Archive.open(tmp_path / "archive", create=True) as archive:
        for file in files:
            archive.store(file)
        yield archive


def entry_of(archive: Archive, of: Stored) -> InstanceEntry:
    return archive.instance(of.data.StudyInstanceUID, of.data.SeriesInstanceUID, of.data.SOPInstanceUID)


def rot(archive: Archive, file: bytes) -> None:
    """Turn a bit of the instance's only frame."""
    instance = entry_of(archive, Stored(file))
    (chunk,) = archive.frame(instance, 1).chunks
    with (Path(archive.root) / chunk.path).open("r+b") as shard:
        shard.seek(chunk.offset + chunk.length // 2)
        (byte,) = shard.read(1)
        shard.seek(chunk.offset + chunk.length // 2)
        shard.write(bytes([byte ^ 1]))


@pytest.mark.parametrize("rotten", [0, 2, 4])
async def test_a_rotten_frame_costs_itself_alone(archive: Archive, files: list[bytes], rotten: int) -> None:
    """Also where it is the first of a stream whose length was told, or in its middle."""
    rot(archive, files[rotten])
    whole = {Stored(file).data.SOPInstanceUID: Stored(file).data.pixel_array for file in files}
    of = Stored(files[0]).data
    for rungs in (["pixels:32", "lossless"], ["quality:40", "lossless"]):
        async with serving(archive) as (_, url), AsyncClient(f"{url}/dicomweb", patience=PATIENCE) as client:
            views: list[FrameView] = []
            with pytest.raises(AnswerError, match=rf"1 of {COUNT} frames .* the first is {rotten + 1}: .*checksum"):
                async for view in client.series_stream(
                    of.StudyInstanceUID, of.SeriesInstanceUID, rungs=rungs, pause=3600
                ):
                    views.append(view)
        finals = [view for view in views if view.final]
        assert len(finals) == COUNT - 1 and len(views) == 2 * (COUNT - 1)
        assert all(np.array_equal(view.array, whole[view.instance]) for view in finals)


@pytest.mark.parametrize("form", ["npy", "zarr"])
async def test_an_array_without_a_rotten_frame(
    archive: Archive, files: list[bytes], tmp_path: Path, form: Literal["npy", "zarr"]
) -> None:
    """It is finished, and named so that nobody takes the empty place for an image; another run fills it."""
    rot(archive, files[3])
    data = [Stored(file).data for file in files]
    whole = np.stack([one.pixel_array for one in data])
    folder = tmp_path / "out" / data[0].StudyInstanceUID / data[0].SeriesInstanceUID
    async with serving(archive) as (_, url):
        wanted = resource(f"{url}/dicomweb/studies/{data[0].StudyInstanceUID}")
        options = Options(wanted, tmp_path / "out", form, patience=PATIENCE)
        for already in (0, COUNT - 1):
            progress = await fetch_all(options)
            assert (progress.already, progress.fetched, progress.failed) == (already, COUNT - 1 - already, 1)
            [(name, why)] = progress.failures
            assert name == f"{data[3].SOPInstanceUID}, frame 1 (index 3 of frames.incomplete.{form})"
            assert "checksum" in why
            assert {path.name for path in folder.iterdir()} == {
                f"frames.incomplete.{form}", f"frames.incomplete.{form}.json"
            }  # fmt: skip
            about = json.loads((folder / f"frames.incomplete.{form}.json").read_text())
            assert about["complete"] is False and [entry["rung"] for entry in about["frames"]].index(None) == 3
            assert about["frames"][3]["index"] == 3 and "checksum" in about["frames"][3]["error"]
            found = opened(folder / f"frames.incomplete.{form}")
            assert np.array_equal(np.delete(found, 3, 0), np.delete(whole, 3, 0)) and not found[3].any()
        rot(archive, files[3])  # the same bit again
        progress = await fetch_all(options)
        assert (progress.already, progress.fetched, progress.failed) == (COUNT - 1, 1, 0)
        assert {path.name for path in folder.iterdir()} == {f"frames.{form}", f"frames.{form}.json"}
        assert np.array_equal(opened(folder / f"frames.{form}"), whole)
        assert json.loads((folder / f"frames.{form}.json").read_text())["complete"] is True
        if form == "zarr":
            attributes = zarr.open_array(folder / "frames.zarr", mode="r").attrs
            assert "missing" not in attributes and len(attributes["sop-instance-uids"]) == COUNT  # type: ignore[arg-type]


def opened(path: Path) -> NDArray[np.generic]:
    return np.asarray(np.load(path) if path.suffix == ".npy" else zarr.open_array(path, mode="r")[:])


async def test_once_it_is_known_a_stream_leaves_it_out(archive: Archive, files: list[bytes]) -> None:
    rot(archive, files[COUNT // 2])  # the first frame of the stream
    path = f"/dicomweb{Stored(files[0]).series}/stream?rungs=pixels:32,lossless"
    async with serving(archive) as (_, url), aiohttp.ClientSession(url) as session:

        async def get(query: str = "") -> Reply:
            async with session.get(path + query) as reply:
                return Reply(
                    reply.status, {name.lower(): text for name, text in reply.headers.items()}, await reply.read()
                )

        refused = await get()
        assert refused.status == 500 and refused.json["code"] == "STO-02"
        found = await get()
        assert "content-length" not in found.headers and len(found.parts) == 2 * (COUNT - 1)
        for after in range(len(found.parts)):
            assert (await get(f"&after={after}")).parts == found.parts[after:]


@pytest.mark.parametrize("rungs", ["quality:30,quality:40", "quality:30,layer:1,layer:3,lossless"])
async def test_what_a_client_has_is_not_made_again(archive: Archive, files: list[bytes], rungs: str) -> None:
    """Nothing is kept of what is made here: `after` leaves out what it does without the bytes."""
    path = f"/dicomweb{Stored(files[0]).series}/stream?rungs={rungs}"
    async with serving(archive) as (handler, url), aiohttp.ClientSession(url) as session:

        async def get(query: str = "") -> Reply:
            async with session.get(path + query) as reply:
                return Reply(200, {name.lower(): text for name, text in reply.headers.items()}, await reply.read())

        found = (await get()).parts
        assert len(found) == COUNT * len(rungs.split(","))
        for after in (1, COUNT + 2, 2 * COUNT - 1, len(found) - 1):
            before = handler.service.renditions.made
            assert (await get(f"&after={after}")).parts == found[after:]
            assert handler.service.renditions.made - before == len(found) - after


async def test_what_is_there_does_not_wait_for_what_is_being_made(archive: Archive, files: list[bytes]) -> None:
    """Parts of a few hundred bytes are written together, but never later than they could be."""
    of = Stored(files[0])
    async with serving(archive, Settings()) as (handler, url), aiohttp.ClientSession(url) as session:
        async with session.get(f"/dicomweb{of.path}/frames/1?layer=1") as reply:
            assert reply.status == 200
        offload = handler.service.offload
        turn = offload.turn(available.seconds(entry_of(archive, of), JPEG_2000), True)
        held = 0
        while not turn.locked():
            await turn.acquire()
            held += 1
        async with asyncio.timeout(120), session.get(f"/dicomweb{of.series}/stream?rungs=layer:1&first=1") as reply:
            begun = await reply.content.readuntil(b"\r\n\r\n")
            assert b"Frame: 1\r\n" in begun
            for _ in range(held):
                turn.release()
            assert (await reply.read()).count(b"\r\nFrame: ") == COUNT - 1


async def test_large_native_frames_are_in_memory_once(tmp_path: Path) -> None:
    """Readers of 32-bit samples, which are unpacked to be sent, share them while they read."""
    file = images.native("dose", [np.random.default_rng(1).integers(0, 1 << 31, (1200, 1200)).astype("u4")]).file
    stored = Stored(file)
    with Archive.open(tmp_path / "archive", create=True) as archive:
        archive.store(file)
        async with serving(archive) as (handler, _):
            service = handler.service
            data = stored.data
            frame = archive.located(data.StudyInstanceUID, data.SeriesInstanceUID, data.SOPInstanceUID, 1)
            held = await asyncio.gather(*(service.read_frame(frame) for _ in range(4)))
            held.append(await service.read_frame(frame))
            assert all(bytes(one) == data.PixelData for one in held)
            assert len({np.frombuffer(one, np.uint8).ctypes.data for one in held}) == 1
            held.clear()
            async with asyncio.timeout(120):
                while service._unpacked:  # noqa: ASYNC110 - what nobody reads is let go of in turns of the loop to come
                    await asyncio.sleep(0.001)


async def test_an_index_has_its_connection_before_the_stream() -> None:
    """Streams that hold every connection would wait for their indexes until these are given up."""
    async with origin() as server:

        def answer(asked: Asked) -> Scripted:
            return Scripted(b"{}", 404 if "/metadata" in asked.path else 503)

        server.will(answer)
        async with AsyncClient(server.url, patience=Patience(total=0), connections=1) as client:
            with pytest.raises(Exception, match="503"):
                await anext(client.series_stream("1", "2"))
        assert server.asked[0].path.endswith("/progressive")


def test_closing_ends_what_other_threads_wait_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, contextlib.ExitStack() as connections:
        silent.settimeout(120)
        client = Client(f"http://127.0.0.1:{silent.getsockname()[1]}/dicomweb")
        told: list[BaseException] = []

        def read() -> None:
            try:
                next(client.series_stream("1.2", "3.4"))
            except RuntimeError as error:
                told.append(error)

        readers = [threading.Thread(target=read, daemon=True) for _ in range(2)]
        for reader in readers:
            reader.start()
        for _ in range(4):  # each asks for an index and a stream
            connections.enter_context(silent.accept()[0])
        client.close()
        for reader in readers:
            reader.join(120)
        assert len(told) == 2 and all("closed" in str(error) for error in told)
        with pytest.raises(RuntimeError, match="closed"):
            client.metadata("1.2")
