"""A server whose every byte is scripted: it answers, breaks off, falls silent or lies as it is told."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from pacs.client.patience import Patience

QUICK = Patience(connect=60, answer=60, stall=60, total=60, pause=0.005, longest_pause=0.02)
"""Tries again at once; a machine that does much else is no silent server."""


@dataclass
class Asked:
    """One request."""

    path: str
    headers: dict[str, str]
    """By lower-case name."""

    @property
    def start(self) -> int:
        """The first byte that its Range asks for."""
        return int(self.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")[0])

    @property
    def stop(self) -> int | None:
        last = self.headers.get("range", "").partition("-")[2]
        return int(last) + 1 if last else None


@dataclass
class Reply:
    """What is sent. `cut`: only so many bytes of the body, then the connection is closed, or with `silent` kept, for
    ever or until `ends`."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    silent: bool = False
    ends: asyncio.Event | None = None
    length: bool = True
    """Whether it says how long it is; otherwise it ends with the connection."""

    def bytes(self) -> bytes:
        lines = [f"HTTP/1.1 {self.status} Whatever"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        lines += [f"Content-Length: {len(self.body)}"] if self.length else ["Connection: close"]
        head = "\r\n".join(lines).encode() + b"\r\n\r\n"
        return head + (self.body if self.cut is None else self.body[: self.cut])


Answer = Callable[[Asked], Reply]


class Origin:
    """The requests that came, and the answers still to be given; the last of them is given again and again."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.answers: deque[Answer] = deque()
        self.url = ""
        self.connections = 0
        self._sent: set[asyncio.Task[None]] = set()

    def will(self, *answers: Reply | Answer) -> None:
        self.answers.extend(answer if callable(answer) else _always(answer) for answer in answers)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._sent.add(task)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                pairs = (line.partition(": ") for line in head[1:] if line)
                asked = Asked(head[0].split(" ")[1], {name.lower(): value for name, _, value in pairs})
                self.asked.append(asked)
                answer = self.answers.popleft() if len(self.answers) > 1 else self.answers[0]
                reply = answer(asked)
                writer.write(reply.bytes())
                await writer.drain()
                if reply.silent:
                    await (reader.read() if reply.ends is None else reply.ends.wait())
                    break
                if reply.cut is not None or not reply.length:
                    break
        writer.close()

    async def stop(self) -> None:
        for task in self._sent:
            task.cancel()
        await asyncio.gather(*self._sent)


def _always(reply: Reply) -> Answer:
    return lambda _: reply


def entity(body: bytes, etag: str = '"one"', *, cut: int | None = None, silent: bool = False) -> Answer:
    """Serves a body with its validator, by `Range` where it is asked for and `If-Range` holds. RFC 9110 13.1.5, 14"""

    def answer(asked: Asked) -> Reply:
        headers = {"ETag": etag, "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        fits = asked.headers.get("if-range", etag) == etag
        if "range" not in asked.headers or not fits:
            return Reply(body, 200, headers, cut, silent)
        start, stop = asked.start, min(asked.stop or len(body), len(body))
        if start >= len(body):
            return Reply(b"", 416, {**headers, "Content-Range": f"bytes */{len(body)}"})
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(body)}"
        return Reply(body[start:stop], 206, headers, cut, silent)

    return answer


@contextlib.asynccontextmanager
async def origin() -> AsyncIterator[Origin]:
    """A listening server without answers."""
    found = Origin()
    server = await asyncio.start_server(found.serve, "127.0.0.1", 0)
    found.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield found
    finally:
        server.close()
        await found.stop()
