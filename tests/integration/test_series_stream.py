"""The series stream at its edges: codestreams that share a Transfer Syntax, thousands of frames, images in turn."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest

from tests.conftest import Server, StartServer
from tests.integration.exchange import Client, Stored
from tests.objects import images, instances
from tests.objects.base import encapsulated, even, write

JPEG_2000 = "1.2.840.10008.1.2.4.90"


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Client]:
    client = Client(server)
    yield client
    client.close()


def decibels(decoded: np.ndarray[Any, Any], original: np.ndarray[Any, Any]) -> float:
    error = np.mean((decoded.astype(float) - original) ** 2)
    return float(20 * np.log10(np.ptp(original.astype(float))) - 10 * np.log10(error)) if error else np.inf


def test_bytes_of_two_codestreams_never_meet(client: Client) -> None:
    """Two qualities are both .203, and a frame stored as .90 has layers in another .90: each begins at its byte 0."""
    stored = Stored(images.compressed(JPEG_2000, 2, rows=160, columns=128, name="two codestreams").file)
    client.store(stored.file)
    originals = [images.pattern(160, 128, 12, number=number) for number in range(2)]
    url = f"{stored.series}/stream?rungs=level:2,quality:30,quality:45,layer:1,layer:3,lossless"
    parts = client.get(url).parts
    assert [header["Rung"] for header, _ in parts] == [
        rung for rung in ("level=2", "quality=30", "quality=45", "layer=1", "layer=3", "lossless") for _ in originals
    ]
    held: dict[tuple[str, str], tuple[bytes, int]] = {}
    for header, data in parts:
        numbers = header["Content-Range"].removeprefix("bytes ").replace("/", "-").split("-")
        start, last, total = map(int, numbers)
        key = (header["Frame"], header["Content-Type"])
        before, length = held[key] if start else (b"", total)
        assert (len(before), length, last + 1 - start) == (start, total, len(data))
        held[key] = (before + data, total)
        original = originals[int(header["Frame"]) - 1]
        if header["Rung"].startswith("quality"):
            wanted = int(header["Rung"].partition("=")[2])
            assert len(data) == total and decibels(imagecodecs.htj2k_decode(data), original) >= wanted
    for number, original in enumerate(originals, 1):
        whole, length = held[str(number), f"image/jp2; transfer-syntax={JPEG_2000}"]
        assert len(whole) == length and np.array_equal(imagecodecs.jpeg2k_decode(whole), original)
    for after in range(len(parts)):
        assert client.get(f"{url}&after={after}").parts == parts[after:]


@pytest.mark.parametrize(
    ("syntax", "rungs"),
    [
        ("1.2.840.10008.1.2.4.203", "level:1,quality:40,lossless"),
        (JPEG_2000, "level:1,layer:1,level:2,layer:2"),
        (JPEG_2000, "layer:2,level:1,lossless"),
    ],
)
def test_a_buffer_for_each_transfer_syntax_is_enough(client: Client, syntax: str, rungs: str) -> None:
    """Where the codestream that arrived has the Transfer Syntax of one that is made, what is continued begins anew."""
    picture = images.pattern(160, 128, 12)
    encoded = (
        imagecodecs.jpeg2k_encode(picture, level=0, reversible=True, codecformat="J2K") if syntax == JPEG_2000
        else imagecodecs.htj2k_encode(picture, level=0.01, reversible=False)
    )  # fmt: skip
    ds = images.image(f"one buffer {rungs}", picture.shape, allocated=16, stored=12)
    stored = Stored(write(ds, syntax, tail=encapsulated([[even(bytes(encoded))]])))
    client.store(stored.file)
    held: dict[str, tuple[int, int]] = {}
    for header, data in client.get(f"{stored.series}/stream?rungs={rungs}").parts:
        numbers = header["Content-Range"].removeprefix("bytes ").replace("/", "-").split("-")
        start, _, total = map(int, numbers)
        assert start == 0 or held[header["Content-Type"]] == (start, total), header
        held[header["Content-Type"]] = (start + len(data), total)


def test_thousands_of_frames(client: Client) -> None:
    built = images.long_multi_frame(3000)
    stored = Stored(built.file)
    client.store(stored.file)
    whole = client.get(f"{stored.series}/stream?rungs=pixels:64,lossless&first=1")
    assert int(whole.headers["content-length"]) == len(whole.body)
    assert [data for _, data in whole.parts] == list(built.frames)
    rest = client.get(f"{stored.series}/stream?rungs=pixels:64,lossless&first=1&after=2990")
    assert int(rest.headers["content-length"]) == len(rest.body)
    assert rest.parts == whole.parts[2990:]


def test_pages_of_other_origins_may_read_what_a_stream_says_of_itself(client: Client) -> None:
    stored = Stored(images.compressed(JPEG_2000, name="read elsewhere").file)
    client.store(stored.file)
    reply = client.get(f"{stored.series}/stream", Origin="http://localhost:5173")
    exposed = {name.strip().lower() for name in reply.headers["access-control-expose-headers"].split(",")}
    assert {"series-state", "series-frames", "series-receiving", "etag", "content-range"} <= exposed
    assert {name for name in reply.headers if name.startswith("series-")} <= exposed


@pytest.mark.parametrize("query", ["level=1&level=2", "pixels=9&level=1", "layer=1&layer=1", "quality=40&quality=90"])
def test_two_rungs_of_one_frame_are_refused(client: Client, query: str) -> None:
    stored = Stored(images.compressed(JPEG_2000, name="two rungs").file)
    client.store(stored.file)
    assert client.get(f"{stored.path}/frames/1?{query}").status == 400


def test_a_range_is_for_get_alone(client: Client) -> None:
    """RFC 9110 14.2"""
    stored = Stored(images.compressed(JPEG_2000, name="ranges").file)
    client.store(stored.file)
    for path in (f"{stored.series}/stream", f"{stored.path}/frames/1", f"{stored.path}/frames/1?level=1"):
        whole = client.get(path)
        head = client.request("HEAD", path, {"Range": "bytes=3-9"})
        assert (head.status, head.headers["content-length"]) == (200, str(len(whole.body)))
        assert client.get(path, Range="bytes=3-9").body == whole.body[3:10]


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.107", "1.2.840.10008.1.2.4.102"])
def test_the_media_type_that_the_index_names_brings_the_frame(client: Client, syntax: str) -> None:
    stored = Stored(instances.video(syntax).file)
    client.store(stored.file)
    index = client.get(f"{stored.series}/progressive").json
    for frame in index["frames"]:
        reply = client.get(f"{stored.series}/{frame['url']}", f"{frame['mediaType']}; transfer-syntax=*")
        assert reply.status == 200 and len(reply.body) == frame["length"]


def test_a_frame_that_rots_costs_itself_alone(start_server: StartServer, archive_dir: Path) -> None:
    """Though where its levels end is found only by reading it."""
    files = [images.compressed(JPEG_2000, rows=40 + number, name=f"damage {number}") for number in range(3)]
    bad = Stored(files[1].file)
    together = [in_series(built.file, Stored(files[0].file)) for built in files]
    client = Client(start_server(archive_dir, workers=1))
    client.store(*together)
    assert files[1].frames is not None
    hurt(archive_dir, files[1].frames[0])
    url = Stored(together[0]).series
    index = client.get(f"{url}/progressive").json
    assert len(index["frames"]) == 3
    for frame in index["frames"]:
        damaged = frame["instance"] == bad.data.SOPInstanceUID
        assert (frame["length"] is None) == damaged
        reply = client.get(f"{url}/{frame['url']}", "image/jp2; transfer-syntax=*")
        assert reply.status == (500 if damaged else 200)
    client.close()


def in_series(file: bytes, of: Stored) -> bytes:
    data = pydicom.dcmread(io.BytesIO(file))
    data.StudyInstanceUID, data.SeriesInstanceUID = of.data.StudyInstanceUID, of.data.SeriesInstanceUID
    out = io.BytesIO()
    data.save_as(out)
    return out.getvalue()


def hurt(archive: Path, frame: bytes) -> None:
    """Turn a bit in the first copy of `frame` below `archive`."""
    for path in (archive / "studies").rglob("*"):
        at = path.read_bytes().find(frame) if path.is_file() else -1
        if at >= 0:
            with path.open("r+b") as file:
                file.seek(at + len(frame) // 2)
                file.write(bytes([frame[len(frame) // 2] ^ 1]))
            return
    raise AssertionError("the frame is not there")


def test_an_archive_put_back_from_a_backup_has_other_states(start_server: StartServer, tmp_path: Path) -> None:
    """The second commit after the copy is not the second commit that was lost: no range, no validator joins them."""
    one = Stored(images.compressed(JPEG_2000, name="before the copy").file)
    said = []
    for name in ("lost", "new"):
        later = in_series(images.compressed(JPEG_2000, rows=64, name=f"{name} later").file, one)
        client = Client(start_server(tmp_path / name, workers=1))
        client.store(one.file)
        client.store(later)
        reply = client.get(f"{one.series}/stream")
        index = client.get(f"{one.series}/progressive")
        said.append((reply.headers["series-state"], reply.headers["etag"], index.headers["etag"]))
        client.close()
    assert not set(said[0]) & set(said[1])
