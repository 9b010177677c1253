from pacs._codecs.progression import Packets

def pieces(packets: Packets, progression: int, dropped: int) -> int: ...
def write(
    packets: Packets,
    data: bytes | bytearray | memoryview,
    main_header: bytes,
    tile_headers: dict[int, bytes],
    progression: int,
    dropped: int,
    layers: int,
    keep: bytearray | None,
) -> bytes: ...
def within(packets: Packets, dropped: int, layers: int, room: int) -> tuple[int, bytearray]: ...
def touching(packets: Packets, dropped: int, x0: int, y0: int, x1: int, y1: int) -> bytearray: ...
