"""The client library against a real server: what comes out is what went in, at every rung and on both faces."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from pacs import demo, uids
from pacs.client import AsyncClient, Client, FrameView, Patience
from pacs.client.tally import Status
from pacs.errors import AnswerError, PixelError, RemoteError, UnreachableError, UnsupportedTransferSyntaxError
from pacs.transcode.decoders import DECODERS
from tests.conftest import Server
from tests.objects import images
from tests.objects.base import Built
from tests.streams import decoders

COUNT = 7
STEADY = 3600.0
"""As `pause`: no image between two rungs. Whether there is one depends on how fast the bytes come."""


class Series:
    """A series as it was uploaded."""

    def __init__(self, files: list[bytes]) -> None:
        self.files = files
        self.data = [pydicom.dcmread(io.BytesIO(file)) for file in files]
        self.study: str = self.data[0].StudyInstanceUID
        self.uid: str = self.data[0].SeriesInstanceUID
        self.instances: list[str] = [data.SOPInstanceUID for data in self.data]
        self.arrays = {data.SOPInstanceUID: data.pixel_array for data in self.data if "PixelData" in data}


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.url) as found:
        yield found


@pytest.fixture(scope="module")
def series(server: Server) -> Series:
    found = Series(list(demo.head_slices(COUNT, rows=260, name="client library")))
    with Client(server.url) as client:
        tally = client.store(found.files)
        assert tally.files[Status.STORED] == COUNT and tally.in_order
    return found


@pytest.fixture(scope="module")
def every_kind(server: Server) -> list[Built]:
    """An image of each kind, uploaded."""
    found = [*images.natives(), *images.compressions()]
    with Client(server.url) as client:
        for built in found:
            client.store(built.file)
    return found


def test_store_takes_files_folders_and_bytes(client: Client, tmp_path: Path) -> None:
    files = list(demo.head_slices(5, rows=32, name="client store"))
    folder = tmp_path / "folder"
    folder.mkdir()
    for number, file in enumerate(files[:3]):
        (folder / f"{number}.dcm").write_bytes(file)
    (folder / "readme.txt").write_text("no image")
    results = []
    tally = client.store([folder, files[3], str(folder / "0.dcm"), b"nonsense"], report=results.append)
    assert tally.files[Status.STORED] + tally.files[Status.DUPLICATE] == 5
    assert tally.files[Status.SKIPPED] == 1 and tally.files[Status.UNREADABLE] == 1
    assert len(results) == 7
    assert client.store(files[4]).files[Status.STORED] == 1
    assert client.store(folder).files[Status.DUPLICATE] == 3


def test_refused_bytes_are_named(client: Client) -> None:
    good, other = demo.head_slices(2, rows=32, name="client refused")
    client.store(good)
    changed = pydicom.dcmread(io.BytesIO(good))
    changed.PatientComments = "something else"
    buffer = io.BytesIO()
    changed.save_as(buffer)
    tally = client.store([buffer.getvalue(), other])
    assert tally.files[Status.REFUSED] == 1 and tally.files[Status.STORED] == 1
    [(reason, group)] = tally.groups(Status.REFUSED)
    assert "0111H" in reason and str(group.first[0][0]) == "<bytes 1>"


def test_search_and_metadata(client: Client, series: Series) -> None:
    [study] = client.search("studies", {"StudyInstanceUID": series.study})
    assert study["0020000D"]["Value"] == [series.study]
    found = list(client.search("instances", study=series.study, series=series.uid, page=3))
    assert [item["00080018"]["Value"][0] for item in found] == series.instances
    metadata = client.metadata(series.study, series.uid)
    assert [item["00080018"]["Value"][0] for item in metadata] == series.instances
    [one] = client.metadata(series.study, series.uid, series.instances[2])
    assert one == metadata[2]
    assert list(client.search("studies", {"StudyInstanceUID": "1.2.3.4.5"})) == []


def test_frames_as_stored_and_decoded(client: Client, series: Series) -> None:
    for instance in series.instances[:2]:
        [frame] = client.frames(series.study, series.uid, instance)
        assert (frame.number, frame.transfer_syntax, frame.media_type) == (1, "1.2.840.10008.1.2.4.202", "image/jphc")
        assert np.array_equal(decoders.openjpeg(frame.data)[0], series.arrays[instance])
        [array] = client.arrays(series.study, series.uid, instance, [1])
        assert np.array_equal(array, series.arrays[instance]) and array.dtype == series.arrays[instance].dtype


def test_frames_of_every_kind(client: Client, every_kind: list[Built]) -> None:
    for built in every_kind:
        data = pydicom.dcmread(io.BytesIO(built.file), force=True)
        names = (data.StudyInstanceUID, data.SeriesInstanceUID, data.SOPInstanceUID)
        try:
            wanted = pydicom.pixels.pixel_array(data, raw=True)
        except (RuntimeError, AttributeError, ValueError, NotImplementedError):
            continue
        if data.get("NumberOfFrames", 1) == 1:
            wanted = wanted[np.newaxis]
        try:
            found = list(client.arrays(*names))
        except (PixelError, UnsupportedTransferSyntaxError):
            assert built.transfer_syntax not in DECODERS, built.name
            continue
        assert len(found) == len(wanted), built.name
        assert [array.dtype.kind for array in found] == [wanted.dtype.kind] * len(wanted), built.name
        # Of bits in big endian words pydicom takes the bytes as they lie; the builder says which frames are meant.
        swapped = "1 bit in words" in built.name and built.transfer_syntax == uids.EXPLICIT_VR_BIG_ENDIAN
        if swapped and built.frames is not None:
            packed = [np.packbits(array, bitorder="little").tobytes() for array in found]
            assert packed == [frame[: len(packed[0])] for frame in built.frames]
        elif uids.transfer_syntax(built.transfer_syntax).lossless:
            assert np.array_equal(np.stack(found), wanted), built.name


def test_rendered(client: Client, series: Series) -> None:
    names = (series.study, series.uid, series.instances[0])
    assert client.rendered(*names, viewport=(64, 64)).startswith(b"\xff\xd8")
    png = client.rendered(*names, 1, window=(40, 80), media_type="image/png")
    assert png.startswith(b"\x89PNG")


# --- series that sharpen --------------------------------------------------------------------------------------------


def check(views: list[FrameView], series: Series) -> None:
    """Every frame gets sharper, becomes final once, and shows what OpenJPEG makes of the bytes up to that level."""
    sharpness: dict[str, float] = {}
    for view in views:
        whole = series.arrays[view.instance]
        assert view.count == len(series.arrays) and (view.rows, view.columns) == whole.shape[:2]
        assert series.instances[view.position - 1] == view.instance and view.frame == 1
        order = 99 if view.final else int(view.rung.partition("=")[2])
        assert order > sharpness.get(view.instance, -1)
        sharpness[view.instance] = order
        if view.final:
            assert view.rung == "lossless" and np.array_equal(view.array, whole)
            assert view.array.dtype == whole.dtype
    assert set(sharpness.values()) == {99} and len(sharpness) == len(series.arrays)


def test_a_series_sharpens_from_the_middle(client: Client, series: Series) -> None:
    rungs = ["level:2", "pixels:64", "lossless"]
    views = list(client.series_stream(series.study, series.uid, rungs=rungs, pause=STEADY))
    check(views, series)
    assert [view.position for view in views[:COUNT]] == [4, 5, 3, 6, 2, 7, 1]
    by_rung = [[view.rung for view in views[start : start + COUNT]] for start in range(0, 3 * COUNT, COUNT)]
    assert by_rung == [["level=2"] * COUNT, ["level=3"] * COUNT, ["lossless"] * COUNT]
    [stored] = client.frames(series.study, series.uid, views[0].instance)
    assert np.array_equal(views[0].array, decoders.openjpeg(stored.data, 3)[0])
    assert np.array_equal(views[COUNT].array, decoders.openjpeg(stored.data, 2)[0])


def test_first_and_upscale(client: Client, series: Series) -> None:
    views = list(client.series_stream(series.study, series.uid, first=2, upscale=True, pause=STEADY))
    check(views, series)
    assert [view.position for view in views[:3]] == [2, 3, 1]
    assert {view.array.shape for view in views} == {(260, 260)}


def test_quality_before_lossless(client: Client, series: Series) -> None:
    views = list(client.series_stream(series.study, series.uid, rungs=["quality:45", "lossless"], pause=STEADY))
    lossy = [view for view in views if view.rung == "quality=45"]
    assert len(lossy) == COUNT and not any(view.final for view in lossy)
    for view in lossy:
        whole = series.arrays[view.instance].astype(float)
        error = np.square(view.array - whole).mean()
        assert view.array.shape == whole.shape
        assert error > 0 and 10 * np.log10(np.ptp(whole) ** 2 / error) > 45
    check([view for view in views if view not in lossy], series)


def test_layers_before_lossless(client: Client, series: Series) -> None:
    rungs = ["layer:2", "layer:4", "lossless"]
    views = list(client.series_stream(series.study, series.uid, rungs=rungs, pause=STEADY))
    check(views, series)
    errors: dict[str, list[float]] = {}
    for view in views:
        whole = series.arrays[view.instance].astype(float)
        assert view.array.shape == whole.shape
        errors.setdefault(view.instance, []).append(float(np.square(view.array - whole).mean()))
    for found in errors.values():
        assert found == sorted(found, reverse=True) and len(set(found)) == 3 and found[-1] == 0


def test_a_preview_alone_is_not_final(client: Client, series: Series) -> None:
    views = list(client.series_stream(series.study, series.uid, rungs=["pixels:32"], pause=STEADY))
    assert len(views) == COUNT and not any(view.final for view in views)
    assert {view.array.shape for view in views} == {(33, 33)}


def test_a_stream_that_nobody_wants_to_the_end(client: Client, series: Series) -> None:
    stream = client.series_stream(series.study, series.uid)
    assert next(stream).rung.startswith("level=")
    stream.close()
    assert len(list(client.series_stream(series.study, series.uid, pause=STEADY))) == 2 * COUNT


def test_frames_of_every_kind_become_final(client: Client, every_kind: list[Built]) -> None:
    """Multi-frame, colour, floating, other codecs: what cannot be a prefix comes once and whole."""
    for built in every_kind:
        data = pydicom.dcmread(io.BytesIO(built.file), force=True)
        names = (data.StudyInstanceUID, data.SeriesInstanceUID)
        try:
            wanted = [array.copy() for array in client.arrays(*names, data.SOPInstanceUID)]
        except (PixelError, UnsupportedTransferSyntaxError, RemoteError, AnswerError) as error:
            with pytest.raises(AnswerError):
                list(client.series_stream(*names))
            assert error.message
            continue
        final: dict[int, Any] = {}
        for view in client.series_stream(*names):
            if view.instance == data.SOPInstanceUID and view.final:
                assert view.frame not in final, built.name
                final[view.frame] = view.array
        assert sorted(final) == list(range(1, len(wanted) + 1)), built.name
        for number, array in final.items():
            assert np.array_equal(array, wanted[number - 1]), built.name


def test_objects_without_frames(client: Client) -> None:
    from tests.objects import instances

    built = instances.report()
    data = pydicom.dcmread(io.BytesIO(built.file), force=True)
    client.store(built.file)
    names = (data.StudyInstanceUID, data.SeriesInstanceUID)
    assert list(client.series_stream(*names)) == []
    with pytest.raises((AnswerError, PixelError)):
        list(client.arrays(*names, data.SOPInstanceUID))


# --- what goes wrong ------------------------------------------------------------------------------------------------


def test_what_is_not_there(client: Client, series: Series, server: Server) -> None:
    url = f"{server.url}/studies/1.2.3/metadata"
    with pytest.raises(RemoteError) as caught:
        client.metadata("1.2.3")
    assert caught.value.status == 404 and caught.value.url == url
    assert caught.value.problem["code"] == "ARC-01" and url in caught.value.message
    for call in (
        lambda: list(client.series_stream("1.2.3", "4.5")),
        lambda: list(client.frames(series.study, series.uid, series.instances[0], [2])),
        lambda: client.index("1.2.3", "4.5"),
    ):
        with pytest.raises(RemoteError) as caught:
            call()
        assert caught.value.status == 404
    with pytest.raises(ValueError, match="no rung"):
        client.series_stream(series.study, series.uid, rungs=["sharp"])


def test_a_server_that_is_not_there() -> None:
    with Client("http://127.0.0.1:9/dicomweb") as client, pytest.raises(UnreachableError, match="nobody answers"):
        client.metadata("1.2.3")


def test_a_closed_client_leaves_nothing_behind(server: Server, series: Series) -> None:
    before = set(threading.enumerate())
    with Client(server.url) as client:
        stream = client.series_stream(series.study, series.uid)
        next(stream)
    client.close()
    stream.close()
    assert {thread for thread in threading.enumerate() if thread.name == "pacs client"} <= before


def test_several_threads(client: Client, series: Series) -> None:
    found: list[list[FrameView]] = []

    def read() -> None:
        found.append(list(client.series_stream(series.study, series.uid)))

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    for views in found:
        check(views, series)


async def test_the_asynchronous_face(server: Server, series: Series) -> None:
    async with AsyncClient(server.url, patience=Patience(total=180)) as client:
        assert [item async for item in client.search("studies", {"StudyInstanceUID": series.study})]
        views = [view async for view in client.series_stream(series.study, series.uid)]
        check(views, series)
        arrays = [array async for array in client.arrays(series.study, series.uid, series.instances[0])]
        assert np.array_equal(arrays[0], series.arrays[series.instances[0]])
        stream = client.series_stream(series.study, series.uid)
        await anext(stream)
        reading = asyncio.ensure_future(anext(stream))
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await stream.aclose()
        assert len(await client.metadata(series.study, series.uid)) == COUNT
