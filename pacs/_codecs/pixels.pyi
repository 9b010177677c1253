from typing import TypeAlias

_Buffer: TypeAlias = bytes | bytearray | memoryview

def same(one: _Buffer, other: _Buffer) -> bool: ...
def less(src: _Buffer, dst: _Buffer, width: int, by: int) -> None: ...
def unused_bits(src: _Buffer, width: int, unused: int, swap: bool) -> int: ...
def extract(
    src: _Buffer,
    dst: _Buffer,
    residual: _Buffer | None,
    pixels: int,
    samples: int,
    width: int,
    planar: bool,
    swap: bool,
    unused: int,
    sign: bool,
) -> None: ...
def restore(
    src: _Buffer,
    dst: _Buffer,
    residual: _Buffer | None,
    pixels: int,
    samples: int,
    width: int,
    planar: bool,
    swap: bool,
    unused: int,
    sign: bool,
) -> None: ...
