"""Firefox as Debian packages it, by WebDriver BiDi (https://w3c.github.io/webdriver-bidi/), which it speaks itself:
Playwright drives builds of its own alone, and geckodriver would be another program."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

FIREFOX = shutil.which("firefox-esr") or shutil.which("firefox")
_SECONDS = 180

KEYS = {"Home": "\ue011", "End": "\ue010", "ArrowDown": "\ue015", "Shift": "\ue008"}
"""WebDriver's code points of keys."""


class Firefox:
    """One page of a running browser."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._count = 0
        self._context = ""
        self.wrong: list[str] = []
        """What was thrown in the page, or refused by its policy."""

    async def open(self) -> None:
        await self._send("session.new", capabilities={})
        await self._send("session.subscribe", events=["log.entryAdded"])
        tree = await self._send("browsingContext.getTree")
        self._context = tree["contexts"][0]["context"]

    async def go(self, url: str) -> None:
        await self._send("browsingContext.navigate", context=self._context, url=url, wait="complete")

    async def run(self, script: str) -> Any:
        """What a function without arguments returns, by way of JSON."""
        found = await self._send(
            "script.evaluate",
            expression=f"Promise.resolve(({script})()).then((found) => JSON.stringify(found ?? null))",
            target={"context": self._context}, awaitPromise=True,
        )  # fmt: skip
        assert found["type"] == "success", found
        return json.loads(found["result"]["value"])

    async def until(self, script: str) -> None:
        """Wait until a function returns something true."""
        await self.run(
            f"""async () => {{
              while (!(await ({script})())) await new Promise((resolve) => {{ setTimeout(resolve, 10); }});
            }}"""
        )

    async def press(self, *keys: str) -> None:
        """Press keys together, and let them go."""
        values = [KEYS[key] for key in keys]
        actions = [{"type": "keyDown", "value": value} for value in values]
        actions += [{"type": "keyUp", "value": value} for value in reversed(values)]
        await self._act({"type": "key", "id": "keyboard", "actions": actions})

    async def turn(self, x: int, y: int, pixels: int) -> None:
        """Turn the wheel over a place of the window."""
        scroll = {"type": "scroll", "x": x, "y": y, "deltaX": 0, "deltaY": pixels}
        await self._act({"type": "wheel", "id": "wheel", "actions": [scroll]})

    async def drag(self, x: int, y: int, right: int, down: int) -> None:
        actions = [
            {"type": "pointerMove", "x": x, "y": y},
            {"type": "pointerDown", "button": 0},
            {"type": "pointerMove", "x": x + right, "y": y + down},
            {"type": "pointerUp", "button": 0},
        ]
        await self._act({"type": "pointer", "id": "mouse", "actions": actions})

    async def _act(self, source: dict[str, Any]) -> None:
        await self._send("input.performActions", context=self._context, actions=[source])

    async def _send(self, method: str, **params: Any) -> Any:
        self._count += 1
        await self._socket.send_json({"id": self._count, "method": method, "params": params})
        while True:
            message = await self._socket.receive_json(timeout=_SECONDS)
            if message.get("method") == "log.entryAdded":
                entry = message["params"]
                if entry["type"] == "javascript" or "Content-Security" in (entry["text"] or ""):
                    self.wrong.append(entry["text"])
            elif message.get("id") == self._count:
                assert message["type"] == "success", message
                return message["result"]


@contextlib.asynccontextmanager
async def firefox(profile: Path) -> AsyncIterator[Firefox]:
    """A browser of its own, headless, with a new profile in an empty folder."""
    assert FIREFOX is not None
    running = await asyncio.create_subprocess_exec(
        FIREFOX, "--headless", "--no-remote", "--profile", str(profile), "--remote-debugging-port=0",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    assert running.stderr is not None
    rest = None
    try:
        async with asyncio.timeout(_SECONDS):
            found = None
            while found is None:
                line = await running.stderr.readline()
                assert line, "Firefox has ended"
                found = re.search(rb"BiDi listening on (\S+)", line)
        rest = asyncio.create_task(running.stderr.read())  # nobody waits for room in the pipe
        address = f"{found[1].decode()}/session"
        async with aiohttp.ClientSession() as session, session.ws_connect(address, max_msg_size=0) as socket:
            page = Firefox(socket)
            await page.open()
            yield page
    finally:
        with contextlib.suppress(ProcessLookupError):
            running.terminate()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SECONDS):
                await running.wait()
        with contextlib.suppress(ProcessLookupError):  # what it has started, and does not stop
            os.killpg(running.pid, signal.SIGKILL)
        await running.wait()
        await (rest or running.stderr.read())
