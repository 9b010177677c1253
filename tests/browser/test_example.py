"""examples/progressive: it builds, and reads a series over a link that breaks."""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from benchmarks.link import Shape, link_thread
from pacs import demo
from tests.browser.conftest import MOST
from tests.browser.truth import DIGEST, digest
from tests.conftest import ROOT, Server
from tests.integration.exchange import Client, Stored

pytestmark = [
    pytest.mark.skipif(
        not os.environ.get("TEST_EXAMPLES"), reason="fetches 100 npm packages: set TEST_EXAMPLES=1 to build examples"
    ),
]


EXAMPLE = ROOT / "examples" / "progressive"


def installed() -> bool:
    """Whether node_modules of the checkout is what package-lock.json says, as `npm ci` leaves it."""
    try:
        lock, there = (json.loads((EXAMPLE / name).read_text(encoding="utf-8"))["packages"] for name in LOCKS)
    except OSError:
        return False
    # What is for other systems is not installed.
    needed = {name: row for name, row in lock.items() if name and not row.get("optional")}
    return all(there.get(name, {}).get("integrity") == row["integrity"] for name, row in needed.items())


LOCKS = ("package-lock.json", "node_modules/.package-lock.json")


@pytest.fixture(scope="module")
def page_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The built page, behind a plain web server of another origin than the archive's."""
    folder = tmp_path_factory.mktemp("example") / "progressive"
    ignored = shutil.ignore_patterns("node_modules", "dist")
    shutil.copytree(EXAMPLE, folder, ignore=ignored)
    commands = [["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], ["npm", "run", "build"]]
    if installed():
        (folder / "node_modules").symlink_to(EXAMPLE / "node_modules")
        del commands[0]
    for command in commands:
        run = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=1800, check=False)
        assert run.returncode == 0, run.stdout + run.stderr

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder / "dist")) as web:
        thread = threading.Thread(target=web.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{web.server_port}/"
        finally:
            web.shutdown()
            thread.join()


def test_no_registry_is_named() -> None:
    lock = (EXAMPLE / "package-lock.json").read_text(encoding="utf-8")
    assert '"resolved"' not in lock and '"integrity": "sha512-' in lock


def test_stream_over_a_link_that_breaks(browser: Browser, page_url: str, ohif_server: Server) -> None:
    count = 15
    files = list(demo.head_slices(count, rows=256, name="browser: example"))
    with contextlib.closing(Client(ohif_server)) as client:
        client.store(*files)
    middle = Stored(files[count // 2]).data
    host, _, port = ohif_server.address.partition(":")
    page = browser.new_page()
    page.set_default_timeout(MOST)
    wrong: list[str] = []
    asked: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    with link_thread((host, int(port)), Shape(6e6, 0.02)) as link:
        link.cut_after(500_000)
        page.goto(f"{page_url}?server={link.url}/dicomweb&study={middle.StudyInstanceUID}&plan=stream")
        page.wait_for_selector("text=every slice lossless")
        page.wait_for_selector("#holding:has-text('lossless, 256')")
        sent = link.down.bytes
    reached = [line.split("\t")[0] for line in page.inner_text("#milestones").splitlines()]
    order = ["every slice small", "every slice at 45 dB", "every slice lossless"]
    assert [name for name in reached if name in order] == order
    assert "first image small" in reached and "first image lossless" in reached
    assert page.locator("#slices i[data-rung='3']").count() == count
    assert page.evaluate(f"() => ({DIGEST})(viewport)") == digest(middle)
    assert not page.inner_text("#problem") and not wrong
    streams = [url for url in asked if "/stream?" in url]
    assert len(streams) == 2 and "after=" not in streams[0] and "after=" in streams[1]
    with contextlib.closing(Client(ohif_server)) as client:
        whole = client.get(f"{streams[0].partition('/dicomweb')[2]}").body
    assert sent < len(whole) + 300_000, "what came before the break is not sent again, but for what was on its way"
    page.close()
