"""The series stream at its edges: codestreams that share a Transfer Syntax, thousands of frames, images in turn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import imagecodecs
import numpy as np
import pytest

from tests.conftest import Server
from tests.integration.exchange import Client, Stored
from tests.objects import images

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
