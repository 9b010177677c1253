"""An image looks the same through every rendition: pydicom decodes what we encode and converts it to RGB.

One file, the smallest, stands for each kind of pixel data: Transfer Syntax, Photometric Interpretation, samples, bits,
sign, planes. Of large images a part is encoded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import convert_color_space, get_decoder

from pacs import pixels, transcode, uids
from pacs.geometry import FrameGeometry
from pacs.transcode import Rendition
from tests.objects.base import described

pytestmark = pytest.mark.usefixtures("quiet")

SIDE = 200
ORACLES = {
    uids.HTJ2K_LOSSLESS_RPCL, uids.HTJ2K_LOSSLESS, uids.HTJ2K, uids.JPEG_2000_LOSSLESS, uids.JPEG_2000,
    uids.JPEG_LS_LOSSLESS, uids.JPEG_LOSSLESS, uids.JPEG_LOSSLESS_SV1, uids.JPEG_BASELINE, uids.RLE_LOSSLESS,
}  # fmt: skip
"""What pydicom decodes with the plugins of the test environment. OpenJPEG reads no HTJ2K of 32 bits allocated."""


def kinds(folder: Path) -> list[Path]:
    """The smallest file of each kind of pixel data."""
    smallest: dict[tuple[Any, ...], tuple[int, Path]] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            dataset = pydicom.dcmread(path, stop_before_pixels=True)
            kind = (dataset.file_meta.TransferSyntaxUID, *msgspec.structs.astuple(described(dataset))[2:9])
            size = dataset.Rows * dataset.Columns
        except Exception:  # noqa: BLE001 - files on purpose broken, or without an image
            continue
        if kind not in smallest or size < smallest[kind][0]:
            smallest[kind] = (size, path)
    return [path for _, path in smallest.values()]


def in_rgb(samples: np.ndarray, geometry: FrameGeometry) -> np.ndarray:
    photometric = geometry.photometric_interpretation
    if samples.ndim == 3 and photometric.startswith("YBR_FULL") and samples.dtype == np.uint8:
        return convert_color_space(samples, "YBR_FULL", "RGB")
    return samples


def shown(data: bytes, rendition: Rendition) -> np.ndarray:
    """The frame as RGB, or its gray samples, by pydicom where it has a decoder."""
    geometry, syntax = rendition.geometry, rendition.transfer_syntax
    assert geometry is not None
    if rendition.kind == "native":
        return in_rgb(pixels.decode_native(data, geometry, big_endian=False), geometry)
    ht = uids.transfer_syntax(syntax).media_type == "image/jphc"
    if syntax not in ORACLES or (ht and geometry.bits_allocated == 32):
        return in_rgb(transcode.decode_frame(data, geometry, syntax), geometry)
    # pydicom before 3.1 takes bits in RLE for those of bytes.
    allocated = 8 if syntax == uids.RLE_LOSSLESS and geometry.bits_allocated == 1 else geometry.bits_allocated
    samples, _ = get_decoder(syntax).as_array(
        encapsulate([data]), raw=False, index=0, rows=geometry.rows, columns=geometry.columns,
        samples_per_pixel=geometry.samples_per_pixel, bits_allocated=allocated,
        bits_stored=geometry.bits_stored, pixel_representation=geometry.pixel_representation,
        photometric_interpretation=geometry.photometric_interpretation, number_of_frames=1,
        planar_configuration=geometry.planar_configuration, pixel_keyword="PixelData",
    )  # fmt: skip
    return samples


def brightness(samples: np.ndarray) -> np.ndarray:
    return samples @ (0.299, 0.587, 0.114) if samples.ndim == 3 else samples


def compare(path: Path) -> list[Rendition]:
    """The renditions that look like the file does to pydicom; AssertionError for one that does not."""
    try:
        dataset = pydicom.dcmread(path)
        stored = str(dataset.file_meta.TransferSyntaxUID)
        geometry = described(dataset)
        oracle = get_decoder(stored).as_array(dataset, raw=False, index=0)[0]
    except Exception:  # noqa: BLE001 - no oracle for it
        return []
    if uids.transfer_syntax(stored).encapsulated:
        frame = next(generate_frames(dataset.PixelData, number_of_frames=geometry.frames))
        samples = transcode.decode_frame(frame, geometry, stored)
    else:
        big = stored == uids.EXPLICIT_VR_BIG_ENDIAN
        swapped = big and dataset["PixelData"].VR == "OW" and geometry.bits_allocated == 8
        samples = pixels.decode_native(dataset.PixelData, geometry, big_endian=big, word_swapped=swapped)
        stored = uids.EXPLICIT_VR_LITTLE_ENDIAN
    part = np.ascontiguousarray(samples[:SIDE, :SIDE])
    oracle = oracle[:SIDE, :SIDE].astype(int)
    cut = msgspec.structs.replace(geometry, rows=part.shape[0], columns=part.shape[1], frames=1)
    compared = []
    same = np.array_equal(in_rgb(part, cut), oracle)
    for rendition in transcode.renditions(stored, cut, received=True):
        assert rendition.geometry is not None
        if rendition.kind == "native" and stored != uids.EXPLICIT_VR_LITTLE_ENDIAN:
            data = pixels.encode_native(part, rendition.geometry)
        elif rendition.kind == "encoded":
            data = transcode.encode(part, cut, rendition)
        else:
            continue
        name = f"{path} as {uids.transfer_syntax(rendition.transfer_syntax).name}"
        found = shown(data, rendition).astype(int)
        assert found.shape == oracle.shape, name
        if rendition.lossless and same:
            assert np.array_equal(found, oracle), name
        elif rendition.lossless:
            # Two decoders of a lossy frame agree in the mean, whatever they make of chroma.
            assert np.abs(found - oracle).mean() < 0.3, name
        elif dataset.get("Modality") != "SEG":
            # Chroma that two pixels share is off where neighbours differ much; their brightness is not.
            assert np.abs(found - oracle).mean() < max(1.0, np.ptp(oracle) / 40), name
            assert np.abs(brightness(found) - brightness(oracle)).mean() < max(1.0, np.ptp(oracle) / 100), name
        compared.append(rendition)
    return compared


def test_files_of_pydicoms_wheel() -> None:
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    outcomes = [compare(path) for path in kinds(folder)]
    assert sum(map(len, outcomes)) > 300


def test_real_files(shared_data: Path) -> None:
    outcomes = [compare(path) for path in kinds(shared_data)]
    assert sum(map(len, outcomes)) > 500
    offered = {rendition.transfer_syntax for found in outcomes for rendition in found}
    assert offered >= {*transcode.table.TARGETS, *transcode.table.NATIVE}
