"""/metrics, /healthz, /readyz and the access log of real servers: read as Prometheus and an administrator do."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.link import Shape, link_thread
from pacs.dicomweb import access_log
from pacs.errors import DicomError
from tests.conftest import CtSlices, Server, StartServer
from tests.integration.exchange import Client, Reply, Stored
from tests.objects import images

AS_STORED = "multipart/related; type=application/octet-stream; transfer-syntax=*"
FRAMES = "/dicomweb/studies/{study}/series/{series}/instances/{instance}/frames/{frames}"
SERIES_STREAM = "/dicomweb/studies/{study}/series/{series}/stream"


class Scrape:
    """The samples of one answer; `value("pacs_requests_total", route=…)` sums those with these labels."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self.samples = [sample for family in self.families.values() for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        return sum(
            sample.value for sample in self.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )  # fmt: skip


def ask(server: Server, path: str, method: str = "GET", headers: dict[str, str] | None = None) -> Reply:
    """One request on a connection of its own."""
    client = Client(server)
    try:
        return client.request(method, path, headers)
    finally:
        client.close()


def scrape(server: Server) -> Scrape:
    reply = ask(server, "//metrics")
    assert reply.status == 200 and reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    return Scrape(reply.body.decode())


def until(look: Callable[[], Any], true: Callable[[Any], bool], seconds: float = 120) -> Any:
    """Ask again until it is so: numbers are handed on once a second."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(ConnectionError, http.client.HTTPException):  # of a worker that was just killed
            found = look()
            if true(found):
                return found
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def log_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("log") / "access.log"


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, log_file: Path) -> Iterator[Server]:
    """Two workers, named networks, an access log, and a proxy on this machine that is trusted."""
    env = {
        "PACS_ACCESS_LOG": str(log_file), "PACS_NETWORKS": "ward=10.1.0.0/16", "PACS_TRUSTED_PROXIES": "127.0.0.2",
        "PACS_LEAST_FREE": "1000000",
    }  # fmt: skip
    server = Server(tmp_path_factory.mktemp("watched") / "archive", workers=2, env=env, args=())
    yield server
    server.stop()


def test_requests_of_all_workers_whoever_answers(watched: Server, ct_slices: CtSlices) -> None:
    before = scrape(watched)
    files = ct_slices(3)
    stored = Stored(files[0])
    sent = 0
    began = time.perf_counter()
    for file in files:
        client = Client(watched)  # each connection to another worker
        sent += len(file)
        assert client.store(file).status == 200
        assert client.store(file).status == 200
        assert client.store(b"no DICOM" * 40, check=False).status == 409
        for _ in range(4):
            body = client.get(f"{stored.path}/frames/1", AS_STORED).body
        client.close()
    assert ask(watched, "/nothing").status == 404
    took = time.perf_counter() - began

    def handed_on(now: Scrape) -> bool:
        """Each worker hands on its numbers in its own time; those of one worker go together."""
        frames, unknown = now.value("pacs_requests_total", route=FRAMES), now.value("pacs_errors_total", code="WEB-02")
        uploads = now.value("pacs_requests_total", route="/dicomweb/studies", method="POST")
        return frames >= 12 and unknown >= 1 and uploads >= 9 and not now.value("pacs_requests_in_flight", route=FRAMES)

    def fresh(name: str, **labels: str) -> float:
        return found.value(name, **labels) - before.value(name, **labels)

    found = until(lambda: scrape(watched), handed_on)
    assert fresh("pacs_requests_total", method="GET", route=FRAMES, status="200") == 12
    assert fresh("pacs_request_seconds_count", method="GET", route=FRAMES) == 12
    assert 0 < fresh("pacs_request_seconds_sum", method="GET", route=FRAMES) < took
    assert fresh("pacs_response_bytes_total", route=FRAMES) == 12 * len(body)
    assert fresh("pacs_link_first_rung_seconds_count", network="loopback") == 12
    assert fresh("pacs_requests_total", route="/dicomweb/studies", method="POST", status="200") == 6
    assert fresh("pacs_request_bytes_total", route="/dicomweb/studies") > 2 * sent
    assert fresh("pacs_stow_instances_total", result="stored", reason="") == 3
    assert fresh("pacs_stow_instances_total", result="duplicate", reason="") == 3
    assert fresh("pacs_stow_instances_total", result="refused", reason=DicomError.code) == 3
    assert fresh("pacs_requests_total", route="unknown", status="404") == 1
    assert fresh("pacs_errors_total", code="WEB-02") == 1
    for stage in ("encode", "prove", "commit_wait", "commit"):
        assert fresh("pacs_ingest_stage_seconds_count", stage=stage) == 3, stage
    assert fresh("pacs_ingest_stage_seconds_count", stage="identify") == 9
    assert fresh("pacs_commit_batch_instances_sum") == 3
    assert fresh("pacs_commit_seconds_count", part="sync") == fresh("pacs_commit_seconds_count", part="index") > 0
    assert fresh("pacs_cache_requests_total", cache="page") == 12
    assert found.value("pacs_workers") == 2
    assert found.value("pacs_requests_in_flight", route=FRAMES) == 0
    assert found.value("pacs_requests_in_flight", route="/metrics") >= 1, "the scrape itself"


def test_what_the_archive_holds_is_what_the_command_says(
    watched: Server, pacs_command: Callable[..., Any], ct_slices: CtSlices
) -> None:
    client = Client(watched)
    client.store(*ct_slices(2))
    client.close()
    info = json.loads(pacs_command("info", "--archive", watched.archive, "--json").stdout)

    def free() -> int:
        disk = os.statvfs(watched.archive)
        return disk.f_bavail * disk.f_frsize

    # Others write to this disk, and delete.
    found, _ = until(
        lambda: (scrape(watched), free()),
        lambda seen: abs(seen[0].value("pacs_disk_free_bytes") - seen[1]) < 1 << 30,
    )
    for name in ("studies", "series", "instances", "received_bytes"):
        assert found.value(f"pacs_archive_{name}") == info[name] > 0
    assert 0 < found.value("pacs_archive_stored_bytes") <= info["stored_bytes"]
    assert found.value("pacs_index_used_bytes") <= (watched.archive / "index" / "data.mdb").stat().st_size
    assert found.value("pacs_index_limit_bytes") == 1 << 40
    disk = os.statvfs(watched.archive)
    assert found.value("pacs_disk_size_bytes") == disk.f_blocks * disk.f_frsize
    assert found.value("pacs_ready", check="index") == found.value("pacs_ready", check="space") == 1


def test_labels_stay_few_and_name_nobody(watched: Server, ct_slices: CtSlices) -> None:
    stored = Stored(ct_slices(1)[0])
    client = Client(watched)
    client.store(stored.file)
    before = len(scrape(watched).samples)
    for n in range(30):
        client.get(f"{stored.path}/frames/{n + 1}", AS_STORED)
        client.get(f"/studies/1.2.3.{n}/series/4.5.{n}/metadata")
        client.get(f"/nothing/{n}")
        client.request(f"X{n}", "/studies")
    client.close()
    found = scrape(watched)
    uids = re.compile(r"\d+\.\d+\.\d+\.\d+\.\d+|1\.2\.3")
    for sample in found.samples:
        for name, value in sample.labels.items():
            assert name in ("version", "network") or not uids.search(value), sample
    assert len(found.samples) - before < 200
    named = {sample.labels["method"] for sample in found.samples if "method" in sample.labels}
    assert named <= {"GET", "HEAD", "POST", "OPTIONS", "other"}


def test_every_metric_has_a_help_and_the_family_of_its_kind(watched: Server, ct_slices: CtSlices) -> None:
    stored = Stored(ct_slices(1)[0])
    client = Client(watched)
    client.store(stored.file)
    assert client.get(f"{stored.path}/frames/1", AS_STORED).status == 200
    assert client.get(f"{stored.series}/metadata").status == 200
    client.close()
    found = scrape(watched)
    assert len(found.families) > 30
    for family in found.families.values():
        assert family.name.startswith("pacs_") and family.documentation.endswith("."), family.name


def forwarded(server: Server, path: str, **headers: str) -> int:
    """The status of a request as it comes through the trusted proxy."""
    address, port = server.address.split(":")
    with socket.create_connection((address, int(port)), 120, source_address=("127.0.0.2", 0)) as connection:
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        lines += f"Host: {server.address}\r\nConnection: close\r\n"
        connection.sendall(f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode())
        answer = b""
        while piece := connection.recv(1 << 16):
            answer += piece
    return int(answer.split()[1])


def test_metrics_are_not_for_everybody(watched: Server) -> None:
    assert forwarded(watched, "/metrics", X_Forwarded_For="8.8.8.8") == 403
    assert forwarded(watched, "/metrics", X_Forwarded_For="10.1.2.3") == 200
    for path in ("/healthz", "/readyz"):
        assert forwarded(watched, path, X_Forwarded_For="8.8.8.8") == 200
    reply = ask(watched, "//metrics", headers={"X-Forwarded-For": "8.8.8.8"})
    assert reply.status == 403, "a proxy that nobody named"
    assert ask(watched, "//metrics", "POST").status == 405


def written(log_file: Path) -> list[dict[str, Any]]:
    """The lines of the log that are there whole."""
    text = log_file.read_text() if log_file.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def test_the_access_log_tells_no_identifiers(watched: Server, log_file: Path, ct_slices: CtSlices) -> None:
    stored = Stored(ct_slices(1)[0])
    began = access_log.utc(time.time())
    client = Client(watched)
    client.store(stored.file)
    client.get(f"{stored.path}/frames/1?secret=Name^Patient", AS_STORED)
    client.get(f"/studies?PatientName={quote(str(stored.data.PatientName))}")
    known = client.get(f"{stored.path}/metadata").headers["etag"]
    client.get(f"{stored.path}/metadata", If_None_Match=known)
    client.get(f"{stored.path}/frames/99", AS_STORED)
    client.close()
    identity = "c0ffee00-1111-2222-3333-444455556666"
    assert forwarded(watched, "/dicomweb/studies?x=1", X_Forwarded_For="10.1.2.3", X_Request_ID=identity) == 200
    assert forwarded(watched, "/dicomweb/studies", X_Forwarded_For="10.1.2.3", X_Request_ID="1.2.840.99") == 200
    lines = until(
        lambda: [line for line in written(log_file) if line["time"] >= began],
        # All are there once the last line of each connection is: the refused frame, and the two through the proxy.
        lambda found: sum(line["network"] == "ward" and line["route"] == "/dicomweb/studies" for line in found) == 2
        and any(line["route"] == FRAMES and line["status"] == 404 for line in found),
    )
    lines.sort(key=lambda line: line["time"])  # each worker writes in its own time
    mine = [line for line in lines if line["network"] == "ward" and line["route"] == "/dicomweb/studies"]
    assert [line["request"] == identity for line in mine] == [True, False]
    assert len({line["request"] for line in lines}) == len(lines)
    frames = [line for line in lines if line["route"] == FRAMES]
    assert frames[-1]["status"] == 404 and frames[-1]["error"] == "ARC-01"
    shown = frames[-2]
    assert shown["status"] == 200 and shown["method"] == "GET" and 0 < shown["first_byte"] <= shown["seconds"]
    described = [(line["status"], line["bytes"] > 0) for line in lines if line["route"].endswith("{instance}/metadata")]
    assert described == [(200, True), (304, False)]
    uploads = [line for line in lines if line["method"] == "POST" and line["status"] == 200]
    assert uploads[-1]["received"] > len(stored.file)
    text = log_file.read_text()
    data = stored.data
    secrets = (data.StudyInstanceUID, data.SOPInstanceUID, str(data.PatientName), data.PatientID, "secret", "10.1.2")
    for secret in secrets:
        assert secret not in text
    moved = log_file.with_suffix(".1")
    log_file.rename(moved)
    client.get("/studies")
    until(lambda: written(log_file), bool)
    assert "1.2.840.99" not in moved.read_text()
    log_file.write_bytes(moved.read_bytes() + log_file.read_bytes())
    client.close()


def test_links_and_transfers_that_break(start_server: StartServer, archive_dir: Path, ct_slices: CtSlices) -> None:
    """A slow link between: its rate is the kernel's, not that of our buffers."""
    server = start_server(archive_dir, workers=1)
    files = ct_slices(4, rows=512)
    stored = Stored(files[0])
    uploader = Client(server)
    uploader.store(*files)
    uploader.close()
    host, port = server.address.split(":")
    path = f"{stored.series}/stream?rungs=lossless"
    with (
        link_thread((host, int(port)), Shape(rate=8e6, rtt=0.02)) as link,
        contextlib.closing(http.client.HTTPConnection(*link.address, timeout=120)) as connection,
    ):
        connection.request("GET", f"/dicomweb{path}")
        response = connection.getresponse()
        began = time.perf_counter()
        length = len(response.read())
        rate = length / (time.perf_counter() - began)
    found = until(
        lambda: scrape(server),
        lambda now: now.value("pacs_link_throughput_bytes_per_second_count", network="loopback") == 1,
    )
    assert length > 500_000 and rate < 1.2e6
    # Of its order: what the link missed while others had the processor, it makes up for.
    assert rate / 8 < found.value("pacs_link_throughput_bytes_per_second_sum") < 8 * rate
    assert 0 < found.value("pacs_link_round_trip_seconds_sum", network="loopback") < 20
    assert found.value("pacs_link_transfers_aborted_total") == 0
    noise = Stored(images.native("noise", [np.random.default_rng(7).integers(0, 65536, (2400, 2400), np.uint16)]).file)
    with contextlib.closing(Client(server)) as uploader:
        uploader.store(noise.file)
    with socket.socket() as download:
        # More comes than the kernel takes in for who does not read.
        download.settimeout(120)
        download.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        download.connect((host, int(port)))
        path = f"{noise.series}/stream?rungs=lossless"
        download.sendall(f"GET /dicomweb{path} HTTP/1.1\r\nHost: {server.address}\r\n\r\n".encode())
        assert download.recv(10)
        download.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
    with socket.create_connection((host, int(port))) as upload:
        upload.sendall(
            f"POST /dicomweb/studies HTTP/1.1\r\nHost: {server.address}\r\nContent-Length: 100000\r\n"
            'Content-Type: multipart/related; type="application/dicom"; boundary=b\r\n\r\n--b\r\n'.encode()
        )
    found = until(lambda: scrape(server), lambda now: now.value("pacs_link_transfers_aborted_total") == 2)
    for direction in ("up", "down"):
        assert found.value("pacs_link_transfers_aborted_total", direction=direction, by="client") == 1
    assert found.value("pacs_requests_total", route=SERIES_STREAM, status="499") == 1


def test_a_frame_that_fails_on_its_way_is_counted(
    start_server: StartServer, archive_dir: Path, ct_slices: CtSlices
) -> None:
    server = start_server(archive_dir, workers=1)
    stored = Stored(ct_slices(1)[0])
    client = Client(server)
    client.store(stored.file)
    (shard,) = archive_dir.glob("studies/*/series/*/frames-0/c.*")
    data = bytearray(shard.read_bytes())
    data[-20] ^= 1
    shard.write_bytes(data)
    assert client.get(f"{stored.path}/frames/1", AS_STORED).status == 500
    client.close()
    until(lambda: scrape(server).value("pacs_errors_total", code="STO-02"), lambda count: count == 1)


def ready(server: Server) -> tuple[int, set[str]]:
    reply = ask(server, "//readyz")
    return reply.status, {reason["check"] for reason in reply.json.get("reasons", ())}


def test_not_ready_says_why(
    start_server: StartServer, archive_dir: Path, ct_slices: CtSlices, tmp_path: Path
) -> None:
    settings = {"PACS_LEAST_FREE": str(1 << 60), "PACS_SPOOL_THRESHOLD": "50000"}
    server = start_server(archive_dir, workers=1, env=settings)
    until(lambda: ready(server), lambda found: found == (503, {"space"}))
    with contextlib.closing(Client(server)) as client:
        refused = client.store(*ct_slices(1, rows=256), check=False)
        assert refused.status == 503 and refused.headers["retry-after"]
        assert client.store(*ct_slices(1, rows=64)).status == 200  # small ones are not kept on the disk before
    assert ask(server, "//healthz").json == {"status": "alive"}
    until(lambda: scrape(server).value("pacs_ready", check="space"), lambda found: found == 0)
    server.stop()
    server = start_server(archive_dir, workers=1, env={"PACS_LEAST_FREE": "1"})
    until(lambda: ready(server), lambda found: found == (200, set()))
    (archive_dir / "index").rename(tmp_path / "elsewhere")
    until(lambda: ready(server), lambda found: found == (503, {"index"}))
    until(lambda: scrape(server).value("pacs_ready", check="index"), lambda found: found == 0)  # metrics go on
    (tmp_path / "elsewhere").rename(archive_dir / "index")
    until(lambda: ready(server), lambda found: found == (200, set()))
    shutil.move(archive_dir, tmp_path / "moved")
    until(lambda: ready(server), lambda found: found[0] == 503 and {"index", "disk"} <= found[1])
    shutil.move(tmp_path / "moved", archive_dir)


def test_a_worker_that_dies_is_counted_and_its_sums_go_on(
    start_server: StartServer, archive_dir: Path, ct_slices: CtSlices
) -> None:
    server = start_server(archive_dir, workers=2)
    for file in ct_slices(4):
        client = Client(server)
        client.store(file)
        client.close()
    until(lambda: scrape(server), lambda now: now.value("pacs_stow_instances_total") == 4)
    first = server.workers
    for deaths, worker in enumerate(first, 1):
        os.kill(worker, signal.SIGKILL)
        found = until(
            lambda: scrape(server),
            lambda now, deaths=deaths: now.value("pacs_worker_deaths") == deaths and now.value("pacs_workers") == 2,
        )
    assert found.value("pacs_stow_instances_total") == 4
    (directory,) = until(lambda: metrics_directories(server), bool)
    assert directory.is_dir()
    files = sorted(path.name for path in directory.iterdir())
    assert {name.rpartition("_")[2] for name in files} == {"0.db", "1.db"}, "no file more for a worker more"
    server.stop()
    assert not directory.exists()


def metrics_directories(server: Server) -> set[Path]:
    """Those of the files that a worker has mapped."""
    mapped = Path(f"/proc/{server.workers[0]}/maps").read_text()
    return {Path(name).parent for name in re.findall(r"/\S*/pacs-metrics-\S+\.db", mapped)}


def test_the_access_log_on_standard_output(start_server: StartServer, archive_dir: Path) -> None:
    server = start_server(archive_dir, workers=1, env={"PACS_ACCESS_LOG": "-"})
    ask(server, "/studies")
    server.stop()
    (line,) = [json.loads(line) for line in server.lines if line.startswith("{")]
    assert line["route"] == "/dicomweb/studies" and line["status"] == 200
