"""What does a slow link get for its bytes? Resolution prefixes, irreversible HTJ2K and quality layers, by modality.

`python -m benchmarks.bench_rungs` prints one table an image: bytes, PSNR over the values that the image has, the time
to make it, and how long the bytes take on 4 Mbit/s. A prefix of the stored frame costs nothing to make; its PSNR is
that of the smaller image enlarged to full size.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import imagecodecs
import numpy as np
import pydicom
from pydicom.encaps import generate_frames

from benchmarks import machine, workload
from benchmarks.report import Figure
from benchmarks.scale import FULL, TINY, Scale
from pacs import pixels, transcode, uids
from pacs.geometry import FrameGeometry
from pacs.transcode import Samples
from pacs.transcode.rungs import psnr, span

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

_T = TypeVar("_T")


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


def measured(folder: Path | None, scale: Scale) -> Iterator[Figure]:
    """The rungs as figures: bytes, dB and milliseconds of each."""
    for name, samples, geometry in images(folder, scale):
        for rung in rungs(name, samples, geometry, 1 if scale is TINY else 3):
            detail = {"PSNR": rung.quality if math.isfinite(rung.quality) else None, "link_ms": rung.on_the_link}
            yield Figure("rungs", f"{name}: {rung.name}", "pacs", rung.length, "bytes", False, detail)
            if rung.milliseconds:
                yield Figure("rungs", f"{name}: {rung.name}", "pacs", rung.milliseconds, "ms", False)


def main(argv: list[str] | None = None) -> int:
    """Print a table an image."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_rungs", description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of the real files (default: ../shared/data, if there)")
    parser.add_argument("--tiny", action="store_true", help="only show that it runs; figures mean nothing")
    arguments = parser.parse_args(argv)
    described = machine.describe()
    print(f"{described['processor']}, {described['cores']} cores, load {described['load_average_before']}")
    folder = arguments.data or workload.ROOT.parent / "shared" / "data"
    scale = TINY if arguments.tiny else FULL
    for name, samples, geometry in images(folder if folder.is_dir() else None, scale):
        shape = " x ".join(map(str, samples.shape))
        raw = samples.nbytes
        print(f"\n{name} {shape}, {geometry.bits_stored} bits stored, values over {span(samples)}, {raw:,} bytes raw")
        print(f"  {'':26}{'bytes':>12}{'of raw':>9}{'PSNR dB':>10}{'to make ms':>12}{'4 Mbit/s ms':>13}")
        for rung in rungs(name, samples, geometry, 1 if arguments.tiny else 3):
            quality = f"{rung.quality:.1f}" if math.isfinite(rung.quality) else "lossless"
            made = f"{rung.milliseconds:.1f}" if rung.milliseconds else ""
            share = f"{100 * rung.length / raw:.1f} %"
            print(f"  {rung.name:26}{rung.length:>12,}{share:>9}{quality:>10}{made:>12}{rung.on_the_link:>13.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
