"""Clients that hold a body back until they are told to send it. RFC 9110 10.1.1"""

from __future__ import annotations

from aiohttp.web import BaseRequest


def held_back(request: BaseRequest) -> bool:
    """Whether `request` asks for a 100 (Continue). In HTTP/1.0 nobody would understand one."""
    return request.headers.get("Expect", "").lower() == "100-continue" and request.version >= (1, 1)


async def ask(request: BaseRequest) -> None:
    """Have the client send the body."""
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    # What tells aiohttp's error path that no response has begun.
    request.writer.output_size = 0
