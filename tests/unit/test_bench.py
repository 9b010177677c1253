"""`pacs bench` without a server: the corpus, the distributions, the words, the plots, the comparison."""

from __future__ import annotations

import ast
import io
import math
import re
import xml.etree.ElementTree as ElementTree
from itertools import islice
from pathlib import Path

import numpy as np
import pydicom
import pytest

from pacs import ingest, transcode, uids
from pacs.bench import commits, compare, disk, model, page, plots, run, summary, verdict
from pacs.bench.corpus import Corpus, uid
from pacs.bench.kinds import KINDS
from pacs.bench.model import Codec, Disk, Finding, Latency, Point, Report, Stages, Sweep, Window, latency
from pacs.bench.soak import drift
from pacs.dicom import attributes, part10
from pacs.errors import BenchError
from pacs.geometry import FrameGeometry

ROOT = Path(__file__).resolve().parents[2]


# --- the corpus -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS, ids=[kind.modality for kind in KINDS])
def test_every_kind_is_what_its_header_says(kind: object) -> None:
    """pydicom is the oracle; ingest has nothing to complain of."""
    modality = getattr(kind, "modality", "")
    first, second = islice(Corpus("test", 8).series(modality, "one"), 2)
    for instance in (first, second):
        identity = ingest.identify(instance.file)
        ingest.check(identity)
        assert not identity.warnings
        dataset = pydicom.dcmread(io.BytesIO(instance.file))
        assert (dataset.StudyInstanceUID, dataset.SeriesInstanceUID) == (instance.study, instance.series)
        assert dataset.SOPInstanceUID == instance.instance == dataset.file_meta.MediaStorageSOPInstanceUID
        assert dataset.PatientID == "BENCH-test" and dataset.Modality == modality
        assert bytes(dataset.PixelData) == bytes(instance.pixels)
        frames = dataset.pixel_array if dataset.get("NumberOfFrames", 1) > 1 else dataset.pixel_array[np.newaxis]
        assert frames[-1].tobytes() == bytes(instance.frame(len(frames)))
        assert frames.max() > frames.min()
    assert first.instance != second.instance and first.study == second.study
    assert len(first.header) == len(second.header)


def test_the_corpus_is_the_same_every_time() -> None:
    one, again = (next(Corpus("same", 16).studies("MR", "x")).file for _ in range(2))
    assert one == again
    assert next(Corpus("other", 16).studies("MR", "x")).file != one


def test_noise_compresses_as_that_of_real_images() -> None:
    """Ratios of HTJ2K over real images: CT 2.8, MR 2.0 to 2.6; without noise it would be ten and more."""
    for modality, least, most in (("CT", 2.5, 3.4), ("MR", 1.8, 2.8)):
        instance = next(Corpus("ratio").series(modality, "x"))
        geometry = attributes.geometry(part10.scan(instance.file).json)
        assert isinstance(geometry, FrameGeometry)
        samples = transcode.decode_native(instance.frame(), geometry, big_endian=False)
        encoded = transcode.encode_frame(samples, geometry).codestream
        assert least < instance.frame_bytes / len(encoded) < most


def test_studies_have_the_instances_of_a_study() -> None:
    found = list(islice(Corpus("n", 16).studies("CR", "x"), 5))
    assert [one.study == found[0].study for one in found] == [True, True, False, False, False]
    assert len({one.instance for one in found}) == 5
    for name in ("a", "b c"):
        assert len(uid(name)) == 43 and uids.check(uid(name), "UID")


# --- distributions ----------------------------------------------------------------------------------------------------


def test_latency_is_numpys_quantile() -> None:
    seconds = np.random.default_rng(1).exponential(0.01, 997)
    found = latency(list(seconds), curve=True)
    for name, share in (("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99)):
        expected = np.quantile(seconds, share, method="inverted_cdf") * 1e3
        assert getattr(found, name) == pytest.approx(expected)
    assert found.mean == pytest.approx(seconds.mean() * 1e3)
    assert found.most == pytest.approx(seconds.max() * 1e3) == found.curve[-1]
    assert found.curve[0] == pytest.approx(seconds.min() * 1e3) and found.curve == sorted(found.curve)
    assert latency([]) == Latency()


# --- disk and index -----------------------------------------------------------------------------------------------


def test_disk_is_measured_and_left_clean(tmp_path: Path) -> None:
    found = disk.measure(tmp_path, 4 << 20, 0.05, lambda _: None)
    assert list(tmp_path.iterdir()) == []
    assert found.write > 0 and found.read_warm > 0 and found.file_bytes == 4 << 20
    assert bool(found.cold) == (found.read_cold is None)
    assert len(found.syncs) == 3 and all(sync.count and sync.p50 <= sync.p99 for sync in found.syncs.values())
    assert found.random["4 kB, warm"].count and found.file_system["mount"]


def test_index_commits_are_measured_and_left_clean(tmp_path: Path) -> None:
    found = commits.measure(tmp_path, 0.05)
    assert list(tmp_path.iterdir()) == []
    assert list(found.by_batch) == ["1", "10", "100"] and min(found.by_batch.values()) > 0
    assert found.look_ups > 0


# --- where a run may be -----------------------------------------------------------------------------------------------


def test_an_archive_is_refused_and_not_touched(tmp_path: Path) -> None:
    from pacs.archive import Archive

    Archive.open(tmp_path / "archive", create=True).close()
    before = sorted(path.name for path in (tmp_path / "archive").rglob("*"))
    for folder in (tmp_path / "archive", tmp_path / "archive" / "studies"):
        with pytest.raises(BenchError, match="is an archive"):
            run.check_folder(folder)
    assert sorted(path.name for path in (tmp_path / "archive").rglob("*")) == before
    run.check_folder(tmp_path)
    with pytest.raises(BenchError, match="is not a folder"):
        run.check_folder(tmp_path / "missing")


def test_too_little_room_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="--size"):
        run.check_room(tmp_path, run.Options(size=1 << 60), 1 << 20)
    run.check_room(tmp_path, run.Options(size=1 << 20), 1 << 20)


# --- what it says -----------------------------------------------------------------------------------------------------


def _sweep(name: str, unit: str, *points: tuple[int, float, float], bytes_each: float = 180e3) -> Sweep:
    return Sweep(name=name, title=name, unit=unit, points=[
        Point(clients=clients, requests=100, seconds=1.0, rate=rate, bytes_per_second=rate * bytes_each,
              latency=Latency(count=100, p50=p95 / 2, p95=p95, p99=p95 * 1.5, most=p95 * 2), client_cores=0.3,
              server_cores=1.6, other_cores=0.0)
        for clients, rate, p95 in points
    ])  # fmt: skip


def _report(host: str = "node", scale: float = 1.0, links: dict[str, int] | None = None) -> Report:
    report = Report(
        version="1.0", node={"host": host, "cores": 2, "date": f"2026-01-01 {host}", "links": links or {}},
        target="/data", seconds=60.0, options={"size": 1, "clients": [1, 4]},
        disk=Disk(write=1e9, read_cold=5e8, read_warm=4e9, syncs={
            "fdatasync of 180 kB appended": latency([0.0004] * 99 + [0.03] * 3, curve=True)}),
        codecs=[Codec(name="HTJ2K lossless", action="encode", image="CT", ratio=2.8,
                      by_threads={"1": 2e8, "2": 3.8e8})],
        cores=[2e8, 1e8], stages=[Stages(kind="CT", wall=7.0, parts={"encode": 3.0, "the rest": 4.0}, ceiling=450.0)],
        sweeps=[_sweep("store", "instances/s", (1, 100 * scale, 12.0), (4, 300 * scale, 30.0)),
                _sweep("frames", "frames/s", (1, 1000 * scale, 2.0), (4, 4000 * scale, 5.0), (8, 5000 * scale, 400.0))],
    )  # fmt: skip
    report.verdict = verdict.judge(report)
    return report


def test_the_verdict_is_what_the_figures_say() -> None:
    found = _report().verdict
    assert found.ct_studies_per_hour == pytest.approx(300 * 3600 / 300)
    assert found.readers == pytest.approx(400.0), "what comes too late serves nobody"
    assert found.store_limits[0].what == "processor, server and client"
    assert found.store_limits[0].share == pytest.approx(0.95)
    text = " ".join(found.lines)
    assert "What limits it: processor" in text and "3,600 studies of 300 slices an hour" in text
    assert "1 of 100 more than 30 ms. That is slow" in text
    assert "1,000 Mbit/s would not carry that: it needs 5,760" in text
    assert "2 cores encode" not in text


def test_a_known_network_bounds_what_is_promised() -> None:
    found = _report(links={"eth0": 1000}).verdict
    assert found.readers == pytest.approx(1e9 / 8 / 180e3 / 10)
    assert found.read_limits[0].what == "network, 1,000 Mbit/s"
    assert found.ct_studies_per_hour == pytest.approx(3600)


def test_one_slow_core_is_told() -> None:
    report = _report()
    report.cores = [2e8, 2e8, 1e8, 2e8]
    assert any("Core 2 is more than 30 % slower" in line for line in verdict.judge(report).lines)


def test_findings_have_shares() -> None:
    assert Finding(what="x", used=3.0, limit=4.0, unit="").share == 0.75
    assert Finding(what="x", used=3.0, limit=0.0, unit="").share == 0.0


def test_drift_is_the_last_quarter_against_the_first() -> None:
    windows = [
        Window(begin=float(place), latencies={"frame": Latency(count=9, p50=10.0 + place)}, memory=100 + 10 * place)
        for place in range(8)
    ]
    windows[0].latencies["search"] = Latency(count=1, p50=1.0)  # in no other window: nothing to compare with
    found = drift(windows)
    assert found == {"frame": pytest.approx(16.5 / 10.5), "memory": pytest.approx(165 / 105)}


# --- how it looks -------------------------------------------------------------------------------------------------


def test_the_page_is_one_file_and_well_formed() -> None:
    report = _report("<script>alert(1)</script>")
    report.notes = ["<b>not</b> done"]
    html = page.render(report)
    assert "<script" not in html and "<b>not" not in html
    assert not re.search(r"""(?:src|href)=|url\(|@import|https?://""", html)
    body = html[html.index("<body>") : html.index("</body>") + 7]
    ElementTree.fromstring(body.replace("<br>", "<br/>"))
    assert "prefers-color-scheme: dark" in html and body.count("<svg") >= 5


def test_points_are_where_their_axes_say() -> None:
    """Read back from the drawing: ticks and points lie on one scale."""
    line = plots.Line("a", [(1, 10.0), (2, 100.0), (4, 1000.0)])
    svg = plots.lines([line], plots.Axis("clients", log=True, ticks=(1, 2, 4)), plots.Axis("ms", log=True), "name")
    root = ElementTree.fromstring(svg)
    heights = [float(circle.get("cy", "")) for circle in root.iter("circle")]
    ticks = {text.text: float(text.get("y", "")) - 4 for text in root.iter("text") if text.get("text-anchor") == "end"}
    for text, at in (("10", heights[0]), ("100", heights[1]), ("1,000", heights[2])):
        assert ticks[text] == pytest.approx(at, abs=0.2)
    assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[2], abs=0.2)


@pytest.mark.parametrize("values", [[0.0], [5.0, 5.0], [1e-6, 1e9], [-3.0, 3.0], [0.0, 0.0]])
@pytest.mark.parametrize("log", [False, True])
def test_odd_values_are_drawn(values: list[float], log: bool) -> None:
    points = [(float(place + 1), value) for place, value in enumerate(values)]
    svg = plots.lines([plots.Line("a", points)], plots.Axis("x"), plots.Axis("y", log=log), "name")
    for circle in ElementTree.fromstring(svg).iter("circle"):
        assert math.isfinite(float(circle.get("cy", "nan")))
        assert 0 <= float(circle.get("cy", "nan")) <= plots.HEIGHT


@pytest.mark.parametrize("width", [80, 100])
def test_the_summary_fits_its_width(width: int) -> None:
    report = _report()
    report.sweeps[0].title = "STOW-RS, CT slices one a request"
    lines = list(summary.lines(report, width))
    assert max(map(len, lines)) <= width
    assert any(line.startswith("Stores 300 CT slices") for line in lines)
    every = compare.rows(report, report)
    assert max(map(len, compare.summary(every, report, report, width))) <= width


def test_a_table_folds_its_names() -> None:
    lines = list(summary.columns(("", "ms"), [("  a name that is long", "1.5"), ("short", "2")], 20))
    assert lines == ["                  ms", "    a name that", "      is long    1.5", "  short            2"]


# --- two of them ------------------------------------------------------------------------------------------------------


def test_a_report_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(model.encode(_report()))
    assert model.encode(model.read(path)) == path.read_bytes()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 3}', '{"version": "1", "format": 99}', "\x00"])
def test_what_is_no_report_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(BenchError):
        model.read(path)
    with pytest.raises(BenchError):
        model.read(tmp_path / "missing.json")


def test_comparison_turns_ratios_the_right_way() -> None:
    first, second = _report("old"), _report("new", 2.0)
    assert second.disk is not None
    second.disk.syncs = {name: latency([0.0002] * 100) for name in second.disk.syncs}
    found = {(row.group, row.name): row for row in compare.rows(first, second)}
    store = found["over HTTP", "store, 4 clients"]
    assert (store.first, store.second, store.verdict) == (300.0, 600.0, "better")
    assert found["disk", "fdatasync of 180 kB appended, p50"].ratio == pytest.approx(2.0)
    assert found["codecs", "HTJ2K lossless, CT, encode, 2 threads"].verdict == ""
    back = {(row.group, row.name): row for row in compare.rows(second, first)}
    assert back["over HTTP", "store, 4 clients"].verdict == "worse"
    rows = compare.rows(first, second)
    assert any("new against old: better in" in line for line in compare.summary(rows, first, second))
    html = compare.render(rows, first, second)
    ElementTree.fromstring(html[html.index("<body>") : html.index("</body>") + 7])
    assert "2.00 x" in html


def test_comparison_names_what_makes_it_worth_less() -> None:
    first, second = _report("a"), _report("a")
    second.version = "2.0"
    second.options["size"] = 2
    assert compare.names(first, second) == ("pacs 1.0", "pacs 2.0")
    assert list(compare.cautions(first, second)) == ["the runs differ in size: 1 and 2"]


# --- the seam ---------------------------------------------------------------------------------------------------------


def test_the_product_does_not_import_its_own_benchmarks() -> None:
    for path in (ROOT / "pacs").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else (
                [node.module or ""] if isinstance(node, ast.ImportFrom) else [])  # fmt: skip
            assert not any(name.split(".")[0] == "benchmarks" for name in names), path
