"""Reading a series progressively: its index, its stream, the levels of its frames. Over real sockets."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import imagecodecs
import numpy as np
import pydicom
import pytest
import zstandard
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

from pacs import demo
from tests.conftest import Server, StartServer
from tests.integration.exchange import Client, Reply, Stored
from tests.objects import images
from tests.streams import decoders

COUNT = 9


@pytest.fixture(scope="module")
def files() -> list[bytes]:
    return list(demo.head_slices(COUNT, rows=128, name="progressive"))


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Client]:
    client = Client(server)
    yield client
    client.close()


@pytest.fixture(scope="module")
def series(client: Client, files: list[bytes]) -> str:
    client.store(*files)
    return Stored(files[0]).series


def get(client: Client, path: str, headers: dict[str, str] | None = None) -> Reply:
    return client.request("GET", path, headers)


def samples(file: bytes) -> np.ndarray[Any, Any]:
    return pydicom.dcmread(io.BytesIO(file)).pixel_array


def signed(codestream: bytes) -> bytes:
    """The codestream declared as wide and signed, so that nothing that overshoots is wrapped; for our streams alone."""
    start = codestream.index(b"\xff\x51") + 2 + 2 + 36
    return codestream[:start] + b"\x97" + codestream[start + 1 :]


def test_the_index_tells_every_frame_and_where_its_levels_end(client: Client, series: str, files: list[bytes]) -> None:
    index = get(client, f"{series}/progressive").json
    assert index["series"] == series.rpartition("/")[2] and index["receiving"] is True
    assert [frame["instance"] for frame in index["frames"]] == [
        str(pydicom.dcmread(io.BytesIO(file)).SOPInstanceUID) for file in files
    ]
    shape = index["shapes"][index["frames"][0]["shape"]]
    assert shape == {
        "rows": 128, "columns": 128, "levels": [[4, 4], [8, 8], [16, 16], [32, 32], [64, 64], [128, 128]],
        "samplesPerPixel": 1, "bitsAllocated": 16, "bitsStored": 12, "highBit": 11, "pixelRepresentation": 0,
        "planarConfiguration": 0, "photometricInterpretation": "MONOCHROME2", "floating": False,
    }  # fmt: skip
    for frame, file in zip(index["frames"], files, strict=True):
        whole = get(client, f"{series}/{frame['url']}", {"Accept": "image/jphc"})
        assert len(whole.body) == frame["length"] == frame["ends"][-1]
        assert f'"{frame["etag"]}"' == whole.headers["etag"]
        assert google_crc32c.value(whole.body) == int(frame["crc32c"], 16)
        assert np.array_equal(imagecodecs.htj2k_decode(whole.body), samples(file))
        for (rows, columns), end in list(zip(shape["levels"], frame["ends"], strict=True))[2:]:
            part = get(client, f"{series}/{frame['url']}", {"Accept": "image/jphc", "Range": f"bytes=0-{end - 1}"})
            assert part.status == 206 and len(part.body) == end
            dropped = shape["levels"].index([rows, columns]) - 5
            small = imagecodecs.htj2k_decode(signed(part.body), skipres=-dropped or None, resilient=True)
            assert small.shape == (rows, columns)
            alone = get(client, f"{series}/{frame['url']}?level={dropped + 5}", {"Accept": "image/jphc"})
            assert alone.headers["content-type"] == "image/jphc; transfer-syntax=1.2.840.10008.1.2.4.202"
            assert np.array_equal(imagecodecs.htj2k_decode(signed(alone.body)), small)


def test_the_index_is_compressed_and_has_a_validator(client: Client, series: str) -> None:
    plain = get(client, f"{series}/progressive")
    zipped = get(client, f"{series}/progressive", {"Accept-Encoding": "gzip"})
    packed = get(client, f"{series}/progressive", {"Accept-Encoding": "zstd"})
    assert gzip.decompress(zipped.body) == zstandard.decompress(packed.body) == plain.body
    assert len({reply.headers["etag"] for reply in (plain, zipped, packed)}) == 3
    again = get(client, f"{series}/progressive", {"If-None-Match": plain.headers["etag"]})
    assert again.status == 304
    assert get(client, f"{series}/progressive", {"Accept": "image/png"}).status == 406


@pytest.mark.parametrize("query", ["level=0", "level=3", "level=99", "pixels=1", "pixels=33", "pixels=4096"])
def test_a_level_is_a_resource_of_its_own(client: Client, series: str, query: str) -> None:
    frame = get(client, f"{series}/progressive").json["frames"][2]
    url = f"{series}/{frame['url']}?{query}"
    parts = get(client, url)
    assert parts.status == 200 and int(parts.headers["content-length"]) == len(parts.body)
    ((header, data),) = parts.parts
    assert header == {"Content-Type": "image/jphc; transfer-syntax=1.2.840.10008.1.2.4.202"}
    side = {"level=0": 4, "level=3": 32, "pixels=1": 4, "pixels=33": 64}.get(query, 128)
    assert imagecodecs.htj2k_decode(data).shape == (side, side)
    etag = parts.headers["etag"]
    assert parts.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert get(client, url, {"If-None-Match": etag}).status == 304
    rest = get(client, url, {"Range": "bytes=50-", "If-Range": etag})
    assert rest.status == 206 and rest.body == parts.body[50:]
    other = get(client, url, {"Accept": "image/jphc"})
    assert other.body == data and other.headers["etag"] != etag
    assert get(client, url, {"Accept": "image/jphc; transfer-syntax=1.2.840.10008.1.2.4.201"}).body == data


def test_levels_of_several_frames_come_in_parts(client: Client, series: str) -> None:
    url = f"{series}/{get(client, f'{series}/progressive').json['frames'][0]['url']}"
    reply = get(client, f"{url.removesuffix('1')}1,1?level=2")
    assert [data for _, data in reply.parts] == [get(client, f"{url}?level=2", {"Accept": "image/jphc"}).body] * 2


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("level=-1", 400), ("level=x", 400), ("level=", 400), ("pixels=1e9", 400), ("level=99999999999", 400),
        ("level=1&pixels=2", 400), ("level=1&quality=50", 400), ("layer=0", 400), ("bytes=0", 400),
        ("level=1&accept=image/png", 406), ("quality=", 400), ("quality", 400), ("pixels", 400), ("bytes=", 400),
        ("layer=", 400), ("level=&level=1", 400), ("quality=45.5", 400), ("quality=&quality=45", 400),
    ],
)  # fmt: skip
def test_a_malformed_rung_is_refused(client: Client, series: str, query: str, status: int) -> None:
    url = get(client, f"{series}/progressive").json["frames"][0]["url"]
    assert get(client, f"{series}/{url}?{query}").status == status
    if query.startswith("quality"):
        assert get(client, f"{series}/{url.removesuffix('/frames/1')}?{query}").status == status


def under_new_uids(name: str) -> Stored:
    """A file of pydicom's under UIDs of its own: other tests store the files too, some of them share UIDs."""
    data = pydicom.dcmread(str(get_testdata_file(name)))
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        setattr(data, keyword, generate_uid(entropy_srcs=[name, keyword, __name__]))
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    out = io.BytesIO()
    data.save_as(out)
    return Stored(out.getvalue())


def received(reply: Reply) -> dict[int, bytes]:
    """What a client holds of each frame, put together as the headers of the parts say."""
    held: dict[int, bytes] = {}
    for header, data in reply.parts:
        position = int(header["Frame"])
        start, end, total = map(int, header["Content-Range"].removeprefix("bytes ").replace("/", "-").split("-"))
        assert start == len(held.get(position, b"")) and end - start + 1 == len(data) and end < total
        held[position] = held.get(position, b"") + data
    return held


def test_a_stream_brings_every_frame_rung_by_rung(client: Client, series: str, files: list[bytes]) -> None:
    reply = get(client, f"{series}/stream?rungs=level:2,pixels:64,lossless&first=3")
    assert reply.status == 200 and int(reply.headers["content-length"]) == len(reply.body)
    assert reply.headers["series-receiving"] == "true"
    order = [3, 4, 2, 5, 1, 6, 7, 8, 9]
    assert [(header["Rung"], int(header["Frame"])) for header, _ in reply.parts] == [
        (rung, position) for rung in ("level=2", "pixels=64", "lossless") for position in order
    ]
    held = received(reply)
    index = get(client, f"{series}/progressive").json
    assert [len(held[position + 1]) for position in range(COUNT)] == [frame["length"] for frame in index["frames"]]
    for position, file in enumerate(files):
        assert np.array_equal(imagecodecs.htj2k_decode(held[position + 1]), samples(file))
    assert {header["Content-Location"] for header, _ in reply.parts} == {frame["url"] for frame in index["frames"]}


def test_a_stream_begins_in_the_middle_by_itself(client: Client, series: str) -> None:
    reply = get(client, f"{series}/stream")
    assert [header["Frame"] for header, _ in reply.parts][:3] == ["5", "6", "4"]
    assert {header["Rung"] for header, _ in reply.parts} == {"pixels=128"}  # the images are no larger


def test_a_stream_goes_on_where_it_was_cut(client: Client, series: str) -> None:
    url = f"{series}/stream?rungs=level:1,lossless"
    whole = get(client, url)
    for start in (1, 1000, len(whole.body) - 5):
        rest = get(client, url, {"Range": f"bytes={start}-", "If-Range": whole.headers["etag"]})
        assert rest.status == 206 and rest.body == whole.body[start:]
    for after in (1, COUNT, COUNT + 3):
        rest = get(client, f"{url}&after={after}&state={whole.headers['series-state']}")
        assert [data for _, data in rest.parts] == [data for _, data in whole.parts[after:]]
    assert get(client, f"{url}&after={2 * COUNT}").body.startswith(b"\r\n--")
    assert get(client, f"{url}&state=0").status == 412


@pytest.mark.parametrize(
    "query",
    ["rungs=", "rungs=best", "rungs=quality:101", "rungs=layer:0", "rungs=bytes:9",
     "rungs=level:x", "rungs=" + "lossless," * 20, "first=0", "first=10", "first=x",
     "after=-1", "after=999", "rungs", "rungs=quality:45.5", "rungs=quality:", "rungs=level:1,", "first=", "after=",
     "rungs=lossless&rungs=level:1", "first=1&first=2", "after=1&after=1"],
)  # fmt: skip
def test_a_malformed_stream_is_refused(client: Client, series: str, query: str) -> None:
    reply = get(client, f"{series}/stream?{query}")
    assert reply.status == 400 and reply.json["code"] == "WEB-01"
    assert get(client, f"{series}/stream", {"Accept": "image/jphc"}).status == 406


def test_a_series_that_grows_has_another_state(
    start_server: StartServer, archive_dir: Path, files: list[bytes]
) -> None:
    series = Stored(files[0]).series
    client = Client(start_server(archive_dir, workers=1, env={"PACS_RECEIVING": "0"}))
    client.store(files[0])
    before = get(client, f"{series}/progressive")
    assert before.json["receiving"] is False and len(before.json["frames"]) == 1
    assert "series-receiving" not in get(client, f"{series}/stream").headers
    client.store(files[1])
    after = get(client, f"{series}/progressive", {"If-None-Match": before.headers["etag"]})
    assert after.status == 200 and len(after.json["frames"]) == 2
    assert get(client, f"{series}/stream?after=1&state={before.json['state']}").status == 412
    client.close()


@pytest.mark.parametrize(("name", "frames"), [("SC_rgb_jpeg_dcmtk.dcm", 1), ("reportsi.dcm", 0)])
def test_frames_without_levels_come_whole(client: Client, name: str, frames: int) -> None:
    """And objects without frames have none; neither is an error."""
    stored = under_new_uids(name)
    client.store(stored.file)
    index = get(client, f"{stored.series}/progressive").json
    assert len(index["frames"]) == frames
    reply = get(client, f"{stored.series}/stream?rungs=level:0,lossless")
    assert reply.status == 200
    if frames:
        assert [header["Rung"] for header, _ in reply.parts] == ["lossless"]
        assert received(reply)[1] == get(client, f"{stored.path}/frames/1", {"Accept": "image/jpeg"}).body
        assert get(client, f"{stored.path}/frames/1?level=1").status == 406


def test_indices_of_a_palette_have_no_lossy_layers(client: Client) -> None:
    """An index that is one off is another colour. The answer names what there is instead."""
    built = images.native("palette layers", [images.pattern(40, 56, 8)], photometric="PALETTE COLOR")
    stored = Stored(built.file)
    client.store(stored.file)
    for rung in ("layer=1", "bytes=500"):
        reply = get(client, f"{stored.path}/frames/1?{rung}")
        assert reply.status == 406 and any("4.90" in offer for offer in reply.json["offered"])
    parts = get(client, f"{stored.series}/stream?rungs=layer:1,lossless").parts
    assert [header["Rung"] for header, _ in parts] == ["lossless"]
    assert np.array_equal(imagecodecs.htj2k_decode(parts[0][1]), samples(built.file))


@pytest.mark.parametrize(
    ("name", "syntax"), [("JPEG2000.dcm", "91"), ("MR_small_jp2klossless.dcm", "90"), ("SC_rgb_rle_2frame.dcm", "202")]
)
def test_frames_of_other_codecs_have_levels_too(client: Client, name: str, syntax: str) -> None:
    """JPEG 2000 put in another order, others encoded anew: every sample as pydicom decodes the file."""
    stored = under_new_uids(name)
    client.store(stored.file)
    index = get(client, f"{stored.series}/progressive").json["frames"]
    mine = [at for at, frame in enumerate(index, 1) if frame["instance"] == stored.data.SOPInstanceUID]
    reply = get(client, f"{stored.series}/stream?rungs=level:1,level:3,lossless")
    held = received(reply)
    colour = stored.data.SamplesPerPixel == 3
    frames = np.reshape(stored.data.pixel_array, (len(mine), *stored.data.pixel_array.shape[-3 if colour else -2 :]))
    for position, frame in zip(mine, frames, strict=True):
        decode = imagecodecs.htj2k_decode if syntax == "202" else imagecodecs.jpeg2k_decode
        decoded = decode(held[position], planar=False) if colour else decode(held[position])
        assert np.array_equal(decoded.astype(frame.dtype), frame)
        at = (str(position), "level=1")
        (small,) = (len(data) for header, data in reply.parts if (header["Frame"], header["Rung"]) == at)
        assert small < len(held[position])
        if syntax != "202":
            single = get(client, f"{stored.series}/{index[position - 1]['url']}", {"Accept": "image/jp2"})
            assert single.body == held[position] and single.headers["etag"] == f'"{index[position - 1]["etag"]}"'
    url = index[mine[0] - 1]["url"]
    alone = get(client, f"{stored.series}/{url}?level=2", {"Accept": "multipart/related; transfer-syntax=*"})
    assert alone.parts[0][0]["Content-Type"].endswith(f".4.{syntax}")


def test_levels_of_a_stream_whose_tiles_have_parameters_of_their_own(client: Client, shared_data: Path) -> None:
    stored = Stored((shared_data / "large2d" / "966_fixed.dcm").read_bytes())
    client.store(stored.file)
    reply = get(client, f"{stored.path}/frames/1?pixels=256", {"Accept": "image/jp2"})
    assert reply.status == 200
    whole = get(client, f"{stored.path}/frames/1", {"Accept": "image/jp2"}).body
    small = imagecodecs.jpeg2k_decode(reply.body)
    assert small.shape == (266, 250) and len(reply.body) < len(whole) / 50
    (expected,) = decoders.openjpeg(whole, levels_dropped=3)
    assert np.array_equal(small, expected)


def decibels(decoded: np.ndarray[Any, Any], original: np.ndarray[Any, Any]) -> float:
    error = np.mean((decoded.astype(float) - original) ** 2)
    return float(20 * np.log10(np.ptp(original.astype(float))) - 10 * np.log10(error)) if error else np.inf


def test_a_quality_is_lossy_at_full_size(client: Client, series: str, files: list[bytes]) -> None:
    frame = get(client, f"{series}/progressive").json["frames"][4]
    original = samples(files[4])
    sizes = []
    for quality in (35, 50):
        # As OHIF asks, which lets its users add to the query only.
        accept = "multipart/related; type=application/octet-stream; transfer-syntax=*"
        reply = get(client, f"{series}/{frame['url']}?quality={quality}", {"Accept": accept})
        ((header, data),) = reply.parts
        assert header["Content-Type"] == "image/jphc; transfer-syntax=1.2.840.10008.1.2.4.203"
        assert quality <= decibels(imagecodecs.htj2k_decode(data), original) < quality + 8
        sizes.append(len(data))
    assert sizes[0] < sizes[1] < frame["length"]
    lossless = "image/jphc; transfer-syntax=1.2.840.10008.1.2.4.202"
    assert len(get(client, f"{series}/{frame['url']}?quality=35", {"Accept": lossless}).body) == frame["length"]


def test_layers_sharpen_one_codestream(client: Client, series: str, files: list[bytes]) -> None:
    url = get(client, f"{series}/progressive").json["frames"][4]["url"]
    original = samples(files[4])
    before = 0.0
    for layer in range(1, 7):
        reply = get(client, f"{series}/{url}?layer={layer}", {"Accept": "image/jp2"})
        assert reply.headers["content-type"] == "image/jp2; transfer-syntax=1.2.840.10008.1.2.4.91"
        reached = decibels(imagecodecs.jpeg2k_decode(reply.body), original)
        assert reached > before
        before = reached
    assert before == np.inf
    for most in (900, 3000):
        reply = get(client, f"{series}/{url}?bytes={most}", {"Accept": "image/jp2"})
        assert len(reply.body) <= most
        assert decibels(imagecodecs.jpeg2k_decode(reply.body), original) > 20
    assert get(client, f"{series}/{url}?bytes=20", {"Accept": "image/jp2"}).status == 406
    lossless = "image/jp2; transfer-syntax=1.2.840.10008.1.2.4.90"
    assert get(client, f"{series}/{url}?layer=1", {"Accept": lossless}).status == 406


def test_a_stream_of_layers_and_of_qualities(client: Client, series: str, files: list[bytes]) -> None:
    reply = get(client, f"{series}/stream?rungs=level:3,quality:40,layer:2,layer:4,lossless")
    assert "content-length" not in reply.headers
    rungs = [header["Rung"] for header, _ in reply.parts]
    assert rungs == [rung for rung in ("level=3", "quality=40", "layer=2", "layer=4", "lossless") for _ in files]
    layers: dict[int, bytes] = {}
    for header, data in reply.parts:
        position = int(header["Frame"])
        original = samples(files[position - 1])
        if header["Rung"] == "quality=40":
            assert decibels(imagecodecs.htj2k_decode(data), original) >= 40
        elif header["Content-Type"].startswith("image/jp2"):
            start = int(header["Content-Range"].removeprefix("bytes ").partition("-")[0])
            assert start == len(layers.get(position, b""))
            layers[position] = layers.get(position, b"") + data
            decoded = imagecodecs.jpeg2k_decode(layers[position] + b"\xff\xd9")
            assert (decibels(decoded, original) == np.inf) == (header["Rung"] == "lossless")
    for after in (1, len(files) + 2, 4 * len(files) + 3):
        rest = get(client, f"{series}/stream?rungs=level:3,quality:40,layer:2,layer:4,lossless&after={after}")
        assert [data for _, data in rest.parts] == [data for _, data in reply.parts[after:]]


def test_nothing_of_an_unknown_series(client: Client) -> None:
    for name in ("progressive", "stream"):
        assert get(client, f"/studies/1.2/series/1.3/{name}").status == 404
        assert json.loads(get(client, f"/studies/1.2/series/x/{name}").body)["message"]
