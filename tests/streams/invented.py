"""Codestreams made up from a seed: sound markers and packets around code-blocks of noise.

They reach what encoders do not write: components of other depths, code-blocks that start late or pause, empty
precincts, placeholder passes and several HT sets, Part 1 code-blocks among HT ones, any subsampling and offset.
They are for walkers; decoders would make nothing of them.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass

from tests.reference.j2k_geometry import (
    Area,
    Resolution,
    Turn,
    Volume,
    blocks_of_precinct,
    resolution,
    tile_area,
    turns,
)
from tests.reference.j2k_packets import BYPASS, CAUSAL, HT, MIXED, PREDICTABLE, RESET, SYMBOLS, TERMALL
from tests.streams.packet_headers import Added, CodeBlock, encode
from tests.streams.rewriting import segment

STYLES = (
    0, BYPASS, TERMALL, BYPASS | TERMALL, RESET | CAUSAL | PREDICTABLE | SYMBOLS, HT, HT | CAUSAL, HT | MIXED,
)  # fmt: skip


@dataclass(frozen=True)
class _Component:
    separation: tuple[int, int]
    levels: int
    block: tuple[int, int]
    style: int
    precincts: tuple[tuple[int, int], ...]


def codestream(seed: int, code_block_style: int | None = None) -> bytes:
    """A codestream of some hundred bytes to some ten thousand. One style for all components when it is named."""
    noise = random.Random(seed)
    chosen = noise.choice(STYLES) if code_block_style is None else code_block_style
    x0, y0 = noise.choice([(0, 0), (noise.randrange(40), noise.randrange(40))])
    image = Area(x0, y0, x0 + noise.randint(1, 70), y0 + noise.randint(1, 70))
    first = noise.choice([(0, 0), (noise.randint(0, x0), noise.randint(0, y0))])
    size = (image.x1 - first[0], image.y1 - first[1])
    if noise.random() < 0.5:
        least = x0 - first[0] + 1, y0 - first[1] + 1
        size = max(size[0] // noise.randint(1, 3), least[0]), max(size[1] // noise.randint(1, 3), least[1])
    components = [_component(noise, chosen) for _ in range(noise.choice([1, 1, 1, 2, 3, 4]))]
    layers = noise.choice([1, 1, 2, 3, 6])
    order = noise.randrange(5)
    out = bytearray(b"\xff\x4f" + _main_header(image, first, size, components, layers, order, chosen))
    across, down = -(-(image.x1 - first[0]) // size[0]), -(-(image.y1 - first[1]) // size[1])
    for number in range(across * down):
        area = tile_area(image, first, size, number, across)
        data = _tile(noise, area, components, layers, order)
        out += struct.pack(">HHHIBBH", 0xFF90, 10, number, 14 + len(data), 0, 1, 0xFF93) + data
    return bytes(out + b"\xff\xd9")


def _component(noise: random.Random, code_block_style: int) -> _Component:
    levels = noise.choice([0, 1, 2, 3, 5])
    precincts = ((15, 15),) * (levels + 1)
    if noise.random() < 0.6:
        sizes = [(noise.randint(1, 6), noise.randint(1, 6)) for _ in range(levels)]
        precincts = ((noise.randint(0, 6), noise.randint(0, 6)), *sizes)
    separation = noise.choice([(1, 1), (1, 1), (2, 1), (2, 2), (noise.randint(1, 4), noise.randint(1, 4))])
    return _Component(separation, levels, (noise.randint(2, 6), noise.randint(2, 6)), code_block_style, precincts)


def _coding(component: _Component) -> bytes:
    xcb, ycb = component.block
    out = bytes([component.levels, xcb - 2, ycb - 2, component.style, 1])
    return out + bytes(x | y << 4 for x, y in component.precincts)


def _main_header(
    image: Area,
    first: tuple[int, int],
    size: tuple[int, int],
    components: list[_Component],
    layers: int,
    order: int,
    code_block_style: int,
) -> bytes:
    profile = 0x4000 if code_block_style & HT else 0
    siz = struct.pack(">H8IH", profile, image.x1, image.y1, image.x0, image.y0, *size, *first, len(components))
    siz += b"".join(bytes([7, *component.separation]) for component in components)
    out = segment(0xFF51, siz)
    if code_block_style & HT:
        mixed = 0xC000 if code_block_style & MIXED else 0
        out += segment(0xFF50, struct.pack(">IH", 0x00020000, mixed))
    out += segment(0xFF52, bytes([1, order]) + struct.pack(">HB", layers, 0) + _coding(components[0]))
    out += segment(0xFF5C, bytes([0x40] + [0x48] * (3 * components[0].levels + 1)))
    for number, component in enumerate(components[1:], 1):
        out += segment(0xFF53, bytes([number, 1]) + _coding(component))
        out += segment(0xFF5D, bytes([number, 0x40] + [0x48] * (3 * component.levels + 1)))
    return out


def _tile(noise: random.Random, area: Area, components: list[_Component], layers: int, order: int) -> bytes:
    resolutions = [
        [resolution(area, c.separation, c.levels, r, c.precincts[r], c.block) for r in range(c.levels + 1)]
        for c in components
    ]
    packets: dict[Turn, bytes] = {}
    for c, component in enumerate(components):
        for r, where in enumerate(resolutions[c]):
            for k in range(where.precincts.columns * where.precincts.rows):
                for layer, packet in enumerate(_precinct(noise, where, k, layers, component.style)):
                    packets[Turn(layer, r, c, k)] = packet
    everything = Volume(0, 0, layers, 33, len(components), order)
    return b"".join(packets[turn] for turn in turns(resolutions, area, [everything]))


def _precinct(noise: random.Random, where: Resolution, number: int, layers: int, code_block_style: int) -> list[bytes]:
    bands = []
    density = noise.choice([0.0, 0.2, 0.7, 1.0])
    for _, cells in blocks_of_precinct(where, number):
        blocks = {}
        for at in ((r, c) for r in range(cells.rows) for c in range(cells.columns)):
            busy = [layer for layer in range(layers) if noise.random() < density]
            blocks[at] = _block(noise, busy, code_block_style)
        bands.append((cells.rows, cells.columns, blocks))
    return [header + body for header, body in encode(bands, layers)]


def _bytes(noise: random.Random, length: int) -> bytes:
    """Never 0xFF, so that no marker is in them."""
    return noise.randbytes(length).replace(b"\xff", b"\x7f")


def _length(noise: random.Random) -> int:
    """Small numbers mostly."""
    return noise.choice([0, 1, 2, noise.randrange(8), noise.randrange(8), noise.randrange(20), noise.randrange(90)])


def _block(noise: random.Random, layers: list[int], code_block_style: int) -> CodeBlock:
    block = CodeBlock(zero_bit_planes=noise.choice([0, 1, 2, noise.randrange(30)]))
    before = 0
    started = False  # an HT set has begun
    part1 = not code_block_style & HT or bool(code_block_style & MIXED and noise.random() < 0.5)
    for layer in layers:
        new = min(noise.choice([1, 1, 2, 3, noise.randint(1, 12), noise.randint(1, 164)]), 164 - before)
        if new < 1:
            break
        if part1 and code_block_style & HT:
            fields = [_part1_among_ht(noise, before, new)]
        elif part1:
            fields = _part1_fields(noise, code_block_style, before, new)
        else:
            fields, started = _ht_fields(noise, before, new, started)
        added = Added(new, fields, _bytes(noise, sum(length for _, length in fields)), noise.choice([3, 3, 3, 5]))
        if code_block_style & MIXED:
            added.least_lblock = 3
            if part1:
                added.exact_width = True
            elif fields[0][1]:
                added.highest_clear = True
        block.layers[layer] = added
        before += new
        if part1 and code_block_style & MIXED:
            break  # one layer: which widths later ones may have is told by the first
    return block


def _part1_fields(noise: random.Random, code_block_style: int, before: int, new: int) -> list[tuple[int, int]]:
    """One length for each codeword segment that passes `before` to `before + new` touch. T.800 Table D.9"""
    def ends_after(index: int) -> bool:
        if code_block_style & TERMALL:
            return True
        return bool(code_block_style & BYPASS) and index >= 9 and (index - 9) % 3 != 1

    fields, count = [], 0
    for index in range(before, before + new):
        count += 1
        if ends_after(index) or index == before + new - 1:
            fields.append((count, _length(noise)))
            count = 0
    return fields


def _part1_among_ht(noise: random.Random, before: int, new: int) -> tuple[int, int]:
    """A length of a Part 1 code-block that a reader tells from HT: its field has its highest bit set."""
    length = noise.randint(1, 7) if noise.random() < 0.5 else noise.randint(64, 400)
    return new, max(length, 1 << new.bit_length() + 3)


def _ht_fields(
    noise: random.Random, before: int, new: int, started: bool
) -> tuple[list[tuple[int, int]], bool]:
    """Lengths of placeholder passes and HT sets, and whether a set has begun. T.814 Annex B"""
    fields: list[tuple[int, int]] = []
    end = before + new
    if not started:
        refinements = (end - 1) % 3
        if new - refinements < 1 or noise.random() < 0.3:
            return [(new, 0)], False  # placeholders only
        fields.append((new - refinements, 2 + _length(noise)))
        before = end - refinements
    while before < end:
        count = 1 if before % 3 == 0 else min(end - before, 3 - before % 3)
        fields.append((count, 2 + _length(noise) if before % 3 == 0 else _length(noise)))
        before += count
    return fields, True
