"""What is stored and asked for: studies of the kinds in `kinds.py`, drawn by formula (`drawings.py`).

The same seed gives the same bytes. A few images of each kind are drawn; every instance sent carries one of them under
UIDs of its own, written into its header in place, so that sending costs the client next to nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from pacs import demo
from pacs.bench.drawings import DRAWN
from pacs.bench.kinds import KINDS, Kind

PATIENT: Final = "BENCH-"
"""How the Patient ID of everything that is sent begins; the run's name follows."""
_PLACE: Final = "{:.<43}"
"""UIDs are of equal length, so that they can be replaced where they stand."""


def uid(name: str) -> str:
    """A UID under 2.25 of 43 characters that depends on `name` alone. PS3.5 B.2"""
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "big")
    return f"2.25.{10**37 + number % (9 * 10**37)}"


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
        draw = DRAWN[kind.modality]
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
