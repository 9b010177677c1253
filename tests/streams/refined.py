"""HT code-blocks with SigProp and MagRef passes, which no free encoder makes: what the passes say is made up.

Any bits are a sound refinement of a cleanup pass, so long as they are stuffed rightly. The cleanup pass must leave a
bit-plane for them; OpenJPH's never does. So each band gets one bit-plane more, by one guard bit more in QCD.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable

from tests.reference import j2k
from tests.reference.j2k_geometry import Turn
from tests.reference.j2k_headers import COD, QCD
from tests.streams.packet_headers import Added, CodeBlock, encode
from tests.streams.rewritten import _assembled, _pieces

CAUSAL = 8
"""In the code-block style: nothing below a stripe is looked at. T.800 Table A.19"""


def refined(codestream: bytes, seed: int, *, layers: int = 1, causal: bool = False) -> bytes:
    """`codestream`, of one tile in one tile-part, with up to two refinement passes in each code-block.

    With several layers a pass comes in any of them, after those before it.
    """
    noise = random.Random(seed)
    made = _with_blocks(codestream, layers, functools.partial(_with_refinements, noise, layers))
    for marker, at, change in ((QCD, 0, 1 << 5), *([(COD, 8, CAUSAL)] if causal else [])):
        where = made.index(marker.to_bytes(2, "big")) + 4 + at
        made[where] += change
    return bytes(made)


def superseded(codestream: bytes) -> bytes:
    """The same with another HT set, for the bit-plane above, before each code-block's own: it changes nothing."""

    def block(zero_bit_planes: int, cleanup: bytes) -> CodeBlock:
        own = Added(1, [(1, len(cleanup))], cleanup)
        if not zero_bit_planes:
            return CodeBlock(0, {0: own})
        before = Added(3, [(1, len(cleanup)), (2, 5)], cleanup + bytes(5))
        return CodeBlock(zero_bit_planes - 1, {0: before, 1: own})

    return bytes(_with_blocks(codestream, 2, block))


def _with_blocks(codestream: bytes, layers: int, block: Callable[[int, bytes], CodeBlock]) -> bytearray:
    """`block` gets the zero bit-planes of each code-block and its cleanup pass."""
    walked = j2k.walk(codestream)
    assert walked.image is not None and walked.fault is None and len(walked.tiles) == 1
    headers: dict[Turn, tuple[bytes, bytes]] = {}
    for packet in walked.packets:
        key = packet.component, packet.resolution, packet.precinct
        bands = []
        for band, cells, *_ in walked.tiles[0].precincts[key].bands:
            grid = {(row, column): CodeBlock() for row in range(cells.rows) for column in range(cells.columns)}
            for at in grid:
                for zero_bit_planes, _, cleanup in _pieces(codestream, [packet], band, at):
                    grid[at] = block(zero_bit_planes, cleanup)
            bands.append((cells.rows, cells.columns, grid))
        for layer, pair in enumerate(encode(bands, layers)):
            headers[Turn(layer, key[1], key[0], key[2])] = pair
    return bytearray(_assembled(walked, headers, layers))


def _with_refinements(noise: random.Random, layers: int, zero_bit_planes: int, cleanup: bytes) -> CodeBlock:
    block = CodeBlock(zero_bit_planes)
    passes = noise.choice((1, 2, 3, 3, 3))
    cuts = sorted(noise.choices(range(layers), k=passes))  # the layer of each pass
    bits = _stuffed(noise, noise.choice((1, 20, 150, 600, 600, 600)))
    middle = len(bits) // 2 or 1
    for layer in sorted(set(cuts)):
        mine = [i for i, chosen in enumerate(cuts) if chosen == layer]
        refinements = [i for i in mine if i]
        fields, data = [], b""
        if 0 in mine:
            fields.append((1, len(cleanup)))
            data = cleanup
        if refinements:
            # One segment for both passes; in two layers it comes in two pieces.
            whole = passes == 2 or len(refinements) == 2
            piece = bits if whole else bits[:middle] if 1 in refinements else bits[middle:]
            fields.append((len(refinements), len(piece)))
            data += piece
        block.layers[layer] = Added(len(mine), fields, data)
    return block


def _stuffed(noise: random.Random, length: int) -> bytes:
    """Bytes that both readers of a refinement segment take, the one from the front and the one from the back."""
    out = bytearray()
    while len(out) < length:
        byte = noise.choice((0xFF, 0x7F, 0x90, 0x8F, *(noise.randrange(256) for _ in range(8))))
        if out and out[-1] == 0xFF:
            byte &= 0x7F
        if byte > 0x8F and out and out[-1] & 0x7F == 0x7F:
            out[-1] = 0x7F  # backward, seven bits of ones and a stuffed zero
        out.append(byte)
    out[-1] &= 0x7E  # T.814 7.1.3: what ends the segment is not FF, and nothing is stuffed before it
    return bytes(out)
