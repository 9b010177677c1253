def decode(
    codestream: bytes | bytearray | memoryview,
    out: bytearray | memoryview,
    rows: int,
    columns: int,
    components: int,
    width: int,
    is_signed: bool,
    precision: int,
    dropped: int,
) -> bool: ...
def tier(wanted: int = -1) -> int: ...
