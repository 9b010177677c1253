"""The built-in page in a browser: names as text, rungs as viewers fetch them, pictures equal to the server's."""

from __future__ import annotations

import base64
import contextlib
import io
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import imagecodecs
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect

from benchmarks.link import Shape, link_thread
from pacs import demo
from tests.browser.conftest import MOST
from tests.conftest import Server
from tests.integration.exchange import Client, Stored

Picture: TypeAlias = npt.NDArray[np.int64]

PREVIEW = "preview, 128 \u00d7 128"

CANVAS = """() => {
  const canvas = document.getElementById("image");
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let text = "";
  for (let at = 0; at < data.length; at += 32768) text += String.fromCharCode(...data.subarray(at, at + 32768));
  return [canvas.height, canvas.width, btoa(text)];
}"""

PAINTED = f"""() => {{
  window.painted = {{}};
  const quality = document.getElementById("quality");
  new MutationObserver(() => {{
    if (!document.getElementById("image").hidden) painted[quality.textContent] ??= ({CANVAS})();
  }}).observe(quality, {{ childList: true }});
}}"""
"""Keeps the first canvas of each label, as they are set together."""

EDGES = """(selectors) => selectors.flatMap((selector) => {
  const { top, bottom } = document.querySelector(selector).getBoundingClientRect();
  return [top, bottom];
})"""
"""Where elements begin and end, from above."""

TAKEN = """() => {
  window.taken = [];
  addEventListener("keydown", (event) => {
    if (event.defaultPrevented) taken.push(event.key);
    event.preventDefault();
  });
}"""
"""Keys of the browser that the page keeps from it. None of them is carried out."""


class Asked(list[tuple[str, str]]):
    """(path below the DICOMweb root with its query, Range) of each request of a page."""

    def __init__(self, page: Page) -> None:
        super().__init__()
        self.elsewhere: list[str] = []
        page.on("request", lambda request: self._add(request.url, request.headers.get("range", "")))

    def _add(self, url: str, span: str) -> None:
        _, found, path = url.partition("/dicomweb")
        if found:
            self.append((path, span))
        elif not url.startswith("http://127.0.0.1"):
            self.elsewhere.append(url)

    def of(self, path: str) -> list[str]:
        return [span for asked, span in self if asked == path]


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """One for each test: its pages share a clock, and one that is stopped must not meet the next test."""
    with contextlib.closing(browser.new_context()) as context:
        context.set_default_timeout(MOST)
        yield context


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if "Content Security" in message.text else None)
    yield page
    page.close()
    assert not wrong


@pytest.fixture(scope="module")
def client(ohif_server: Server) -> Iterator[Client]:
    with contextlib.closing(Client(ohif_server)) as client:
        yield client


@pytest.fixture(scope="module")
def stack(client: Client) -> list[Stored]:
    """Five slices of a patient whose name would be markup, and a line of its own."""
    files = [file.replace(b"Synthetic Head", b"<b>Sy</b>\nID 9") for file in demo.head_slices(5, rows=256, name="page")]
    client.store(*files)
    return [Stored(file) for file in files]


@pytest.fixture
def open_series(page: Page, ohif_server: Server) -> Callable[[Stored], None]:
    return lambda stored: _open(page, ohif_server.root_url, stored)


def _open(page: Page, root: str, stored: Stored) -> None:
    address = f"#/study/{stored.data.StudyInstanceUID}/series/{stored.data.SeriesInstanceUID}"
    if not page.url.startswith(root):
        page.goto(f"{root}/{address}")
        return
    # What was on the screen is gone when this returns.
    page.evaluate(
        """(address) => new Promise((done) => {
          addEventListener("hashchange", () => done(), { once: true });
          if (location.hash === address) done();
          location.hash = address;
        })""",
        address,
    )


def labelled(page: Page, label: str, image: str = "") -> None:
    """Wait until the stage shows `image`, as "2 / 5", and says `label` of it."""
    page.wait_for_function(
        """([label, image]) => {
          const text = (id) => document.getElementById(id).textContent;
          return !document.getElementById("image").hidden && text("quality") === label
            && text("overlay-right").endsWith(image) && text("position").endsWith(image);
        }""",
        arg=[label, image],
    )  # fmt: skip


def final(page: Page, image: str = "") -> None:
    """Wait until the whole frame is on the screen: then, and only then, no rung is named."""
    labelled(page, "", image)


def canvas(page: Page) -> Picture:
    return picture(page.evaluate(CANVAS))


def picture(found: tuple[int, int, str]) -> Picture:
    rows, columns, text = found
    pixels = np.frombuffer(base64.b64decode(text), np.uint8).reshape(rows, columns, 4)
    assert (pixels[..., 3] == 255).all()
    return pixels[..., :3].astype(np.int64)


def rendered(client: Client, stored: Stored, frame: int = 1, query: str = "") -> Picture:
    """What the server paints of a frame."""
    reply = client.get(f"{stored.path}/frames/{frame}/rendered{query}", accept="image/png")
    assert reply.status == 200
    found = np.asarray(imagecodecs.png_decode(reply.body)).astype(np.int64)
    return found[..., :3] if found.ndim == 3 else np.repeat(found[..., None], 3, axis=2)


def ends(client: Client, stored: Stored) -> dict[str, Any]:
    """Path of each frame -> where its levels end."""
    index = client.get(f"{stored.series}/progressive").json
    return {f"{stored.series}/{frame['url']}": frame["ends"] for frame in index["frames"]}


def test_list_and_study(page: Page, ohif_server: Server, stack: list[Stored]) -> None:
    data = stack[0].data
    page.goto(f"{ohif_server.root_url}/#/?field=PatientID&term={data.PatientID}")
    row = page.locator("#rows tr")
    expect(row).to_have_count(1)
    expect(row).to_contain_text("Demo, <b>Sy</b> ID 9")
    assert page.locator("#rows b").count() == 0, "a name is text"
    link = row.get_by_role("link", name="OHIF")
    assert link.get_attribute("href") == f"/viewer/viewer?StudyInstanceUIDs={data.StudyInstanceUID}"
    row.locator("td").nth(3).click()
    expect(page.locator(".card")).to_have_count(1)
    expect(page.get_by_role("link", name="Open in OHIF")).to_be_visible()


def test_what_is_typed_into_the_search(page: Page, ohif_server: Server) -> None:
    """Names as the list writes them, in any order of their words; days, months, years, and ranges of them."""
    page.goto(f"{ohif_server.root_url}/#/?field=NoSuchField&term=nobody")
    expect(page.locator("#rows td")).to_have_text("No study matches.")  # by the name
    asked = page.evaluate(
        """async ([names, dates]) => {
          const { keysOf } = await import(document.querySelector("script").src.replace("app.js", "terms.js"));
          const days = (term) => keysOf("StudyDate", term).StudyDate;
          return [names.map((term) => keysOf("PatientName", term)), dates.map(days)];
        }""",
        [["Mu\u00f1oz", "Smith^J", "sm*", "Yamada, Tarou \u00b7 \u5c71\u7530, \u592a\u90ce"], list(_DATES)],
    )
    fuzzy = {"PatientName": "Yamada Tarou \u5c71\u7530 \u592a\u90ce", "fuzzymatching": "true"}
    assert asked[0] == [{"PatientName": name} for name in ("*Mu\u00f1oz*", "*Smith^J*", "sm*")] + [fuzzy]
    assert dict(zip(_DATES, asked[1], strict=True)) == _DATES


_DATES = {
    "2024-05-01": "20240501", "20240501": "20240501", "1.5.2024": "20240501", " 2024/05/01 ": "20240501",
    "2024": "20240101-20241231", "2024-02": "20240201-20240229", "2023-12 - 2024-01": "20231201-20240131",
    "2024-05-01-2024-06-30": "20240501-20240630", "20240501-20240630": "20240501-20240630",
    "2023\u20132024": "20230101-20241231",
    "2024-05-": "20240501-", "-2024": "-20241231", "20240501-": "20240501-",
    "yesterday": "yesterday", "5/1/2024": "5/1/2024", "2024-05-01 2024-06-01": "2024-05-01 2024-06-01", "-": "-",
}  # fmt: skip
"""What is typed, and the key that is sent: where it is no date, the server says so."""


def test_links_that_lead_elsewhere(page: Page, client: Client, ohif_server: Server) -> None:
    """Other studies of the same Patient ID, with what tells that it is another patient; links that lead nowhere."""
    files = [pydicom.dcmread(io.BytesIO(file)) for file in demo.head_slices(3, rows=64, name="others")]
    for number, data in enumerate(files):
        data.PatientID, data.StudyDate = "OTHERS-1", f"2024010{number + 1}"
        data.StudyInstanceUID, data.SeriesInstanceUID = (
            f"{data.StudyInstanceUID}.{number}",
            f"{data.SeriesInstanceUID}.{number}",
        )
    files[2].PatientName, files[2].PatientBirthDate = "Else^Somebody", "19111111"
    for data in files:
        data.save_as(written := io.BytesIO())
        client.store(written.getvalue())
    page.goto(f"{ohif_server.root_url}/#/study/{files[0].StudyInstanceUID}")
    others = page.locator("#others-list li")
    expect(others).to_have_count(2)
    expect(others.nth(0)).to_have_text(re.compile("2024-01-03 .*Else, Somebody, born 1911-11-11$"))
    expect(others.nth(1).locator("strong")).to_have_text("")
    others.nth(1).locator("a").click()
    expect(others.nth(1)).to_have_text(re.compile("2024-01-01"))
    skip = page.get_by_role("link", name="Skip to content")
    skip.focus()
    skip.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    expect(others).to_have_count(2)
    assert page.url.endswith(files[1].StudyInstanceUID)
    page.goto(f"{ohif_server.root_url}/#/study/none")
    expect(page.locator("#problem")).to_have_text("This link leads to no study or series. Here are all studies.")


def test_stack(
    page: Page, client: Client, stack: list[Stored], open_series: Callable[[Stored], None], ohif_server: Server
) -> None:
    asked = Asked(page)
    held: list[Route] = []
    # What lies behind the first rung waits.
    page.route("**/frames/1", lambda route: _hold(route, held))
    open_series(stack[0])
    labelled(page, PREVIEW, "1 / 5")
    assert page.locator("#arriving").is_visible(), "the newest slice came a moment ago"
    assert str(stack[0].data.PatientID) in page.locator("#viewer-identity").inner_text()
    preview = canvas(page)
    assert preview.shape == (128, 128, 3)
    smaller = rendered(client, stack[0]).reshape(128, 2, 128, 2, 3).mean((1, 3))
    assert np.corrcoef(preview.ravel(), smaller.ravel())[0, 1] > 0.9, "the same image, from further away"

    page.unroute("**/frames/1")  # they go on
    final(page)
    assert np.abs(canvas(page) - rendered(client, stack[0])).max() <= 1

    overlay = page.locator("#overlay").inner_text().splitlines()
    assert len(overlay) == 3 and overlay[1] == f"ID {stack[0].data.PatientID}", "a name has no line of its own"

    # Who stays gets the others too, each once: the rung that all lack in one response, then the rest of each.
    page.wait_for_function(
        "(count) => new Set(performance.getEntriesByType('resource').map((entry) => entry.name)"
        ".filter((name) => name.endsWith('/frames/1'))).size === count", arg=len(stack),
    )  # fmt: skip

    # A notch of a wheel is one image; what belongs to the browser is not taken from it.
    page.locator("#stage").hover()
    page.mouse.wheel(0, 120)
    expect(page.locator("#position")).to_have_text("Image 2 / 5")
    page.evaluate(TAKEN)
    for keys in ("Alt+ArrowLeft", "Control+ArrowRight"):
        page.locator("#stage").press(keys)
    assert page.evaluate("() => taken") == []

    page.locator("#stage").press("End")
    final(page, "5 / 5")
    assert np.abs(canvas(page) - rendered(client, stack[4])).max() <= 1

    levels = ends(client, stack[0])
    streams = [path for path, _ in asked if "/stream?" in path]
    # The first one was there, unless it took longer than the second after which the stream is asked for.
    rest = rf"{re.escape(stack[0].series)}/stream\?rungs=pixels%3A128&first=1(&after=1)?&state=.*"
    assert len(streams) == 1 and re.fullmatch(rest, streams[0]), "the first rung of the others, in one response"
    for number, (path, of_levels) in enumerate(levels.items()):
        first = of_levels[-2]  # 128 of 256
        spans = asked.of(path)
        if number == 0:
            assert spans.pop(0) == f"bytes=0-{first - 1}", "small first"
        assert spans[0] == f"bytes={first}-{of_levels[-1] - 1}", "only what is missing"
        assert all(re.fullmatch(rf"bytes=\d+-{of_levels[-1] - 1}", span) for span in spans)
    assert not [path for path, _ in asked if "/rendered" in path or "quality=" in path]
    assert not asked.elsewhere

    # Windows are the page's own matter.
    del asked[:]
    before = canvas(page)
    page.locator("#window").select_option("Bone")
    expect(page.locator("#window-values")).to_have_text("C 500 · W 2000")
    bone = canvas(page)
    assert np.abs(bone - before).max() > 100
    assert np.abs(bone - rendered(client, stack[4], query="?window=500,2000,linear")).max() <= 1
    box = page.locator("#stage").bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 30, y + 60)
    page.mouse.up()
    expect(page.locator("#window-values")).to_have_text("C 900 · W 1800")
    page.evaluate("() => new Promise(requestAnimationFrame)")
    assert np.abs(canvas(page) - rendered(client, stack[4], query="?window=900,1800,linear")).max() <= 1
    page.locator("#stage").press("Shift+ArrowUp")
    expect(page.locator("#window-values")).to_have_text("C 840 · W 1800")
    page.locator("#window").select_option("Full range")
    full = stack[4].data.pixel_array * stack[4].data.RescaleSlope + stack[4].data.RescaleIntercept
    middle, span = (full.min() + full.max()) / 2, full.max() - full.min()
    expect(page.locator("#window-values")).to_have_text(f"C {middle:g} · W {span:g}")
    assert not [path for path, _ in asked if "frames" in path]


def test_pictures_equal_those_of_the_server(
    page: Page, client: Client, open_series: Callable[[Stored], None], shared_data: Path
) -> None:
    for name, frame in (
        ("photometric/dx_image.dcm", 1),  # MONOCHROME1
        ("photometric/SC_ybr_full_uncompressed.dcm", 1),
        ("photometric/mlut_18.dcm", 1),  # a Modality LUT
        ("photometric/GDCMJ2K_TextGBR.dcm", 1),  # JPEG 2000 Part 1, which the server makes HTJ2K of
        ("multiframe/enhanced-mr/emri_small_RLE.dcm", 10),  # RLE, and a window of each frame
    ):
        stored = Stored((shared_data / name).read_bytes())
        client.store(stored.file)
        order = list(ends(client, stored))
        open_series(stored)
        final(page, f" / {len(order)}")
        place = order.index(f"{stored.path}/frames/{frame}") + 1
        page.locator("#slider").fill(str(place))
        final(page, f"{place} / {len(order)}")
        assert np.abs(canvas(page) - rendered(client, stored, frame)).max() <= 1, name


def test_what_is_not_painted_here_comes_from_the_server(
    page: Page, client: Client, stack: list[Stored], open_series: Callable[[Stored], None]
) -> None:
    """A palette; and a codestream that is damaged on the way: never another image, never none."""
    file = next(path for path in demo.real_files() if path.name == "examples_palette.dcm").read_bytes()
    client.store(file)
    open_series(Stored(file))
    labelled(page, "JPEG of the server", "1 / 1")
    assert canvas(page).max() > 100
    page.route("**/stream?**", lambda route: route.fulfill(status=404, body="{}"))
    page.route("**/frames/1", lambda route: _damaged(route))
    open_series(stack[0])
    labelled(page, "JPEG of the server", "1 / 5")
    difference = np.abs(canvas(page) - rendered(client, stack[0]))
    assert difference.mean() < 4


def test_a_series_that_grows_and_goes(page: Page, client: Client, open_series: Callable[[Stored], None]) -> None:
    """The image stays that is looked at, whatever comes in front of it; what is gone is said to be."""
    files = list(demo.head_slices(3, rows=128, name="page: grows"))
    client.store(*files[1:])
    page.clock.install()
    stored = Stored(files[2])
    open_series(stored)
    final(page, "1 / 2")
    page.locator("#stage").press("End")
    final(page, "2 / 2")
    client.store(files[0])
    page.clock.fast_forward(6000)
    final(page, "3 / 3")
    assert np.abs(canvas(page) - rendered(client, stored)).max() <= 1
    page.route("**/progressive", lambda route: route.fulfill(status=404, json={"message": "there is no such series"}))
    page.clock.fast_forward(40_000)
    expect(page.locator("#problem")).to_have_text("This series is not to be had any more: there is no such series")


def test_windows_of_the_header(
    page: Page, client: Client, open_series: Callable[[Stored], None], shared_data: Path
) -> None:
    """A mammogram with a table for the screen and three windows beside it: each can be chosen."""
    stored = Stored((shared_data / "large2d/GH133.dcm").read_bytes())
    client.store(stored.file)
    open_series(stored)
    expect(page.locator("#window option")).to_have_text(
        ["Default", "NORMAL", "HARDER", "SOFTER", "Full range", "By hand"]
    )
    expect(page.locator("#window-values")).to_have_text("VOI LUT")
    page.locator("#window").select_option("SOFTER")
    center, width = stored.data.WindowCenter[2], stored.data.WindowWidth[2]
    expect(page.locator("#window-values")).to_have_text(f"C {center:g} · W {width:g}")


@pytest.mark.parametrize("size", [(1440, 900), (800, 450), (640, 360), (360, 640)], ids=str)
def test_windows_of_all_sizes(
    size: tuple[int, int], page: Page, stack: list[Stored], open_series: Callable[[Stored], None], ohif_server: Server
) -> None:
    """Nothing lies over anything else, or beyond the sides; the image and its slider fit into the window."""
    width, height = size
    page.set_viewport_size({"width": width, "height": height})
    open_series(stack[0])
    expect(page.locator("#overlay-right")).to_contain_text("1 / 5")
    edges = page.evaluate(EDGES, [".bar", "#viewer-identity", ".tools", "#stage", ".slide", "footer"])
    assert edges == sorted(edges) and edges[-1] <= height, edges
    stage = page.locator("#stage").bounding_box()
    assert stage is not None and stage["height"] > 0.4 * height and stage["width"] > 0.9 * width

    data = stack[0].data
    page.goto(f"{ohif_server.root_url}/#/study/{data.StudyInstanceUID}")
    expect(page.locator(".card")).to_have_count(1)
    edges = page.evaluate(EDGES, [".bar", "#study-identity", ".card", "footer"])
    assert edges == sorted(edges), edges
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width

    page.goto(f"{ohif_server.root_url}/#/?field=PatientID&term={data.PatientID}")
    row = page.locator("#rows tr")
    expect(row).to_have_count(1)
    edges = page.evaluate(EDGES, [".bar", "#search", "#rows", ".pager", "footer"])
    assert edges == sorted(edges), edges
    beyond = page.evaluate(
        "() => [...document.querySelectorAll('#rows tr > *')].filter((cell) => "
        "cell.getBoundingClientRect().right > document.querySelector('.table').getBoundingClientRect().right).length"
    )
    assert beyond == 0 and page.evaluate("() => document.documentElement.scrollWidth") <= width


def test_a_server_that_hangs(
    page: Page, client: Client, stack: list[Stored], open_series: Callable[[Stored], None], ohif_server: Server
) -> None:
    """It is said, and where to try again: of the list, and of an image of which something is here."""
    _stop_clock(page)
    held: list[Route] = []
    page.route("**/dicomweb/studies?**", lambda route: held.append(route))
    page.goto(f"{ohif_server.root_url}/#/?field=PatientID&term={stack[0].data.PatientID}")
    expect(page.locator("#count")).to_have_text("loading")
    page.clock.run_for(28_000)
    assert page.locator("#trouble").is_hidden()
    page.clock.run_for(4000)
    expect(page.locator("#problem")).to_have_text("the server does not answer")
    expect(page.locator("#count")).to_have_text("")
    page.unroute("**/dicomweb/studies?**")
    page.clock.resume()
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#rows tr")).to_have_count(1)
    assert page.locator("#trouble").is_hidden()

    page.route("**/frames/1", lambda route: _hold(route, held))
    del held[:]
    with page.expect_request(lambda request: not request.headers.get("range", "bytes=0-").startswith("bytes=0-")):
        open_series(stack[0])
        labelled(page, PREVIEW, "1 / 5")
    page.clock.run_for(40_000)
    labelled(page, f"{PREVIEW} · the server does not answer", "1 / 5")
    page.locator("#look-again").click()
    labelled(page, PREVIEW, "1 / 5")
    page.unroute("**/frames/1")
    final(page, "1 / 5")
    assert page.locator("#look-again").is_hidden()
    assert np.abs(canvas(page) - rendered(client, stack[0])).max() <= 1


def test_thumbnails_of_a_server_that_hangs(page: Page, stack: list[Stored], ohif_server: Server) -> None:
    """They are missed as all else is; of a series without a picture it is the card that says so, and nothing more."""
    _stop_clock(page)
    held: list[Route] = []
    address = f"{ohif_server.root_url}/#/study/{stack[0].data.StudyInstanceUID}"
    page.route("**/thumbnail?**", lambda route: held.append(route))
    with page.expect_request("**/thumbnail?**"):
        page.goto(address)
    page.clock.run_for(28_000)
    assert page.locator("#trouble").is_hidden()
    page.clock.run_for(4000)
    expect(page.locator("#problem")).to_have_text("the server does not answer")
    expect(page.locator(".card figure")).to_have_text("CT: no image")
    page.unroute("**/thumbnail?**")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".card canvas")).to_have_count(1)
    assert page.locator("#trouble").is_hidden()
    assert page.locator(".card canvas").evaluate("(canvas) => [canvas.width, canvas.height]") == [256, 256]

    page.route("**/thumbnail?**", lambda route: route.fulfill(status=404, json={"message": "no picture"}))
    page.reload()
    expect(page.locator(".card figure")).to_have_text("CT: no image")
    assert page.locator("#trouble").is_hidden()


def test_what_the_list_says_instead_of_studies(page: Page, stack: list[Stored], ohif_server: Server) -> None:
    """The address is that of this server, and what was typed is quoted as it was."""
    cell = page.locator("#rows td")
    page.goto(f"{ohif_server.root_url}/#/?field=PatientName&term=nobody")
    expect(cell).to_have_text("No study matches.")
    page.goto(f"{ohif_server.root_url}/#/?offset=5000")
    expect(cell).to_have_text("There are no more studies.")
    page.route("**/dicomweb/studies?**", lambda route: route.fulfill(json=[]))
    page.goto(f"{ohif_server.root_url}/#/")
    upload = f"pacs store FOLDER --url {ohif_server.root_url}/dicomweb"
    expect(cell).to_have_text(f"The archive is empty. Upload with: {upload}")
    page.unroute("**/dicomweb/studies?**")

    first_letter = "(element) => getComputedStyle(element, '::first-letter').textTransform"
    page.goto(f"{ohif_server.root_url}/#/?field=StudyDate&term=yesterday")
    expect(page.locator("#problem")).to_have_text("'yesterday' is not a date")
    assert page.locator("#problem").evaluate(first_letter) == "none"
    page.route("**/dicomweb/studies?**", lambda route: route.fulfill(status=400, json={"message": "not understood"}))
    page.goto(f"{ohif_server.root_url}/#/?field=PatientName&term=x")
    expect(page.locator("#problem")).to_have_text("not understood")
    assert page.locator("#problem").evaluate(first_letter) == "uppercase"


def _stop_clock(page: Page) -> None:
    """Before anything is loaded: the seconds that the page counts go by the test alone, however slow the machine is."""
    page.clock.install(time=0)
    page.clock.pause_at(1000)


def _hold(route: Route, held: list[Route]) -> None:
    if route.request.headers["range"].startswith("bytes=0-"):
        route.continue_()
    else:
        held.append(route)


def _once(route: Route, asked: list[Route]) -> None:
    """Of what the page looks at again and again, the first answer alone."""
    asked.append(route)
    if len(asked) == 1:
        route.continue_()


def _damaged(route: Route) -> None:
    answer = route.fetch()
    body = bytearray(answer.body())
    body[len(body) // 2] ^= 1  # of which a decoder mostly does not take notice
    route.fulfill(response=answer, body=bytes(body))


def test_a_slow_line_that_breaks(page: Page, client: Client, ohif_server: Server) -> None:
    """Readable long before it is whole; after a break it goes on where it was."""
    file = next(demo.head_slices(1, name="page: slow"))
    client.store(file)
    stored = Stored(file)
    host, _, port = ohif_server.address.partition(":")
    indices: list[Route] = []
    with link_thread((host, int(port)), Shape()) as link:
        page.goto(f"{link.url}/#/")
        page.wait_for_selector("#rows tr")
        page.evaluate(PAINTED)
        page.route("**/progressive", lambda route: _once(route, indices))
        asked = Asked(page)
        link.reshape(Shape(1e6, 0.02))
        link.cut_after(90_000)
        link.hold_after(0)
        _open(page, link.url, stored)
        # Piece by piece, each once the page had its turn: a busy one would take them for one, and the line for fast.
        until = time.monotonic() + MOST / 1000
        while not page.evaluate("() => '45 dB' in painted"):
            assert time.monotonic() < until, page.evaluate("() => Object.keys(painted)")
            link.hold_after(2000)
            page.wait_for_timeout(20)
        link.go_on()
        final(page)
        readable = picture(page.evaluate("() => painted['45 dB']"))
    assert next(iter(page.evaluate("() => painted"))).startswith("preview, ")
    whole = canvas(page)
    assert np.abs(whole - rendered(client, stored)).max() <= 1
    assert readable.shape == whole.shape and 0 < np.abs(whole - readable).mean() < 40
    end = ends(client, stored)[f"{stored.path}/frames/1"]
    spans = asked.of(f"{stored.path}/frames/1")
    assert spans[0] == f"bytes=0-{end[-3] - 1}" and spans[1] == f"bytes={end[-3]}-{end[-1] - 1}"
    assert len(spans) == 3, "the line broke once"
    again = int(spans[2].removeprefix("bytes=").partition("-")[0])
    assert again > end[-3] and spans[2].endswith(f"-{end[-1] - 1}")
    lossy = [number for number, (path, _) in enumerate(asked) if path == f"{stored.path}/frames/1?quality=45"]
    assert lossy and lossy[0] < asked.index((f"{stored.path}/frames/1", spans[1]))
