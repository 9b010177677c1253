"""`python -m benchmarks.null_server PORT`: answers /null/<n> with n bytes, reads and forgets what is posted."""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop


class _Null(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._head = b""
        self._left = 0
        self._answer = b""

    def data_received(self, data: bytes) -> None:
        if self._left:
            self._left -= len(data)
            if self._left == 0:
                self._transport.write(self._answer)
            return
        self._head += data
        head, end, rest = self._head.partition(b"\r\n\r\n")
        if not end:
            return
        self._head = b""
        size = int(head.split(b" ", 2)[1].rpartition(b"/")[2] or 0)
        self._answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (size, b"\0" * size)
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                self._left = int(line.partition(b":")[2]) - len(rest)
        if self._left == 0:
            self._transport.write(self._answer)


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Null, "127.0.0.1", port)
    print("the null server listens on", server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
