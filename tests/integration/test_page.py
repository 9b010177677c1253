"""The built-in page: what is served, and that it runs in a browser where one is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from importlib import resources
from pathlib import Path

import pytest

from pacs import demo
from tests.conftest import StartServer
from tests.integration.exchange import Client, Stored

PAGE = resources.files("pacs.dicomweb") / "page"


def test_the_page_and_its_parts(client: Client) -> None:
    reply = client.get("//")
    assert (reply.status, reply.headers["content-type"]) == (200, "text/html; charset=utf-8")
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    assert client.get("//", If_None_Match=reply.headers["etag"]).status == 304
    for name in re.findall(r'(?:src|href)="(/page/[^"]+)"', reply.body.decode()):
        found = client.get("/" + name)
        assert found.status == 200 and found.body
    assert client.request("HEAD", "//").status == 200
    assert client.request("POST", "//").status == 405
    assert client.get("//page/../app.py").status == 404
    assert client.get("//favicon.ico").status == 404


def test_the_page_asks_nobody_else_and_writes_no_markup() -> None:
    for name in ("index.html", "app.js", "style.css", "icon.svg"):
        text = (PAGE / name).read_text(encoding="utf-8")
        others = [url for url in re.findall(r"https?://[^\"'\s)]+", text) if "www.w3.org" not in url]
        assert not others
        markup = r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|javascript:|\bon\w+=\""
        assert not re.search(markup, text)
    assert "style=" not in (PAGE / "index.html").read_text(encoding="utf-8")


BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")


def dump(url: str, profile: Path) -> str:
    """The document after its scripts have run."""
    assert BROWSER is not None
    command = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", f"--user-data-dir={profile}",
        "--virtual-time-budget=8000", "--dump-dom", url,
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.mark.skipif(BROWSER is None, reason="no chromium is installed")
def test_the_page_in_a_browser(start_server: StartServer, archive_dir: Path, tmp_path: Path) -> None:
    server = start_server(archive_dir, workers=1)
    files = list(demo.head_slices(5, rows=128, name="page"))
    hostile = [file.replace(b"HEAD", b"<b>!") for file in files]
    client = Client(server)
    client.store(*hostile)
    client.close()
    stored = Stored(hostile[0])
    name = str(stored.data.PatientName).split("^")[0]
    listed = dump(f"{server.root_url}/", tmp_path / "a")
    assert name.replace("<", "&lt;").replace(">", "&gt;") in listed
    assert str(stored.data.PatientID) in listed
    study = stored.study.removeprefix("/studies/")
    assert 'class="card"' in dump(f"{server.root_url}/#/study/{study}", tmp_path / "b")
    series = stored.data.SeriesInstanceUID
    viewer = dump(f"{server.root_url}/#/study/{study}/series/{series}", tmp_path / "c")
    assert "Image 1 / 5" in viewer
    assert '<span id="arriving" role="status">still arriving' in viewer, "the newest slice came a moment ago"
    assert re.search(r'<img id="image"[^>]*src="blob:', viewer)
    assert str(stored.data.PatientID) in re.sub(r".*id=\"viewer-identity\"", "", viewer, flags=re.DOTALL)
