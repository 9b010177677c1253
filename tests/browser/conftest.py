"""Chromium, OHIF and a server that serves it, once for all browser tests of a run."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from pacs import viewer
from pacs.errors import ViewerError
from tests.conftest import Server, _server_factory

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
_LEFT_OUT = (
    "WebUIOmniboxPopup", "WebUIOmniboxAimPopup", "WebUIOmniboxFullPopup", "AimEnabled",
    "AvoidUnnecessaryBeforeUnloadCheckSync", "DestroyProfileOnBrowserClose", "HttpsUpgrades",
    "HttpsFirstBalancedModeAutoEnable", "LensOverlay", "MediaRouter", "NetworkTimeServiceQuerying", "OptimizationHints",
    "PaintHolding", "PreconnectToSearch", "ThirdPartyStoragePartitioning",
)  # fmt: skip
"""Suggestions in the address bar, which cost each window as much as a small page; and what Playwright leaves out, whose
list this one takes the place of."""
_OPTIONS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
    "--disable-features=" + ",".join(_LEFT_OUT),
]  # fmt: skip
"""No graphics card, no sandbox for root, and nothing that talks to anybody but the page's own server."""

MOST = 180_000
"""Milliseconds that anything in a browser may take, which is waited for no longer than it does."""
expect.set_options(timeout=MOST)


@pytest.fixture(scope="session")
def ohif() -> Path:
    """The folder with OHIF; fetched by npm where it is not there yet."""
    folder = viewer.default_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            viewer.load(folder)
        except ViewerError:
            if shutil.which("npm") is None:
                pytest.skip("OHIF is not there, and no npm to fetch it: run `pacs viewer`")
            viewer.fetch(folder)
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Of a module, no longer: Playwright keeps an event loop running that other tests must not meet."""
    if CHROMIUM is None:
        pytest.skip("no chromium is installed")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=_OPTIONS, timeout=MOST)
        with contextlib.closing(found):
            yield found


@pytest.fixture(scope="session")
def ohif_server(ohif: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    for start in _server_factory():
        archive = tmp_path_factory.mktemp("browser") / "archive"
        yield start(archive, workers=1, env={"PACS_VIEWER": str(ohif), "PACS_RECEIVING": "36000"})
