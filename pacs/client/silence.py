"""Sockets whose dead connections the kernel reports, also while nothing is to be said: no HTTP tells a server that
still encodes from one that a change of address has cut off (RFC 9293 3.8.4, RFC 5482)."""

from __future__ import annotations

import math
import socket
from typing import Any
from weakref import WeakSet

_LEAST = 1.0
"""The kernel counts whole seconds."""


class WatchedSockets:
    """Makes the sockets of a connector. One whose other end acknowledges nothing for about `seconds` is broken."""

    def __init__(self, seconds: float) -> None:
        self._seconds = max(_LEAST, seconds)
        self._made: WeakSet[socket.socket] = WeakSet()

    def make(self, address: Any) -> socket.socket:
        """A socket for an address of `getaddrinfo`."""
        made = socket.socket(*address[:3])
        self._made.add(made)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in probes(self._seconds).items():
            _set(made, option, value)
        return made

    async def connected(self, *_: object) -> None:
        """To be told when a connection is there: bytes that are never acknowledged break it too from now on.

        Before, the kernel would count the same seconds for the connection itself.
        """
        for made in self._made:
            if made.fileno() >= 0:
                _set(made, "TCP_USER_TIMEOUT", math.ceil(1000 * self._seconds))
        self._made.clear()


def probes(seconds: float) -> dict[str, int]:
    """Options that find a silent connection dead after about so many seconds: a third of them before the first probe,
    the rest for the answers to it and to further ones."""
    idle = max(1, round(seconds / 3))
    interval = max(1, round(seconds / 6))
    return {
        "TCP_KEEPIDLE": idle,
        "TCP_KEEPINTVL": interval,
        "TCP_KEEPCNT": max(1, math.ceil((seconds - idle) / interval)),
    }


def _set(made: socket.socket, option: str, value: int) -> None:
    number = getattr(socket, option, None)  # not every system has each of them
    if number is not None:
        made.setsockopt(socket.IPPROTO_TCP, number, value)
