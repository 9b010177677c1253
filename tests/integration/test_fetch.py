"""`pacs fetch`: into files of every form, once, and again after whatever went wrong, from servers of every kind."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import shutil
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pydicom
import pytest
import zarr
from aiohttp import web
from aiohttp.test_utils import TestServer

from benchmarks.link import Shape, link_thread
from pacs import cli, demo
from pacs.client import AsyncClient, Client, Patience
from pacs.client.fetch import Form, Options, Progress, Until, fetch_all
from pacs.client.resource import Resource, resource
from pacs.client.saving import open_alone
from pacs.errors import AnswerError, RemoteError, UidError, UnreachableError
from tests.conftest import Server
from tests.objects import images
from tests.unit.origin import Answer, Asked, Reply, entity, origin

COUNT = 6
PATIENCE = Patience(connect=60, answer=60, stall=60, total=180, pause=0.01, longest_pause=0.1)
Run = Callable[..., subprocess.CompletedProcess[str]]


class Study:
    def __init__(self, name: str, rows: int = 260, count: int = COUNT) -> None:
        self.files = list(demo.head_slices(count, rows=rows, name=name))
        self.data = [pydicom.dcmread(io.BytesIO(file)) for file in self.files]
        self.uid: str = self.data[0].StudyInstanceUID
        self.series: str = self.data[0].SeriesInstanceUID
        self.instances: list[str] = [one.SOPInstanceUID for one in self.data]
        self.volume = np.stack([one.pixel_array for one in self.data])

    def url(self, server: Server) -> str:
        return f"{server.url}/studies/{self.uid}"

    def folder(self, out: Path) -> Path:
        return out / self.uid / self.series


@pytest.fixture(scope="module")
def study(server: Server) -> Study:
    found = Study("fetch")
    with Client(server.url) as client:
        assert client.store(found.files).in_order
    return found


def run(
    url: str, out: Path, form: Form = "dicom", until: Until = "lossless", *, patience: Patience = PATIENCE,
    transfer_syntax: str = "*", jobs: int = 4,
) -> Progress:  # fmt: skip
    options = Options(resource(url), out, form, until, transfer_syntax, jobs, {}, patience)
    return asyncio.run(fetch_all(options))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# --- every form -----------------------------------------------------------------------------------------------------


def test_files_are_those_that_were_uploaded(server: Server, study: Study, tmp_path: Path, pacs_command: Run) -> None:
    done = pacs_command("fetch", study.url(server), "--out", tmp_path, fresh=True)
    assert done.returncode == 0 and done.stdout.startswith("6 files fetched") and not done.stderr
    folder = study.folder(tmp_path)
    assert names(folder) == {f"{instance}.dcm" for instance in study.instances}
    for instance, file in zip(study.instances, study.files, strict=True):
        assert (folder / f"{instance}.dcm").read_bytes() == file
    again = pacs_command("fetch", study.url(server), "--out", tmp_path)
    assert again.returncode == 0 and again.stdout.startswith("0 files fetched, 6 were there")


def test_files_in_another_transfer_syntax(server: Server, study: Study, tmp_path: Path) -> None:
    url = f"{study.url(server)}/series/{study.series}/instances/{study.instances[2]}"
    progress = run(url, tmp_path, transfer_syntax="1.2.840.10008.1.2.4.202")
    assert (progress.fetched, progress.failed) == (1, 0)
    [path] = study.folder(tmp_path).iterdir()
    assert path.name == f"{study.instances[2]}.1.2.840.10008.1.2.4.202.dcm", "only the exact file has the plain name"
    found = pydicom.dcmread(path)
    assert found.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.4.202"
    assert path.stat().st_size < len(study.files[2]) * 0.6


def test_a_numpy_file_of_a_series(server: Server, study: Study, tmp_path: Path, pacs_command: Run) -> None:
    done = pacs_command("fetch", study.url(server), "--out", tmp_path, "--as", "npy")
    assert done.returncode == 0 and "6 frames fetched" in done.stdout
    folder = study.folder(tmp_path)
    assert names(folder) == {"frames.npy", "frames.npy.json"}
    found = np.load(folder / "frames.npy")
    assert found.dtype == study.volume.dtype and np.array_equal(found, study.volume)
    about = json.loads((folder / "frames.npy.json").read_text())
    assert about["complete"] is True and about["series"] == study.series
    assert about["frames"] == [
        {"instance": instance, "frame": 1, "array": "frames.npy", "index": number, "rung": "lossless"}
        for number, instance in enumerate(study.instances)
    ]
    again = run(study.url(server), tmp_path, "npy")
    assert (again.fetched, again.already) == (0, COUNT)


def test_a_zarr_array_of_a_series(server: Server, study: Study, tmp_path: Path) -> None:
    assert run(study.url(server), tmp_path, "zarr").fetched == COUNT
    folder = study.folder(tmp_path)
    assert names(folder) == {"frames.zarr", "frames.zarr.json"}
    found = zarr.open_array(folder / "frames.zarr", mode="r")
    assert found.dtype == study.volume.dtype and found.chunks == (1, 260, 260)
    assert np.array_equal(found[:], study.volume)
    assert found.attrs["sop-instance-uids"] == study.instances and found.attrs["rungs"] == ["lossless"]
    assert run(study.url(server), tmp_path, "npy").fetched == COUNT, "another form is another thing"
    assert run(study.url(server), tmp_path, "zarr").already == COUNT


def test_previews_cost_little_and_do_not_look_final(server: Server, study: Study, tmp_path: Path) -> None:
    progress = run(study.url(server), tmp_path, "npy", "preview")
    folder = study.folder(tmp_path)
    assert names(folder) == {"frames.preview.npy", "frames.preview.npy.json"}
    found = np.load(folder / "frames.preview.npy")
    assert found.shape == study.volume.shape and found.dtype == study.volume.dtype
    about = json.loads((folder / "frames.preview.npy.json").read_text())
    assert {frame["rung"] for frame in about["frames"]} == {"quality=38"}, "a level of 130 pixels costs more"
    assert progress.received < run(study.url(server), tmp_path, "npy", "readable").received
    assert progress.received < run(study.url(server), tmp_path, "npy").received * 0.5
    assert np.array_equal(np.load(folder / "frames.npy"), study.volume)


def test_a_preview_is_small_where_that_costs_least(server: Server, tmp_path: Path) -> None:
    """Noise in colour is dear at any quality."""
    noise = np.random.default_rng(8).integers(0, 256, (1, 512, 512, 3), np.uint8)
    of_noise = images.native("fetch noise in colour", list(noise), photometric="RGB")
    with Client(server.url) as client:
        client.store([of_noise.file])
    data = pydicom.dcmread(io.BytesIO(of_noise.file))
    url = f"{server.url}/studies/{data.StudyInstanceUID}"
    small = run(url, tmp_path, "npy", "preview")
    [path] = tmp_path.rglob("frames.preview.npy")
    assert np.load(path).shape == (1, 128, 128, 3)
    assert small.received < run(url, tmp_path, "npy", "readable").received / 2


def test_readable_images_are_near(server: Server, study: Study, tmp_path: Path) -> None:
    run(study.url(server), tmp_path, "npy", "readable")
    folder = study.folder(tmp_path)
    found = np.load(folder / "frames.readable.npy").astype(float)
    assert found.shape == study.volume.shape
    for image, whole in zip(found, study.volume, strict=True):
        error = np.square(image - whole).mean()
        assert error > 0 and 10 * np.log10(float(np.ptp(whole)) ** 2 / error) >= 45
    about = json.loads((folder / "frames.readable.npy.json").read_text())
    assert {frame["rung"] for frame in about["frames"]} == {"quality=45"}


def test_a_series_an_instance_and_a_frame(server: Server, study: Study, tmp_path: Path) -> None:
    series = f"{study.url(server)}/series/{study.series}"
    instance = f"{series}/instances/{study.instances[1]}"
    assert run(series, tmp_path / "series").fetched == COUNT
    assert run(instance, tmp_path / "instance").fetched == 1
    assert run(instance, tmp_path / "array", "npy").fetched == 1
    found = np.load(study.folder(tmp_path / "array") / f"{study.instances[1]}.npy")
    assert np.array_equal(found, study.volume[1:2])
    assert run(f"{instance}/frames/1", tmp_path / "frame", "npy").fetched == 1
    found = np.load(study.folder(tmp_path / "frame") / f"{study.instances[1]}-1.npy")
    assert np.array_equal(found, study.volume[1:2])


def test_frames_of_several_shapes(server: Server, tmp_path: Path) -> None:
    small, large = Study("fetch shapes", 40, 3), Study("fetch shapes", 64, 2)
    files = list(small.files)
    for number, one in enumerate(large.data):
        one.StudyInstanceUID, one.SeriesInstanceUID = small.uid, small.series
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = f"{large.instances[number][:40]}.{number}.9"
        one.InstanceNumber = 10 + number
        buffer = io.BytesIO()
        one.save_as(buffer)
        files.append(buffer.getvalue())
    with Client(server.url) as client:
        assert client.store(files).in_order
    assert run(small.url(server), tmp_path, "npy").fetched == 5
    folder = small.folder(tmp_path)
    assert names(folder) == {"frames.npy", "frames-2.npy", "frames.npy.json"}
    assert np.array_equal(np.load(folder / "frames.npy"), small.volume)
    assert np.array_equal(np.load(folder / "frames-2.npy"), large.volume)


# --- what goes wrong, and the run after it ----------------------------------------------------------------------------


def broken_off(url: str, out: Path, form: Form, count: int) -> None:
    """A run over a link that dies for good after `count` bytes."""
    split = urlsplit(url)
    with link_thread((split.hostname or "", split.port or 0), Shape(rate=20e6)) as link:
        link.cut_after(count, "silence")
        # Only a line that is dead is given up: a busy machine is silent for a while as well.
        short = Patience(connect=60, answer=60, stall=3, total=0.01)
        with pytest.raises(UnreachableError):
            run(f"{link.url}{split.path}", out, form, patience=short, jobs=1)


def test_a_file_goes_on_at_its_last_byte(server: Server, tmp_path: Path) -> None:
    study = Study("fetch large file", 900, 1)
    with Client(server.url) as client:
        client.store(study.files)
    url = f"{study.url(server)}/series/{study.series}/instances/{study.instances[0]}"
    size = len(study.files[0])
    folder = study.folder(tmp_path)
    for round in range(1, 4):
        broken_off(url, tmp_path, "dicom", size // 4)
        assert names(folder) == {f"{study.instances[0]}.dcm.partial", f"{study.instances[0]}.dcm.partial.etag"}
        here = (folder / f"{study.instances[0]}.dcm.partial").stat().st_size
        assert round * size // 4 - 20_000 < here <= round * size // 4
        assert (folder / f"{study.instances[0]}.dcm.partial").read_bytes() == study.files[0][:here]
    progress = run(url, tmp_path)
    assert names(folder) == {f"{study.instances[0]}.dcm"}
    assert (folder / f"{study.instances[0]}.dcm").read_bytes() == study.files[0]
    assert progress.received == size - here


@pytest.mark.parametrize("form", ["npy", "zarr"])
def test_an_array_goes_on_with_the_frames_that_are_missing(server: Server, tmp_path: Path, form: Form) -> None:
    study = Study(f"fetch broken array {form}", 200, 10)
    with Client(server.url) as client:
        client.store(study.files)
        lengths = [frame.length or 0 for frame in client.index(study.uid, study.series).frames]
    broken_off(study.url(server), tmp_path, form, sum(lengths) * 6 // 10)
    folder = study.folder(tmp_path)
    assert names(folder) == {f"frames.{form}.partial", f"frames.{form}.json.partial"}
    logged = len((folder / f"frames.{form}.json.partial").read_text().splitlines()) - 1
    assert 4 <= logged < 10
    with (folder / f"frames.{form}.json.partial").open("a") as log:
        log.write("[9, ")  # a line that a power cut left unfinished
    progress = run(study.url(server), tmp_path, form)
    assert (progress.already, progress.fetched) == (logged, 10 - logged)
    assert progress.received < sum(lengths[logged:]) + 20_000
    assert names(folder) == {f"frames.{form}", f"frames.{form}.json"}
    path = folder / f"frames.{form}"
    found = np.load(path) if form == "npy" else zarr.open_array(path, mode="r")[:]
    assert np.array_equal(found, study.volume)


def test_a_killed_run_goes_on(server: Server, tmp_path: Path) -> None:
    study = Study("fetch killed", 260, 30)
    with Client(server.url) as client:
        client.store(study.files)
    split = urlsplit(server.url)
    with link_thread((split.hostname or "", split.port or 0), Shape(rate=6e6)) as link:
        link.hold_after(sum(map(len, study.files[:20])))
        url = f"{link.url}{split.path}/studies/{study.uid}"
        command = [sys.executable, "-m", "pacs", "fetch", url, "--out", str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                while sum(1 for _ in study.folder(tmp_path).glob("*.dcm")) < 4:
                    assert process.poll() is None
                    time.sleep(0.01)
            finally:
                process.kill()
    folder = study.folder(tmp_path)
    whole = [path for path in folder.iterdir() if path.suffix == ".dcm"]
    files = dict(zip(study.instances, study.files, strict=True))
    assert whole and len(whole) < 30
    for path in whole:
        assert path.read_bytes() == files[path.stem]
    progress = run(study.url(server), tmp_path)
    assert progress.already == len(whole) and progress.fetched == 30 - len(whole)
    assert {path.stem: path.read_bytes() for path in folder.iterdir()} == files


@pytest.mark.parametrize("form", ["dicom", "npy", "zarr"])
def test_two_runs_never_write_the_same(server: Server, study: Study, tmp_path: Path, form: Form) -> None:
    """One of them would call finished what the other has begun anew."""
    name = f"{study.instances[0]}.dcm" if form == "dicom" else f"frames.{form}.json"
    url = f"{study.url(server)}/series/{study.series}" + (f"/instances/{study.instances[0]}" if form == "dicom" else "")
    folder = study.folder(tmp_path)
    folder.mkdir(parents=True)
    with open_alone(folder / f"{name}.partial"):
        with pytest.raises(OSError, match=rf"another run is writing it: .*{name}\.partial"):
            run(url, tmp_path, form)
        assert names(folder) == {f"{name}.partial"}
    assert run(url, tmp_path, form).fetched == (1 if form == "dicom" else COUNT)
    assert name in names(folder) and not list(folder.glob("*.partial*"))


def test_a_series_that_has_grown_is_fetched_anew(server: Server, tmp_path: Path) -> None:
    study = Study("fetch grown", 64, 5)
    with Client(server.url) as client:
        client.store(study.files[:4])
        assert run(study.url(server), tmp_path, "npy").fetched == 4
        assert len(np.load(study.folder(tmp_path) / "frames.npy")) == 4
        client.store(study.files[4])
    folder = study.folder(tmp_path)
    for kind in ("npy", "npy.json"):  # as a run leaves them that did not get all frames of what it was then
        shutil.copy(folder / f"frames.{kind}", folder / f"frames.incomplete.{kind}")
    progress = run(study.url(server), tmp_path, "npy")
    assert progress.fetched == 5 and any("still be arriving" in note for note in progress.notes)
    assert names(folder) == {"frames.npy", "frames.npy.json"}
    assert np.array_equal(np.load(study.folder(tmp_path) / "frames.npy"), study.volume)


def test_memory_does_not_grow_with_the_series(server: Server, tmp_path: Path) -> None:
    study = Study("fetch memory", 512, 60)
    with Client(server.url) as client:
        client.store(study.files)
    program = (
        "import asyncio, resource, sys\nfrom pathlib import Path\n"
        "from pacs import transcode\nimport zarr\n"
        "from pacs.client.fetch import Options, fetch_all\nfrom pacs.client.resource import resource as at\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for form in ('dicom', 'npy', 'zarr'):\n"
        "    asyncio.run(fetch_all(Options(at(sys.argv[1]), Path(sys.argv[2]), form)))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, study.url(server), str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 24_000, "kilobytes more for 31 MB of samples"
    assert np.array_equal(np.load(study.folder(tmp_path) / "frames.npy", mmap_mode="r")[::40], study.volume[::40])


# --- servers that are not ours ----------------------------------------------------------------------------------------


class PlainServer:
    """What PS3.18 asks for and no more: QIDO-RS, metadata, instances and frames in parts; no Range, no ETag."""

    def __init__(self, study: Study, *, multipart_instances: bool, frame_type: str) -> None:
        self.study, self.multipart, self.frame_type = study, multipart_instances, frame_type
        self.asked: list[str] = []
        self.cuts = 0
        self.application = web.Application()
        self.application.router.add_get("/pacs/{path:.*}", self.answer)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path_qs)
        path = request.match_info["path"].split("/")
        data = {one.SOPInstanceUID: one for one in self.study.data}
        if path[-1] == "instances":
            found = [self.json(one) for one in self.study.data]
            offset = int(request.query.get("offset", 0))
            return web.json_response(found[offset : offset + 4])
        if path[-1] == "series":
            return web.json_response([self.json(self.study.data[0])] if request.query.get("offset", "0") == "0" else [])
        if path[-1] == "metadata":
            return web.json_response([self.json(one) for one in reversed(self.study.data)])
        if len(path) == 8 and path[6] == "frames":
            body = data[path[5]].PixelData
            head = f"--b\r\nContent-Type: {self.frame_type}\r\n\r\n".encode()
            return await self.cut(request, head + body + b"\r\n--b--", 'multipart/related; type="x/y"; boundary=b')
        if len(path) == 6 and path[4] == "instances":
            file = self.study.files[self.study.instances.index(path[5])]
            if not self.multipart:
                return await self.cut(request, file, "application/dicom")
            if not request.headers["Accept"].startswith("multipart/"):
                return web.json_response({"message": "in parts only"}, status=400)
            head = b"\r\n--b\r\nContent-Type: application/dicom\r\n\r\n"
            return await self.cut(request, head + file + b"\r\n--b--", 'multipart/related; boundary="b"')
        return web.Response(status=404, text="<html>not here</html>")

    async def cut(self, request: web.Request, body: bytes, content_type: str) -> web.StreamResponse:
        """A body, broken off in the middle as often as `cuts` says."""
        response = web.StreamResponse(headers={"Content-Type": content_type, "Content-Length": str(len(body))})
        await response.prepare(request)
        if self.cuts:
            self.cuts -= 1
            await response.write(body[: len(body) // 2])
            assert request.transport is not None
            request.transport.abort()
        else:
            await response.write(body)
        return response

    @staticmethod
    def json(one: pydicom.Dataset) -> dict[str, object]:
        found: dict[str, object] = one.to_json_dict()
        found.pop("7FE00010")
        return found


@pytest.mark.parametrize("form", ["dicom", "npy", "zarr"])
@pytest.mark.parametrize("multipart", [False, True])
async def test_a_plain_server(study: Study, tmp_path: Path, form: Form, multipart: bool) -> None:
    frame_type = "application/octet-stream" + ("" if multipart else "; transfer-syntax=1.2.840.10008.1.2.1")
    plain = PlainServer(study, multipart_instances=multipart, frame_type=frame_type)
    plain.cuts = 3
    async with TestServer(plain.application) as server:
        url = f"http://{server.host}:{server.port}/pacs/studies/{study.uid}"
        until: Until = "lossless" if form == "dicom" else "preview"
        options = Options(resource(url), tmp_path, form, until, jobs=2, patience=PATIENCE)
        progress = await fetch_all(options)
        assert (progress.fetched, progress.failed) == (COUNT, 0) and plain.cuts == 0
        again = await fetch_all(options)
        assert (again.fetched, again.already) == (0, COUNT)
    folder = study.folder(tmp_path)
    if form == "dicom":
        for instance, file in zip(study.instances, study.files, strict=True):
            assert (folder / f"{instance}.dcm").read_bytes() == file
        return
    assert any("knows no rungs" in note for note in progress.notes)
    path = folder / f"frames.preview.{form}"
    found = np.load(path) if form == "npy" else zarr.open_array(path, mode="r")[:]
    assert np.array_equal(found, study.volume), "in the order of Instance Number"


async def test_a_series_of_a_plain_server_comes_whole(study: Study) -> None:
    plain = PlainServer(study, multipart_instances=True, frame_type="application/octet-stream")
    async with TestServer(plain.application) as server, AsyncClient(str(server.make_url("/pacs"))) as client:
        views = [view async for view in client.series_stream(study.uid, study.series)]
    assert [view.position for view in views] == [4, 5, 3, 6, 2, 1]
    assert all(view.final and np.array_equal(view.array, study.volume[view.position - 1]) for view in views)


async def test_a_file_is_what_its_digest_says(study: Study, tmp_path: Path) -> None:
    """A server's Repr-Digest is compared with what was received, in one go or in several. RFC 9530"""
    file = study.files[0]
    digest = b64encode(hashlib.sha256(file).digest()).decode()
    names_of = (study.uid, study.series, study.instances[0])
    async with origin() as server:
        for announced, fits in ((digest, True), (b64encode(bytes(32)).decode(), False)):

            def announcing(plain: Answer, announced: str = announced) -> Answer:
                def answer(asked: Asked) -> Reply:
                    found = plain(asked)
                    found.headers |= {"Repr-Digest": f"sha-256=:{announced}:", "Content-Type": "application/dicom"}
                    return found

                return answer

            server.answers.clear()
            server.will(announcing(entity(file, cut=5000)), announcing(entity(file)))
            out = tmp_path / str(fits)
            options = Options(Resource(server.url, *names_of), out, patience=PATIENCE)
            progress = await fetch_all(options)
            found = list(study.folder(out).iterdir())
            if fits:
                assert progress.fetched == 1 and [path.read_bytes() for path in found] == [file]
            else:
                assert progress.failed == 1 and "SHA-256" in progress.failures[0][1] and found == []
        server.answers.clear()
        server.will(Reply(b"{}", 404))
        progress = await fetch_all(Options(Resource(server.url, *names_of), tmp_path / "none", patience=PATIENCE))
        assert progress.failed == 1


async def test_names_from_a_server_stay_below_the_folder(tmp_path: Path) -> None:
    evil = [{"0020000E": {"vr": "UI", "Value": ["../../x"]}, "00080018": {"vr": "UI", "Value": ["1.2"]}}]
    async with origin() as server:
        server.will(Reply(json.dumps(evil).encode()), Reply(b"[]"))
        with pytest.raises(UidError, match="not digits"):
            await fetch_all(Options(Resource(server.url, "1.2"), tmp_path / "out", patience=PATIENCE))
    assert names(tmp_path) == set()


# --- the command line -------------------------------------------------------------------------------------------------


def test_resources() -> None:
    root = "http://h:1/a/dicomweb"
    assert resource(f"{root}/studies/1.2") == Resource(root, "1.2")
    assert resource(f"{root}/studies/1.2/series/3.4/") == Resource(root, "1.2", "3.4")
    whole = f"{root}/studies/1.2/series/3.4/instances/5.6"
    assert resource(whole) == Resource(root, "1.2", "3.4", "5.6")
    assert resource(f"{whole}/frames/7") == Resource(root, "1.2", "3.4", "5.6", 7)
    assert resource("https://h/studies/1.2") == Resource("https://h", "1.2")
    for wrong in (
        "", "studies/1.2", root, f"{root}/studies", f"{root}/studies/x", f"{root}/studies/1.2?x=1", "ftp://h/studies/1",
        f"{root}/studies/1.2/instances/3", f"{whole}/frames/0", f"{whole}/frames/1,2", f"{whole}/metadata",
        f"{root}/studies/..%2f..", "http://[/studies/1.2",
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"URL|names|query|UID|frame"):
            resource(wrong)


@pytest.mark.parametrize(
    "more",
    [
        ["--until", "preview"], ["--as", "npy", "--transfer-syntax", "1.2.840.10008.1.2.1"],
        ["--transfer-syntax", "nonsense"], ["--header", "none"], ["--as", "png"],
    ],
)  # fmt: skip
def test_misuse(more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = cli.main(["fetch", "http://127.0.0.1:9/studies/1.2", "--out", str(tmp_path), *more])
    except SystemExit as stopped:
        status = int(str(stopped.code))
    assert status == cli.USAGE and capsys.readouterr().err and not list(tmp_path.iterdir())


def test_what_cannot_be_had(
    server: Server, study: Study, tmp_path: Path, pacs_command: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["fetch", f"{server.url}/studies/1.2.3.4", "--out", str(tmp_path)]) == cli.WRONG
    assert "pacs fetch: " in capsys.readouterr().err
    assert cli.main(["fetch", f"{server.url}/nonsense", "--out", str(tmp_path)]) == cli.USAGE
    instance = f"{study.url(server)}/series/{study.series}/instances/1.2.3"
    assert cli.main(["fetch", instance, "--out", str(tmp_path)]) == cli.WRONG
    assert "1.2.3: " in capsys.readouterr().err
    with pytest.raises((RemoteError, AnswerError)):
        run(f"{study.url(server)}/series/{study.series}/instances/{study.instances[0]}/frames/2", tmp_path, "npy")
    done = pacs_command("fetch", "http://127.0.0.1:9/dicomweb/studies/1.2", "--out", tmp_path)
    assert done.returncode == 1 and "nobody answers" in done.stderr and "Traceback" not in done.stderr
