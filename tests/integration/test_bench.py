"""`pacs bench` as an administrator runs it: tiny, the figures mean nothing, everything else does."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from pacs.archive import Archive
from pacs.bench import model, target

ROOT = Path(__file__).resolve().parents[2]
TINY = ("--shrink", "8", "--size", "20M", "--seconds", "0.05", "--clients", "2", "--workers", "1")
Run = Callable[..., subprocess.CompletedProcess[str]]


def test_a_node_is_measured_and_left_clean(tmp_path: Path, pacs_command: Run) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    (disk / "somebody's file").write_text("stays")
    run = pacs_command("bench", disk, *TINY, "--soak", "0.05", "--out", tmp_path / "node", timeout=1800)
    assert run.returncode == 0, run.stdout + run.stderr
    assert [path.name for path in disk.iterdir()] == ["somebody's file"]
    report = model.read(tmp_path / "node.json")
    assert {sweep.name for sweep in report.sweeps} == {
        "store", "metadata", "frames", "decoded", "rendered", "search"
    }  # fmt: skip
    for sweep in report.sweeps:
        assert [point.clients for point in sweep.points] == [1, 2]
        assert all(point.rate > 0 and point.latency.p50 <= point.latency.p99 for point in sweep.points)
    assert [kind.kind for kind in report.kinds] == ["CT", "MR", "CR", "MG", "US"]
    assert all(kind.frames is not None for kind in report.kinds)
    for stages in report.stages:
        # What is left over is a part too. Stages overlap where threads do, the more the busier the machine.
        assert stages.wall * 0.999 <= sum(stages.parts.values()) < stages.wall * 100
        assert stages.parts["encode"] > 0 and stages.parts["sync of the files"] > 0 and stages.ceiling > 0
    assert report.disk is not None and report.index is not None and len(report.codecs) == 18
    assert report.soak is not None and report.soak.windows[-1].memory and "frame" in report.soak.drift
    assert 0 < report.stored["sent"] <= 25_000_000 and 0 < report.stored["on_disk"] < report.stored["sent"]
    assert report.memory["peak"] >= report.memory["idle"] * 0.5 > 0
    assert report.verdict.ct_studies_per_hour > 0 and report.verdict.readers > 0
    assert run.stdout.startswith("Stores ") and not run.stderr
    html = (tmp_path / "node.html").read_text(encoding="utf-8")
    assert "Where the time of an ingest goes" in html and "Steady load" in html

    again = pacs_command("bench", "compare", tmp_path / "node.json", tmp_path / "node.json", "--out", tmp_path / "two")
    assert again.returncode == 0 and "better in 0 figures, worse in 0" in again.stdout
    assert (tmp_path / "two.html").exists() and not (tmp_path / "two.json").exists()


def _search(url: str, query: str) -> Any:
    with urllib.request.urlopen(f"{url}/studies?{query}") as answer:
        return json.load(answer)


def test_a_running_server_keeps_only_what_was_agreed(server: Any, tmp_path: Path, pacs_command: Run) -> None:
    refused = pacs_command("bench", server.url, *TINY)
    assert refused.returncode == 2 and "--yes" in refused.stderr and not refused.stdout
    assert _search(server.url, "PatientID=BENCH-*") == []

    run = pacs_command("bench", server.url, *TINY, "--yes", "--out", tmp_path / "url", timeout=1800)
    assert run.returncode == 0, run.stdout + run.stderr
    report = model.read(tmp_path / "url.json")
    patient = report.options["patient"]
    found = _search(server.url, f"PatientID={patient}&limit=1000")
    assert {item["0020000D"]["Value"][0] for item in found} == set(report.left_behind)
    assert f"all of Patient ID {patient}" in run.stdout
    assert report.disk is None and report.sweep("frames") is not None and not report.own_server


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_interrupted_it_leaves_nothing(number: signal.Signals, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    command = [sys.executable, "-m", "pacs", "bench", str(disk), *TINY, "--soak", "10", "--out", str(tmp_path / "out")]
    run = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    try:
        deadline = time.monotonic() + 600
        while not list(disk.glob("*/archive/index/data.mdb")):  # the server is up
            assert run.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
        assert children
        run.send_signal(number)
        _, said = run.communicate(timeout=600)
    finally:
        run.kill()
        run.wait()
    assert run.returncode == 128 + number, said
    assert b"Traceback" not in said
    assert list(disk.iterdir()) == []
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    assert list(tmp_path.glob("out*")) == []


def serves(run: psutil.Process) -> bool:
    """Whether its server has workers. Other children of it come and go."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return any("serve" in child.cmdline() and child.children() for child in run.children())
    return False


def test_killed_it_leaves_a_folder_that_the_next_run_removes(tmp_path: Path) -> None:
    kept = tmp_path / "pacs-bench-somebody's"
    kept.mkdir()
    archive = tmp_path / "pacs-bench-archive"
    Archive.open(archive, create=True).close()
    (archive / "of-pacs-bench").write_text("even so")
    command = [sys.executable, "-m", "pacs", "bench", str(tmp_path), *TINY, "--soak", "10"]
    command += ["--out", str(tmp_path / "x")]
    run = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 600
        while not (serves(psutil.Process(run.pid)) and any(tmp_path.glob("pacs-bench-*/archive"))):
            assert run.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        server = psutil.Process(run.pid).children(recursive=True)
        (left,) = set(tmp_path.glob("pacs-bench-*")) - {kept, archive}
        target.remove_left(tmp_path)
        assert (left / "archive").exists(), "of a run that lives"
    finally:
        run.kill()
        run.wait()
    assert len(server) >= 2
    assert not psutil.wait_procs(server, timeout=120)[1]
    with target.working_folder(tmp_path) as own:
        assert set(tmp_path.glob("pacs-bench-*")) == {kept, archive, own}
    assert set(tmp_path.glob("pacs-bench-*")) == {kept, archive}


def test_what_cannot_be_measured_is_status_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pacs import cli

    archive = tmp_path / "archive"
    Archive.open(archive, create=True).close()
    assert (archive / "archive.json").exists()
    before = sorted(map(str, archive.rglob("*")))
    for named, reason in (
        (archive, "is an archive"), (archive / "studies", "is an archive"), (tmp_path / "missing", "is not a folder"),
        ("http://127.0.0.1:1/dicomweb", "cannot be reached"),
    ):  # fmt: skip
        assert cli.main(["bench", str(named), *TINY, "--yes", "--out", str(tmp_path / "out")]) == 1
        said = capsys.readouterr()
        assert reason in said.err and "BEN-01" in said.err and not said.out
    assert sorted(map(str, archive.rglob("*"))) == before
    assert list(tmp_path.glob("out*")) == []
