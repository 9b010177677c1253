"""The event loop, shared by who could go on for long without a wait."""

from __future__ import annotations

import asyncio
import time
from typing import Final

_AT_ONCE: Final = 0.005
"""Seconds that one request may go on before others have a turn."""


class Turns:
    """Lets others have the event loop while much is there already: thousands of parts or of small frames, or a few
    kilobytes that their coding makes a thousand times longer, come without a single wait."""

    def __init__(self) -> None:
        self._since = time.perf_counter()

    async def give(self) -> None:
        if time.perf_counter() - self._since > _AT_ONCE:
            await asyncio.sleep(0)
            self._since = time.perf_counter()
