from pacs._codecs.codestream import Headers

class Packets:
    headers: Headers
    packed: bytearray
    tile_segments: dict[int, list[tuple[int, int, int]]]
    lengths_agree: bool | None
    def __len__(self) -> int: ...
    def tuples(self) -> list[tuple[int, int, int, int, int, int, int, int, int, bool]]: ...

def walk(data: bytes | bytearray | memoryview) -> Packets: ...
