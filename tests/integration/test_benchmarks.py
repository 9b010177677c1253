"""Every benchmark runs: tiny and untimed, with the same verification of answers. The figures mean nothing here."""

from __future__ import annotations

import json
import os
import socket
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as benchmarks
from benchmarks import bench_index, bench_read, comparison, growth, report, servers, workload
from benchmarks.bench_micro import header_of_250
from benchmarks.report import Figure
from benchmarks.rivals import CompressedNginx
from benchmarks.servers import Null, StartError
from pacs.bench import load
from pacs.bench.corpus import uid
from pacs.bench.load import Request
from pacs.dicom import part10
from pacs.storage import layout
from pacs.storage.check import index_check
from pacs.storage.index import Index, matching
from tests.conftest import ROOT
from tests.forked import Forked


@pytest.fixture
def forked_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Archives are served by processes that need not load the program first; other servers by their programs."""
    spawn = servers.Server.spawn

    def forked(self: servers.Server, command: list[str], env: Mapping[str, str] | None = None) -> None:
        if command[:3] != [sys.executable, "-m", "pacs"]:
            return spawn(self, command, dict(env or {}))
        with (self.folder / "log").open("wb") as log:
            self.process = Forked(command[3:], log.fileno(), log.fileno(), {**os.environ, **(env or {})}, ROOT)  # type: ignore[assignment]
        return None

    monkeypatch.setattr(servers.Server, "spawn", forked)


def test_all_benchmarks_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "results" / "tiny.json"
    assert benchmarks.main(["--tiny", "--workers", "2", "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    assert {figure["benchmark"] for figure in result["figures"]} == {
        "client", "micro", "codestream", "store", "disk", "memory", "metadata", "frames", "rendered", "search",
        "readers",
    }  # fmt: skip
    assert all(figure["value"] > 0 or figure["unit"] == "ms of CPU" for figure in result["figures"])
    assert result["machine"]["processor"] and result["machine"]["packages"]["imagecodecs"]
    assert "frames as stored, 8 clients" in capsys.readouterr().out


def test_the_slow_link_runs(tmp_path: Path, forked_servers: None) -> None:
    out = tmp_path / "tiny.json"
    assert benchmarks.main(["slow_link", "--tiny", "--data", str(tmp_path), "--out", str(out)]) == 0
    figures = json.loads(out.read_text())["figures"]
    plans = {(figure["detail"]["plan"], figure["detail"]["look"]) for figure in figures}
    assert {("levels", "lossless"), ("lossy", "readable"), ("layers", "readable"), ("raw", "first")} <= plans
    for figure in figures:
        assert figure["detail"]["of_limit"] >= 0.9  # nothing is faster than the link
        if figure["detail"]["look"] == "readable" and figure["detail"]["plan"] != "raw":
            assert figure["detail"]["dB_full_range"] >= 45


def test_the_comparison_runs_without_rivals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], forked_servers: None
) -> None:
    """Rivals that are not installed are said, and the status tells."""
    from benchmarks import rivals

    def absent(*_: object) -> None:
        raise StartError("nothing is installed")

    monkeypatch.setattr(rivals.Orthanc, "_installation", absent)
    monkeypatch.setattr(rivals.Nginx, "start", absent)
    page = tmp_path / "page.md"
    page.write_text(f"before\n{comparison.BEGIN}\nold\n{comparison.END}\nafter\n")
    out = tmp_path / "rivals.json"
    assert benchmarks.main(["rivals", "--tiny", "--workers", "1", "--out", str(out), "--into", str(page)]) == 1
    assert len(json.loads(out.read_text())["missing"]) == 3
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    for row in comparison.ROWS:
        assert f"\n| {row.label} | {row.unit} | " in text
    assert "ceiling: encode and proof alone" in text and "`python -m benchmarks" in text


def test_the_comparison_turns_ratios_and_marks_what_falls_short() -> None:
    case = "real CT, 1 a request, 4 clients"
    frames = "frames as stored, 8 clients"
    found = [
        Figure("store", case, "pacs", 300.0, "instances/s"), Figure("store", case, "Orthanc", 200.0, "instances/s"),
        Figure("memory", "most", "pacs", 200.0, "MB", False), Figure("memory", "most", "Orthanc", 300.0, "MB", False),
        Figure("frames", frames, "pacs", 6000.0, "frames/s"), Figure("frames", frames, "Orthanc", 1000.0, "frames/s"),
        Figure("frames", frames, "nginx, HTJ2K", 12000.0, "frames/s"),
    ]  # fmt: skip
    description = {
        "date": "2026-01-02T03:04", "processor": "cpu", "cores": 2, "kernel": "6", "commit": "c", "python": "3",
        "uncommitted_changes": False, "command": "x", "packages": {"imagecodecs": "1", "aiohttp": "2", "lmdb": "3"},
    }  # fmt: skip
    text = comparison.markdown(found, description, {}, 400.0, "real CT").replace("\N{MULTIPLICATION SIGN}", "x")
    assert "| store, 1 a request, 4 clients | instances/s | 300 | 200 |  | **1.50 x** | 1.6 x |  |" in text
    assert "| share of the ceiling | | 75% |" in text
    assert "| most memory held | MB | 200 | 300 |  | 1.50 x | 1 x |  |" in text
    assert "| 6,000 | 1,000 | 12,000 | 6.00 x | 4 x | **0.50 x** |" in text


@pytest.mark.skipif(not Path("/usr/sbin/nginx").exists(), reason="nginx is not installed")
def test_nginx_serves_the_frames_of_this_archive() -> None:
    (source,) = workload.synthetic(1, 64)
    with CompressedNginx() as server:
        server.prepare([source])
        bench_read.verify(server, source, bench_read.STORED)


def test_growth_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forked_servers: None) -> None:
    monkeypatch.setattr(growth, "QUERIES", {"exact key": growth.QUERIES["exact key"]})
    out = tmp_path / "growth.json"
    arguments = ["--sizes", "6", "--rows", "32", "--per-study", "3", "--processes", "1", "--workers", "1"]
    assert benchmarks.main(["growth", *arguments, "--requests", "3", "--dir", str(tmp_path), "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    (size,) = result["sizes"]
    assert size["instances"] == 6 and list(size.pop("index_pages")) == ["exact key", "frame"]
    for name, value in size.items():
        assert "cpu" in name or all(one > 0 for one in (value.values() if isinstance(value, dict) else [value]))
    assert [count for count, _ in result["ingest"]] == [3, 6]
    assert list(size["stow_per_second"]) == ["1 a request", "10 a request"]
    ElementTree.fromstring(out.with_suffix(".svg").read_text())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["growth.json", "growth.svg"]


def test_growth_goes_on_where_it_was_cut_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    filled: list[tuple[int, int]] = []

    def fill(root: Path, shape: Any, first: int, last: int, processes: int) -> Iterator[tuple[int, float]]:
        filled.append((first, last))
        yield last, 1.0

    def measure(root: Path, shape: Any, size: growth.Size, *_: int) -> Iterator[str]:
        steps.append(size.instances)
        yield "something"
        if len(steps) == 1:
            raise KeyboardInterrupt
        size.reindexed_bytes_per_instance = 1.0
        yield "everything"

    monkeypatch.setattr(growth, "fill", fill)
    monkeypatch.setattr(growth, "measure", measure)
    monkeypatch.setattr(growth.growth_plot, "table", lambda sizes: "")
    kept, out = tmp_path / "kept", tmp_path / "growth.json"
    arguments = ["growth", "--sizes", "2", "4", "--rows", "32", "--per-study", "1", "--processes", "1"]
    arguments += ["--keep", str(kept), "--out", str(out)]
    with pytest.raises(KeyboardInterrupt):
        benchmarks.main(arguments)
    assert [size["instances"] for size in json.loads(out.read_text())["sizes"]] == [2]
    assert benchmarks.main(arguments) == 0
    assert (steps, filled) == ([2, 2, 4], [(0, 2), (2, 2), (2, 4)])
    result = json.loads(out.read_text())
    assert [count for count, _ in result["ingest"]] == [2, 2, 4]
    assert [size["instances"] for size in result["sizes"]] == [2, 4]


def test_growth_has_studies_of_their_own() -> None:
    images = growth.images_of(growth.Shape(32, 2))
    first, other = (list(growth.Study(number).instances(images, 2)) for number in (1, 2))
    assert len({one.instance for one in (*first, *other)}) == 4
    data = workload.read(first[0].file)
    assert (data.study, data.series) == (uid("growth 1"), uid("growth 1/series"))


def test_an_index_written_directly_is_as_ingest_writes_it(tmp_path: Path) -> None:
    studies = bench_index.Studies(300)
    bench_index.build(tmp_path / "archive", studies)
    index = Index(str(tmp_path / "archive" / layout.INDEX), readonly=True)
    with index.read() as view:
        listed = list(view.studies())
        assert len(listed) == view.counters().studies == 300
        rows: Counter[bytes] = Counter()
        for one in listed:
            assert index_check.study_findings(view, one, list(view.series_of(one.uid)), rows) == []
        days = [matching.COUNT.unpack(count)[0] for _, count in view.cursor(matching.DAYS)]
        assert sum(days) == 300 and len(days) > 100
    index.close()
    asked = bench_index.queries(studies)
    few = {name: asked[name] for name in ("first page", "one Patient ID")}
    rows = list(bench_index.measure(tmp_path / "archive", few, 2))
    assert [(name, total) for name, *_, total in rows] == [("first page", "300"), ("one Patient ID", "1")]


def test_unknown_name_is_refused() -> None:
    with pytest.raises(SystemExit):
        benchmarks.main(["nonsense"])


def test_renamed_instances_have_uids_of_their_own() -> None:
    (source,) = workload.synthetic(1, 16)
    series = workload.series_of([source], 5, "run")
    assert len({instance.instance for instance in series}) == 5
    assert len({(instance.study, instance.series) for instance in series}) == 1
    for instance in series:
        assert len(instance.data) == len(source.data)
        again = workload.read(instance.data)
        assert again == instance
        assert source.instance.encode() not in instance.data and source.study.encode() not in instance.data


def test_renamed_real_instances_are_what_they_say(shared_data: Path) -> None:
    source = workload.real_series(shared_data, 3)
    assert len(source) == 3
    for instance in workload.series_of(source, 4, "run"):
        assert workload.read(instance.data) == instance


def test_header_has_250_elements() -> None:
    assert len(json.loads(part10.scan(header_of_250()).json)) == pytest.approx(250, abs=5)


def test_wrong_frame_is_noticed(tmp_path: Path) -> None:
    """The verification can fail: a server that answers something else does not get a figure."""
    (source,) = workload.synthetic(1, 16)
    with Null() as server, pytest.raises(load.RequestFailedError, match="frame of"):
        bench_read.verify(server, source, bench_read.STORED)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_load_from_several_processes() -> None:
    """Shares add up, and what goes wrong in one of them is told."""
    with Null() as server:
        requests = (Request(load.get("/null/300", server.host).pieces, 1, "a" if n % 2 else "b") for n in range(30))
        run = load.run(server.address, requests, clients=5, processes=3)
        assert (run.requests, run.instances, run.bytes) == (30, 30, 9000)
        assert len(run.latencies) == 30
        assert {name: len(each) for name, each in run.by_name.items()} == {"a": 15, "b": 15}
        assert run.seconds > 0 and run.client_seconds > 0
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        with pytest.raises(load.RequestFailedError, match="cannot be reached"):
            load.run(nobody.getsockname(), iter(()), clients=2, processes=2)


def test_table_turns_ratios_the_right_way() -> None:
    rows = [
        Figure("a", "x", "own", 200.0, "frames/s"), Figure("a", "x", "other", 100.0, "frames/s"),
        Figure("a", "y", "own", 5.0, "ms", False), Figure("a", "y", "other", 20.0, "ms", False),
    ]  # fmt: skip
    text = report.table(rows)
    assert "2.00 x" in text and "4.00 x" in text
