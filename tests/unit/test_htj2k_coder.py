"""Our own HTJ2K encoder and decoder against OpenJPH and OpenJPEG, with the instructions of every tier."""

from __future__ import annotations

import contextlib
import itertools
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import imagecodecs
import numpy as np
import pydicom
import pytest

from pacs import codestream as j2k
from pacs import progression
from pacs._codecs import htj2k_decoder, htj2k_encoder
from pacs.errors import PixelError
from pacs.geometry import FrameGeometry
from pacs.transcode import htj2k, jpeg2000

RNG = np.random.default_rng(815)
TIERS = {0: "portable", 1: "AVX2", 2: "AVX-512"}


@pytest.fixture(params=TIERS, ids=TIERS.values())
def tier(request: pytest.FixtureRequest) -> Iterator[int]:
    best = htj2k_encoder.tier()
    if request.param > best:
        pytest.skip(f"this processor has no {TIERS[request.param]}")
    yield htj2k_encoder.tier(request.param) + htj2k_decoder.tier(request.param)
    htj2k_encoder.tier(best)
    htj2k_decoder.tier(best)


class Frame(NamedTuple):
    samples: np.ndarray
    bits: int
    decompositions: int
    rct: bool = False

    @property
    def signed(self) -> bool:
        return self.samples.dtype.kind == "i"

    @property
    def components(self) -> int:
        return 1 if self.samples.ndim == 2 else self.samples.shape[2]


def cells(samples: np.ndarray) -> memoryview:
    return samples.reshape(-1).view(np.uint8).data


def ours(frame: Frame) -> tuple[bytes, tuple[int, ...]]:
    rows, columns = frame.samples.shape[:2]
    return htj2k_encoder.encode(
        cells(np.ascontiguousarray(frame.samples)), rows, columns, frame.components, frame.samples.itemsize,
        frame.signed, frame.bits, frame.decompositions, frame.rct,
    )  # fmt: skip


def openjph(frame: Frame) -> bytes:
    """The same by OpenJPH, without the COM segment in which it names itself."""
    moved = frame.samples.astype(np.int64) - (0 if frame.signed else 1 << (frame.bits - 1))
    several = {"planar": False, "rgb": frame.rct} if frame.samples.ndim == 3 else {}
    encoded = bytearray(
        imagecodecs.htj2k_encode(
            moved.astype(f"int{8 * frame.samples.itemsize}"),
            reversible=True,
            resolutions=frame.decompositions,
            tlm=True,
            tilepart=imagecodecs.HTJ2K.TILEPART.RESOLUTIONS,
            **several,
        )
    )
    j2k.set_precision(encoded, frame.bits, frame.signed)
    comment = encoded.index(b"\xff\x64")
    del encoded[comment : comment + 2 + int.from_bytes(encoded[comment + 2 : comment + 4], "big")]
    return bytes(encoded)


def code_blocks(codestream: bytes) -> list[bytes]:
    """Those of each packet, joined."""
    packets = progression.index(codestream).packets
    return [codestream[packet.body_offset : packet.body_offset + packet.body_length] for packet in packets]


def decoded(codestream: bytes, frame: Frame, dropped: int = 0, dtype: str = "") -> np.ndarray | None:
    rows, columns = frame.samples.shape[:2]
    shape = (-(-rows >> dropped), -(-columns >> dropped), *frame.samples.shape[2:])
    out = np.empty(shape, dtype or frame.samples.dtype)
    done = htj2k_decoder.decode(
        codestream, cells(out), rows, columns, frame.components, out.itemsize, frame.signed, frame.bits, dropped
    )
    return out if done else None


def invented(kind: str, rows: int, columns: int) -> Frame:
    """Samples of a random type and precision: noise, smooth, one in a flat field, a corner of noise, few levels."""
    width, signed = int(RNG.choice([1, 2])), bool(RNG.integers(2))
    bits = int(RNG.integers(1, 8 * width + 1))
    low = -(1 << (bits - 1)) if signed else 0
    high = low + (1 << bits)
    shape = (rows, columns, 3) if RNG.integers(3) == 0 else (rows, columns)
    if kind == "noise":
        samples = RNG.integers(low, high, shape)
    elif kind == "smooth":
        samples = np.clip(np.cumsum(RNG.integers(-3, 4, shape), axis=1), low, high - 1)
    elif kind == "sparse":
        samples = np.full(shape, 0 if signed else high // 2)
        samples[RNG.integers(rows), RNG.integers(columns)] = low
        samples[RNG.integers(rows), RNG.integers(columns)] = high - 1
    elif kind == "corner":
        samples = np.full(shape, 0 if signed else high // 2)
        samples[rows // 2 :, columns // 2 :] = RNG.integers(low, high, samples[rows // 2 :, columns // 2 :].shape)
    else:
        samples = RNG.choice([low, (low + high) // 2, high - 1], shape, p=[0.02, 0.95, 0.03])
    dtype = f"{'' if signed else 'u'}int{8 * width}"
    return Frame(samples.astype(dtype), bits, int(RNG.integers(1, 9)), len(shape) == 3 and bool(RNG.integers(2)))


KINDS = ["noise", "smooth", "sparse", "corner", "levels"]


@pytest.mark.parametrize("kind", KINDS)
def test_codestreams_are_those_of_openjph(tier: int, kind: str) -> None:
    for _ in range(60):
        frame = invented(kind, *RNG.integers(1, 180, 2))
        encoded, level_ends = ours(frame)
        reference = openjph(frame)
        assert encoded == reference
        assert level_ends == j2k.parse(encoded).level_ends
        assert np.array_equal(decoded(reference, frame), frame.samples)


def test_code_blocks_of_every_size(tier: int) -> None:
    for size in range(1, 65):
        # One decomposition of twice the size: the code-blocks of its four sub-bands have these rows and columns.
        frame = invented("noise", 2 * size, 2 * (65 - size))._replace(decompositions=1)
        encoded, _ = ours(frame)
        assert encoded == openjph(frame)
        assert np.array_equal(decoded(encoded, frame), frame.samples)


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm", "examples_rgb_color.dcm", "examples_palette.dcm"])
def test_real_frames(tier: int, name: str) -> None:
    path = Path(str(pydicom.data.get_testdata_file(name)))
    data_set = pydicom.dcmread(path)
    samples = data_set.pixel_array
    frame = Frame(samples, 8 * samples.itemsize, 5, samples.ndim == 3)
    encoded, _ = ours(frame)
    assert encoded == openjph(frame)
    assert np.array_equal(decoded(encoded, frame), samples)
    assert np.array_equal(imagecodecs.jpeg2k_decode(encoded, planar=False), samples), "OpenJPEG"
    assert np.array_equal(imagecodecs.htj2k_decode(encoded, planar=False if frame.rct else None), samples), "OpenJPH"


def test_real_modalities(tier: int, shared_data: Path, manifest: list[dict[str, str]]) -> None:
    """The first file of each modality and kind of sample that is there natively: dirty bits and all."""
    seen = set()
    for row in manifest:
        kind = row["modality"], row["bits_allocated"], row["bits_stored"], row["photometric"]
        if kind in seen or not row["transfer_syntax"].endswith("VR Little Endian"):
            continue
        with warnings.catch_warnings(), contextlib.suppress(Exception):
            warnings.simplefilter("ignore")
            samples = np.zeros((0, 0), np.int64)
            data_set = pydicom.dcmread(shared_data / row["path"])
            samples = np.ascontiguousarray(data_set.pixel_array)
        if not samples.size or samples.itemsize > 2 or data_set.get("NumberOfFrames", 1) not in (None, 1):
            continue
        seen.add(kind)
        frame = Frame(samples, 8 * samples.itemsize, 5, samples.ndim == 3)
        encoded, _ = ours(frame)
        reference = openjph(frame)
        assert code_blocks(encoded) == code_blocks(reference), row["path"]
        # OpenJPH's tag trees take values of the next row in at the right edge: correct, but longer.
        assert len(encoded) <= len(reference)
        assert np.array_equal(decoded(encoded, frame), samples), row["path"]
        assert np.array_equal(decoded(reference, frame), samples), row["path"]
        assert np.array_equal(imagecodecs.htj2k_decode(encoded, planar=False if frame.rct else None), samples)
    assert len(seen) > 15


def test_levels_are_those_of_openjph(tier: int) -> None:
    for rows, columns, bits in ((97, 130, 12), (64, 64, 8), (33, 200, 16), (1, 70, 10), (70, 1, 16)):
        samples = np.clip(np.cumsum(RNG.integers(-9, 10, (rows, columns)), axis=1), -(1 << (bits - 2)), 1 << (bits - 2))
        frame = Frame(samples.astype(np.int16), bits, 4)
        encoded, level_ends = ours(frame)
        for dropped in range(1, 5):
            reference = imagecodecs.htj2k_decode(encoded, skipres=dropped)
            prefix = encoded[: level_ends[-1 - dropped]]
            for data in (encoded, prefix):
                # As wide as they come: low-pass bands overshoot.
                assert np.array_equal(decoded(data, frame, dropped, "int32"), reference)
            assert decoded(prefix[:-1], frame, dropped, "int32") is None


def extreme(levels: int, pair: int) -> np.ndarray:
    """Signs of samples that make a coefficient of HH in the coarsest level as large as can be, or the sum of it and of
    its neighbour to the right (`pair`), which the update step takes."""
    size = 8 << levels
    low = np.eye(size)
    for _ in range(levels):
        even, odd = low[::2], low[1::2]
        high = odd - (even + np.concatenate((even[1:], even[-1:]))) / 2
        low = even + (high + np.concatenate((high[:1], high[:-1]))) / 4
    middle = len(high) // 2
    return np.sign(np.outer(high[middle], high[middle] + pair * high[middle + 1])).astype(np.int64)


def test_the_wavelet_does_not_overflow(tier: int) -> None:
    """Overflows of encoder and decoder undo each other: only other coders tell."""
    for levels, pair, bits, flip in itertools.product((1, 2, 3, 5), (0, 1), (8, 11, 12, 13, 16), (1, -1)):
        signs = flip * extreme(levels, pair)
        most = (1 << (bits - 1)) - 1
        samples = np.where(signs > 0, most, np.where(signs < 0, -most - 1, 0)).astype(f"int{8 if bits == 8 else 16}")
        colour = np.stack((samples, ~samples, samples), -1)
        # As in CT slices: 12 bits' range, not symmetric to 0.
        moved = samples + (1 << 10) if bits == 12 else samples
        for frame in (Frame(samples, bits, levels), Frame(colour, bits, levels, True), Frame(moved, 16, levels)):
            if frame.bits > 8 * frame.samples.itemsize or (levels > 3 and frame.rct):
                continue
            encoded = ours(frame)[0]
            assert np.array_equal(imagecodecs.htj2k_decode(encoded, planar=False if frame.rct else None), frame.samples)
            found = decoded(openjph(frame), frame)
            assert found is None or np.array_equal(found, frame.samples)
            assert np.array_equal(decoded(encoded, frame), frame.samples)


def test_samples_may_begin_at_any_address(tier: int) -> None:
    """A frame is a part of what was received, and so may be what its samples are decoded to."""
    for bits, kind, wanted in ((12, "uint16", 2), (16, "int16", 2), (12, "int16", 4)):
        samples = RNG.integers(0, 1 << 11, (70, 81)).astype(kind)
        frame = Frame(samples, bits, 3)
        encoded, _ = ours(frame)
        for begin in range(1, 4):
            moved = np.zeros(samples.nbytes + begin, np.uint8)[begin:]
            moved[:] = samples.reshape(-1).view(np.uint8)
            assert htj2k_encoder.encode(moved.data, 70, 81, 1, 2, frame.signed, bits, 3, False)[0] == encoded
            out = np.zeros(70 * 81 * wanted + begin, np.uint8)[begin:]
            assert htj2k_decoder.decode(memoryview(encoded), out.data, 70, 81, 1, wanted, frame.signed, bits, 0)
            assert np.array_equal(np.frombuffer(out.tobytes(), f"int{8 * wanted}").reshape(70, 81), samples)


def test_samples_beyond_the_declared_precision_are_left_to_others(tier: int) -> None:
    """Where 16 bits are too few for them. Others come out as they are."""
    for bits, width in ((12, 2), (8, 2), (8, 1)):
        samples = RNG.integers(-(1 << 14), 1 << 14, (50, 60)).astype(np.int16)
        declared = bytearray(ours(Frame(samples, 16, 3))[0])
        j2k.set_precision(declared, bits, True)
        for dropped in (0, 2):
            assert decoded(bytes(declared), Frame(samples, bits, 3), dropped, f"int{8 * width}") is None
    wide = bytearray(declared)
    j2k.set_precision(wide, 13, True)
    assert np.array_equal(decoded(bytes(wide), Frame(samples, 13, 3)), samples)


def test_a_cut_codestream_is_not_decoded(tier: int) -> None:
    frame = Frame(RNG.integers(0, 4096, (40, 50)).astype(np.uint16), 12, 2)
    encoded, level_ends = ours(frame)
    for length in range(level_ends[-1]):
        assert decoded(encoded[:length], frame) is None
    assert np.array_equal(decoded(encoded[: level_ends[-1]], frame), frame.samples)


def test_damage_is_not_decoded_or_to_what_openjph_says(tier: int) -> None:
    """A damaged stream is often one of another image. Wrong bits must not do more than that."""
    same = left = 0
    for _ in range(250):
        frame = Frame(np.clip(np.cumsum(RNG.integers(-9, 10, (70, 90)), axis=1), -500, 500).astype(np.int16), 16, 2)
        damaged = bytearray(ours(frame)[0])
        for at in RNG.integers(damaged.index(b"\xff\x93"), len(damaged), int(RNG.integers(1, 4))):
            damaged[at] = RNG.integers(256)
        found = decoded(bytes(damaged), frame)
        if found is None:
            left += 1
            continue
        try:
            same += np.array_equal(found, imagecodecs.htj2k_decode(bytes(damaged)))
        except imagecodecs.Htj2kError:
            continue
    assert left > 10
    assert same > 100


def test_what_is_not_of_our_shape_is_left_to_others() -> None:
    samples = RNG.integers(0, 256, (60, 70)).astype(np.uint8)
    frame = Frame(samples, 8, 3)
    others = {
        "irreversible": imagecodecs.htj2k_encode(samples, reversible=False, resolutions=3),
        "Part 1": imagecodecs.jpeg2k_encode(samples, reversible=True, codecformat="j2k"),
        "no bytes": b"",
    }
    for name, codestream in others.items():
        assert decoded(codestream, frame) is None, name
    encoded, _ = ours(frame)
    assert decoded(encoded, frame) is not None
    assert decoded(encoded, frame._replace(bits=7)) is None
    assert decoded(encoded, Frame(samples.view(np.int8), 8, 3)) is None
    assert decoded(encoded, frame, dropped=4) is None
    assert decoded(encoded, Frame(samples[:, :69], 8, 3)) is None


def test_what_cannot_be_encoded_is_refused() -> None:
    samples = RNG.integers(0, 4096, (20, 30)).astype(np.uint16)
    samples[3, 4] = 4095
    with pytest.raises(ValueError, match="not of 11 bits"):
        ours(Frame(samples, 11, 2))
    with pytest.raises(ValueError, match="not as many"):
        htj2k_encoder.encode(cells(samples)[:-1], 20, 30, 1, 2, False, 12, 2, False)
    for rows, columns, components, width, bits, levels in (
        (0, 30, 1, 2, 12, 2), (20, 1 << 16, 1, 2, 12, 2), (20, 30, 4, 2, 12, 2), (20, 30, 1, 4, 12, 2),
        (20, 30, 1, 1, 12, 2), (20, 30, 1, 2, 12, 0), (20, 30, 1, 2, 12, 12), (20, 30, 1, 2, 0, 2),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="not encoded"):
            htj2k_encoder.encode(cells(samples), rows, columns, components, width, False, bits, levels, False)


@pytest.mark.parametrize("tile", [97, 65, 33])
def test_a_tile_of_which_no_column_is_left(tile: int) -> None:
    """Its only column (or the few that it has) goes with the finest levels: OpenJPH crashed."""
    samples = np.clip(np.cumsum(RNG.integers(-3, 4, (50, 98)), axis=1) + 2048, 0, 4095).astype(np.uint16)
    tiled = imagecodecs.htj2k_encode(samples, reversible=True, resolutions=5, tile=(tile, 50))
    geometry = FrameGeometry(50, 98, 1, 16, 16, 15, 0, 0, "MONOCHROME2", 1)
    assert np.array_equal(jpeg2000.decode(tiled, geometry), samples)
    for dropped in range(1, 6):
        level = jpeg2000.decode_level(tiled, geometry, dropped)
        assert level.shape == (-(-50 >> dropped), -(-98 >> dropped))
        assert abs(int(level[0, 0]) - int(samples[0, 0])) < 100


def test_another_decoder_witnesses_the_first_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """And one of 64 after it: were our tables wrong, encoder and proof would still agree."""
    samples = RNG.integers(0, 4096, (20, 30)).astype(np.uint16)
    geometry = FrameGeometry(20, 30, 1, 16, 12, 11, 0, 0, "MONOCHROME2", 1)
    encoded = htj2k.encode_frame(samples, geometry)
    monkeypatch.setattr(htj2k, "_encoded", itertools.count())
    htj2k._witness(encoded, samples)
    with pytest.raises(PixelError, match="OpenJPH does not decode"):
        htj2k._witness(encoded, samples ^ 1)
    half = encoded.codestream[: len(encoded.codestream) // 2]
    for other in (encoded._replace(codestream=half), encoded._replace(level_ends=encoded.level_ends[1:])):
        with pytest.raises(PixelError, match="OpenJPH does not decode"):
            htj2k._witness(other, samples)
    seen = []
    decode = imagecodecs.htj2k_decode
    monkeypatch.setattr(imagecodecs, "htj2k_decode", lambda *given, **named: seen.append(1) or decode(*given, **named))
    for _ in range(128):
        htj2k.encode_frame(samples, geometry)
    assert len(seen) == 128 // 64
