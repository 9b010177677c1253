from collections.abc import Sequence

class Headers:
    start: int
    end: int
    profile: int
    columns: int
    rows: int
    x0: int
    y0: int
    tile_columns: int
    tile_rows: int
    tile_x0: int
    tile_y0: int
    tiles: int
    segment_count: int
    decompositions: int
    progression: int
    layers: int
    mct: int
    transform: int
    style: int
    block_columns: int
    block_rows: int
    ht: bool
    has_poc: bool
    has_packed_headers: bool
    has_packet_lengths: bool
    saw_eoc: bool
    uniform: bool
    tile_coding: bool
    components: list[tuple[int, bool, int, int]]
    segments: list[tuple[int, int, int]]
    tile_parts: list[tuple[int, int, int, int, int, int]]
    tlm: Sequence[tuple[int, int, int]]

def scan(data: bytes | bytearray | memoryview) -> Headers: ...
