from typing import TypeAlias

_Buffer: TypeAlias = bytes | bytearray | memoryview

def place(text: _Buffer, key: _Buffer) -> tuple[int, int]: ...
