"""Streams from servers that err or lie: what is called final is the frame, or there is an error."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import google_crc32c
import numpy as np
import pytest

from pacs import transcode
from pacs.client import AsyncClient, FrameView, Patience, patience
from pacs.errors import AnswerError, PacsError, RemoteChangedError, UnreachableError
from pacs.geometry import FrameGeometry
from tests.streams.images import plane
from tests.unit.origin import Asked, Origin, Reply, origin

SHORT = Patience(connect=60, answer=60, stall=60, total=5.5, pause=0.005, longest_pause=0.02)
COUNT = 4
SYNTAX = "1.2.840.10008.1.2.4.202"
GEOMETRY = FrameGeometry(70, 50, 1, 16, 12, 11, 0, 0, "MONOCHROME2", 1)
IMAGES = [plane(70, 50, 12, seed=number + 1) for number in range(COUNT)]
ENCODED = [transcode.encode_frame(image, GEOMETRY) for image in IMAGES]
FRAMES = [encoded.codestream for encoded in ENCODED]
ENDS = [(*encoded.level_ends[:-1], len(encoded.codestream)) for encoded in ENCODED]


def index(*, crc: bool = True) -> dict[str, Any]:
    sizes = [[-(-70 >> k), -(-50 >> k)] for k in reversed(range(len(ENDS[0])))]
    shape = {
        "rows": 70, "columns": 50, "levels": sizes, "samplesPerPixel": 1, "bitsAllocated": 16, "bitsStored": 12,
        "pixelRepresentation": 0, "photometricInterpretation": "MONOCHROME2",
    }  # fmt: skip
    frames = [
        {
            "instance": f"1.2.{number}", "frame": 1, "url": f"instances/1.2.{number}/frames/1", "etag": f"e{number}",
            "length": len(data), "transferSyntax": SYNTAX, "mediaType": "image/jphc", "shape": 0, "ends": ends,
        }
        | ({"crc32c": f"{google_crc32c.value(data):08x}"} if crc else {})
        for number, (data, ends) in enumerate(zip(FRAMES, ENDS, strict=True))
    ]  # fmt: skip
    return {"study": "1", "series": "2", "receiving": False, "state": "s", "shapes": [shape], "frames": frames}


def part(number: int, start: int, end: int, **other: str) -> bytes:
    headers = {
        "Content-Type": f"image/jphc; transfer-syntax={SYNTAX}",
        "Content-Range": f"bytes {start}-{end - 1}/{len(FRAMES[number])}",
        "Rung": "lossless" if end == len(FRAMES[number]) else "level=2",
        "Frame": str(number + 1),
    } | {name.replace("_", "-"): value for name, value in other.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items() if value)
    return b"\r\n--b\r\n" + lines.encode() + b"\r\n" + FRAMES[number][start:end]


def parts() -> list[bytes]:
    coarse = [part(number, 0, ENDS[number][2]) for number in range(COUNT)]
    return coarse + [part(number, ENDS[number][2], len(FRAMES[number])) for number in range(COUNT)]


CLOSING = b"\r\n--b--\r\n"


class Site:
    """A server of one series: its index, its stream, its frames."""

    def __init__(self, body: bytes, about: dict[str, Any] | None = None, *, length: bool = True) -> None:
        self.body, self.about, self.length = body, about or index(), length
        self.frames = 0
        self.serves_frames = True
        self.metadata: list[dict[str, Any]] | None = None

    def __call__(self, asked: Asked) -> Reply:
        path = urlsplit(asked.path).path
        if path.endswith("/progressive"):
            return Reply(json.dumps(self.about).encode())
        if path.endswith("/stream"):
            if "after" in parse_qs(urlsplit(asked.path).query):
                return Reply(b"", 412)
            headers = {"Content-Type": "multipart/related; boundary=b", "Series-State": "s"}
            return Reply(self.body, 200, headers, length=self.length)
        if "/frames/1" in path and self.serves_frames:
            self.frames += 1
            data = FRAMES[int(path.split("/")[-3].rpartition(".")[2])]
            if "range" not in asked.headers:
                return Reply(data, 200, {"Content-Type": "image/jphc"})
            start, stop = asked.start, min(asked.stop or len(data), len(data))
            content_range = f"bytes {start}-{stop - 1}/{len(data)}"
            return Reply(data[start:stop], 206, {"Content-Type": "image/jphc", "Content-Range": content_range})
        if path.endswith("/metadata") and self.metadata is not None:
            return Reply(json.dumps(self.metadata).encode(), 200, {"Content-Type": "application/dicom+json"})
        return Reply(b"", 404)


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Origin]:
    """By the clock of whoever waits for it, each request for a stream takes a second, and nothing else takes time."""
    async with origin() as found:
        streams = SimpleNamespace(monotonic=lambda: float(sum("/stream" in one.path for one in found.asked)))
        monkeypatch.setattr(patience, "time", streams)
        yield found


async def read(server: Origin, site: Site) -> list[FrameView]:
    server.answers.clear()
    server.will(site)
    async with AsyncClient(server.url, patience=SHORT) as client:
        return [view async for view in client.series_stream("1", "2", rungs=["level:2", "lossless"], pause=0)]


def check(views: list[FrameView], *, complete: bool = True) -> None:
    for view in views:
        if view.final:
            assert np.array_equal(view.array, IMAGES[view.position - 1])
    assert not complete or sorted(view.position for view in views if view.final) == [1, 2, 3, 4]


async def test_a_stream_as_it_should_be(server: Origin) -> None:
    site = Site(b"".join(parts()) + CLOSING)
    views = await read(server, site)
    check(views)
    assert [view.rung for view in views[:COUNT]] == ["level=2"] * COUNT and site.frames == 0


async def test_a_server_that_describes_no_pixels_in_its_index(server: Origin) -> None:
    """Its metadata does. Before that is here, an image is what its codestream says."""
    site = Site(b"".join(parts()) + CLOSING)
    for name in ("samplesPerPixel", "bitsAllocated", "bitsStored", "pixelRepresentation", "photometricInterpretation"):
        del site.about["shapes"][0][name]
    described = {"00280002": 1, "00280004": "MONOCHROME2", "00280010": 70, "00280011": 50, "00280100": 16,
                 "00280101": 12, "00280102": 11, "00280103": 0}  # fmt: skip
    site.metadata = [
        {"00080018": {"vr": "UI", "Value": [f"1.2.{number}"]}}
        | {tag: {"vr": "US", "Value": [value]} for tag, value in described.items()}
        for number in range(COUNT)
    ]
    views = await read(server, site)
    check(views)
    assert [view.rung for view in views[:COUNT]] == ["level=2"] * COUNT
    del site.metadata[1]
    with pytest.raises(AnswerError, match=r"1 of 4 frames .* no metadata of instance 1\.2\.1"):
        await read(server, site)


@pytest.mark.parametrize(
    "headers",
    [
        {"Frame": "0"}, {"Frame": "5"}, {"Frame": "x"}, {"Frame": ""}, {"Frame": "9" * 30}, {"Rung": "sharp"},
        {"Rung": ""}, {"Content_Range": ""}, {"Content_Range": "bytes 5-1/9"}, {"Content_Range": "bytes 0-9/9"},
        {"Content_Range": "bytes 0-99999999/100000000000", "Rung": "quality=45"},
        {"Content_Range": "bytes 5-9/10", "Rung": "quality=45"},
    ],
)  # fmt: skip
async def test_a_part_that_makes_no_sense(server: Origin, headers: dict[str, str]) -> None:
    with pytest.raises(AnswerError):
        await read(server, Site(part(0, 0, 300, **headers) + CLOSING))


async def test_a_part_that_is_shorter_or_longer_than_it_says(server: Origin) -> None:
    for end in (ENDS[0][2] - 1, ENDS[0][2] + 1):
        short = part(0, 0, ENDS[0][2], Content_Range=f"bytes 0-{end - 1}/{len(FRAMES[0])}")
        site = Site(short + b"".join(parts()[1:]) + CLOSING)
        check(await read(server, site))
        assert all("1.2.0/frames/1" in path for path in asked(server) if "/frames/" in path) and site.frames


async def test_a_gap_costs_its_frame_alone(server: Origin) -> None:
    """A server that goes on with other bytes than it began with: the frame is asked for by itself, whole."""
    for gone in range(COUNT):
        site = Site(b"".join(piece for number, piece in enumerate(parts()) if number != gone) + CLOSING)
        server.asked.clear()
        views = await read(server, site)
        check(views)
        assert all(f"1.2.{gone}/frames/1" in path for path in asked(server) if "/frames/" in path)
        assert site.frames and len(views) == 2 * COUNT


async def test_other_lengths_in_the_middle_of_a_stream(server: Origin) -> None:
    """As from a server that was upgraded meanwhile: the rest of a codestream that nobody has begun."""
    syntax = "image/jp2; transfer-syntax=1.2.840.10008.1.2.4.90"
    other = part(2, 300, 400, Content_Range="bytes 300-399/7777", Content_Type=syntax)
    site = Site(b"".join([*parts()[:COUNT], other, *parts()[COUNT:]]) + CLOSING)
    check(await read(server, site))
    assert site.frames == 0, "all bytes of the frame itself came"


def asked(server: Origin) -> list[str]:
    return [urlsplit(one.path).path for one in server.asked]


async def test_frames_of_another_length_are_asked_for_anew(server: Origin) -> None:
    """The stream and the index speak of different things: everything is asked for frame by frame."""
    other = part(0, 0, 300, Content_Range=f"bytes 0-299/{len(FRAMES[0]) + 1}")
    site = Site(other + CLOSING)
    check(await read(server, site))
    assert site.frames >= COUNT


async def test_what_the_stream_leaves_out_is_asked_for(server: Origin) -> None:
    for missing in range(2 * COUNT):
        site = Site(b"".join(parts()[:missing]) + CLOSING)
        check(await read(server, site))
        assert site.frames >= 1


async def test_bytes_that_differ_from_those_before(server: Origin) -> None:
    """A part that says other bytes where some were received: neither is trusted, the frame is fetched anew."""
    again = bytearray(part(0, 0, ENDS[0][2], Rung="level=2"))
    again[-5] ^= 1
    site = Site(parts()[0] + bytes(again) + CLOSING)
    check(await read(server, site))


async def test_damage_on_the_way_is_fetched_again(server: Origin) -> None:
    whole = parts()
    damaged = bytearray(whole[-1])
    damaged[-100] ^= 0x40
    site = Site(b"".join(whole[:-1]) + bytes(damaged) + CLOSING)
    check(await read(server, site))
    assert site.frames == 1


async def test_damage_that_stays_is_told(server: Origin) -> None:
    about = index()
    about["frames"][2]["crc32c"] = "00000000"
    server.will(Site(b"".join(parts()) + CLOSING, about))
    views = []
    async with AsyncClient(server.url, patience=SHORT) as client:
        with pytest.raises(AnswerError, match=r"1 of 4 frames cannot be shown, the first is 3: .*checksum"):
            async for view in client.series_stream("1", "2", rungs=["level:2", "lossless"]):
                views.append(view)
    check(views, complete=False)
    assert sorted(view.position for view in views if view.final) == [1, 2, 4]


async def test_an_empty_frame_costs_itself_alone(server: Origin) -> None:
    about = index()
    about["frames"][2] |= {"length": 0, "ends": [0], "crc32c": "00000000"}
    kept = [piece for piece in parts() if b"\r\nFrame: 3\r\n" not in piece]
    server.will(Site(b"".join(kept) + CLOSING, about))
    views = []
    async with AsyncClient(server.url, patience=SHORT) as client:
        with pytest.raises(AnswerError, match="1 of 4 frames cannot be shown, the first is 3: "):
            async for view in client.series_stream("1", "2", rungs=["level:2", "lossless"]):
                views.append(view)
    check(views, complete=False)
    assert sorted(view.position for view in views if view.final) == [1, 2, 4]


@pytest.mark.parametrize("length", [False, True])
async def test_a_stream_that_ends_anywhere(server: Origin, length: bool) -> None:
    """The end of the body at any place: with a length the answer is wrong, without it was cut."""
    body = b"".join(parts()) + CLOSING
    noise = random.Random(3)
    for end in sorted(noise.sample(range(len(body) - 2), 40)):
        try:
            check(await read(server, Site(body[:end], length=length)))
        except AnswerError:
            assert length


async def test_mutations_of_a_stream(server: Origin) -> None:
    body = b"".join(parts()) + CLOSING
    noise = random.Random(1)
    finals = 0
    for _ in range(120):
        changed = bytearray(body)
        for _ in range(noise.randrange(1, 4)):
            kind, at = noise.randrange(3), noise.randrange(len(changed))
            if kind == 0:
                changed[at] ^= 1 << noise.randrange(8)
            elif kind == 1:
                del changed[at : at + noise.randrange(1, 200)]
            else:
                changed[at:at] = changed[at : at + noise.randrange(1, 400)]
        try:
            views = await read(server, Site(bytes(changed)))
        except PacsError:
            continue
        check(views)
        finals += len(views)
    assert finals > 100, "hardly any mutation got this far"


def _deeper(about: dict[str, Any], name: str, value: object) -> None:
    about["frames"][1][name] = value


@pytest.mark.parametrize(
    "change",
    [
        lambda about: _deeper(about, "instance", "../../x"),
        lambda about: _deeper(about, "frame", 0),
        lambda about: _deeper(about, "shape", 1),
        lambda about: _deeper(about, "shape", -1),
        lambda about: _deeper(about, "ends", [5, 4, len(FRAMES[1])]),
        lambda about: _deeper(about, "ends", [*ENDS[1][:-1], 7]),
        lambda about: _deeper(about, "ends", [-5, *ENDS[1][1:]]),
        lambda about: _deeper(about, "length", -1),
        lambda about: _deeper(about, "length", "many"),
        lambda about: _deeper(about, "crc32c", "xyz"),
        lambda about: _deeper(about, "mediaType", "image/jphc\r\nCookie: x"),
        lambda about: _deeper(about, "transferSyntax", "1.2\r\nCookie: x"),
        lambda about: _deeper(about, "url", "http://127.0.0.1:9/elsewhere"),
        lambda about: about["shapes"][0]["levels"].pop(),
        lambda about: about["shapes"].clear(),
        lambda about: about.pop("frames"),
    ],
)
async def test_an_index_that_makes_no_sense(server: Origin, change: Callable[[dict[str, Any]], object]) -> None:
    about = index()
    change(about)
    with pytest.raises((AnswerError, UnreachableError, RemoteChangedError)):
        await read(server, Site(CLOSING, about))
    assert len(server.asked) < 50
