"""Rendered images and thumbnails. PS3.18 10.4.1.1.6"""

from __future__ import annotations

import http.client
import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit

from pacs import demo
from tests.integration.exchange import Client, Stored


@pytest.fixture
def ct(client: Client) -> list[Stored]:
    files = list(demo.head_slices(3, rows=256, name="rendered"))
    client.store(*files)
    return [Stored(file) for file in files]


def picture(body: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(body)))


def test_a_frame_is_painted_by_its_window(client: Client, ct: list[Stored]) -> None:
    data = ct[1].data
    values = data.pixel_array * float(data.RescaleSlope) + float(data.RescaleIntercept)
    reply = client.get(ct[1].path + "/rendered?window=40,400,linear", "image/png")
    assert (reply.status, reply.headers["content-type"]) == (200, "image/png")
    expected = np.clip(((values - 39.5) / 399 + 0.5) * 255, 0, 255)
    assert np.abs(picture(reply.body).astype(float) - expected).max() <= 1
    jpeg = client.get(ct[1].path + "/frames/1/rendered?window=40,400")
    assert jpeg.headers["content-type"] == "image/jpeg"
    assert np.abs(picture(jpeg.body).astype(float) - expected).mean() < 3
    assert client.get(ct[1].path + "/rendered", "image/png").body != reply.body


def test_what_is_asked_for_and_not_done_is_told(client: Client, ct: list[Stored]) -> None:
    path = ct[1].path + "/rendered"
    plain = client.get(path)
    assert "warning" not in plain.headers
    for query, told in (("annotation=patient,technique%22%0d%0a", "patient,technique???"), ("iccprofile=srgb", "srgb")):
        asked = client.get(f"{path}?{query}")
        assert asked.body == plain.body and asked.headers["warning"].endswith(f' are not supported: {told}"')
    assert "warning" not in client.get(path + "?iccprofile=no").headers


def test_viewports_and_quality(client: Client, ct: list[Stored]) -> None:
    path = ct[0].path + "/rendered"
    small = client.get(path + "?viewport=64,32", "image/png")
    assert picture(small.body).shape == (32, 32)
    region = picture(client.get(path + "?viewport=128,128,64,64,128,128", "image/png").body)
    whole = picture(client.get(path, "image/png").body)
    assert np.array_equal(region, whole[64:192, 64:192])
    mirrored = picture(client.get(path + "?viewport=128,128,64,64,-128,128", "image/png").body)
    assert np.array_equal(mirrored, region[:, ::-1])
    wide = f"{path}?window=0,3000&viewport="
    half, full = (picture(client.get(f"{wide}{side},{side}", "image/png").body) for side in (128, 256))
    assert np.abs(half - full.reshape(128, 2, 128, 2).mean(axis=(1, 3))).mean() < 8, "as sharp as it is large"
    rough, fine = (client.get(f"{path}?quality={quality}").body for quality in (10, 95))
    assert len(rough) < len(fine) / 2


def test_spellings_of_a_number(client: Client, ct: list[Stored]) -> None:
    path = ct[0].path + "/rendered"
    window = client.get(path + "?window=40,400").body
    for spelt in ("40.,400.0", "%2B40,4e2", "4.0E%2B1,+400", "40,.4e3", "040,400,LINEAR"):
        assert client.get(f"{path}?window={spelt}").body == window, spelt
    viewport = client.get(path + "?viewport=16,16,0,0,-64,64").body
    assert client.get(path + "?viewport=16.0,16,,0,-64,+64").body == viewport


@pytest.mark.parametrize(
    ("beyond", "clipped"),
    [
        ("0,0,4096,4096", "0,0,256,256"), ("0,0,-100000,-100000", "0,0,-256,-256"), ("-4096,-255,0,0", "0,0,256,256"),
        ("128,64,4096,-4096", "128,64,128,-192"), ("-64,-64,192,192", "0,0,128,128"),
        ("0,0,256,4096", "0,0,256,256"),
    ],
)  # fmt: skip
def test_a_region_beyond_the_image_is_what_of_it_is_inside(
    client: Client, ct: list[Stored], beyond: str, clipped: str
) -> None:
    """As sharp, too: not of a lower resolution level."""
    for size in ("256,256", "64,64"):
        found, expected = (
            client.get(f"{ct[1].path}/rendered?viewport={size},{region}", "image/png") for region in (beyond, clipped)
        )
        assert np.array_equal(picture(found.body), picture(expected.body))


def test_thumbnails_at_every_level(client: Client, ct: list[Stored]) -> None:
    for path in (ct[0].study, ct[0].series, ct[0].path, ct[0].path + "/frames/1"):
        reply = client.get(path + "/thumbnail?viewport=256%2C256", "image/jpeg")
        assert (reply.status, reply.headers["content-type"]) == (200, "image/jpeg")
        assert picture(reply.body).shape == (256, 256)
    middle = client.get(ct[1].path + "/thumbnail")
    assert picture(middle.body).shape == (128, 128)
    assert client.get(ct[0].series + "/thumbnail").body == middle.body


def test_renditions_have_validators(client: Client, ct: list[Stored]) -> None:
    path = ct[0].path + "/rendered"
    reply = client.get(path)
    assert client.get(path, If_None_Match=reply.headers["etag"]).status == 304
    assert client.get(path + "?quality=50", If_None_Match=reply.headers["etag"]).status == 200
    assert "max-age" in reply.headers["cache-control"]


def test_all_images_of_a_series(client: Client, ct: list[Stored]) -> None:
    reply = client.get(ct[0].series + "/rendered?viewport=64,64", 'multipart/related; type="image/jpeg"')
    assert [picture(data).shape for _, data in reply.parts] == [(64, 64)] * 3
    assert client.get(ct[0].series + "/rendered", "image/jpeg").status == 406


def test_every_part_says_whose_picture_it_is(client: Client, ct: list[Stored]) -> None:
    accept = 'multipart/related; type="image/jpeg"'
    for listed, paths in (
        (ct[0].series, [f"{one.path}/frames/1" for one in ct]), (ct[0].study, [f"{one.path}/frames/1" for one in ct]),
        (ct[1].path + "/frames/1,1", [f"{ct[1].path}/frames/1"] * 2), (ct[1].path, [f"{ct[1].path}/frames/1"]),
    ):  # fmt: skip
        parts = client.get(listed + "/rendered", accept).parts
        assert [headers["Content-Location"] for headers, _ in parts] == [
            f"{client.server.url}{path}/rendered" for path in paths
        ]
        for (_, body), path in zip(parts, paths, strict=True):
            assert client.get(path + "/rendered").body == body


def test_what_several_pictures_are_sent_in_is_in_accept(client: Client, ct: list[Stored]) -> None:
    several, one = ct[0].path + "/frames/1,1/rendered", ct[0].path + "/rendered"
    for accept in ("image/jpeg", "image/*", "image/png, image/jpeg", 'multipart/related; type="image/gif"'):
        for path in (several, ct[0].series + "/rendered"):
            reply = client.get(path, accept)
            assert reply.status == 406, (path, accept)
            assert "multipart/related" in reply.json["message"]
    for accept, kind in (
        ("*/*", "image/jpeg"), ('multipart/related; type="image/png"', "image/png"),
        ('image/png, multipart/related; type="image/jpeg"', "image/jpeg"),
    ):  # fmt: skip
        for path in (several, ct[0].series + "/rendered"):
            reply = client.get(path, accept)
            assert reply.headers["content-type"].startswith(f'multipart/related; type="{kind}"; boundary=')
            assert {headers["Content-Type"] for headers, _ in reply.parts} == {kind}
    for path in (one, ct[0].path + "/frames/1/rendered", ct[0].series + "/thumbnail"):
        alone = client.get(path, 'image/jpeg, multipart/related; type="image/jpeg"')
        assert alone.headers["content-type"] == client.get(path, "*/*").headers["content-type"] == "image/jpeg"
        reply = client.get(path, 'multipart/related; type="image/jpeg"')
        assert reply.headers["content-type"].startswith('multipart/related; type="image/jpeg"; boundary=')
        assert [body for _, body in reply.parts] == [alone.body]
        assert reply.headers["etag"] != alone.headers["etag"]


def with_damaged_frames(name: str, *damaged: int) -> Stored:
    """Three frames in JPEG, some of them none."""
    data = pydicom.dcmread(io.BytesIO(next(demo.head_slices(1, rows=64, name=name))))
    frames = []
    for number in (1, 2, 3):
        out = io.BytesIO()
        Image.fromarray(np.full((64, 64), 60 * number, np.uint8)).save(out, "JPEG")
        frames.append(bytes(len(out.getvalue())) if number in damaged else out.getvalue())
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 8, 8, 7, 0
    data.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    data.NumberOfFrames = 3
    data.PixelData = encapsulate([frame + b"\0" * (len(frame) % 2) for frame in frames])
    data["PixelData"].is_undefined_length = True
    out = io.BytesIO()
    data.save_as(out)
    return Stored(out.getvalue())


def test_a_listed_frame_without_a_picture_ends_the_answer(client: Client) -> None:
    """Parts are counted by whoever lists frames: none may be left out."""
    stored = with_damaged_frames("rendered damaged", 2)
    client.store(stored.file)
    listed = client.get(stored.path + "/frames/3,1/rendered")
    assert [body for _, body in listed.parts] == [
        client.get(f"{stored.path}/frames/{number}/rendered").body for number in (3, 1)
    ]
    for numbers in ("2", "2,2", "2,1"):
        reply = client.get(f"{stored.path}/frames/{numbers}/rendered")
        assert (reply.status, reply.json["code"]) == (406, "PIX-01"), numbers
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        client.get(stored.path + "/frames/1,2,3/rendered")


def test_a_series_leaves_out_what_has_no_picture(client: Client) -> None:
    damaged = with_damaged_frames("rendered damaged first", 1)
    client.store(damaged.file)
    for path in (damaged.series, damaged.study):
        reply = client.get(path + "/rendered")
        assert (reply.status, reply.json["code"]) == (406, "PIX-01"), "there is no picture at all"
    beside = Stored(with_damaged_frames("rendered damaged beside").file)
    for name in ("StudyInstanceUID", "SeriesInstanceUID"):
        setattr(beside.data, name, damaged.data[name].value)
    out = io.BytesIO()
    beside.data.save_as(out)
    beside = Stored(out.getvalue())
    client.store(beside.file)
    parts = client.get(damaged.series + "/rendered").parts
    assert [headers["Content-Location"].partition("/dicomweb")[2] for headers, _ in parts] == [
        f"{beside.path}/frames/1/rendered"
    ]


@pytest.mark.parametrize(
    "query",
    ["window=a,b,linear", "window=1", "window=1,0,linear", "window=1,2,cubic", "window=1,nan,linear",
     "window=1,1e99,linear",
     "viewport=0,0", "viewport=1", "viewport=-1,5", "viewport=99999,5", "viewport=1,2,3,4,5,6,7", "viewport=inf,1",
     "viewport=1_0,10", "viewport=%D9%A1%D9%A6,16", "viewport=0x10,16", "viewport=16,16,.,0", "viewport=16,1e",
     "window=4_0,400,linear", "window=%D9%A4%D9%A0,400,linear", "window=40,infinity,linear", "window=-,400",
     "quality=0", "quality=%D9%A9", "quality=101", "quality=x", "viewport=8,8,9999,9999"],
)  # fmt: skip
def test_malformed_queries(client: Client, ct: list[Stored], query: str) -> None:
    reply = client.get(f"{ct[0].path}/rendered?{query}")
    assert reply.status in (400, 406)
    assert reply.json["message"]


def test_what_is_no_image(client: Client) -> None:
    data = Stored(next(demo.head_slices(1, rows=32, name="no image"))).data
    del data.PixelData
    out = io.BytesIO()
    data.save_as(out)
    stored = Stored(out.getvalue())
    client.store(stored.file)
    for view in ("/rendered", "/thumbnail", "/frames/1", "/frames/1/rendered"):
        assert client.get(stored.path + view).status == 404
    for view in ("/thumbnail", "/rendered"):
        assert client.get(stored.series + view).status == client.get(stored.study + view).status == 404
    assert client.get(stored.path + "/metadata").status == 200


def test_real_images_of_every_kind(client: Client, shared_data: Path) -> None:
    """Everything that pydicom decodes has a picture of the right shape."""
    painted = 0
    for folder in ("photometric", "multiframe", "large2d"):
        for path in sorted((shared_data / folder).rglob("*")):
            if not path.is_file():
                continue
            stored = Stored(path.read_bytes())
            if "PixelData" not in stored.data or client.store(stored.file, check=False).status != 200:
                continue  # without a UID, or another file of the same SOP Instance UID was first
            reply = client.get(stored.path + "/rendered?viewport=100,100", "image/png")
            assert reply.status in (200, 406), (path.name, reply.body[:300])
            if reply.status == 200:
                assert max(picture(reply.body).shape[:2]) <= 100
                painted += 1
    assert painted > 40


def test_the_first_frame_stands_for_an_instance_and_the_middle_for_its_thumbnail(client: Client) -> None:
    data = pydicom.dcmread(io.BytesIO(next(demo.head_slices(1, rows=64, name="rendered long"))))
    frames = [np.roll(data.pixel_array, 9 * number, axis=1) for number in range(5)]
    data.NumberOfFrames = 5
    data.PixelData = np.stack(frames).tobytes()
    out = io.BytesIO()
    data.save_as(out)
    client.store(out.getvalue())
    path = Stored(out.getvalue()).path
    rendered = [client.get(f"{path}/frames/{number}/rendered?viewport=64,64").body for number in range(1, 6)]
    assert len(set(rendered)) == 5
    assert client.get(path + "/rendered?viewport=64,64").body == rendered[0]
    assert client.get(path + "/thumbnail?viewport=64,64").body == rendered[2]
    listed = client.get(path + "/frames/5,1/rendered?viewport=64,64", 'multipart/related; type="image/jpeg"')
    assert [body for _, body in listed.parts] == [rendered[4], rendered[0]]
    assert client.get(path + "/frames/1,6/rendered").status == 404, "told before the first picture is on its way"
    for numbers in ("1,6", "6,1"):
        assert client.get(f"{path}/frames/{numbers}/thumbnail").status == 404
    assert client.get(path + "/frames/2,1/thumbnail?viewport=64,64").body == rendered[1]
