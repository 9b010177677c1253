"""How long to wait for a server, and when to give it up."""

from __future__ import annotations

import asyncio
import email.utils
import random
import time
from dataclasses import dataclass

from pacs.errors import PacsError

LONGEST_RETRY_AFTER = 600.0


@dataclass(frozen=True, slots=True)
class Patience:
    """All in seconds."""

    connect: float = 15.0
    """For a connection."""
    answer: float = 120.0
    """From the request to the head of its answer: a server may have to decode and encode first."""
    stall: float = 15.0
    """Without a byte in the middle of a body, or, where none is to come yet, without a sign of life of the other end's
    kernel. Then the connection is taken for dead, as it is after the address of this machine has changed, and another
    is made."""
    total: float = 180.0
    """Without a new byte over all attempts; 0: no second attempt."""
    pause: float = 0.25
    """Before the second attempt; doubled before each further one."""
    longest_pause: float = 10.0


class Attempts:
    """The attempts at one thing. What counts is the time since it last came nearer to its end."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._since = time.monotonic()
        self._failed = 0
        self._best = 0

    def progress(self, position: int) -> None:
        """So many bytes are here now. Bytes that were here before are no progress."""
        if position > self._best:
            self._best = position
            self._since = time.monotonic()
            self._failed = 0

    async def wait(self, error: PacsError, retry_after: float | None = None) -> None:
        """Wait until the next attempt may be made; raises `error` when there shall be none."""
        pause = retry_after
        if pause is None:
            pause = min(self._patience.longest_pause, self._patience.pause * 2.0 ** min(self._failed, 64))
            pause *= random.uniform(0.8, 1.2)
        if time.monotonic() + pause - self._since > self._patience.total:
            raise error
        self._failed += 1
        await asyncio.sleep(pause)


def retry_after(value: str | None) -> float | None:
    """Seconds that a Retry-After header asks for, as a number or an HTTP date. RFC 9110 10.2.3"""
    if value is None:
        return None
    if value.strip().isascii() and value.strip().isdigit():
        return min(LONGEST_RETRY_AFTER, float(value))
    try:
        until = email.utils.parsedate_to_datetime(value).timestamp()
    except (ValueError, OverflowError):
        return None
    return min(LONGEST_RETRY_AFTER, max(0.0, until - time.time()))
