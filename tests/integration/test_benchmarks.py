"""Every benchmark runs: tiny and untimed, with the same verification of answers. The figures mean nothing here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import __main__ as benchmarks
from benchmarks import bench_read, report, workload
from benchmarks.bench_micro import header_of_250
from benchmarks.report import Figure
from pacs import part10
from pacs.bench import load


def test_all_benchmarks_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "results" / "tiny.json"
    assert benchmarks.main(["--tiny", "--workers", "2", "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    assert {figure["benchmark"] for figure in result["figures"]} == {
        "client", "micro", "codestream", "store", "disk", "memory", "metadata", "frames", "search", "readers",
    }  # fmt: skip
    assert all(figure["value"] > 0 or figure["unit"] == "ms of CPU" for figure in result["figures"])
    assert result["machine"]["processor"] and result["machine"]["packages"]["imagecodecs"]
    assert "frames as stored, 8 clients" in capsys.readouterr().out


def test_the_slow_link_runs(tmp_path: Path) -> None:
    out = tmp_path / "tiny.json"
    assert benchmarks.main(["slow_link", "--tiny", "--data", str(tmp_path), "--out", str(out)]) == 0
    figures = json.loads(out.read_text())["figures"]
    plans = {(figure["detail"]["plan"], figure["detail"]["look"]) for figure in figures}
    assert {("levels", "lossless"), ("lossy", "readable"), ("layers", "readable"), ("raw", "first")} <= plans
    for figure in figures:
        assert figure["detail"]["of_limit"] >= 0.9  # nothing is faster than the link
        if figure["detail"]["look"] == "readable" and figure["detail"]["plan"] != "raw":
            assert figure["detail"]["dB_full_range"] >= 45


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
    from benchmarks.servers import Null

    (source,) = workload.synthetic(1, 16)
    with Null() as server, pytest.raises(load.RequestFailedError, match="frame of"):
        bench_read.verify(server, source, bench_read.STORED)


def test_table_turns_ratios_the_right_way() -> None:
    rows = [
        Figure("a", "x", "own", 200.0, "frames/s"), Figure("a", "x", "other", 100.0, "frames/s"),
        Figure("a", "y", "own", 5.0, "ms", False), Figure("a", "y", "other", 20.0, "ms", False),
    ]  # fmt: skip
    text = report.table(rows)
    assert "2.00 x" in text and "4.00 x" in text
