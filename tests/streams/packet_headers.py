"""Packet headers written: the inverse of the plain walker, for streams that no encoder makes. T.800 B.10"""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.reference.j2k_bits import log2


class BitWriter:
    """T.800 B.10.1: a byte of 0xFF is followed by one whose highest bit is 0."""

    def __init__(self) -> None:
        self.out = bytearray()
        self.byte, self.room = 0, 8

    def bit(self, value: int) -> None:
        self.room -= 1
        self.byte |= value << self.room
        if self.room == 0:
            self.out.append(self.byte)
            self.room = 7 if self.byte == 0xFF else 8
            self.byte = 0

    def number(self, value: int, count: int) -> None:
        for i in reversed(range(count)):
            self.bit(value >> i & 1)

    def finish(self) -> bytes:
        if self.room < 8:  # a byte begun, or the one due after 0xFF
            self.out.append(self.byte)
        return bytes(self.out)


class TagTreeWriter:
    """T.800 B.10.2. `leaves` maps (row, column) to a number, for all rows and columns."""

    def __init__(self, rows: int, columns: int, leaves: dict[tuple[int, int], int]) -> None:
        self.least = {(0, r, c): leaves[r, c] for r in range(rows) for c in range(columns)}
        self.levels = 1
        below = self.least.copy()
        while max(rows, columns) > 1:
            rows, columns = (rows + 1) // 2, (columns + 1) // 2
            above: dict[tuple[int, int, int], int] = {}
            for (level, r, c), value in below.items():
                node = level + 1, r // 2, c // 2
                above[node] = min(above.get(node, value), value)
            self.least |= above
            below = above
            self.levels += 1
        self.told: dict[tuple[int, int, int], int] = {}
        self.exact: set[tuple[int, int, int]] = set()

    def tell(self, bits: BitWriter, row: int, column: int, threshold: int) -> None:
        """Write what a reader needs to tell whether the leaf is below `threshold`."""
        told = 0
        for level in reversed(range(self.levels)):
            node = level, row >> level, column >> level
            told = max(told, self.told.get(node, 0))
            while told < threshold and node not in self.exact:
                if told == self.least[node]:
                    bits.bit(1)
                    self.exact.add(node)
                else:
                    bits.bit(0)
                    told += 1
            self.told[node] = told


def coding_passes(bits: BitWriter, count: int) -> None:
    """T.800 Table B.4"""
    if count <= 2:
        bits.number(count - 1 << (count - 1), count)
    elif count <= 5:
        bits.number(0b1100 | (count - 3), 4)
    elif count <= 36:
        bits.number(0b1111 << 5 | (count - 6), 9)
    else:
        bits.number(0b111111111 << 7 | (count - 37), 16)


@dataclass
class Added:
    """What a packet adds to one code-block."""

    passes: int
    fields: list[tuple[int, int]]
    """Passes that the width of a length field counts on, and the length."""
    data: bytes
    least_lblock: int = 3
    exact_width: bool = False
    """Lblock just large enough for the first length, so that its highest bit is 1: Part 1 among HT."""
    highest_clear: bool = False
    """The first length has its highest bit clear: HT among Part 1."""


@dataclass
class CodeBlock:
    """One code-block over all layers."""

    zero_bit_planes: int = 0
    layers: dict[int, Added] = field(default_factory=dict)


def encode(bands: list[tuple[int, int, dict[tuple[int, int], CodeBlock]]], layers: int) -> list[tuple[bytes, bytes]]:
    """Header and body of the packets of one precinct, layer by layer. Bands are (rows, columns, code-blocks)."""
    trees = []
    lblocks: dict[tuple[int, int, int], int] = {}
    for rows, columns, blocks in bands:
        first = {at: min(block.layers, default=layers) for at, block in blocks.items()}
        planes = {at: block.zero_bit_planes for at, block in blocks.items()}
        trees.append((TagTreeWriter(rows, columns, first), TagTreeWriter(rows, columns, planes), first))
    out = []
    for layer in range(layers):
        bits, body = BitWriter(), bytearray()
        if not any(layer in block.layers for _, _, blocks in bands for block in blocks.values()):
            bits.bit(0)
            out.append((bits.finish(), b""))
            continue
        bits.bit(1)
        for number, (rows, columns, blocks) in enumerate(bands):
            inclusion, planes_tree, first = trees[number]
            for at in ((r, c) for r in range(rows) for c in range(columns)):
                added = blocks[at].layers.get(layer)
                if first[at] >= layer:
                    inclusion.tell(bits, *at, layer + 1)
                else:
                    bits.bit(added is not None)
                if added is None:
                    continue
                if first[at] == layer:
                    planes_tree.tell(bits, *at, blocks[at].zero_bit_planes + 1)
                key = number, *at
                lblocks[key] = _lengths(bits, added, lblocks.get(key, 3))
                body += added.data
        out.append((bits.finish(), bytes(body)))
    return out


def _lengths(bits: BitWriter, added: Added, lblock: int) -> int:
    """Passes, the growth of Lblock, and lengths. T.800 B.10.6, B.10.7"""
    coding_passes(bits, added.passes)
    needed = [length.bit_length() - log2(passes) for passes, length in added.fields]
    if added.highest_clear:
        needed.append(needed[0] + 1)
        needed.append(4)
    grown = max(lblock, added.least_lblock, *needed)
    if added.exact_width and grown > 3:
        assert grown + log2(added.fields[0][0]) == added.fields[0][1].bit_length()
    bits.number((1 << (grown - lblock + 1)) - 2, grown - lblock + 1)
    for passes, length in added.fields:
        bits.number(length, grown + log2(passes))
    return grown
