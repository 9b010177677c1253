"""Streams of `kinds` in layouts that no encoder makes, by name: they decode to the samples of what they are made of."""

from __future__ import annotations

import dataclasses
import functools

from tests.reference import j2k
from tests.reference.j2k_geometry import Turn, Volume, turns
from tests.reference.j2k_headers import COD, PLT, TLM
from tests.reference.j2k_packets import HT, TERMALL
from tests.streams import kinds
from tests.streams.kinds import Stream
from tests.streams.packet_headers import Added, CodeBlock, encode
from tests.streams.rewriting import Layout, rewrite, segment


def _resolution(turn: Turn) -> int:
    return turn.resolution


def _layer(turn: Turn) -> int:
    return turn.layer


def _place(turn: Turn) -> tuple[int, int]:
    return turn.resolution, turn.precinct


def _all(layers: int, resolutions: int, order: int) -> Volume:
    return Volume(0, 0, layers, resolutions, 255, order)


LAYOUTS = {
    "PPM": Layout(packed="PPM"),
    "PPM in pieces": Layout(packed="PPM", most_bytes=50, eph=True, split=_resolution),
    "PPM of rounds": Layout(packed="PPM", most_bytes=49, cut_anywhere=True, split=_resolution, interleaved="rounds"),
    "PPT": Layout(packed="PPT", sop=True),
    "PPT in pieces": Layout(packed="PPT", most_bytes=50, split=_resolution, order="RPCL", eph=True),
    "PLT in pieces": Layout(lengths="PLT", most_bytes=20, tlm=(1, 0), sop=True),
    "PLM": Layout(lengths="PLM", split=_place, order="RLCP", tlm=(2, 1)),
    "SOP EPH": Layout(sop=True, eph=True),
    "TLM in pieces": Layout(tlm=(2, 0), split=_resolution, most_bytes=20),
    "rounds of tile-parts": Layout(split=_resolution, order="RPCL", interleaved="rounds", tlm=(1, 1)),
    "tiles backwards": Layout(split=_layer, interleaved="backwards", siblings="last"),
    "open end": Layout(split=_resolution, siblings="none", open_end=True),
    "COC and QCC": Layout(by_component=True),
    "COD in tiles": Layout(in_tiles=True),
    "POC": Layout(poc=[_all(1, 33, 0), _all(9, 2, 4), _all(99, 33, 3)], lengths="PLT"),
    "POC in tile-parts": Layout(
        tile_poc=[[_all(1, 33, 2)], [_all(9, 2, 1), _all(99, 33, 3)]], split=_layer, interleaved="rounds"
    ),
    "POC with PPM": Layout(poc=[_all(1, 2, 1), _all(99, 33, 2)], packed="PPM", split=_resolution),
    **{order: Layout(order=order) for order in kinds.PROGRESSIONS},
}

BASES = (
    "j2k LRCP colour tiles", "j2k PCRL halved chroma", "j2k tiles at offsets", "j2k everything", "j2k bypass termall",
    "ht RPCL colour tiles", "ht PCRL halved chroma", "ht 202 colour",
)  # fmt: skip

RECODED = (
    "ht RPCL recoded with placeholder passes", "ht 202 colour recoded with placeholder passes",
    "j2k termall recoded in nine layers", "j2k all styles recoded in nine layers",
)  # fmt: skip

BEYOND_OPENJPEG = ("PPM of rounds",)
"""Layouts that OpenJPEG does not read: it takes packed headers tile by tile."""

BEYOND_OPENJPH = (
    "PPM", "PPM in pieces", "PPM of rounds", "PPT", "PPT in pieces", "COD in tiles", "COC and QCC",
    "POC", "POC in tile-parts", "POC with PPM",
)  # fmt: skip
"""Layouts that OpenJPH does not read, or its program of 2023 for subsampled components does not."""

NAMES = (
    *(
        f"{base}: {layout}"
        for i, base in enumerate(BASES)
        for j, layout in enumerate(LAYOUTS)
        if (i + j) % 3 == 0  # every layout, every base, not each with each
    ),
    *RECODED,
)


@functools.cache
def stream(name: str) -> Stream:
    """The codestream called so, any base in any layout."""
    if name in RECODED:
        base = kinds.stream(name[: name.index(" recoded")])
        return dataclasses.replace(base, name=name, codestream=recoded(base.codestream, 3 if base.ht else 9))
    base_name, _, layout = name.rpartition(": ")
    base = kinds.stream(base_name)
    return dataclasses.replace(base, name=name, codestream=rewrite(base.codestream, LAYOUTS[layout]))


def recoded(codestream: bytes, layers: int) -> bytes:
    """The same code-blocks under other packet headers. HT ones get up to 3 `layers` placeholder passes, and may start
    later; of Part 1 ones that end at each pass, the passes are dealt out over `layers`. Needs one tile, one tile-part.
    """
    walked = j2k.walk(codestream)
    assert walked.image is not None and walked.fault is None and len(walked.tiles) == 1
    tile = walked.tiles[0]
    packets: dict[tuple[int, int, int], list[j2k.Packet]] = {}
    for packet in walked.packets:
        packets.setdefault((packet.component, packet.resolution, packet.precinct), []).append(packet)
    ht = bool(tile.codings[0].style & HT)
    assert ht or tile.codings[0].style & TERMALL
    headers: dict[Turn, tuple[bytes, bytes]] = {}
    count = 1 if ht else layers
    for (c, r, k), found in packets.items():
        bands = []
        for band, cells, *_ in tile.precincts[c, r, k].bands:
            grid = {(row, column): CodeBlock() for row in range(cells.rows) for column in range(cells.columns)}
            for at in grid:
                pieces = _pieces(codestream, found, band, at)
                if pieces:
                    grid[at] = _with_placeholders(pieces, at, layers) if ht else _dealt(pieces, at, layers)
            bands.append((cells.rows, cells.columns, grid))
        for layer, pair in enumerate(encode(bands, count)):
            headers[Turn(layer, r, c, k)] = pair
    return _assembled(walked, headers, count)


Piece = tuple[int, int, bytes]
"""Zero bit-planes, passes, data: one codeword segment."""


def _pieces(codestream: bytes, packets: list[j2k.Packet], band: str, at: tuple[int, int]) -> list[Piece]:
    out = []
    for packet in sorted(packets, key=lambda packet: packet.layer):
        offset = packet.body[0]
        for block in packet.blocks:
            for passes, length in block.segments:
                if (block.band, block.row, block.column) == (band, *at):
                    out.append((block.zero_bit_planes, passes, codestream[offset : offset + length]))
                offset += length
    return out


def _with_placeholders(pieces: list[Piece], at: tuple[int, int], most: int) -> CodeBlock:
    """Each three placeholder passes stand for a bit-plane more that is zero. T.814 Annex B"""
    planes = pieces[0][0]
    sets = min(planes, 1 + (sum(at) + len(pieces[0][2])) % most)
    lengths = [(passes + (3 * sets if i == 0 else 0), len(data)) for i, (_, passes, data) in enumerate(pieces)]
    data = b"".join(data for _, _, data in pieces)
    return CodeBlock(planes - sets, {0: Added(sum(passes for passes, _ in lengths), lengths, data)})


def _dealt(pieces: list[Piece], at: tuple[int, int], layers: int) -> CodeBlock:
    """The passes in turn, so many a layer, some layers left out."""
    block = CodeBlock(pieces[0][0])
    step = 1 + sum(at) % 3
    chosen = [layer for layer in range(layers) if (layer + at[0] + 2 * at[1]) % 3]
    for i, layer in enumerate(chosen):
        last = i == len(chosen) - 1
        taken = pieces[i * step :] if last else pieces[i * step : (i + 1) * step]
        if taken:
            fields = [(passes, len(data)) for _, passes, data in taken]
            block.layers[layer] = Added(sum(n for n, _ in fields), fields, b"".join(data for _, _, data in taken))
    return block


def _assembled(walked: j2k.Walk, packets: dict[Turn, tuple[bytes, bytes]], layers: int) -> bytes:
    """The stream with other packets, one tile-part, LRCP."""
    out = bytearray(b"\xff\x4f")
    for old in walked.main_segments:
        if old.marker == COD:
            scod = bytes([old.body[0] & 1, 0])
            out += segment(COD, scod + layers.to_bytes(2, "big") + old.body[4:])
        elif old.marker not in (TLM, PLT):
            out += segment(old.marker, old.body)
    tile = walked.tiles[0]
    order = turns(tile.resolutions, tile.area, [Volume(0, 0, layers, 33, 255, 0)])
    data = b"".join(b"".join(packets[turn]) for turn in order)
    sot = b"\xff\x90\x00\x0a\x00\x00" + (14 + len(data)).to_bytes(4, "big") + b"\x00\x01"
    return bytes(out + sot + b"\xff\x93" + data + b"\xff\xd9")
