"""OHIF, unchanged, over a slow link: a recognisable image long before the last byte, and the true one in the end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
import numpy.typing as npt
import pytest
from playwright.sync_api import Browser, BrowserContext, Page
from pydicom.dataset import Dataset

from benchmarks.link import Shape, ThreadedLink, link_thread
from pacs import demo
from tests.browser.conftest import MOST
from tests.browser.similarity import likeness, picture, smaller
from tests.browser.truth import DIGEST, digest
from tests.conftest import Server
from tests.integration.exchange import Client, Stored

LOSSY, WHOLE = 7, 8
"""Qualities of an image as Cornerstone3D counts them."""
RECOGNISABLE = 0.7
SECONDS = 240
MOMENT = 0.25
"""Seconds of the line between two looks: it holds as long as a look takes, however busy the machine is."""
VIEWPORT = ".cornerstone-viewport-element"

QUALITY = """() => {
  const viewport = window.cornerstone?.getRenderingEngines?.()[0]?.getViewports?.()[0];
  const image = viewport?.getCurrentImageId?.();
  return image ? [image, viewport.getCornerstoneImage?.()?.imageQualityStatus ?? 0] : ["", 0];
}"""


@dataclass
class Look:
    """What was on the screen once `arrived` bytes had come over the link; at most: the screenshot is older."""

    arrived: int
    quality: int
    screen: npt.NDArray[np.float64]


class Reader:
    """A person before a viewer behind a slow link."""

    def __init__(self, page: Page, link: ThreadedLink) -> None:
        self.page, self.link = page, link
        self.asked: list[str] = []
        self.wrong: list[str] = []
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("response", lambda response: self._answered(response.status, response.url))

    def _answered(self, status: int, url: str) -> None:
        if status >= 400:
            self.wrong.append(f"{status} {url}")

    def open(self, shape: Shape, **query: str) -> None:
        self.link.reshape(shape)
        self._moment = int(shape.rate / 8 * MOMENT)
        address = "&".join(f"{name}={value}" for name, value in query.items())
        self.page.goto(f"{self.link.url}/viewer/viewer?{address}", wait_until="commit")
        end = time.monotonic() + SECONDS
        while not self.page.query_selector(VIEWPORT):
            assert time.monotonic() < end, f"no viewport, {self.wrong}"
            self.moment()

    def moment(self) -> None:
        """Let come down what a moment brings, and no more before the next."""
        self.link.hold_after(self._moment)
        self.page.wait_for_timeout(MOMENT * 1000)

    def look(self) -> Look:
        self.link.hold_after(0)
        _, quality = self.page.evaluate(QUALITY)
        png = self.page.locator(VIEWPORT).first.screenshot()
        screen = np.asarray(imagecodecs.png_decode(png))[..., :3].mean(2)
        return Look(self.link.down.bytes, quality, screen)

    def watch(self, instance: str) -> list[Look]:
        """Look again and again until the whole image of `instance` is on the screen."""
        looks: list[Look] = []
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            image, quality = self.page.evaluate(QUALITY)
            if quality == WHOLE:
                assert instance in image, "another image is shown"
                self.link.go_on()
                return [*looks, self._last_look()]
            looks.append(self.look())
            self.moment()
        pytest.fail(f"the image did not become whole: {[(look.arrived, look.quality) for look in looks]}, {self.wrong}")

    def _last_look(self) -> Look:
        """Once nothing changes any more: the image may be there before it is on the screen."""
        end = time.monotonic() + SECONDS
        before = self.look()
        while time.monotonic() < end:
            self.link.go_on()
            self.page.wait_for_timeout(500)
            now = self.look()
            if now.screen.shape == before.screen.shape and (now.screen == before.screen).all():
                self.link.go_on()
                return now
            before = now
        pytest.fail("the screen does not come to rest")

    def frames(self, count: int) -> list[str]:
        """The frames asked for so far, once there are so many different ones."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            found = [url for url in self.asked if "/frames/" in url]
            if len({url.partition("?")[0] for url in found}) >= count:
                return found
            self.page.wait_for_timeout(50)
        pytest.fail(f"not {count} frames were asked for, but {found}")

    def shows(self, data: Dataset) -> bool:
        """Whether the samples behind the screen are those of a Data Set."""
        viewport = "window.cornerstone.getRenderingEngines()[0].getViewports()[0]"
        return bool(self.page.evaluate(f"() => ({DIGEST})({viewport})") == digest(data))


@pytest.fixture(scope="module")
def link(ohif_server: Server) -> Iterator[ThreadedLink]:
    host, _, port = ohif_server.address.partition(":")
    with link_thread((host, int(port)), Shape()) as link:
        yield link


@pytest.fixture(scope="module")
def context(browser: Browser, ohif_server: Server, link: ThreadedLink) -> Iterator[BrowserContext]:
    """A browser that was here before: the application is in its cache, and no image of the tests is."""
    client = Client(ohif_server)
    small = list(demo.head_slices(2, rows=64, name="browser: small"))
    client.store(*small)
    client.close()
    context = browser.new_context(viewport={"width": 1000, "height": 640})
    context.set_default_timeout(MOST)
    page = context.new_page()
    study = Stored(small[0]).data.StudyInstanceUID
    page.goto(f"{link.url}/viewer/viewer?StudyInstanceUIDs={study}")
    page.wait_for_function(f"() => ({QUALITY})()[1] === {WHOLE}", timeout=SECONDS * 1000)
    page.close()
    yield context
    context.close()


@pytest.fixture
def reader(context: BrowserContext, link: ThreadedLink) -> Iterator[Reader]:
    page = context.new_page()
    yield Reader(page, link)
    page.close()
    link.reshape(Shape())
    link.go_on()


def likenesses(looks: list[Look]) -> list[float]:
    """Of each screen to the last one, in the middle of the picture, from a distance: seen near, a CT is noise."""
    area = picture(looks[-1].screen)
    middle = tuple(slice((3 * s.start + s.stop) // 4, (s.start + 3 * s.stop) // 4) for s in area)
    final = smaller(looks[-1].screen[middle], 6)
    assert likeness(np.zeros_like(final), final) < RECOGNISABLE / 2, "an empty screen would do"
    return [likeness(smaller(look.screen[middle], 6), final) for look in looks]


def judge(looks: list[Look], before: int) -> tuple[float, list[tuple[int, int, float]]]:
    """(the part of the bytes after which the image was recognisable, the whole story)."""
    alike = likenesses(looks)
    story = [(look.arrived - before, look.quality, round(value, 3)) for look, value in zip(looks, alike, strict=True)]
    first = next(number for number, value in enumerate(alike) if value >= RECOGNISABLE)
    # No later look is worse: an image on the screen only sharpens.
    print(story)
    assert all(later > earlier - 0.02 for earlier, later in zip(alike[first:], alike[first + 1 :], strict=False)), story
    return story[first][0] / story[-1][0], story


def test_ct_slice_is_staged(reader: Reader, ohif_server: Server) -> None:
    files = list(demo.head_slices(9, name="browser: ct"))
    client = Client(ohif_server)
    client.store(*files)
    client.close()
    shown = Stored(files[4]).data
    before = reader.link.down.bytes
    reader.open(
        Shape(0.4e6, 0.05), StudyInstanceUIDs=shown.StudyInstanceUID,
        initialSeriesInstanceUID=shown.SeriesInstanceUID, initialSOPInstanceUID=shown.SOPInstanceUID,
    )  # fmt: skip
    looks = reader.watch(shown.SOPInstanceUID)
    part, story = judge(looks, before)
    assert part <= 0.5, story
    assert any(look.quality == LOSSY for look in looks), story
    frames = [url for url in reader.asked if f"/{shown.SOPInstanceUID}/frames/1" in url]
    assert [("quality=" in url) for url in frames] == [True, False], "first small, then whole"
    assert reader.shows(shown)
    assert not reader.wrong


def test_cr_sharpens_as_it_arrives(reader: Reader, ohif_server: Server, shared_data: Path) -> None:
    file = (shared_data / "large2d" / "RG2_UNC").read_bytes()
    client = Client(ohif_server)
    client.store(file)
    client.close()
    shown = Stored(file).data
    before = reader.link.down.bytes
    # Slow enough that a browser which has little of the processor is not what the looks wait for.
    reader.open(Shape(2e6, 0.05), StudyInstanceUIDs=shown.StudyInstanceUID)
    looks = reader.watch(shown.SOPInstanceUID)
    part, story = judge(looks, before)
    assert part <= 0.5, story
    assert len([url for url in reader.asked if "/frames/" in url]) == 1, "one request brings all of it"
    assert reader.shows(shown)
    assert not reader.wrong


def test_mammogram_of_another_codec(reader: Reader, ohif_server: Server, shared_data: Path) -> None:
    """JPEG lossless, which the viewer decodes only when it is there whole; and a VOI LUT Function, SIGMOID."""
    file = (shared_data / "large2d" / "GH133.dcm").read_bytes()
    client = Client(ohif_server)
    client.store(file)
    client.close()
    shown = Stored(file).data
    before = reader.link.down.bytes
    reader.open(Shape(8e6, 0.02), StudyInstanceUIDs=shown.StudyInstanceUID)
    looks = reader.watch(shown.SOPInstanceUID)
    part, story = judge(looks, before)
    assert part <= 0.5, story
    assert [("quality=" in url) for url in reader.frames(1)] == [True, False]
    assert reader.shows(shown)
    assert not reader.wrong


def test_a_lossy_cine_comes_as_it_is(reader: Reader, ohif_server: Server) -> None:
    """What arrived as JPEG baseline gains nothing by another lossy rung."""
    file = next(path for path in demo.real_files() if path.name == "examples_ybr_color.dcm").read_bytes()
    client = Client(ohif_server)
    client.store(file)
    client.close()
    shown = Stored(file).data
    reader.open(Shape(8e6, 0.02), StudyInstanceUIDs=shown.StudyInstanceUID)
    reader.watch(shown.SOPInstanceUID)
    frames = reader.frames(shown.NumberOfFrames)
    assert not [url for url in frames if "quality=" in url]
    assert len(frames) == len(set(frames)), "each once"
    assert not reader.wrong


VOLUMES = """() => (window.cornerstone?.cache?.getVolumes?.() ?? []).map(
  (volume) => volume.imageIds.map((image) => window.cornerstone.cache.getImageQuality(image) ?? 0))"""


def test_a_volume_is_filled_before_it_is_whole(reader: Reader, ohif_server: Server) -> None:
    """Reconstructions: every slice small, or its neighbour in its place, before any is asked for whole."""
    count = 12
    files = list(demo.head_slices(count, rows=256, name="browser: volume"))
    client = Client(ohif_server)
    client.store(*files)
    client.close()
    study = Stored(files[0]).data.StudyInstanceUID
    reader.open(Shape(8e6, 0.02), StudyInstanceUIDs=study, hangingProtocolId="mpr")
    filled = False
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        reader.moment()
        volumes = reader.page.evaluate(VOLUMES)
        if volumes and all(volumes[0]):
            filled = filled or min(volumes[0]) < WHOLE
            if min(volumes[0]) == WHOLE:
                break
    assert volumes and volumes[0] == [WHOLE] * count
    assert filled
    small = [("quality=" in url) for url in reader.asked if "/frames/" in url]
    assert sorted(small) == [False] * count + [True] * count
    assert all(small[:count]), "the small ones come first"
    assert not reader.wrong
