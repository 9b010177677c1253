"""What is stored and asked for: CT, MR, CR, MG and ultrasound, drawn by formula, with the grain of real images.

The same seed gives the same bytes. A few images of each kind are drawn; every instance sent carries one of them under
UIDs of its own, written into its header in place, so that sending costs the client next to nothing.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from pacs import demo

Plane: TypeAlias = npt.NDArray[np.float32]

PATIENT: Final = "BENCH-"
"""How the Patient ID of everything that is sent begins; the run's name follows."""
_PLACE: Final = "{:.<43}"
"""UIDs are of equal length, so that they can be replaced where they stand."""


def uid(name: str) -> str:
    """A UID under 2.25 of 43 characters that depends on `name` alone. PS3.5 B.2"""
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "big")
    return f"2.25.{10**37 + number % (9 * 10**37)}"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of image."""

    modality: str
    title: str
    sop_class: str
    rows: int
    columns: int
    frames: int
    bits_stored: int
    samples_per_pixel: int
    distinct: int
    """Images that are drawn; the others repeat them."""
    a_study: int
    """Instances of this kind in a usual study."""

    @property
    def shape(self) -> str:
        frames = f"{self.frames} x " if self.frames > 1 else ""
        colour = " RGB" if self.samples_per_pixel == 3 else f" x {self.bits_stored} bit"
        return f"{frames}{self.rows} x {self.columns}{colour}"


_STORAGE = "1.2.840.10008.5.1.4.1.1."
KINDS: Final = (
    Kind("CT", "CT", _STORAGE + "2", 512, 512, 1, 12, 1, 16, 300),
    Kind("MR", "MR", _STORAGE + "4", 320, 320, 1, 12, 1, 8, 150),
    Kind("CR", "radiograph", _STORAGE + "1", 2140, 1760, 1, 10, 1, 2, 2),
    Kind("MG", "mammogram", _STORAGE + "1.2", 3328, 2560, 1, 12, 1, 2, 4),
    Kind("US", "ultrasound", _STORAGE + "3.1", 480, 640, 30, 8, 3, 1, 6),
)


@dataclass(frozen=True, slots=True)
class Instance:
    """One Part 10 file in two pieces, ready to be sent."""

    study: str
    series: str
    instance: str
    header: bytes
    pixels: memoryview
    frame_bytes: int

    @property
    def pieces(self) -> tuple[bytes, memoryview]:
        return self.header, self.pixels

    @property
    def length(self) -> int:
        return len(self.header) + len(self.pixels)

    @property
    def file(self) -> bytes:
        return self.header + bytes(self.pixels)

    def frame(self, number: int = 1) -> memoryview:
        """The native samples of a frame, little endian."""
        return self.pixels[(number - 1) * self.frame_bytes : number * self.frame_bytes]


@dataclass(frozen=True, slots=True)
class Image:
    """A drawn image and the header that its instances share."""

    kind: Kind
    header: bytes
    pixels: memoryview

    def instance(self, study: str, series: str, number: int) -> Instance:
        """An instance of this image: `study` and `series` are names, from which UIDs are made."""
        name = f"{series}/{number}"
        uids = uid(study), uid(series), uid(name)
        header = self.header
        for place, value in zip(_PLACES, uids, strict=True):
            header = header.replace(place, value.encode())
        header = header.replace(_NUMBER, b"%-10d" % number)
        return Instance(*uids, header, self.pixels, len(self.pixels) // self.kind.frames)


_PLACES = tuple(_PLACE.format(name).encode() for name in ("study", "series", "instance"))
_NUMBER = b"numberhere"


class Corpus:
    """Drawn when it is first asked for. `shrink` divides the sides of images, for tests."""

    def __init__(self, run: str, shrink: int = 1) -> None:
        self.run = run
        self.patient = PATIENT + run
        self._shrink = shrink
        self._images: dict[tuple[str, int], list[Image]] = {}

    def images(self, modality: str, shrink: int = 0) -> Sequence[Image]:
        """The drawn images of a kind."""
        by = shrink or self._shrink
        if (modality, by) not in self._images:
            kind = next(kind for kind in KINDS if kind.modality == modality)
            self._images[modality, by] = list(self._draw(kind, by))
        return self._images[modality, by]

    def series(self, modality: str, study: str, shrink: int = 0) -> Iterator[Instance]:
        """Instances of one series, without end."""
        images = self.images(modality, shrink)
        name = f"{self.run}/{study}"
        number = 0
        while True:
            yield images[number % len(images)].instance(name, f"{name}/series", number + 1)
            number += 1

    def studies(self, modality: str, name: str, instances: int = 0) -> Iterator[Instance]:
        """Instances of as many studies as are asked for, each of the usual size, or of `instances`."""
        images = self.images(modality)
        each = instances or images[0].kind.a_study
        study = 0
        while True:
            one = f"{self.run}/{name} {study}"
            for number in range(each):
                yield images[number % len(images)].instance(one, f"{one}/series", number + 1)
            study += 1

    def _draw(self, kind: Kind, by: int) -> Iterator[Image]:
        rows, columns = max(16, kind.rows // by), max(16, kind.columns // by)
        draw = _DRAWN[kind.modality]
        generator = np.random.default_rng(int(uid(f"corpus {kind.modality}")[5:]))
        for samples in draw(kind, rows, columns, generator):
            pixels = np.ascontiguousarray(samples).tobytes()
            description = Kind(
                kind.modality, kind.title, kind.sop_class, rows, columns, kind.frames, kind.bits_stored,
                kind.samples_per_pixel, kind.distinct, kind.a_study,
            )  # fmt: skip
            file = demo.part10([*elements(description, self.patient), _pixel_data(description, pixels)])
            yield Image(description, file[: len(file) - len(pixels)], memoryview(pixels))


def _pixel_data(kind: Kind, pixels: bytes) -> demo.Element:
    return 0x7FE00010, "OB" if kind.bits_stored == 8 else "OW", pixels


# --- headers ------------------------------------------------------------------------------------------------------


def elements(kind: Kind, patient: str) -> list[demo.Element]:
    """The header of an image of `kind`, UIDs and Instance Number to be filled in."""
    colour = kind.samples_per_pixel == 3
    allocated = 8 if kind.bits_stored == 8 else 16
    study, series, instance = (place.decode() for place in _PLACES)
    found: list[demo.Element] = [
        (0x00080005, "CS", "ISO_IR 192"),
        (0x00080008, "CS", "ORIGINAL\\PRIMARY"),
        (0x00080016, "UI", kind.sop_class),
        (0x00080018, "UI", instance),
        (0x00080020, "DA", "20250102"),
        (0x00080021, "DA", "20250102"),
        (0x00080023, "DA", "20250102"),
        (0x00080030, "TM", "081500"),
        (0x00080033, "TM", "081612"),
        (0x00080050, "SH", "BENCH"),
        (0x00080060, "CS", kind.modality),
        (0x00080070, "LO", "none: drawn by formula"),
        (0x00080090, "PN", "Bench^Referring"),
        (0x00081030, "LO", f"Benchmark, {kind.title}"),
        (0x0008103E, "LO", f"Benchmark, {kind.title}, {kind.rows} rows"),
        (0x00100010, "PN", f"Bench^{kind.modality}"),
        (0x00100020, "LO", patient),
        (0x00100030, "DA", "19700101"),
        (0x00100040, "CS", "O"),
        (0x00180015, "CS", "CHEST"),
        (0x0020000D, "UI", study),
        (0x0020000E, "UI", series),
        (0x00200010, "SH", "1"),
        (0x00200011, "IS", "1"),
        (0x00200013, "IS", _NUMBER.decode()),
        (0x00280002, "US", kind.samples_per_pixel),
        (0x00280004, "CS", "RGB" if colour else "MONOCHROME2"),
        (0x00280010, "US", kind.rows),
        (0x00280011, "US", kind.columns),
        (0x00280100, "US", allocated),
        (0x00280101, "US", kind.bits_stored),
        (0x00280102, "US", kind.bits_stored - 1),
        (0x00280103, "US", 0),
    ]
    if colour:
        found.append((0x00280006, "US", 0))
    else:
        low, high = _WINDOWS[kind.modality]
        found += [(0x00281050, "DS", f"{(low + high) // 2}"), (0x00281051, "DS", f"{high - low}")]
    if kind.frames > 1:
        found += [(0x00280008, "IS", str(kind.frames)), (0x00181063, "DS", "40"), (0x00280009, "AT", _FRAME_TIME)]
    found.append((0x00090010, "LO", "PACS BENCH"))
    # As many elements as the header of a scanner has: metadata cost what their number makes them cost.
    for number in range(120):
        value = ("DS", f"{number}.25\\{number}.5") if number % 3 else ("LO", f"setting {number} of the protocol")
        found.append((0x00091001 + number, *value))
    return found


_FRAME_TIME = b"\x18\x00\x63\x10"
_WINDOWS = {"CT": (1024, 1124), "MR": (0, 2200), "CR": (100, 950), "MG": (300, 3600)}


# --- images -------------------------------------------------------------------------------------------------------


def _clip(image: Plane, bits: int) -> npt.NDArray[np.uint16]:
    stored: npt.NDArray[np.uint16] = np.clip(image + np.float32(0.5), 0, (1 << bits) - 1).astype("<u2")
    return stored


def _positions(count: int) -> list[float]:
    return [-0.7 + 1.2 * (index + 0.5) / count for index in range(count)]


def _ct(kind: Kind, rows: int, columns: int, generator: np.random.Generator) -> Iterator[Any]:
    head = demo.Head(rows)
    for z in _positions(kind.distinct):
        yield head.stored(z, generator)


def _mr(kind: Kind, rows: int, columns: int, generator: np.random.Generator) -> Iterator[Any]:
    """The head again, in the contrast of a T2 weighted sequence, brighter near the coil, with Rician noise."""
    head = demo.Head(rows)
    density = np.array([-1000, -200, -95, 6, 27, 37, 66, 550, 1300], dtype=np.float32)
    signal = np.array([0, 40, 1500, 2100, 700, 1050, 600, 350, 60], dtype=np.float32)
    bias = np.float32(1) + np.float32(0.3) * _smooth(rows, columns, 3, generator)
    for z in _positions(kind.distinct):
        image = np.interp(head.slice(z), density, signal).astype(np.float32) * bias
        real, imaginary = generator.standard_normal((2, rows, columns), dtype=np.float32) * np.float32(14)
        yield _clip(np.hypot(image + real, imaginary), kind.bits_stored)


def _cr(kind: Kind, rows: int, columns: int, generator: np.random.Generator) -> Iterator[Any]:
    """A chest: two lungs, a heart, ribs, and the quantum noise of the dose."""
    y, x = np.meshgrid(
        np.linspace(-1, 1, rows, dtype=np.float32), np.linspace(-1, 1, columns, dtype=np.float32), indexing="ij"
    )
    for _ in range(kind.distinct):
        image = np.full((rows, columns), 620, np.float32) + 60 * _smooth(rows, columns, 6, generator)
        for side in (-1, 1):
            lung = np.hypot((x - side * 0.42) / 0.33, (y + 0.05) / 0.72)
            image -= 360 / (1 + np.exp((lung - 1) * 18))
            ribs = np.sin(9 * math.pi * (y + 0.28 * np.abs(x) ** 1.5))
            image += 45 * np.clip(ribs, 0, 1) * (np.abs(x) < 0.85)
        image += 230 / (1 + np.exp((np.hypot((x - 0.1) / 0.3, (y - 0.25) / 0.35) - 1) * 14))
        image += 90 * np.exp(-((x / 0.06) ** 2))
        image += 12 * _smooth(rows, columns, 90, generator)
        image += generator.standard_normal((rows, columns), dtype=np.float32) * np.float32(2.6)
        yield _clip(image, kind.bits_stored)


def _mg(kind: Kind, rows: int, columns: int, generator: np.random.Generator) -> Iterator[Any]:
    """A breast against the air: fat, glands in branching grain, a few calcifications."""
    y, x = np.meshgrid(
        np.linspace(-1, 1, rows, dtype=np.float32), np.linspace(0, 1, columns, dtype=np.float32), indexing="ij"
    )
    for _ in range(kind.distinct):
        edge = np.hypot(x / 0.78, y / 0.88)
        inside = 1 / (1 + np.exp((edge - 1) * 60))
        glands = sum(_smooth(rows, columns, n, generator) / math.sqrt(n) for n in (6, 14, 34, 80, 190)) * 3
        image = 1100 + 520 * np.clip(glands + 0.4 - edge, -1, 2)
        for _ in range(24):
            at_x, at_y = generator.uniform(0.1, 0.5), generator.uniform(-0.5, 0.5)
            row, column = int((at_y + 1) / 2 * rows), int(at_x * columns)
            image[row : row + 5, column : column + 5] += 700
        image += generator.standard_normal((rows, columns), dtype=np.float32) * np.float32(16)
        image *= inside
        image += 30
        image += generator.standard_normal((rows, columns), dtype=np.float32) * np.float32(1.2)
        yield _clip(image.astype(np.float32), kind.bits_stored)


def _us(kind: Kind, rows: int, columns: int, generator: np.random.Generator) -> Iterator[Any]:
    """A sector of speckle that moves from frame to frame, a vessel in colour, black around it."""
    y, x = np.meshgrid(
        np.linspace(0, 1, rows, dtype=np.float32), np.linspace(-0.8, 0.8, columns, dtype=np.float32), indexing="ij"
    )
    sector = (np.abs(np.arctan2(x, y + 0.08)) < 0.72) & (np.hypot(x, y + 0.08) < 1.02) & (y > 0.02)
    for _ in range(kind.distinct):
        tissue = 70 + 45 * _smooth(rows, columns, 8, generator) + 25 * _smooth(rows, columns, 40, generator)
        cine = np.zeros((kind.frames, rows, columns, 3), np.uint8)
        speckle = _speckle(rows, columns + kind.frames, generator)
        for frame in range(kind.frames):
            moved = speckle[:, frame : frame + columns]
            grey = np.clip(tissue * moved, 0, 255) * sector
            image = np.repeat(grey[:, :, np.newaxis], 3, axis=2)
            beat = 0.6 + 0.4 * math.sin(2 * math.pi * frame / 15)
            vessel = (np.hypot((x - 0.1) / 0.14, (y - 0.55) / 0.05) < 1) & sector
            image[vessel] = np.stack([grey[vessel] * 0.3 + 160 * beat, grey[vessel] * 0.3, grey[vessel] * 0.3], axis=1)
            cine[frame] = np.clip(image, 0, 255).astype(np.uint8)
        yield cine


def _speckle(rows: int, columns: int, generator: np.random.Generator) -> Plane:
    """Rayleigh distributed, correlated over a few samples as a beam is wide."""
    parts = generator.standard_normal((2, rows + 3, columns + 5), dtype=np.float32)
    wide = np.sum([parts[:, :, shift : shift + columns] for shift in range(6)], axis=0) / np.float32(math.sqrt(6))
    deep = np.sum([wide[:, shift : shift + rows] for shift in range(4)], axis=0) / np.float32(2)
    found: Plane = np.hypot(deep[0], deep[1]) * np.float32(0.8)
    return found


def _smooth(rows: int, columns: int, cells: int, generator: np.random.Generator) -> Plane:
    """A random field between about -1 and 1 that changes over a `cells`-th of the image."""
    grid: Plane = generator.uniform(-1, 1, (cells + 1, cells + 1)).astype(np.float32)
    found = np.dot(np.dot(_interpolation(rows, cells), grid), _interpolation(columns, cells).T)
    return np.asarray(found, dtype=np.float32)


def _interpolation(length: int, cells: int) -> Plane:
    """(length, cells + 1) weights of linear interpolation."""
    at = np.linspace(0, cells, length, dtype=np.float32)
    left = np.minimum(at.astype(np.intp), cells - 1)
    weights = np.zeros((length, cells + 1), np.float32)
    weights[np.arange(length), left] = 1 - (at - left)
    weights[np.arange(length), left + 1] = at - left
    return weights


_DRAWN: dict[str, Callable[[Kind, int, int, np.random.Generator], Iterator[Any]]] = {
    "CT": _ct, "MR": _mr, "CR": _cr, "MG": _mg, "US": _us,
}  # fmt: skip
