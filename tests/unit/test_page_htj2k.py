"""The page's decoder of HTJ2K codestreams (pacs/dicomweb/page/htj2k.js), in node, against OpenJPH and OpenJPEG."""

from __future__ import annotations

import base64
import functools
import json
import random
import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.encaps import generate_frames

from pacs import codestream as j2k
from pacs import transcode
from pacs.geometry import FrameGeometry
from pacs.transcode import jpeg2000
from tests.conftest import ROOT
from tests.streams import kinds, rewritten
from tests.streams.images import plane, planes
from tests.streams.refined import refined, superseded

PAGE = ROOT / "pacs" / "dicomweb" / "page"
NODE = shutil.which("node")

pytestmark = pytest.mark.skipif(NODE is None, reason="no node: install Debian's nodejs")

LOOP = """
import { createInterface } from "node:readline";
import { decode, CodestreamError } from "./page/htj2k.js";
for await (const line of createInterface({ input: process.stdin })) {
  const { bytes, options } = JSON.parse(line);
  const data = new Uint8Array(Buffer.from(bytes, "base64"));
  const begun = process.cpuUsage();
  let answer;
  try {
    const { components, ...rest } = decode(data, options);
    const encoded = components.map((c) => Buffer.from(c.buffer, c.byteOffset, c.byteLength).toString("base64"));
    answer = { ...rest, components: encoded };
  } catch (error) {
    answer = { error: error.message, expected: error instanceof CodestreamError };
  }
  const { user, system } = process.cpuUsage(begun);
  process.stdout.write(JSON.stringify({ ...answer, milliseconds: (user + system) / 1000 }) + "\\n");
}
"""


@dataclass(frozen=True)
class Decoded:
    samples: NDArray[np.int32]
    """(rows, columns), of several components (rows, columns, components)."""
    level: int
    finest: int
    precision: int
    signed: bool


class Refused(Exception):
    """A CodestreamError of the page's decoder."""


class Decoder:
    """One node process. `slowest` is in milliseconds of the processor."""

    def __init__(self, folder: Path) -> None:
        assert NODE is not None
        (folder / "page").mkdir()
        for source in PAGE.glob("*.js"):
            shutil.copy(source, folder / "page")
        (folder / "package.json").write_text('{"type": "module"}')
        (folder / "loop.js").write_text(LOOP)
        self.slowest = 0.0
        self.process = subprocess.Popen(
            [NODE, "loop.js"], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, codestream: bytes, level: int | None = None, **options: Any) -> Decoded:
        assert self.process.stdin is not None and self.process.stdout is not None
        if level is not None:
            options["level"] = level
        job = {"bytes": base64.b64encode(codestream).decode(), "options": options}
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        self.slowest = max(self.slowest, answer["milliseconds"])
        if "error" in answer:
            assert answer["expected"], answer["error"]
            raise Refused(answer["error"])
        shape = answer["rows"], answer["columns"]
        found = [np.frombuffer(base64.b64decode(c), np.int32).reshape(shape) for c in answer["components"]]
        samples = found[0] if len(found) == 1 else np.stack(found, axis=-1)
        return Decoded(samples, *(answer[name] for name in ("level", "finest", "precision", "signed")))

    def close(self) -> None:
        try:
            self.process.communicate(timeout=300)
        finally:
            self.process.kill()


@pytest.fixture(scope="module")
def decode(tmp_path_factory: pytest.TempPathFactory) -> Any:
    decoder = Decoder(tmp_path_factory.mktemp("decoder"))
    yield decoder
    decoder.close()


def described(samples: NDArray[Any], bits: int) -> FrameGeometry:
    count = 1 if samples.ndim == 2 else samples.shape[2]
    return FrameGeometry(
        samples.shape[0], samples.shape[1], count, 8 * samples.itemsize, bits, bits - 1,
        int(samples.dtype.kind == "i"), 0, "RGB" if count == 3 else "MONOCHROME2", 1,
    )  # fmt: skip


@functools.cache
def image(rows: int, columns: int, bits: int, signed: bool, components: int) -> NDArray[Any]:
    if components == 1:
        return plane(rows, columns, bits, signed=signed)
    return np.stack(planes(components, rows, columns, bits, signed=signed), axis=-1)


def expected(codestream: bytes, level: int) -> NDArray[Any]:
    """Samples of a level by OpenJPH, before they would wrap around, clamped. Facts of `jpeg2000.decode_level`."""
    parsed = j2k.parse(codestream)
    dropped = parsed.decompositions - level
    planar = False if len(parsed.components) > 1 else None
    wide = jpeg2000._ht_unclamped(bytearray(codestream), parsed, dropped, planar)
    assert wide is not None
    low = -(1 << (parsed.precision - 1)) if parsed.signed else 0
    return np.clip(wide, low, low + (1 << parsed.precision) - 1)


FORMS = [
    (1, False, 1), (2, True, 1), (8, False, 1), (8, True, 1), (12, False, 1), (12, True, 1), (16, False, 1),
    (16, True, 1), (8, False, 3), (12, False, 3),
]  # fmt: skip


@pytest.mark.parametrize(("bits", "signed", "components"), FORMS)
def test_each_level_of_a_stored_frame_is_a_prefix(decode: Decoder, bits: int, signed: bool, components: int) -> None:
    for rows, columns in ((1, 1), (3, 5), (1, 40), (65, 33)):
        samples = image(rows, columns, bits, signed, components)
        geometry = described(samples, bits)
        stored, ends = transcode.encode_frame(samples, geometry)
        whole = decode(stored)
        assert (whole.samples == samples).all()
        assert (whole.level, whole.finest) == (len(ends) - 1, len(ends) - 1)
        assert (whole.precision, whole.signed) == (max(bits, 1 if samples.itemsize == 1 else 9), signed)
        for level, end in enumerate(ends[:-1]):
            found = decode(stored[:end])
            assert found.level == level
            server = transcode.decode_reduced(stored, geometry, "1.2.840.10008.1.2.4.202", len(ends) - 1 - level)
            assert (found.samples == server).all(), (rows, columns, level)
    level = len(ends) // 2
    assert decode(stored, level).level == decode(stored[: ends[level] + 1]).level == level
    with pytest.raises(Refused, match="not wholly there"):
        decode(stored[: ends[level] - 1], level)
    with pytest.raises(Refused, match="the finest is 5"):
        decode(stored, 6)


@pytest.mark.parametrize(("bits", "signed", "components"), [form for form in FORMS if form[0] >= 8])
def test_lossy_frames_are_within_one_grey_level(decode: Decoder, bits: int, signed: bool, components: int) -> None:
    for rows, columns, quality in ((3, 5, 70), (65, 33, 35), (90, 130, 60)):
        samples = image(rows, columns, bits, signed, components)
        lossy = transcode.irreversible(samples, described(samples, bits), quality)
        parsed = j2k.parse(lossy)
        for level in range(parsed.decompositions + 1):
            found = decode(lossy[: parsed.level_ends[level]]).samples
            right = expected(lossy, level)
            assert found.shape == right.shape and np.abs(found - right).max() <= 1, (rows, columns, level)
        errors = [np.mean((each - samples.astype(float)) ** 2) for each in (found, right)]
        assert errors[0] <= errors[1] * 1.02 + 0.02


HT = [name for name in kinds.NAMES if name.startswith("ht ")]


@pytest.mark.parametrize("name", HT)
def test_other_forms(decode: Decoder, name: str) -> None:
    """All progressions, precincts, small code-blocks, tiles, tile-parts, offsets, odd precisions."""
    stream = kinds.stream(name)
    if "halved" in name:
        with pytest.raises(Refused, match="not supported: sub-sampled"):
            decode(stream.codestream)
        return
    whole = decode(stream.codestream)
    if stream.lossless:
        assert (whole.samples == np.squeeze(np.stack(stream.components, axis=-1))).all()
    for level in range(whole.finest + 1):
        found = decode(stream.codestream, level).samples
        assert np.abs(found - expected(stream.codestream, level)).max() <= (0 if stream.lossless else 1), level


@pytest.mark.parametrize("name", [name for name in rewritten.NAMES if name.startswith("ht ")])
def test_other_layouts(decode: Decoder, name: str) -> None:
    stream = rewritten.stream(name)
    if "halved" in name or "PP" in name or "POC" in name:
        with pytest.raises(Refused, match=r"not supported: (sub-sampled|packed packet|a change of progression)"):
            decode(stream.codestream)
        return
    assert (decode(stream.codestream).samples == np.squeeze(np.stack(stream.components, axis=-1))).all()
    plain = kinds.stream(name.partition(":")[0].partition(" recoded")[0]).codestream
    # What is not stored level by level has fewer of them in a prefix.
    for end in np.linspace(40, len(stream.codestream) - 3, 6).astype(int):
        try:
            found = decode(stream.codestream[:end])
        except Refused as refused:
            assert "not wholly there" in str(refused) or "ends inside a header" in str(refused)
        else:
            assert (found.samples == expected(plain, found.level)).all()


def sparse() -> bytes:
    """Few samples that the cleanup pass finds, so that SigProp has much to find beside them."""
    noise = np.random.default_rng(2)
    samples = (noise.random((75, 83)) < 0.02) * noise.integers(1, 500, (75, 83))
    return bytes(imagecodecs.htj2k_encode(samples.astype(np.int16), reversible=True, resolutions=1))


@pytest.mark.parametrize("name", ["ht 202", "ht 9 bits", "ht irreversible", "sparse"])
def test_refinement_passes(decode: Decoder, name: str) -> None:
    """SigProp and MagRef, vertically causal or not, in one packet and over layers."""
    base = sparse() if name == "sparse" else kinds.stream(name).codestream
    results = []
    for seed, causal in ((1, False), (1, True)):
        streams = []
        for layers in (1, 3):
            wide = bytearray(refined(base, seed, layers=layers, causal=causal))
            j2k.set_precision(wide, 20, True)  # nothing is clamped
            streams.append(bytes(wide))
        found = decode(streams[0]).samples
        results.append(found)
        assert np.abs(found - imagecodecs.htj2k_decode(streams[0])).max() <= (1 if "irreversible" in name else 0)
        if "irreversible" not in name:
            assert (found == imagecodecs.jpeg2k_decode(streams[0])).all()
        assert (decode(streams[1]).samples == found).all()
    assert (results[0] != results[1]).any() or name != "sparse"


def test_the_last_of_several_ht_sets_counts(decode: Decoder) -> None:
    for name in ("ht plain", "ht 202 colour", "ht irreversible"):
        once = kinds.stream(name).codestream
        assert (decode(superseded(once)).samples == decode(once).samples).all()


def test_real_frames(decode: Decoder, shared_data: Path) -> None:
    for name in (
        "transfer-syntax/htj2k-lossless-rpcl/CT1_JPH", "transfer-syntax/htj2k-lossless-rpcl/US1_JPH",
        "transfer-syntax/htj2k-lossless/htj2k_lossless_parity.dcm", "transfer-syntax/htj2k-lossy/HTJ2K_08_RGB.dcm",
    ):  # fmt: skip
        dataset = pydicom.dcmread(shared_data / name)
        frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
        parsed = j2k.parse(frame)
        for level in range(0, parsed.decompositions + 1, 2):
            difference = decode(frame, level).samples - expected(frame, level)
            assert np.abs(difference).max() <= (0 if parsed.reversible else 1)


def test_what_is_damaged_is_decoded_or_refused_in_time(decode: Decoder) -> None:
    noise = random.Random(5)
    streams = [kinds.stream(name).codestream for name in ("ht LRCP colour tiles", "ht 202", "ht irreversible colour")]
    streams.append(refined(kinds.stream("ht plain").codestream, 1, layers=2))
    samples = image(65, 33, 12, False, 1)
    streams.append(transcode.encode_frame(samples, described(samples, 12)).codestream)
    decode.slowest = 0
    outcomes = {True: 0, False: 0}
    for i in range(150):
        damaged = bytearray(streams[i % len(streams)])
        reach = 200 if noise.random() < 0.5 else len(damaged)
        for _ in range(noise.choice((1, 1, 2, 8))):
            damaged[noise.randrange(2, min(reach, len(damaged)))] = noise.choice((0, 0x7F, 0xFF, noise.randrange(256)))
        if noise.random() < 0.3:
            del damaged[noise.randrange(len(damaged)) :]
        try:
            decode(bytes(damaged), maxSamples=1 << 20)
            outcomes[True] += 1
        except Refused:
            outcomes[False] += 1
    assert min(outcomes.values()) > 15 and decode.slowest < 5000


def test_a_header_that_lies_costs_nothing(decode: Decoder) -> None:
    samples = image(65, 33, 12, False, 1)
    stored = bytearray(transcode.encode_frame(samples, described(samples, 12))[0])
    with pytest.raises(Refused, match="33 by 65 samples of 1 components are more than 2144"):
        decode(bytes(stored), maxSamples=2144)
    assert stored[2:4] == b"\xff\x51"
    for area in ((1 << 32) - 1, (1 << 24), 8192):
        for levels, blocks in ((5, b"\x04\x04"), (0, b"\x00\x00"), (32, b"\x00\x00")):
            lying = bytearray(stored)
            lying[8:16] = lying[24:32] = struct.pack(">2I", area, area)
            at = lying.index(b"\xff\x52") + 4
            lying[at + 5 : at + 8] = bytes([levels]) + blocks
            decode.slowest = 0
            with pytest.raises(Refused):
                decode(bytes(lying), maxSamples=1 << 22)
            assert decode.slowest < 5000


def test_what_is_not_supported_is_named(decode: Decoder) -> None:
    with pytest.raises(Refused, match="no codestream at byte 0"):
        decode(b"")
    with pytest.raises(Refused, match="not supported: code-blocks of Part 1"):
        decode(imagecodecs.jpeg2k_encode(plane(20, 20, 8), codecformat="j2k", reversible=True))
    stored = kinds.stream("ht 202").codestream
    region, extension = b"\xff\x5e\x00\x05\x00\x00\x07", b"\xff\x74\x00\x03\x00"
    for marker, reason in ((region, "a region of interest"), (extension, "MCT of Part 2")):
        at = stored.index(b"\xff\x52")
        with pytest.raises(Refused, match=f"not supported: {reason}.* at byte {at}"):
            decode(stored[:at] + marker + stored[at:])
    wide = bytearray(stored)
    j2k.set_precision(wide, 27, True)
    with pytest.raises(Refused, match="not supported: a precision of 27 bits"):
        decode(bytes(wide))


def test_codes_of_annex_c_are_complete(tmp_path: Path) -> None:
    """Each context is a prefix code that leaves nothing out, and tells exponents of significant samples alone."""
    shutil.copy(PAGE / "htj2k_tables.js", tmp_path / "tables.mjs")
    script = (
        "import { INITIAL_QUADS, FOLLOWING_QUADS } from './tables.mjs';"
        "console.log(JSON.stringify([[...INITIAL_QUADS], [...FOLLOWING_QUADS]]))"
    )
    assert NODE is not None
    run = subprocess.run([NODE, "--input-type=module", "-e", script], cwd=tmp_path, capture_output=True, check=True)
    for table, codes in zip(json.loads(run.stdout), (444, 358), strict=True):
        assert len({(at >> 7, entry, at & ((1 << (entry >> 13)) - 1)) for at, entry in enumerate(table)}) == codes
        for entry in table:
            rho, known, ones, length = entry & 15, entry >> 4 & 15, entry >> 8 & 15, entry >> 13
            assert 1 <= length <= 7 and known & ~rho == 0 and ones & ~known == 0
