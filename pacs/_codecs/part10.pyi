from array import array
from collections.abc import Callable, Sequence
from typing import TypeAlias

from pacs._codecs.dictionary import Dictionary

_Buffer: TypeAlias = bytes | bytearray | memoryview

def scan_data_set(
    data: _Buffer,
    start: int,
    implicit: bool,
    big_endian: bool,
    dictionary: Dictionary,
    repertoire: Callable[[bytes], tuple[int, Callable[[bytes], str]]],
    charset: bytes = b"",
    pixel_representation: int = -1,
) -> tuple[
    bytes,
    list[tuple[str, str, int, int]],
    tuple[int, str, int, int, bool]
    | tuple[int, str, int, int, bool, array[int], Sequence[int], Sequence[int], Sequence[int]]
    | None,
    dict[str, int],
    tuple[bytes, int] | None,
]: ...
def scan_meta(data: _Buffer, start: int) -> tuple[int, bytes, bytes]: ...
