"""Where tiles, resolution levels, bands, precincts and code-blocks lie. T.800 Annex B.2 to B.7, B.12

Everything is a rectangle on the reference grid, divided and rounded up. `x` and columns come first in the standard;
here rectangles name their edges, so that no order has to be remembered.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple


def ceil_div(value: int, divisor: int) -> int:
    return -(-value // divisor)


class Area(NamedTuple):
    """Columns x0 to x1 and rows y0 to y1, the ends not included."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def empty(self) -> bool:
        return self.x1 <= self.x0 or self.y1 <= self.y0

    def divided(self, dx: int, dy: int) -> Area:
        """This area on a grid that has one point for dx by dy points of this one."""
        return Area(ceil_div(self.x0, dx), ceil_div(self.y0, dy), ceil_div(self.x1, dx), ceil_div(self.y1, dy))

    def intersected(self, other: Area) -> Area:
        return Area(
            max(self.x0, other.x0), max(self.y0, other.y0), min(self.x1, other.x1), min(self.y1, other.y1)
        )


class Cells(NamedTuple):
    """The cells of 2^x_exponent by 2^y_exponent that an area touches, counted from the origin, row by row."""

    first_column: int
    first_row: int
    columns: int
    rows: int

    @classmethod
    def touching(cls, area: Area, x_exponent: int, y_exponent: int) -> Cells:
        if area.empty:
            return cls(0, 0, 0, 0)
        first_column, first_row = area.x0 >> x_exponent, area.y0 >> y_exponent
        columns = ceil_div(area.x1, 1 << x_exponent) - first_column
        rows = ceil_div(area.y1, 1 << y_exponent) - first_row
        return cls(first_column, first_row, columns, rows)


def tile_area(image: Area, first: tuple[int, int], size: tuple[int, int], tile: int, across: int) -> Area:
    """The tile on the reference grid; `first` and `size` are XTOsiz, YTOsiz and XTsiz, YTsiz. T.800 B-7 to B-10"""
    x, y = first[0] + tile % across * size[0], first[1] + tile // across * size[1]
    return Area(x, y, x + size[0], y + size[1]).intersected(image)


BANDS = {"LL": (0, 0), "HL": (1, 0), "LH": (0, 1), "HH": (1, 1)}
"""Whether a band is the high-pass one horizontally, vertically. T.800 Table B.1"""


def band_area(component: Area, name: str, level: int) -> Area:
    """A band of decomposition level `level` (0: the samples themselves). T.800 B-15"""
    if level == 0:
        return component
    x_high, y_high = BANDS[name]
    half, step = 1 << (level - 1), 1 << level
    return Area(
        ceil_div(component.x0 - half * x_high, step),
        ceil_div(component.y0 - half * y_high, step),
        ceil_div(component.x1 - half * x_high, step),
        ceil_div(component.y1 - half * y_high, step),
    )


@dataclass(frozen=True)
class Resolution:
    """One resolution level of a tile-component, 0 the coarsest."""

    area: Area
    """On its own grid."""
    bands: tuple[tuple[str, Area], ...]
    precinct: tuple[int, int]
    """PPx, PPy: exponents of the size of a precinct on this grid."""
    block: tuple[int, int]
    """xcb', ycb': exponents of the size of a code-block on the grid of a band. T.800 B-18, B-19"""
    precincts: Cells
    scale: tuple[int, int]
    """How many columns and rows of the reference grid one of this grid is."""


def resolution(
    tile: Area, separation: tuple[int, int], levels: int, r: int, precinct: tuple[int, int], block: tuple[int, int]
) -> Resolution:
    """Level `r` of a component with XRsiz, YRsiz `separation` and `levels` decompositions. T.800 B.5 to B.7"""
    component = tile.divided(*separation)
    below = levels - r
    area = component.divided(1 << below, 1 << below)
    names, level = (("LL",), levels) if r == 0 else (("HL", "LH", "HH"), below + 1)
    # Above level 0 a precinct of the resolution covers half its size in each of three bands.
    halved = 0 if r == 0 else 1
    return Resolution(
        area=area,
        bands=tuple((name, band_area(component, name, level)) for name in names),
        precinct=precinct,
        block=(min(block[0], precinct[0] - halved), min(block[1], precinct[1] - halved)),
        precincts=Cells.touching(area, *precinct),
        scale=(separation[0] << below, separation[1] << below),
    )


def blocks_of_precinct(where: Resolution, number: int) -> tuple[tuple[str, Cells], ...]:
    """The code-blocks of a precinct, band by band: those cells of the band's grid that it touches. T.800 B.7"""
    column = where.precincts.first_column + number % where.precincts.columns
    row = where.precincts.first_row + number // where.precincts.columns
    halved = 0 if where.bands[0][0] == "LL" else 1
    x_exponent, y_exponent = where.precinct[0] - halved, where.precinct[1] - halved
    inside = Area(
        column << x_exponent, row << y_exponent, (column + 1) << x_exponent, (row + 1) << y_exponent
    )
    return tuple((name, Cells.touching(band.intersected(inside), *where.block)) for name, band in where.bands)


def place(where: Resolution, tile: Area, number: int) -> tuple[int, int]:
    """Row and column of the reference grid at which a precinct has its turn when packets go by position.

    Its upper left corner, or the edge of the tile for precincts that begin before it. T.800 B.12.1.3 to B.12.1.5
    """
    column = where.precincts.first_column + number % where.precincts.columns
    row = where.precincts.first_row + number // where.precincts.columns
    x, y = column << where.precinct[0], row << where.precinct[1]
    return (
        y * where.scale[1] if y >= where.area.y0 else tile.y0,
        x * where.scale[0] if x >= where.area.x0 else tile.x0,
    )


class Turn(NamedTuple):
    """One packet to come."""

    layer: int
    resolution: int
    component: int
    precinct: int


class Volume(NamedTuple):
    """What one progression covers: an entry of POC, or everything. Ends are not included. T.800 A.6.6"""

    resolution_start: int
    component_start: int
    layer_end: int
    resolution_end: int
    component_end: int
    order: int
    """0 to 4: LRCP, RLCP, RPCL, PCRL, CPRL. T.800 Table A.16"""


def turns(components: list[list[Resolution]], tile: Area, volumes: list[Volume]) -> Iterator[Turn]:
    """The packets of a tile in their order. `components[c][r]` is resolution level r of component c. T.800 B.12

    Each order is a sort by other keys. A packet of an earlier volume is not repeated by a later one.
    """
    gone: set[Turn] = set()
    for volume in volumes:
        keyed: list[tuple[tuple[int, ...], Turn]] = []
        for c in range(volume.component_start, min(volume.component_end, len(components))):
            for r in range(volume.resolution_start, min(volume.resolution_end, len(components[c]))):
                where = components[c][r]
                for k in range(where.precincts.columns * where.precincts.rows):
                    y, x = place(where, tile, k)
                    for layer in range(volume.layer_end):
                        key = (
                            (layer, r, c, k),
                            (r, layer, c, k),
                            (r, y, x, c, k, layer),
                            (y, x, c, r, k, layer),
                            (c, y, x, r, k, layer),
                        )[volume.order]
                        keyed.append((key, Turn(layer, r, c, k)))
        for _, turn in sorted(keyed):
            if turn not in gone:
                gone.add(turn)
                yield turn
