"""The built-in page in Firefox: it does without anything that Chromium alone has."""

from __future__ import annotations

import base64
import contextlib
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.link import Shape, link_thread
from pacs import demo
from tests.browser.firefox import FIREFOX, Firefox, firefox
from tests.browser.test_page import CANVAS, PREVIEW, Picture, rendered
from tests.conftest import StartServer
from tests.integration.exchange import Client, Stored

pytestmark = pytest.mark.skipif(FIREFOX is None, reason="no Firefox: install Debian's firefox-esr")

LABELS = """() => {
  window.labels = [];
  const quality = document.getElementById("quality");
  new MutationObserver(() => labels.push(quality.textContent)).observe(quality, { childList: true });
}"""
"""Keeps what the page says of the image, one after the other."""

MIDDLE = """() => {
  const { left, top, width, height } = document.getElementById("stage").getBoundingClientRect();
  return [Math.floor(left + width / 2), Math.floor(top + height / 2)];
}"""
"""Of the stage."""

WINDOW = """() => document.getElementById("window-values").textContent.match(/-?[0-9.]+/g)"""
"""Center and width of what is painted."""


async def test_firefox(start_server: StartServer, tmp_path: Path) -> None:
    """A study is searched for, its images come by rungs, and the stack is read with wheel, keys and mouse."""
    server = start_server(tmp_path / "archive", workers=1)
    profile = tmp_path / "profile"
    profile.mkdir()
    with contextlib.closing(Client(server)) as client:
        stack = [Stored(file) for file in demo.head_slices(3, rows=256, name="firefox")]
        client.store(*(stored.file for stored in stack))
        host, _, port = server.address.partition(":")
        with link_thread((host, int(port)), Shape()) as link:
            async with firefox(profile) as page:
                await page.go(f"{link.url}/#/?field=PatientID&term={stack[0].data.PatientID}")
                await page.until("() => document.querySelectorAll('#rows tr a').length === 1")
                await page.run("() => document.querySelector('#rows a').click()")
                await page.until("() => document.querySelectorAll('.card').length === 1")
                await page.run(LABELS)
                link.reshape(Shape(5e5, 0.02))
                await page.run("() => document.querySelector('.card').click()")
                await final(page, "1 / 3")
                labels = await page.run("() => labels")
                assert PREVIEW in labels and len(set(labels)) > 2, "the image gets better as it comes"
                assert np.abs(await canvas(page) - rendered(client, stack[0])).max() <= 1
                link.reshape(Shape())

                x, y = await page.run(MIDDLE)
                await page.turn(x, y, 120)
                await final(page, "2 / 3")
                await page.press("End")
                await final(page, "3 / 3")
                assert np.abs(await canvas(page) - rendered(client, stack[2])).max() <= 1
                before = json.dumps(await page.run(WINDOW), separators=(",", ":"))
                await page.drag(x, y, -30, 60)
                # Chosen at once, painted and told with the next picture of the screen.
                await page.until(f"() => JSON.stringify(({WINDOW})()) !== '{before}'")
                center, width = await page.run(WINDOW)
                query = f"?window={center},{width},linear"
                assert np.abs(await canvas(page) - rendered(client, stack[2], query=query)).max() <= 1
                assert not page.wrong


async def final(page: Firefox, image: str) -> None:
    """Wait until the whole frame is on the screen."""
    await page.until(
        f"""() => {{
          const text = (id) => document.getElementById(id).textContent;
          const here = !document.getElementById("image").hidden && text("overlay-right").endsWith("{image}");
          return here && !text("quality");
        }}"""
    )


async def canvas(page: Firefox) -> Picture:
    rows, columns, text = await page.run(CANVAS)
    return np.frombuffer(base64.b64decode(text), np.uint8).reshape(rows, columns, 4)[..., :3].astype(np.int64)
