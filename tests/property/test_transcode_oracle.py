"""Every decodable frame of pydicom's wheel and of the real data decodes to pydicom's `pixel_array(raw=True)`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.encaps import generate_frames
from pydicom.pixels import get_decoder

from pacs import codestream, pixels, transcode, uids
from pacs.errors import PacsError
from pacs.geometry import FrameGeometry
from tests.objects.base import described

pytestmark = pytest.mark.usefixtures("quiet")

LOSSY_JPEG = {uids.JPEG_BASELINE, uids.JPEG_EXTENDED}
PLAIN = {
    uids.IMPLICIT_VR_LITTLE_ENDIAN, uids.EXPLICIT_VR_LITTLE_ENDIAN, uids.EXPLICIT_VR_BIG_ENDIAN,
    uids.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
}  # fmt: skip


def compare(path: Path) -> str:
    """ "same", "near" or why there is nothing to compare; AssertionError for another image."""
    try:
        dataset = pydicom.dcmread(path)
        syntax = str(dataset.file_meta.TransferSyntaxUID)
        geometry = described(dataset)
        expected = get_decoder(syntax).as_array(dataset, raw=True, index=0)[0]
    except Exception:  # noqa: BLE001 - whatever pydicom makes of a file on purpose broken
        return "no oracle"
    if syntax in PLAIN:
        return native(dataset, geometry, expected, syntax == uids.EXPLICIT_VR_BIG_ENDIAN)
    frame = next(generate_frames(dataset.PixelData, number_of_frames=geometry.frames))
    found = transcode.decode_frame(frame, geometry, syntax)
    if syntax in LOSSY_JPEG or path.name == "HTJ2K_08_RGB.dcm" or _lossy(frame):
        # Two decoders of a lossy process agree within rounding, and about how chroma is smoothed.
        difference = np.abs(found.astype(int) - expected)
        assert difference.mean() < 0.25, f"{path}: {difference.max()} at most, {difference.mean()} in the mean"
        return "near"
    assert np.array_equal(found, expected), path
    return "same"


def _lossy(frame: bytes) -> bool:
    if frame[:2] == b"\xff\xd8":
        return b"\xff\xc0" in frame[:2000]
    try:
        return not codestream.parse(frame).reversible
    except PacsError:
        return False


def native(dataset: pydicom.Dataset, geometry: FrameGeometry, expected: np.ndarray, big_endian: bool) -> str:
    length = -(-geometry.frame_bits // 8)
    value = dataset.PixelData[: length + length % 2]
    swapped = big_endian and dataset["PixelData"].VR == "OW" and geometry.bits_allocated == 8
    found = pixels.decode_native(value, geometry, big_endian=big_endian, word_swapped=swapped)
    assert np.array_equal(found, expected)
    try:
        pixels.check(geometry)
    except PacsError:
        return "same"
    if not swapped:
        samples, kind, residual = pixels.split(value[:length], geometry, big_endian=big_endian)
        assert np.array_equal(samples, expected)
        joined = pixels.join(samples, geometry, big_endian=big_endian, unused_bits=kind, residual=residual)
        assert joined == value[:length]
        encoded = transcode.encode_frame(samples, geometry)
        assert np.array_equal(transcode.decode_frame(encoded.codestream, geometry, uids.HTJ2K_LOSSLESS_RPCL), expected)
    return "same"


def test_files_of_pydicoms_wheel() -> None:
    files = sorted((Path(pydicom.__file__).parent / "data" / "test_files").rglob("*.dcm"))
    outcomes = [compare(path) for path in files]
    assert outcomes.count("same") > 40


@pytest.mark.parametrize(
    ("folder", "least"),
    [("transfer-syntax", 60), ("photometric", 25), ("multiframe", 15), ("large2d", 8), ("wsi", 4), ("malformed", 5),
     ("non-image", 5), ("series-geometry", 10)],
)  # fmt: skip
def test_real_files(shared_data: Path, folder: str, least: int) -> None:
    outcomes = [compare(path) for path in sorted((shared_data / folder).rglob("*")) if path.is_file()]
    assert len(outcomes) - outcomes.count("no oracle") >= least


def test_real_series(shared_data: Path) -> None:
    for folder in sorted((shared_data / "series").iterdir()):
        for path in sorted(path for path in folder.rglob("*") if path.is_file())[::40]:
            assert compare(path) == "same"
