"""The built-in page in a browser: names as text, the stack in reading order, small before full, the way to OHIF."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from pacs import demo
from tests.conftest import Server
from tests.integration.exchange import Client, Stored


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    page = browser.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    yield page
    page.close()
    assert not wrong


@pytest.fixture(scope="module")
def stored(ohif_server: Server) -> Stored:
    """The first of five slices, of a patient whose name would be markup."""
    files = [file.replace(b"HEAD", b"<b>!") for file in demo.head_slices(5, rows=128, name="page")]
    client = Client(ohif_server)
    client.store(*files)
    client.close()
    return Stored(files[0])


def test_list_and_study(page: Page, ohif_server: Server, stored: Stored) -> None:
    page.goto(f"{ohif_server.root_url}/#/?field=PatientID&term={stored.data.PatientID}")
    row = page.locator("#rows tr")
    expect(row).to_have_count(1)
    expect(row).to_contain_text(str(stored.data.PatientName).split("^")[0])
    assert page.locator("#rows b").count() == 0, "a name is text"
    link = row.get_by_role("link", name="OHIF")
    assert link.get_attribute("href") == f"/viewer/viewer?StudyInstanceUIDs={stored.data.StudyInstanceUID}"
    row.locator("td").nth(3).click()
    expect(page.locator(".card")).to_have_count(1)
    expect(page.get_by_role("link", name="Open in OHIF")).to_be_visible()


def test_stack(page: Page, ohif_server: Server, stored: Stored) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    series = stored.data.SeriesInstanceUID
    page.goto(f"{ohif_server.root_url}/#/study/{stored.data.StudyInstanceUID}/series/{series}")
    expect(page.locator("#position")).to_have_text("Image 1 / 5")
    expect(page.locator("#arriving")).to_be_visible()  # the newest slice came a moment ago
    expect(page.locator("#image")).to_have_attribute("src", re.compile("^blob:"))
    expect(page.locator("#quality")).to_be_hidden()
    expect(page.locator("#viewer-identity")).to_contain_text(str(stored.data.PatientID))
    page.locator("#stage").press("End")
    expect(page.locator("#position")).to_have_text("Image 5 / 5")
    small = "performance.getEntriesByType('resource').filter((entry) => entry.name.includes('viewport='))"
    page.wait_for_function(f"() => {small}.length >= 5")
    images = [url for url in asked if "/rendered?" in url]
    assert "viewport=128,128" in images[0] and stored.data.SOPInstanceUID in images[0], "small first, in reading order"
    assert any("quality=92" in url for url in images)
    assert all(url.startswith((ohif_server.root_url, "blob:")) for url in asked)
