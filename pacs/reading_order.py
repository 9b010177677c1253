"""In which order the frames of a series are read: the server sends them so, and the client asks for them so."""

from __future__ import annotations

from collections.abc import Iterator


def outwards(count: int, first: int) -> Iterator[int]:
    """0 to `count` - 1, from `first` to both sides by turns."""
    for distance in range(count):
        if first + distance < count:
            yield first + distance
        if distance and first - distance >= 0:
            yield first - distance
