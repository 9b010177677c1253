def encode(
    samples: bytes | bytearray | memoryview,
    rows: int,
    columns: int,
    components: int,
    width: int,
    is_signed: bool,
    precision: int,
    decompositions: int,
    rct: bool,
) -> tuple[bytes, tuple[int, ...]]: ...
def tier(wanted: int = -1) -> int: ...
