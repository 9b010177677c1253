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
