from typing import TypeAlias

from pacs._codecs.dictionary import Dictionary

_Buffer: TypeAlias = bytes | bytearray | memoryview

def recode(
    data: _Buffer,
    start: int,
    implicit: bool,
    to_implicit: bool,
    dictionary: Dictionary,
    pixel_tag: int = 0,
    pixel_representation: int = -1,
) -> tuple[list[tuple[int, bool, int, int]], bytearray, tuple[int, int | None] | None, bool]: ...
