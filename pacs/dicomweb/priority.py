"""Who goes first in a worker: what an eye waits for, before what is carried away in bulk."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_PATIENCE: Final = 0.02
"""Seconds that a bulk transfer stands aside at a time: it gets slower beside readers, it never stops."""


class RightOfWay:
    """Bulk transfers stand aside, between two pieces, while an answer that somebody looks at is being made.

    Only the making counts, not the sending: a slow reader would hold up every transfer for as long as it reads.
    """

    def __init__(self) -> None:
        self._urgent = 0
        self._clear = asyncio.Event()
        self._clear.set()

    @contextmanager
    def urgent(self) -> Iterator[None]:
        """While an answer is made that somebody waits for."""
        self._urgent += 1
        self._clear.clear()
        try:
            yield
        finally:
            self._urgent -= 1
            if not self._urgent:
                self._clear.set()

    async def give_way(self) -> None:
        """To be awaited by a bulk transfer before each piece."""
        if self._urgent:
            try:
                async with asyncio.timeout(_PATIENCE):
                    await self._clear.wait()
            except TimeoutError:
                return
