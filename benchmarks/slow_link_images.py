"""What is opened over a slow link, and how near to the file what has come of it is."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import pydicom

from benchmarks import workload
from benchmarks.scale import Scale
from benchmarks.workload import Instance
from pacs import transcode, uids
from pacs.codestream import parse
from pacs.geometry import FrameGeometry

_RADIOGRAPHS = {"CR": "large2d/RG2_UNC", "MG": "large2d/GH133.dcm"}

Samples = npt.NDArray[Any]


@dataclass(slots=True)
class Subject:
    """What is opened: one or more frames of one series."""

    name: str
    instances: list[Instance]
    originals: list[Samples]
    bits: int
    window: tuple[float, float] | None
    """(centre, width) of the header, in stored values."""
    header_window: tuple[float, float] | None
    """The same as the header has it."""
    first_side: int


def subjects(folder: Path | None, scale: Scale) -> list[Subject]:
    """A CR and a mammogram of the real data where it is at hand, and a CT: the real one, else the synthetic head."""
    found = []
    for name, path in _RADIOGRAPHS.items():
        file = workload.shared_file(folder, path)
        if file is not None:
            found.append(_subject(name, [_native(file.read_bytes())], 256))
    slices = workload.real_series(folder, scale.real_slices) or workload.synthetic(scale.slices, scale.rows)
    found.append(_subject("CT", workload.series_of(slices, scale.series, "slow link"), 128))
    return found


def _native(data: bytes) -> Instance:
    """The file with its pixel data decoded, as a modality would send it."""
    ds = pydicom.dcmread(io.BytesIO(data))
    if ds.file_meta.TransferSyntaxUID.is_compressed:
        ds.decompress(generate_instance_uid=False)
        out = io.BytesIO()
        ds.save_as(out)
        data = out.getvalue()
    return workload.read(data)


def _subject(name: str, instances: list[Instance], first_side: int) -> Subject:
    ds = pydicom.dcmread(io.BytesIO(instances[0].data))
    window = header_window = None
    if "WindowCenter" in ds:
        centre, width = (float(np.atleast_1d(ds[key].value)[0]) for key in ("WindowCenter", "WindowWidth"))
        header_window = (centre, width)
        slope, intercept = float(ds.get("RescaleSlope", 1) or 1), float(ds.get("RescaleIntercept", 0) or 0)
        window = ((centre - intercept) / slope, width / slope)
    kind = ("<i" if ds.PixelRepresentation else "<u") + str(ds.BitsAllocated // 8)
    originals = [np.frombuffer(one.pixels, kind).reshape(ds.Rows, ds.Columns) for one in instances]
    return Subject(name, instances, originals, ds.BitsStored, window, header_window, first_side)


def psnr(subject: Subject, position: int, decoded: Samples) -> tuple[float, float]:
    """(over the full stored range, of what the header's window shows) in dB, once enlarged to full size."""
    original = subject.originals[position].astype(np.float64)
    given = _enlarged(decoded.astype(np.float64), original.shape)
    full = _decibels(original, given, (1 << subject.bits) - 1)
    if subject.window is None:
        return full, full
    centre, width = subject.window
    low, high = centre - width / 2, centre + width / 2
    return full, _decibels(np.clip(original, low, high), np.clip(given, low, high), width)


def _enlarged(image: Samples, shape: tuple[int, ...]) -> Samples:
    rows = np.arange(shape[0]) * image.shape[0] // shape[0]
    columns = np.arange(shape[1]) * image.shape[1] // shape[1]
    found: Samples = image[np.ix_(rows, columns)]
    return found


def _decibels(original: Samples, given: Samples, peak: float) -> float:
    error = float(np.mean((original - given) ** 2))
    return math.inf if error == 0 else 10 * math.log10(peak * peak / error)


def decoded(codestream: bytes, subject: Subject) -> Samples:
    """The samples of a whole codestream, or of a prefix of it: a level, some layers."""
    if b"\xff\x50" not in codestream[:100]:  # CAP: Part 15. T.814 A.3
        return np.asarray(imagecodecs.jpeg2k_decode(codestream + b"\xff\xd9"))
    rows, columns = subject.originals[0].shape
    geometry = FrameGeometry(
        rows, columns, 1, 16, subject.bits, subject.bits - 1, int(subject.originals[0].dtype.kind == "i"), 0,
        "MONOCHROME2", 1,
    )  # fmt: skip
    ends = parse(codestream).level_ends
    missing = sum(end > len(codestream) for end in ends)
    return transcode.decode_frame(codestream, geometry, uids.HTJ2K, levels_dropped=missing)


def rendered_quality(subject: Subject, answer: bytes, position: int) -> float:
    """PSNR in dB of an 8-bit JPEG, enlarged to full size, against the window of the header as 8 bits."""
    shown = np.asarray(imagecodecs.jpeg8_decode(answer)).astype(np.float64)
    if shown.ndim == 3:
        shown = shown.mean(axis=2)
    original = subject.originals[position].astype(np.float64)
    if subject.window is None:
        low, high = float(original.min()), float(original.max())
    else:
        centre, width = subject.window
        low, high = centre - width / 2, centre + width / 2
    grey = np.clip((original - low) / (high - low), 0, 1) * 255
    return _decibels(grey, _enlarged(shown, original.shape), 255)
