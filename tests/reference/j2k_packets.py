"""What a packet header says of the code-blocks of its precinct. T.800 B.10.3 to B.10.7, T.814 Annex B"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from tests.reference.j2k_bits import Bits, Malformed, TagTree, coding_passes, lblock_increment, log2
from tests.reference.j2k_geometry import Cells, Resolution, blocks_of_precinct

MOST_BLOCKS = 300_000
"""Code-blocks and precincts that this walker has the time for; more raise TooLarge."""

# Code-block styles. T.800 Table A.19, T.814 Table A.3
BYPASS, RESET, TERMALL, CAUSAL, PREDICTABLE, SYMBOLS, HT, MIXED = (1 << i for i in range(8))


class TooLarge(Exception):
    """Nothing is wrong, but plain Python would take minutes."""


class Block(NamedTuple):
    """What a packet adds to one code-block."""

    band: str
    row: int
    column: int
    """Among the code-blocks of its band in this precinct."""
    first: bool
    """Whether nothing came before, so that the header tells the zero bit-planes."""
    zero_bit_planes: int
    segments: tuple[tuple[int, int], ...]
    """Coding passes and bytes of each piece of a codeword segment, in the order in which their lengths are told."""

    @property
    def passes(self) -> int:
        return sum(passes for passes, _ in self.segments)

    @property
    def length(self) -> int:
        return sum(length for _, length in self.segments)


@dataclass
class _BlockState:
    """What is known of a code-block from the packets before."""

    zero_bit_planes: int = 0
    passes: int = 0
    lblock: int = 3
    part1: bool | None = None
    """None while an HT code-block has only placeholder passes; then whether it is coded as in Part 1."""


class Precinct:
    """The code-blocks of a precinct and their two tag trees for each band."""

    def __init__(self, where: Resolution, number: int, style: int) -> None:
        self.style = style
        self.bands: list[tuple[str, Cells, TagTree, TagTree]] = []
        for name, cells in blocks_of_precinct(where, number):
            if cells.rows * cells.columns > MOST_BLOCKS:
                raise TooLarge
            trees = TagTree(cells.rows, cells.columns), TagTree(cells.rows, cells.columns)
            self.bands.append((name, cells, *trees))
        self.states: dict[tuple[str, int, int], _BlockState] = {}

    def read(self, bits: Bits, layer: int) -> list[Block]:
        """What the packet of one layer adds; layers come in their order. T.800 B.10.3 to B.10.7"""
        out: list[Block] = []
        if not bits.bit():  # B.10.3: an empty packet
            return out
        for band, cells, inclusion, zero_bit_planes in self.bands:
            for row in range(cells.rows):
                for column in range(cells.columns):
                    state = self.states.get((band, row, column))
                    first = state is None
                    if state is None:  # B.10.4: the tag tree tells in which layer it comes first
                        if not inclusion.is_below(bits, row, column, layer + 1):
                            continue
                        state = _BlockState(zero_bit_planes=zero_bit_planes.value(bits, row, column))
                        self.states[band, row, column] = state
                    elif not bits.bit():
                        continue
                    segments = tuple(_contribution(state, self.style, bits))
                    out.append(Block(band, row, column, first, state.zero_bit_planes, segments))
        return out


def _contribution(state: _BlockState, style: int, bits: Bits) -> list[tuple[int, int]]:
    """Passes and bytes that a code-block gets, one pair for each codeword segment touched. T.800 B.10.6, B.10.7"""
    new = coding_passes(bits)
    state.lblock += lblock_increment(bits)
    if style & HT:
        return _ht_contribution(state, style, new, bits)
    return _part1_segments(state, style, new, bits)


def _length(state: _BlockState, passes: int, bits: Bits) -> tuple[int, int]:
    """The bytes of `passes` passes that end in one codeword segment. T.800 B.10.7.1"""
    length = bits.number(state.lblock + log2(passes))
    state.passes += passes
    return passes, length


def _part1_segments(state: _BlockState, style: int, new: int, bits: Bits) -> list[tuple[int, int]]:
    """Passes are split where the coder is terminated. T.800 B.10.7.2, Table D.9"""
    out = []
    while new:
        if style & TERMALL:
            room = 1  # after each pass
        elif style & BYPASS:
            # After the 10th (the cleanup of the 4th bit-plane), then after each two raw ones and each cleanup.
            room = 10 - state.passes if state.passes < 10 else (2, 1, 1)[(state.passes - 10) % 3]
        else:
            room = new
        out.append(_length(state, min(new, room), bits))
        new -= out[-1][0]
    return out


def _ht_contribution(state: _BlockState, style: int, new: int, bits: Bits) -> list[tuple[int, int]]:
    """HT sets: a cleanup pass in a segment of its own, then up to two refinement passes in another. T.814 Annex B

    Before the first set come placeholder passes, in threes, without bytes. They share the length of the cleanup pass
    that ends them, so that a reader finds out by a length other than zero that the sets have begun. Where Part 1
    code-blocks may be mixed in, the highest bit of that length is 0 for HT and the field has been made wide enough.
    """
    if state.part1 is True:
        return _part1_segments(state, style, new, bits)
    out: list[tuple[int, int]] = []
    if state.part1 is None:
        refinements = (state.passes + new - 1) % 3  # passes behind the last one that may be a cleanup
        to_cleanup = new - refinements
        if to_cleanup < 1:
            found = _length(state, new, bits)
            if found[1]:
                if not style & MIXED:
                    raise Malformed("placeholder passes have bytes", bits.at)
                state.part1 = True
            return [found]
        width = state.lblock + log2(to_cleanup)
        length = bits.number(width)
        ht = length > 0 and (not style & MIXED or (state.lblock > 3 and length > 1 and not length >> (width - 1)))
        if not ht:  # placeholders alone, or Part 1: the field is as wide as all passes ask for
            more = log2(new) - log2(to_cleanup)
            length = length << more | bits.number(more)
            if length:
                if not style & MIXED:
                    raise Malformed("placeholder passes have bytes", bits.at)
                state.part1 = True
            state.passes += new
            return [(new, length)]
        state.part1 = False
        state.passes += to_cleanup
        out.append((to_cleanup, length))
        new = refinements
    while new:
        position = state.passes % 3  # 0 cleanup, 1 SigProp, 2 MagRef
        out.append(_length(state, 1 if position == 0 else min(new, 3 - position), bits))
        new -= out[-1][0]
    return out
