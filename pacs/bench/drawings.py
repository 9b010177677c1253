"""Images of each kind, drawn by formula with the grain of real ones: CT, MR, CR, MG and ultrasound."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pacs import demo
from pacs.bench.kinds import Kind

Plane: TypeAlias = npt.NDArray[np.float32]


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


DRAWN: dict[str, Callable[[Kind, int, int, np.random.Generator], Iterator[Any]]] = {
    "CT": _ct, "MR": _mr, "CR": _cr, "MG": _mg, "US": _us,
}  # fmt: skip
