"""How fast the links to the clients of a network are: by the kernel, which knows what was acknowledged, and by the time
that a long response took."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import socket
import struct
import termios
from typing import Any, Final

from aiohttp import web

from pacs.dicomweb.metrics import SECONDS, THROUGHPUT, Metrics, Spread

_HELD: Final = 32 << 10
"""Bytes on their way when all is written: with fewer it was not the link that was slow."""

_TCP_INFO: Final = struct.Struct("<68xI88xQ")
"""tcpi_rtt in microseconds, tcpi_delivery_rate in bytes per second. Linux 4.9, include/uapi/linux/tcp.h"""

_INT: Final = struct.Struct("i")


class Network:
    """What is known of the links to one network, since the numbers were handed on."""

    __slots__ = ("aborted", "first_rung", "name", "round_trip", "sent", "throughput")

    def __init__(self, name: str, made: Metrics) -> None:
        self.name = name
        self.sent = 0
        self.aborted: dict[tuple[str, str], int] = {}
        self.first_rung = Spread(made.first_rung.labels(name), SECONDS)
        self.throughput = Spread(made.throughput.labels(name), THROUGHPUT)
        self.round_trip = Spread(made.round_trip.labels(name), SECONDS)

    def flush(self, made: Metrics) -> None:
        """Hand on what was counted."""
        for spread in (self.first_rung, self.throughput, self.round_trip):
            spread.flush()
        if self.sent:
            made.link_bytes.labels(self.name).inc(self.sent)
            self.sent = 0
        for (direction, by), count in self.aborted.items():
            made.aborted.labels(self.name, direction, by).inc(count)
        self.aborted = {}


def time_response(connection: web.RequestHandler, network: Network, length: int, seconds: float) -> None:
    """The rate of a response of which the last byte was just written: of what the other side has by now."""
    transport = connection.transport
    opened: Any = transport.get_extra_info("socket") if transport is not None else None
    if transport is None or opened is None:
        return
    with contextlib.suppress(OSError):
        (queued,) = _INT.unpack(fcntl.ioctl(opened.fileno(), termios.TIOCOUTQ, bytes(_INT.size)))
        held = queued + transport.get_write_buffer_size()
        if _HELD < held < length:
            network.throughput.add((length - held) / seconds)
            network.round_trip.add(_tcp_info(opened)[0])
        else:
            ask_kernel(connection, network)


def ask_kernel(connection: web.RequestHandler, network: Network) -> None:
    """Ask the kernel how fast the link was lately: it knows what was acknowledged, we only what it took from us."""
    transport = connection.transport
    opened: Any = transport.get_extra_info("socket") if transport is not None else None
    if opened is None:
        return
    with contextlib.suppress(OSError):
        round_trip, rate = _tcp_info(opened)
        if rate:
            network.throughput.add(rate)
            network.round_trip.add(round_trip)


def _tcp_info(opened: Any) -> tuple[float, float]:
    """(seconds of a round trip, bytes per second delivered, 0 when the kernel does not know). Raises OSError."""
    found = opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
    if len(found) < _TCP_INFO.size:
        raise OSError(errno.ENOPROTOOPT, "an old kernel")
    round_trip, rate = _TCP_INFO.unpack(found)
    return round_trip / 1e6, float(rate)
