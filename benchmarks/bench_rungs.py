"""What does a slow link get for its bytes? Resolution prefixes, irreversible HTJ2K and quality layers, by modality.

One table an image: bytes, PSNR over the values that the image has, the time to make it, and how long the bytes take on
4 Mbit/s. A prefix of the stored frame costs nothing to make; its PSNR is that of the smaller image enlarged to full
size. Then what a readable image takes, 45 dB over the range of Bits Stored, beside OpenJPEG's rate control: one
irreversible layer of the least PSNR it has to be told. Of each kind the fewest bytes that reach it, and the bytes at
45 dB sharp, on a line between the results around it: nobody is charged for what he has too much.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import imagecodecs
import numpy as np
import pydicom
from pydicom.encaps import generate_frames

from benchmarks import workload
from benchmarks.report import Figure
from benchmarks.scale import TINY, Scale
from pacs import pixels, transcode, uids
from pacs.geometry import FrameGeometry
from pacs.transcode import Samples
from pacs.transcode.rungs import READABLE, psnr, span

IMAGES = {
    "CT": "series/ct-head-phantom-140",
    "CR": "large2d/RG2_UNC",
    "MG": "large2d/GH133.dcm",
    "US": "transfer-syntax/explicit-le/US1_UNC",
}
"""Of the real files: a series of which the middle slice is taken, or a file."""
QUALITIES = (40, 50, 60)
LINK = 4e6
"""Bits a second."""
STORED = uids.HTJ2K_LOSSLESS_RPCL
AROUND = (-1.5, -1.0, -0.5, 0.0, 0.5)
"""dB from the readable quality that .203 is asked for. It comes out up to 1 above what is asked for."""
STEPS = 9
"""Halvings of the dB that OpenJPEG is told: to 0.06."""

_T = TypeVar("_T")
_codecs: Any = imagecodecs


@dataclass(frozen=True, slots=True)
class Rung:
    """One rendition of one image."""

    image: str
    name: str
    length: int
    quality: float
    """PSNR in dB, infinite when lossless."""
    milliseconds: float
    """To make it; 0 for a part of something made or stored already."""

    @property
    def on_the_link(self) -> float:
        """Milliseconds that its bytes take."""
        return self.length * 8 / LINK * 1e3


def images(folder: Path | None, scale: Scale) -> Iterator[tuple[str, Samples, FrameGeometry]]:
    """The real images where they are at hand, else a synthetic CT slice."""
    found = False
    for name, place in IMAGES.items():
        path = folder / place if folder else None
        if path is not None and path.is_dir():
            files = sorted(file for file in path.iterdir() if file.is_file())
            path = files[len(files) // 2]
        if path is not None and path.is_file() and scale is not TINY:
            found = True
            yield (name, *_first_frame(path))
    if not found:
        (source,) = workload.synthetic(1, scale.rows)
        yield ("synthetic CT", *_frame(source.data))


def _first_frame(path: Path) -> tuple[Samples, FrameGeometry]:
    return _frame(path.read_bytes())


def _frame(data: bytes) -> tuple[Samples, FrameGeometry]:
    import io

    dataset = pydicom.dcmread(io.BytesIO(data))
    geometry = FrameGeometry(
        dataset.Rows, dataset.Columns, dataset.SamplesPerPixel, dataset.BitsAllocated, dataset.BitsStored,
        dataset.HighBit, dataset.PixelRepresentation, int(dataset.get("PlanarConfiguration") or 0),
        str(dataset.PhotometricInterpretation), 1,
    )  # fmt: skip
    syntax = str(dataset.file_meta.TransferSyntaxUID)
    if uids.transfer_syntax(syntax).encapsulated:
        samples = transcode.decode_frame(next(generate_frames(dataset.PixelData, number_of_frames=1)), geometry, syntax)
    else:
        samples = pixels.decode_native(dataset.PixelData, geometry, big_endian=False)
    return samples, transcode.decoded_geometry(geometry)


def timed(action: Callable[[], _T], repeats: int) -> tuple[_T, float]:
    """The result and the milliseconds of the quickest run."""
    best = math.inf
    for _ in range(repeats):
        began = time.perf_counter()
        result = action()
        best = min(best, time.perf_counter() - began)
    return result, best * 1e3


def rungs(name: str, samples: Samples, geometry: FrameGeometry, repeats: int) -> Iterator[Rung]:
    """Every rung of one image, what needs no making first."""
    peak = span(samples)
    stored, milliseconds = timed(lambda: transcode.encode_frame(samples, geometry), repeats)
    for dropped in (3, 2, 1):
        end = stored.level_ends[-1 - dropped]
        small = transcode.decode_frame(stored.codestream[:end], geometry, STORED, levels_dropped=dropped)
        yield Rung(name, f"prefix, 1/{1 << dropped} size", end, psnr(samples, _enlarged(small, samples.shape), peak), 0)
    for quality in QUALITIES:
        encoded, taken = timed(partial(transcode.irreversible, samples, geometry, quality), repeats)
        found = transcode.decode_frame(encoded, geometry, uids.HTJ2K)
        yield Rung(name, f".203, {quality} dB asked for", len(encoded), psnr(samples, found, peak), taken)
    layered, taken = timed(lambda: transcode.layered(samples, geometry), repeats)
    planar = False if samples.ndim == 3 else None
    for number, end in enumerate(layered.layer_ends, 1):
        found = imagecodecs.jpeg2k_decode(layered.codestream[:end] + b"\xff\xd9", planar=planar)
        made = taken if number == len(layered.layer_ends) else 0.0
        yield Rung(name, f".90, layers 1 to {number}", end, psnr(samples, found, peak), made)
    yield Rung(name, ".202 lossless, as stored", len(stored.codestream), math.inf, milliseconds)


def _enlarged(small: Samples, shape: tuple[int, ...]) -> Samples:
    """To the full size again, linearly between samples, as a viewer does."""
    picture = small.astype(np.float32)
    for axis in (0, 1):
        places = (np.arange(shape[axis]) + 0.5) * picture.shape[axis] / shape[axis] - 0.5
        places = np.clip(places, 0, picture.shape[axis] - 1)
        low = np.floor(places).astype(int)
        high = np.minimum(low + 1, picture.shape[axis] - 1)
        part = (places - low).reshape(-1, *([1] * (picture.ndim - 1 - axis))).astype(np.float32)
        picture = picture.take(low, axis) * (1 - part) + picture.take(high, axis) * part
    return np.rint(picture)


Points = list[tuple[int, float]]
"""(bytes, dB) of several encodings of one image."""


def readable(samples: Samples, geometry: FrameGeometry) -> dict[str, Points]:
    """Encodings around a readable one, by kind. dB over the range of Bits Stored."""
    peak = (1 << geometry.bits_stored) - 1
    planar = False if samples.ndim == 3 else None

    def point(encoded: bytes, prefix: int | None = None) -> tuple[int, float]:
        data = encoded if prefix is None else encoded[:prefix] + b"\xff\xd9"
        return prefix or len(encoded), psnr(samples, imagecodecs.jpeg2k_decode(data, planar=planar), peak)

    wanted = READABLE - 20 * math.log10(peak / span(samples))
    ht = [point(transcode.irreversible(samples, geometry, wanted + more)) for more in AROUND]
    layered = transcode.layered(samples, geometry)
    layers = [point(layered.codestream, end) for end in layered.layer_ends]
    anchor: Points = []
    low, high = READABLE - 10, READABLE + 10
    for _ in range(STEPS):
        level = (low + high) / 2
        anchor.append(
            point(
                _codecs.jpeg2k_encode(
                    samples, level=level, codecformat="J2K", reversible=False, bitspersample=geometry.bits_stored,
                    mct=geometry.photometric_interpretation == "RGB", planar=planar,
                )
            )
        )  # fmt: skip
        low, high = (low, level) if anchor[-1][1] >= READABLE else (level, high)
    return {".203": ht, ".90, whole layers": layers, "OpenJPEG": anchor}


def fewest(points: Points) -> int | None:
    """The fewest bytes that are readable; None when none of the points is."""
    return min((length for length, quality in points if quality >= READABLE), default=None)


def sharp(points: Points) -> float | None:
    """Bytes at the readable quality, their logarithm on a line between the points next to it."""
    above = min((point for point in points if point[1] >= READABLE), key=lambda point: point[1], default=None)
    below = max((point for point in points if point[1] < READABLE), key=lambda point: point[1], default=None)
    if above is None or below is None or math.isinf(above[1]):
        return fewest(points)
    part = (READABLE - below[1]) / (above[1] - below[1])
    return math.exp(math.log(below[0]) * (1 - part) + math.log(above[0]) * part)


def measured(folder: Path | None, scale: Scale) -> Iterator[Figure]:
    """The rungs of each image, then a readable image beside OpenJPEG's. `folder` is that of the real files."""
    folder = folder or workload.ROOT.parent / "shared" / "data"
    for name, samples, geometry in images(folder if folder.is_dir() else None, scale):
        about = {"raw_bytes": samples.nbytes, "bits_stored": geometry.bits_stored, "span": span(samples)}
        for rung in rungs(name, samples, geometry, 1 if scale is TINY else 3):
            detail = {
                **about, "PSNR": rung.quality if math.isfinite(rung.quality) else None, "ms": rung.milliseconds,
                "link_ms": rung.on_the_link,
            }  # fmt: skip
            yield Figure("rungs", f"{name}: {rung.name}", "pacs", rung.length, "bytes", False, detail)
        found = readable(samples, geometry)
        anchor = found.pop("OpenJPEG")
        for kind, points in found.items():
            for case, bytes_of in (("readable", fewest), ("at 45 dB sharp", sharp)):
                for server, of in (("pacs", points), ("OpenJPEG", anchor)):
                    length = bytes_of(of)
                    if length is not None:
                        case_of = f"{name}: {case}, {kind}"
                        yield Figure("readable", case_of, server, length, "bytes", False, {"points": of})


def table(figures: Iterable[Figure]) -> str:
    """The rungs of `measured`, image by image."""
    lines: list[str] = []
    previous = ""
    for figure in figures:
        if figure.benchmark != "rungs":
            continue
        image, _, name = figure.case.partition(": ")
        detail, raw = figure.detail, figure.detail["raw_bytes"]
        if image != previous:
            previous = image
            bits = f"{detail['bits_stored']} bits stored, values over {detail['span']}"
            lines += [
                f"\n{image}, {bits}, {raw:,} bytes raw",
                f"  {'':26}{'bytes':>12}{'of raw':>9}{'PSNR dB':>10}{'to make ms':>12}{'4 Mbit/s ms':>13}",
            ]
        quality = "lossless" if detail["PSNR"] is None else f"{detail['PSNR']:.1f}"
        made = f"{detail['ms']:.1f}" if detail["ms"] else ""
        share = f"{100 * figure.value / raw:.1f} %"
        lines.append(
            f"  {name:26}{figure.value:>12,}{share:>9}{quality:>10}{made:>12}{detail['link_ms']:>13.0f}"
        )
    return "\n".join(lines)
