"""Something to look at in an empty archive: real images of pydicom's wheel, and a synthetic CT of a head.

The head is drawn by formula: a skull, a brain with grey and white matter and ventricles, a fresh bleeding that a
reader would want to find, the head rest, and noise of the grain and strength of a routine scan, so that it
compresses as real slices do. The same arguments give the same bytes.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from pacs.uids import EXPLICIT_VR_LITTLE_ENDIAN

Plane: TypeAlias = npt.NDArray[np.float32]

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
SLICES = 120
SIDE = 512
FIELD_OF_VIEW = 240.0
"""Millimetres, of a row and of a column."""
SLICE_SPACING = 1.25
NOISE = 10.0
"""Standard deviation in Hounsfield units of the noise in the brain, about that of a 1.25 mm slice."""

_REAL_FILES = (
    "CT_small.dcm",
    "J2K_pixelrep_mismatch.dcm",
    "MR_small.dcm",
    "examples_overlay.dcm",
    "examples_jpeg2k.dcm",
    "examples_rgb_color.dcm",
    "examples_palette.dcm",
    "examples_ybr_color.dcm",
    "JPEG2000.dcm",
    "waveform_ecg.dcm",
    "reportsi.dcm",
    "liver_1frame.dcm",
)
"""CT, MR, ultrasound (RGB, palette, JPEG 2000, a JPEG cine of 30 frames), a bone scan, and objects without images."""


def real_files() -> list[Path]:
    """The images of pydicom's own test data that are part of its wheel and carry sound UIDs; nothing is downloaded."""
    folder = Path(str(files("pydicom") / "data" / "test_files"))
    return [folder / name for name in _REAL_FILES if (folder / name).is_file()]


def uid(name: str) -> str:
    """A UID under 2.25 that depends on `name` alone. PS3.5 B.2"""
    return f"2.25.{int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], 'big')}"


# --- Part 10 --------------------------------------------------------------------------------------------------

Element: TypeAlias = tuple[int, str, str | bytes | int | tuple[int, ...]]
"""Tag, Value Representation, value. Text of several values is joined by backslashes."""

_LONG = frozenset(("OB", "OW", "OF", "OD", "OL", "UN", "UT", "SQ", "UC", "UR"))


def _encode(element: Element) -> bytes:
    tag, vr, value = element
    if vr == "US":
        numbers = value if isinstance(value, tuple) else (value,)
        data = struct.pack(f"<{len(numbers)}H", *numbers)
    else:
        data = value.encode() if isinstance(value, str) else value if isinstance(value, bytes) else str(value).encode()
        if len(data) % 2:
            data += b"\0" if vr in ("UI", "OB") else b" "
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr.encode())
    return head + (struct.pack("<HI", 0, len(data)) if vr in _LONG else struct.pack("<H", len(data))) + data


def part10(elements: list[Element]) -> bytes:
    """A Part 10 file in Explicit VR Little Endian; SOP Class and Instance UID are taken from `elements`. PS3.10 7.1"""
    by_tag = {tag: value for tag, _, value in elements}
    meta = b"".join(
        _encode(element)
        for element in (
            (0x00020001, "OB", b"\0\1"),
            (0x00020002, "UI", by_tag[0x00080016]),
            (0x00020003, "UI", by_tag[0x00080018]),
            (0x00020010, "UI", EXPLICIT_VR_LITTLE_ENDIAN),
            (0x00020012, "UI", uid("pacs")),
            (0x00020013, "SH", "PACS DEMO"),
        )
    )
    group_length = struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(meta))
    body = b"".join(_encode(element) for element in sorted(elements, key=lambda element: element[0]))
    return b"".join((b"\0" * 128, b"DICM", group_length, meta, body))


# --- the head -------------------------------------------------------------------------------------------------


class Canvas:
    """A rectangle of a slice with the coordinates of its pixels; the slice is the square from -1 to 1."""

    def __init__(self, image: Plane, x: Plane, y: Plane, angle: npt.NDArray[np.intp]) -> None:
        self.image, self.x, self.y, self.angle = image, x, y, angle

    def around(self, x: float, y: float, a: float, b: float) -> Canvas:
        """The part that holds the ellipse about (x, y) with half axes a and b, and a soft border."""
        margin = 0.02
        left, right = np.searchsorted(self.x[0], (x - a - margin, x + a + margin))
        top, bottom = np.searchsorted(self.y[:, 0], (y - b - margin, y + b + margin))
        rows, columns = slice(top, bottom), slice(left, right)
        return Canvas(self.image[rows, columns], self.x[:, columns], self.y[rows], self.angle[rows, columns])

    def ellipse(self, x: float, y: float, a: float, b: float) -> Plane:
        """About the distance from the border; negative inside."""
        across, down = (self.x - np.float32(x)) / np.float32(a), (self.y - np.float32(y)) / np.float32(b)
        radius: Plane = np.sqrt(across**2 + down**2)
        radius -= np.float32(1)
        radius *= np.float32(min(a, b))
        return radius

    def paint(self, distance: Plane, value: float, softness: float = 1.0) -> None:
        """Where `distance` is negative the image becomes `value`; the border is `softness` pixels of 512 soft."""
        cover = distance * np.float32(-SIDE / 2 / softness)
        cover += np.float32(0.5)
        np.clip(cover, 0, 1, out=cover)
        self.image += cover * (np.float32(value) - self.image)

    def blob(self, x: float, y: float, a: float, b: float, value: float, softness: float = 1.0) -> None:
        """A filled ellipse."""
        part = self.around(x, y, a, b)
        part.paint(part.ellipse(x, y, a, b), value, softness)


_TURN = 4096
"""Steps of a full turn in the tables of the folds."""


class Head:
    """Slices of the head in Hounsfield units. `z` runs from -1 (base of the skull) to 1 (vertex)."""

    def __init__(self, rows: int) -> None:
        axis = (np.arange(rows, dtype=np.float32) + np.float32(0.5)) * np.float32(2 / rows) - np.float32(1)
        self._x, self._y = axis[np.newaxis, :], axis[:, np.newaxis]
        turn = np.arctan2(self._y, self._x) * np.float32(_TURN / (2 * math.pi))
        self._angle = turn.astype(np.intp) % _TURN
        self._outside_circle = self._x**2 + self._y**2 > np.float32(1)
        self._background = self._empty_table(rows)

    def _empty_table(self, rows: int) -> Plane:
        """Air, and the head rest: a shell of carbon fibre below the occiput, filled with foam."""
        image = np.full((rows, rows), -1000, dtype=np.float32)
        canvas = Canvas(image, self._x, self._y, self._angle)
        rest = np.abs(canvas.ellipse(0, -0.02, 0.93, 0.955)) - np.float32(0.03)
        below = np.float32(0.45) - self._y
        canvas.paint(np.maximum(rest, below), -930)
        canvas.paint(np.maximum(np.abs(rest) - np.float32(0.004), below), -200)
        return image

    def slice(self, z: float) -> Plane:
        image = self._background.copy()
        size = math.sqrt(max(0.0, 1 - (0.25 + 0.75 * z) ** 2)) if z > -1 / 3 else 1.0
        if size <= 0.12:
            return image
        a, b = 0.66 * size, 0.84 * size
        head = Canvas(image, self._x, self._y, self._angle).around(0, 0, a, b)
        scalp = head.ellipse(0, 0, a, b)
        head.paint(scalp, 30)
        head.paint(scalp + np.float32(0.012), -95 if size > 0.3 else 20)  # the skin, and fat below it
        self._skull(head, a - 0.035, b - 0.035, size)
        if min(a, b) > 0.2:
            self._brain(head, a - 0.105, b - 0.105, z)
        if z < -0.45:
            self._base(head, z)
        return image

    def _skull(self, head: Canvas, a: float, b: float, size: float) -> None:
        bone = head.ellipse(0, 0, a, b)
        head.paint(bone, 1150)
        head.paint(np.abs(bone + np.float32(0.03)) - np.float32(0.012), 550, softness=3)  # diploe
        head.paint(bone + np.float32(0.065 if size > 0.35 else 0.05), 10)

    def _folds(self, canvas: Canvas, z: float) -> Plane:
        """How the border of the cortex waves with the angle, up to 0.012 either way."""
        turn = np.arange(_TURN) * (2 * math.pi / _TURN)
        table: Plane = (0.012 * np.sin(turn * 23 + 9 * z) * np.cos(turn * 7 - 4 * z)).astype(np.float32)
        return table[canvas.angle]

    def _brain(self, head: Canvas, a: float, b: float, z: float) -> None:
        brain = head.around(0, 0, a, b)
        folds = self._folds(brain, z)
        cortex = brain.ellipse(0, 0, a, b)
        sulci: Plane = np.abs(folds)
        brain.paint(cortex + sulci * np.float32(1.2), 37)
        brain.paint(cortex + np.float32(0.07) + folds * np.float32(2.5), 27, softness=4)  # white matter
        falx = brain.around(0, 0, 0.01, b)
        sheet = np.maximum(np.abs(falx.x) - np.float32(0.006), falx.ellipse(0, 0, a, b) + np.float32(0.02))
        falx.paint(sheet, 48, softness=2)
        ventricle = 0.075 * math.sqrt(max(0.0, 1 - ((z - 0.1) / 0.45) ** 2))
        nuclei = 0.075 * math.sqrt(max(0.0, 1 - (z / 0.5) ** 2))
        for side in (-1.0, 1.0):
            if nuclei > 0.01:
                brain.blob(side * 0.2, 0.02, nuclei, 1.9 * nuclei, 38, softness=4)
            if ventricle > 0.01:
                brain.blob(side * 0.09, -0.12, ventricle, 2.6 * ventricle, 6, softness=2)
                brain.blob(side * 0.14, 0.2, ventricle * 0.9, 2.2 * ventricle, 6, softness=2)
        extent = 1 - ((z - 0.05) / 0.24) ** 2
        if extent > 0:
            self._bleeding(brain, 0.13 * math.sqrt(extent), z)

    def _bleeding(self, brain: Canvas, radius: float, z: float) -> None:
        """In the left basal ganglia, which is on the right of the image, with its rim of oedema."""
        part = brain.around(0.25, -0.02, radius + 0.05, radius * 1.35 + 0.05)
        edge = part.ellipse(0.25, -0.02, radius, radius * 1.35) + self._folds(part, z)
        part.paint(edge - np.float32(0.035), 20, softness=6)
        part.paint(edge, 66, softness=3)

    def _base(self, head: Canvas, z: float) -> None:
        """Orbits, a sinus and the petrous bones with their air cells."""
        depth = min(1.0, (-0.45 - z) / 0.2)
        for side in (-1.0, 1.0):
            head.blob(side * 0.26, -0.56, 0.17 * depth, 0.16 * depth, -80)
            head.blob(side * 0.26, -0.6, 0.11 * depth, 0.11 * depth, 12)
            part = head.around(side * 0.34, 0.12, 0.2 * depth, 0.07 * depth)
            petrous = part.ellipse(side * 0.34, 0.12, 0.2 * depth, 0.07 * depth)
            cells = np.sin(part.x * np.float32(95)) * np.sin(part.y * np.float32(90) + np.float32(5 * z))
            part.paint(petrous, 1300, softness=2)
            part.paint(np.maximum(petrous + np.float32(0.015), np.float32(0.35) - cells), -700, softness=8)
        head.blob(0, -0.62, 0.09 * depth, 0.12 * depth, 600)
        head.blob(0, -0.62, 0.075 * depth, 0.105 * depth, -980)

    def stored(self, z: float, generator: np.random.Generator) -> npt.NDArray[np.uint16]:
        """The slice as 12 bit samples with noise, 1024 above Hounsfield; what was not scanned is 0."""
        image = self.slice(z)
        grain = generator.standard_normal((image.shape[0] + 1, image.shape[1] + 1), dtype=np.float32)
        # A reconstruction kernel correlates neighbours; this one leaves 0.66 of the deviation.
        grain = np.float32(0.8) * grain[:, 1:] + np.float32(0.3) * grain[:, :-1]
        grain = np.float32(0.75) * grain[1:] + np.float32(0.2) * grain[:-1]
        grain *= np.float32(NOISE / 0.66)
        grain[image < np.float32(-900)] *= np.float32(0.7)
        image += grain
        image += np.float32(1024.5)
        np.clip(image, 0, 4095, out=image)
        image[self._outside_circle] = 0
        return image.astype("<u2")


_TOP = 0.86
"""Where the last slice lies, -1 to 1 from the base of the skull to its top: viewers that begin there show brain."""


def head_slices(count: int = SLICES, *, rows: int = SIDE, name: str = "synthetic head") -> Iterator[bytes]:
    """`count` Part 10 files of one CT series, `rows` by `rows`, from the base of the skull upwards.

    `name` decides all UIDs and the Patient ID: the same name is the same study.
    """
    head = Head(rows)
    generator = np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big"))
    common = _common(count, rows, name)
    for index in range(count):
        z = -1 + (_TOP + 1) * (index + 0.5) / count
        position = index * SLICE_SPACING
        instance: list[Element] = [
            (0x00080018, "UI", uid(f"{name}/instance/{index + 1}")),
            (0x00200013, "IS", str(index + 1)),
            (0x00200032, "DS", f"{-FIELD_OF_VIEW / 2:g}\\{-FIELD_OF_VIEW / 2:g}\\{position:g}"),
            (0x00201041, "DS", f"{position:g}"),
            (0x7FE00010, "OW", head.stored(z, generator).tobytes()),
        ]
        yield part10(common + instance)


def _common(count: int, rows: int, name: str) -> list[Element]:
    spacing = f"{FIELD_OF_VIEW / rows:.6g}"
    return [
        (0x00080005, "CS", "ISO_IR 192"),
        (0x00080008, "CS", "ORIGINAL\\PRIMARY\\AXIAL"),
        (0x00080016, "UI", CT_IMAGE_STORAGE),
        (0x00080020, "DA", "20240229"),
        (0x00080021, "DA", "20240229"),
        (0x00080022, "DA", "20240229"),
        (0x00080023, "DA", "20240229"),
        (0x00080030, "TM", "031500"),
        (0x00080031, "TM", "031712"),
        (0x00080032, "TM", "031712"),
        (0x00080033, "TM", "031745"),
        (0x00080050, "SH", "DEMO-0001"),
        (0x00080060, "CS", "CT"),
        (0x00080070, "LO", "none: drawn by formula"),
        (0x00080080, "LO", "Demonstration"),
        (0x00080090, "PN", "Demo^Emergency"),
        (0x00081030, "LO", "CT head, synthetic"),
        (0x0008103E, "LO", "Axial 1.25 mm, brain"),
        (0x00081090, "LO", "pacs.demo"),
        (0x00100010, "PN", "Demo^Synthetic Head"),
        (0x00100020, "LO", "DEMO-" + hashlib.sha256(name.encode()).hexdigest()[:8].upper()),
        (0x00100030, "DA", "19600101"),
        (0x00100040, "CS", "O"),
        (0x00180015, "CS", "HEAD"),
        (0x00180050, "DS", f"{SLICE_SPACING:g}"),
        (0x00180060, "DS", "120"),
        (0x00181100, "DS", f"{FIELD_OF_VIEW:g}"),
        (0x00181151, "IS", "250"),
        (0x00181210, "SH", "BRAIN"),
        (0x00185100, "CS", "HFS"),
        (0x0020000D, "UI", uid(f"{name}/study")),
        (0x0020000E, "UI", uid(f"{name}/series")),
        (0x00200010, "SH", "1"),
        (0x00200011, "IS", "2"),
        (0x00200012, "IS", "1"),
        (0x00200037, "DS", "1\\0\\0\\0\\1\\0"),
        (0x00200052, "UI", uid(f"{name}/frame of reference")),
        (0x00201040, "LO", ""),
        (0x00201002, "IS", str(count)),
        (0x00280002, "US", 1),
        (0x00280004, "CS", "MONOCHROME2"),
        (0x00280010, "US", rows),
        (0x00280011, "US", rows),
        (0x00280030, "DS", f"{spacing}\\{spacing}"),
        (0x00280100, "US", 16),
        (0x00280101, "US", 12),
        (0x00280102, "US", 11),
        (0x00280103, "US", 0),
        (0x00281050, "DS", "40"),
        (0x00281051, "DS", "80"),
        (0x00281052, "DS", "-1024"),
        (0x00281053, "DS", "1"),
        (0x00281054, "LO", "HU"),
        (0x00281055, "LO", "BRAIN"),
    ]


def files_of_demo() -> Iterator[bytes]:
    """Everything that `pacs serve --demo` puts into an empty archive, file by file."""
    for path in real_files():
        yield path.read_bytes()
    yield from head_slices()


FILES = len(_REAL_FILES) + SLICES
