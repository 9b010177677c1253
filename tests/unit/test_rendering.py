"""The rendering pipelines by hand and against pydicom's, and the geometry of the viewport."""

from __future__ import annotations

import base64
import json
import re
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi_lut, convert_color_space

from pacs import rendering
from pacs.errors import PixelError
from pacs.geometry import FrameGeometry
from pacs.rendering import LINEAR, LINEAR_EXACT, SIGMOID, Viewport, Window
from pacs.rendering.attributes import Shaded
from pacs.rendering.viewport import painted

RAMP = np.arange(-1024, 3072, dtype=np.int16).reshape(64, 64)


def element(vr: str, *values: Any) -> dict[str, Any]:
    return {"vr": vr, "Value": list(values)}


def sequence(**items: Any) -> dict[str, Any]:
    return {"vr": "SQ", "Value": [items]}


def attributes(**more: Any) -> dict[str, Any]:
    found = {"00280004": element("CS", "MONOCHROME2"), "00280010": element("US", 64), "00280011": element("US", 64)}
    return found | {tag.removeprefix("t"): value for tag, value in more.items()}


@pytest.mark.parametrize("function", [LINEAR, LINEAR_EXACT, SIGMOID])
@pytest.mark.parametrize(("center", "width"), [(40, 400), (0, 1), (300.5, 77), (-500, 5000)])
@pytest.mark.parametrize(("slope", "intercept"), [(1, 0), (0.5, -24.25), (2, -1024)])
def test_windows_are_pydicoms(function: str, center: float, width: float, slope: float, intercept: float) -> None:
    dataset = pydicom.Dataset()
    dataset.WindowCenter, dataset.WindowWidth, dataset.VOILUTFunction = center, width, function
    dataset.RescaleSlope, dataset.RescaleIntercept = slope, intercept
    dataset.BitsStored, dataset.PixelRepresentation = 8, 0
    dataset.PhotometricInterpretation = "MONOCHROME2"
    values = apply_modality_lut(RAMP, dataset)
    # pydicom scales to the range of the rescaled image; 0…1 of it is 0…255 of the picture.
    with np.errstate(over="ignore"):
        least, greatest = apply_voi_lut(np.array([-1e9, 1e9]), dataset)
        expected = (apply_voi_lut(values, dataset) - least) / (greatest - least) * 255
    tags = {
        "t00281052": element("DS", intercept), "t00281053": element("DS", str(slope)),
        "t00281050": element("DS", center, 1), "t00281051": element("DS", width, 2),
        "t00281056": element("CS", function),
    }  # fmt: skip
    found = rendering.render(RAMP, attributes(**tags))
    assert np.abs(found - expected).max() <= 0.51
    asked = {tag: tags[tag] for tag in ("t00281052", "t00281053")}
    window = Window(center, width, function)
    assert np.array_equal(rendering.render(RAMP, attributes(**asked), window=window), found)


def test_without_a_window_the_whole_range_is_shown() -> None:
    picture = rendering.render(RAMP, attributes())
    assert (picture[0, 0], picture[-1, -1]) == (0, 255)
    padded = RAMP.copy()
    padded[:8] = -32768
    padding = element("SS", -32768)
    assert rendering.render(padded, attributes(t00280120=padding))[8, 0] == 0
    assert not rendering.render(np.full((3, 3), 7, np.uint8), attributes()).any()


def test_monochrome1_is_inverted() -> None:
    inverted = attributes(t00280004=element("CS", "MONOCHROME1"))
    assert np.array_equal(rendering.render(RAMP, inverted), 255 - rendering.render(RAMP, attributes()))


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"])
def test_every_type_of_sample_gives_the_same_picture(dtype: str) -> None:
    samples = (np.arange(64 * 64).reshape(64, 64) % 120).astype(dtype)
    window = Window(60, 100)
    expected = rendering.render(samples.astype(np.uint8), attributes(), window=window)
    assert np.array_equal(rendering.render(samples, attributes(), window=window), expected)


def test_impossible_windows() -> None:
    nan = float("nan")
    for window in (Window(0, 0), Window(0, 0.5), Window(0, 0, LINEAR_EXACT), Window(nan, 5), Window(1, 1, "X")):
        with pytest.raises(PixelError):
            rendering.render(RAMP, attributes(), window=window)
    header = attributes(t00281050=element("DS", 40), t00281051=element("DS", 0))
    assert np.array_equal(rendering.render(RAMP, header), rendering.render(RAMP, attributes()))


def lut(first: int, bits: int, words: np.ndarray) -> dict[str, Any]:
    return {
        "00283002": element("US", len(words) & 0xFFFF, first, bits),
        "00283006": {"vr": "OW", "InlineBinary": base64.b64encode(words.astype("<u2").tobytes()).decode()},
    }


def test_modality_and_voi_tables_are_pydicoms() -> None:
    words = (np.arange(256) ** 2).astype(np.uint16)
    samples = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) // 8
    full = Window(65535 / 2, 65535, LINEAR_EXACT)
    for tag, keyword, apply in (
        ("00283000", "ModalityLUTSequence", apply_modality_lut), ("00283010", "VOILUTSequence", apply_voi_lut)
    ):  # fmt: skip
        item, dataset = pydicom.Dataset(), pydicom.Dataset()
        item.LUTDescriptor, item.LUTData, item.ModalityLUTType = [256, 100, 16], words.tolist(), "US"
        item["LUTDescriptor"].VR = item["LUTData"].VR = "US"
        setattr(dataset, keyword, [item])
        expected = apply(samples, dataset)
        named = attributes(**{f"t{tag}": {"vr": "SQ", "Value": [lut(100, 16, words)]}})
        found = rendering.render(samples, named, window=full if tag == "00283000" else None)
        reference = rendering.render(expected, attributes(), window=full)
        assert np.abs(found.astype(int) - reference).max() <= 1


@pytest.mark.parametrize("data", ["InlineBinary", "Value"])
@pytest.mark.parametrize(
    ("stored", "described"),
    [(RAMP, {"t00280103": element("US", 1)}),
     ((RAMP + 1024).astype(np.uint16), {"t00280103": element("US", 0), "t00281052": element("DS", "-1024")})],
)  # fmt: skip
def test_a_table_that_begins_below_zero(stored: np.ndarray, described: dict[str, Any], data: str) -> None:
    """Its first value is written as one without a sign, its entries perhaps as numbers with one. PS3.3 C.11.2.1.1"""
    words = (np.arange(256) * 257).astype("<u2")
    item = lut(65536 - 100, 16, words)
    if data == "Value":
        item["00283006"] = element("SS", *words.view("<i2").tolist())
    found = rendering.render(stored, attributes(**described, t00283010={"vr": "SQ", "Value": [item]}))
    assert np.array_equal(found, np.clip(RAMP.astype(int) + 100, 0, 255))


def test_samples_that_are_no_number_do_not_count() -> None:
    samples = np.linspace(-1, 3, 256, dtype=np.float32)
    samples[[7, 8, 9]] = np.inf, -np.inf, np.nan
    found = rendering.render(samples.reshape(16, 16), attributes()).ravel()
    expected = np.round((np.linspace(-1, 3, 256) + 1) * 255 / 4)
    assert np.abs(found[10:] - expected[10:]).max() <= 1
    assert (found[7], found[8]) == (255, 0)
    assert not rendering.render(np.full((2, 2), np.nan, np.float32), attributes()).any()


def test_tables_by_bulk_data() -> None:
    item = lut(0, 8, np.arange(256)[::-1])
    item["00283006"] = {"vr": "OW", "BulkDataURI": "bulkdata/00283010/0/00283006"}
    named = attributes(t00283010={"vr": "SQ", "Value": [item]})
    asked = []

    def bulk(path: str) -> bytes:
        asked.append(path)
        return np.arange(256)[::-1].astype("<u2").tobytes()

    samples = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(rendering.render(samples, named, bulk=bulk), 255 - samples)
    assert set(asked) == {"00283010/0/00283006"}


def palette(bits: int, tables: list[bytes], entries: int, first: int = 0, segmented: bool = False) -> dict[str, Any]:
    found = {"00280004": element("CS", "PALETTE COLOR")}
    for i, table in enumerate(tables, 1):
        found[f"0028110{i}"] = element("US", entries & 0xFFFF, first, bits)
        found[f"002812{'2' if segmented else '0'}{i}"] = {"vr": "OW", "InlineBinary": base64.b64encode(table).decode()}
    return found


@pytest.mark.parametrize("bits", [8, 16])
def test_palette_is_pydicoms(bits: int) -> None:
    rng = np.random.default_rng(bits)
    tables = [rng.integers(0, 1 << bits, 200).astype("<u1" if bits == 8 else "<u2").tobytes() for _ in range(3)]
    dataset = pydicom.Dataset()
    dataset.PixelRepresentation, dataset.PhotometricInterpretation = 0, "PALETTE COLOR"
    for colour, table in zip(("Red", "Green", "Blue"), tables, strict=True):
        setattr(dataset, f"{colour}PaletteColorLookupTableDescriptor", [200, 10, bits])
        dataset[f"{colour}PaletteColorLookupTableDescriptor"].VR = "US"
        setattr(dataset, f"{colour}PaletteColorLookupTableData", table)
    samples = np.arange(256, dtype=np.uint8).reshape(16, 16)
    expected = apply_color_lut(samples, dataset)
    found = rendering.render(samples, palette(bits, tables, 200, first=10))
    assert np.array_equal(found, expected >> (bits - 8))


def test_segmented_palette() -> None:
    """A discrete, a linear and an indirect segment that repeats both, and one behind it. PS3.3 C.7.9.2"""
    words = [0, 2, 0, 256, 1, 4, 1280, 2, 2, 0, 0, 0, 2, 2560, 2560]
    named = palette(16, [np.array(words, "<u2").tobytes()] * 3, 14, segmented=True)
    found = rendering.render(np.arange(14, dtype=np.uint8).reshape(2, 7), named)
    assert found[:, :, 0].ravel().tolist() == [*[0, 1, 2, 3, 4, 5] * 2, 10, 10]


@pytest.mark.parametrize("kind", ["u1", "<u2"])
def test_segmented_palette_of_bytes(kind: str) -> None:
    """Opcodes and lengths are bytes where the entries are, an indirect segment's pointer four; some write words."""
    pointer = [0, 0, 0, 0] if kind == "u1" else [0, 0]
    segments = np.array([0, 1, 0, 1, 127, 127, 2, 2, *pointer], kind).tobytes()
    found = rendering.render(
        np.arange(256, dtype=np.uint8).reshape(16, 16), palette(8, [segments] * 3, 256, segmented=True)
    )
    assert found[:, :, 1].ravel().tolist() == [*range(128)] * 2


@pytest.mark.parametrize("segments", [[2, 1, 0, 0], [2, 65535, 4, 0, 0, 0], [1, 4, 9], [7, 7, 7], []])
def test_segments_that_lead_nowhere(segments: list[int]) -> None:
    named = palette(16, [np.array(segments, "<u2").tobytes()] * 3, 65536, segmented=True)
    with pytest.raises(PixelError):
        rendering.render(np.zeros((2, 2), np.uint8), named)


def test_colour_spaces() -> None:
    rng = np.random.default_rng(0)
    samples = rng.integers(0, 256, (16, 16, 3)).astype(np.uint8)
    for space in ("YBR_FULL", "YBR_FULL_422"):
        found = rendering.render(samples, attributes(t00280004=element("CS", space)))
        expected = convert_color_space(samples, "YBR_FULL", "RGB").astype(int)
        assert np.abs(found - expected).max() <= 1
    for space in ("RGB", "YBR_ICT", "YBR_RCT"):
        assert np.array_equal(rendering.render(samples, attributes(t00280004=element("CS", space))), samples)
    deep = samples.astype(np.uint16) << 4
    rgb = attributes(t00280004=element("CS", "RGB"), t00280101=element("US", 12))
    assert np.array_equal(rendering.render(deep, rgb), samples)
    signed = (deep.astype(np.int32) - 2048).astype(np.int16)
    assert np.array_equal(rendering.render(signed, rgb), samples)
    eight = attributes(t00280004=element("CS", "RGB"), t00280101=element("US", 8))
    found = rendering.render((samples ^ 128).view(np.int8), eight)
    assert found.dtype == np.uint8 and np.array_equal(found, samples)
    few = attributes(t00280004=element("CS", "RGB"), t00280101=element("US", 4))
    assert np.array_equal(rendering.render(samples >> 4, few), (samples >> 4) * 17)
    argb = np.concatenate((samples[:, :, :1], samples), axis=2)
    assert np.array_equal(rendering.render(argb, attributes(t00280004=element("CS", "ARGB"))), samples)
    with pytest.raises(PixelError):
        rendering.render(samples[:, :, :2], attributes())


def test_functional_groups_of_a_frame() -> None:
    def groups(center: int, intercept: int) -> dict[str, Any]:
        return {
            "00289132": sequence(**{"00281050": element("DS", center), "00281051": element("DS", 100)}),
            "00289145": sequence(**{"00281052": element("DS", intercept), "00281053": element("DS", 1)}),
        }

    per_frame = {"vr": "SQ", "Value": [groups(40, 0), groups(500, -200)]}
    shared = sequence(**groups(0, 0))
    for frame, window, shift in ((1, Window(40, 100), 0), (2, Window(500, 100), -200), (3, Window(0, 100), 0)):
        found = rendering.render(RAMP, attributes(t52009229=shared, t52009230=per_frame), frame=frame)
        assert np.array_equal(found, rendering.render(RAMP + shift, attributes(), window=window))


def gradient(rows: int = 48, columns: int = 96) -> np.ndarray:
    return np.broadcast_to(np.linspace(0, 255, columns).astype(np.uint8), (rows, columns)).copy()


def sized(picture: np.ndarray) -> dict[str, Any]:
    rows, columns = picture.shape
    return attributes(t00280010=element("US", rows), t00280011=element("US", columns))


WHOLE = Window(127.5, 255, LINEAR_EXACT)


@pytest.mark.parametrize(
    ("viewport", "shape"),
    [
        (Viewport(48, 48), (24, 48)), (Viewport(96, 10), (10, 20)), (Viewport(96, 48), (48, 96)),
        (Viewport(1, 1), (1, 1)), (Viewport(192, 500), (96, 192)), (Viewport(10, 10, 0, 0, 20, 20), (10, 10)),
        (Viewport(10, 10, 90, 40, 500, 500), (10, 8)),
    ],
)  # fmt: skip
def test_viewport_keeps_proportions(viewport: Viewport, shape: tuple[int, int]) -> None:
    samples = gradient()
    assert rendering.render(samples, sized(samples), window=WHOLE, viewport=viewport).shape == shape


def test_viewport_averages_areas() -> None:
    samples = np.random.default_rng(1).integers(0, 256, (48, 96)).astype(np.uint8)
    found = rendering.render(samples, sized(samples), window=WHOLE, viewport=Viewport(24, 12))
    expected = samples.reshape(12, 4, 24, 4).mean(axis=(1, 3))
    assert np.abs(found - expected).max() <= 1
    region = rendering.render(samples, sized(samples), window=WHOLE, viewport=Viewport(24, 12, 8, 4, 24, 12))
    assert np.array_equal(region, samples[4:16, 8:32])
    mirrored = rendering.render(samples, sized(samples), window=WHOLE, viewport=Viewport(24, 12, 8, 4, -24, -12))
    assert np.array_equal(mirrored, samples[4:16, 8:32][::-1, ::-1])


def test_viewport_counts_in_pixels_of_the_whole_image() -> None:
    """A lower level of the image gives a picture of the same size and nearly the same look."""
    samples = gradient()
    level = samples.reshape(24, 2, 48, 2).mean(axis=(1, 3)).astype(np.uint8)
    viewport = Viewport(20, 20, 16, 8, 40, 40)
    full = rendering.render(samples, sized(samples), window=WHOLE, viewport=viewport)
    low = rendering.render(level, sized(samples), window=WHOLE, viewport=viewport)
    assert full.shape == low.shape and np.abs(full.astype(int) - low).max() <= 4


def test_non_square_pixels_are_stretched() -> None:
    samples = gradient()
    stretched = (
        {"t00280030": element("DS", 2, 1)},
        {"t00181164": element("DS", 2, 1)},
        {"t00280034": element("IS", "2", "1")},
    )
    for more in stretched:
        named = sized(samples) | attributes(**more, t00280010=element("US", 48), t00280011=element("US", 96))
        picture = rendering.render(samples, named, viewport=Viewport(50, 50), square_pixels=True)
        assert picture.shape == (50, 50)


def test_viewports_without_a_picture() -> None:
    samples = gradient()
    for viewport in (Viewport(0, 5), Viewport(5, -1), Viewport(5, 5, 96, 0), Viewport(5, 5, 0, 48, 3, 3)):
        with pytest.raises(PixelError):
            rendering.render(samples, sized(samples), viewport=viewport)
    huge = rendering.render(np.zeros((2, 2), np.uint8), attributes(), viewport=Viewport(10**6, 10**6))
    assert huge.size <= rendering.MAX_PIXELS


@pytest.mark.parametrize(
    ("viewport", "dropped"),
    [
        (None, 0), (Viewport(512, 512), 0), (Viewport(257, 257), 0), (Viewport(256, 256), 1), (Viewport(128, 300), 2),
        (Viewport(1, 1), 5), (Viewport(64, 64, 0, 0, 128, 128), 1), (Viewport(64, 64, 256, 256), 2),
        (Viewport(512, 512, 0, 0, 4096, 4096), 0), (Viewport(128, 128, 0, 0, -4096, 100_000), 2),
        (Viewport(512, 512, -4096), 0), (Viewport(128, 128, -512, -512, 640, 640), 0),
        (Viewport(64, 64, 384, 384, 999), 1), (Viewport(64, 512, 448, 0, -512, 256), 0),
    ],
)  # fmt: skip
def test_sufficient_level(viewport: Viewport | None, dropped: int) -> None:
    geometry = FrameGeometry(512, 512, 1, 16, 12, 11, 0, 0, "MONOCHROME2", 1)
    assert rendering.sufficient_level(geometry, viewport) == dropped
    colours = FrameGeometry(512, 512, 1, 8, 8, 7, 0, 0, "PALETTE COLOR", 1)
    assert rendering.sufficient_level(colours, viewport) == 0


@pytest.mark.parametrize(("aspect", "dropped"), [(1.0, 2), (4.0, 2), (0.25, 0)])
def test_sufficient_level_of_pixels_that_are_not_square(aspect: float, dropped: int) -> None:
    geometry = FrameGeometry(512, 512, 1, 16, 12, 11, 0, 0, "MONOCHROME2", 1)
    assert rendering.sufficient_level(geometry, Viewport(512, 128), aspect) == dropped


def test_no_level_shows_a_region_outside_the_image() -> None:
    geometry = FrameGeometry(512, 512, 1, 16, 12, 11, 0, 0, "MONOCHROME2", 1)
    for viewport in (Viewport(9, 9, 512), Viewport(9, 9, -8, 0, 8, 8)):
        with pytest.raises(PixelError):
            rendering.sufficient_level(geometry, viewport)


@pytest.mark.parametrize(
    "broken",
    [
        {"t00281050": element("DS", None), "t00281051": element("DS", "wide")}, {"t00281050": {"vr": "DS"}},
        {"t00283010": element("SQ", None)}, {"t00283000": sequence(**{"00283002": element("US", 4)})},
        {"t52009229": element("SQ")}, {"t52009230": element("SQ", {"00289132": {"vr": "SQ"}})},
        {"t00281053": element("DS", "1e999")}, {"t00280120": element("US", "x")},
    ],
)  # fmt: skip
def test_broken_attributes_are_left_out(broken: dict[str, Any]) -> None:
    assert np.array_equal(rendering.render(RAMP, attributes(**broken)), rendering.render(RAMP, attributes()))


def test_a_stretched_region_costs_no_more_than_it_shows() -> None:
    """One column of a wide image as high as a viewport may be: what lies beside it must not be stretched with it."""
    samples = np.random.default_rng(2).integers(0, 256, (500, 2000)).astype(np.uint8)
    viewport = Viewport(16_384, 16_384, 1000, 0, 1, 500)
    tracemalloc.start()
    try:
        picture = rendering.render(samples, sized(samples), window=WHOLE, viewport=viewport)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert picture.shape == (16_384, 33)
    middles = ((np.arange(500) + 0.5) * 16_384 / 500).astype(int)
    assert np.array_equal(picture[middles, 16], samples[:, 1000])
    assert peak < 60 << 20


@pytest.mark.parametrize("first", [10**400, -(10**400), 1 << 17])
def test_a_table_that_begins_nowhere_is_none(first: int) -> None:
    """The descriptor in a VR of any length: Python's numbers know no bound, arithmetic on samples does."""
    table = {"00283002": element("IS", 3, first, 16), "00283006": element("US", 1, 2, 3)}
    found = rendering.render(RAMP, attributes(t00283000=sequence(**table)))
    assert np.array_equal(found, rendering.render(RAMP, attributes()))


def test_a_picture_takes_of_the_json_what_it_needs() -> None:
    """The tags that the package names, and the groups of one frame; a text that cannot be cut up is read whole."""
    sources = (path.read_text() for path in Path(rendering.__file__).parent.glob("*.py"))
    named = {tag for source in sources for tag in re.findall(r'"([0-9A-F]{8})"', source)}
    nested = {"00283002", "00283006", "00289110", "00289132", "00289145"}
    groups = [sequence(**{"00281050": element("DS", center)})["Value"][0] for center in (1, 2, 3)]
    whole = {tag: element("DS", 1) for tag in named - nested} | {"52009230": element("SQ", *groups)}
    others = {"00100010": element("PN", {"Alphabetic": "A"}), "00283002": element("US", 1)}
    found = rendering.of_json(json.dumps(whole | others).encode(), 2)
    assert set(found) == set(whole)
    assert found["52009230"]["Value"] == [{}, groups[1]]
    assert rendering.of_json(json.dumps(whole).encode(), 3)["52009230"]["Value"] == [{}, {}, groups[2]]
    assert rendering.of_json(json.dumps(whole).encode(), 4).keys() == whole.keys() - {"52009230"}
    assert rendering.of_json(b'{"00281050":{"Value":[1e999]}}')["00281050"]["Value"] == [float("inf")]


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16"])
@pytest.mark.parametrize("planes", [0, 3])
def test_means_are_those_of_areas(dtype: str, planes: int) -> None:
    """Any factor, any rectangle, against each pixel's overlap with each area."""
    draw = np.random.default_rng(3)
    for rows, columns, high, wide in ((13, 17, 5, 7), (9, 8, 9, 3), (6, 5, 11, 40), (300, 2, 1, 2), (4, 4, 4, 4)):
        shape = (rows, columns, planes) if planes else (rows, columns)
        limits = np.iinfo(dtype)
        samples = draw.integers(limits.min, limits.max, shape, endpoint=True).astype(dtype)
        first = int(samples.min())
        levels = draw.integers(0, 256, int(samples.max()) - first + 1).astype(np.uint8)
        shaded = Shaded(samples, levels, first)
        top, left = draw.random(2) * 0.9
        bottom, right = rows - draw.random() * 0.05, columns - draw.random() * 0.05
        for vertical, horizontal in (((0.0, rows), (0.0, columns)), ((top, bottom), (left, right))):
            down, across = overlaps(*vertical, rows, high), overlaps(*horizontal, columns, wide)
            gray = levels[samples.astype(int) - first].astype(float)
            expected = np.einsum("hr,rc...,wc->hw...", down, gray, across)
            found = painted(shaded, vertical, horizontal, high, wide)
            assert found.shape == (high, wide, *shape[2:])
            assert np.abs(found - expected).max() < 0.51


def overlaps(start: float, stop: float, count: int, parts: int) -> np.ndarray:
    """How much of each of `parts` equal stretches each of `count` pixels covers."""
    edges = np.linspace(start, stop, parts + 1)
    pixels = np.arange(count)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.clip(covered, 0, None) * parts / (stop - start)
