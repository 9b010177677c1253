"""Committing, locating and reading back; duplicates, warnings, failures, a full disk."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import numpy as np
import pytest
import zarr
import zstandard

from pacs import tags
from pacs.errors import ArchiveLockedError, ChecksumError, ConflictError, IndexMismatchError, StorageError
from pacs.storage import layout
from pacs.storage.checksum import crc32c
from pacs.storage.commit import Engine, Status, committer
from pacs.storage.disk import Disk, Operation
from pacs.storage.files import frames, records, staging
from pacs.storage.index.matching import COUNT, DAYS
from pacs.storage.layout import FORMAT_VERSION
from pacs.storage.locks import ArchiveLock
from pacs.storage.model import ArrayKey, Chunk, Encoding
from pacs.storage.recovery import recovery
from pacs.storage.recovery.reindex import reindex
from tests.durability.synthetic import FOUR, create, new_instance, opened, stage

STORED, DUPLICATE, CONFLICT, FAILED = Status.STORED, Status.DUPLICATE, Status.CONFLICT, Status.FAILED


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return create(tmp_path / "archive")


def test_what_was_committed_is_read_back_also_after_reopening(root: Path) -> None:
    small = [new_instance("1.1", "1.2", f"1.2.{n}", number=n) for n in range(5)]
    several = new_instance("1.1", "1.2", "1.2.10", key=FOUR, chunks=3)
    straddling = new_instance("1.1", "1.2", "1.2.11", key=FOUR, chunks=3)
    no_pixels = new_instance("1.1", "1.3", "1.3.1", key=None, bulk=(b"a" * 5000, b"bb", b""))
    everything = [*small, several, straddling, no_pixels]
    with opened(root) as archive:
        assert archive.commit(*everything[:3]) == [STORED] * 3
        assert archive.commit(*everything[3:]) == [STORED] * 5
        assert all(archive.holds(new) for new in everything)
    with opened(root) as archive:
        assert all(archive.holds(new) for new in everything)
        assert archive.errors() == []
        with archive.index.read() as view:
            counters = view.counters()
            shards = {view.chunk(entry, n).path for entry in [view.instance("1.2.11")] if entry for n in range(3)}
        assert (counters.studies, counters.series, counters.instances, counters.sequence) == (1, 2, 8, 2)
        on_disk = sum(path.stat().st_size for path in root.rglob("records.log"))
        assert on_disk < counters.stored_bytes < on_disk + 20_000
        assert len(shards) == 2


def test_an_array_of_its_own(root: Path) -> None:
    with opened(root) as archive:
        plain = new_instance("1.1", "1.2", "1.2.1", key=FOUR, chunks=10, bulk=(b"x" * 3000,))
        shared = new_instance("1.1", "1.2", "1.2.2", key=FOUR)
        assert archive.commit(shared, stage(archive.committer, plain)) == [STORED] * 2
        assert archive.holds(plain)
        assert archive.holds(shared)
        again = stage(archive.committer, plain)
        assert archive.commit(again) == [DUPLICATE]
        assert not any((root / "staging").glob("*/*")), "a staged array that is not needed goes away"
        in_memory = new_instance("1.1", "1.2", "1.2.3", key=FOUR, chunks=4)
        assert archive.commit(in_memory, new_instance("1.1", "1.2", "1.2.4", key=FOUR)) == [STORED] * 2
        assert archive.holds(in_memory)
        archive.committer.settle()
        assert archive.errors() == []
        series = root / layout.series_path("1.1", "1.2")
        assert sorted(path.name for path in series.glob("frames-*")) == ["frames-0", "frames-1", "frames-2"]
        assert len(list((series / "frames-1").glob("c.*"))) == 3
    assert not any((root / "staging").iterdir())


def test_zarr_reads_what_was_committed(root: Path) -> None:
    native = ArrayKey(Encoding.NATIVE, 0, 0, 0, "uint8", "", 4096)
    pieces = [bytes([n]) * 4096 for n in range(1, 4)]
    with opened(root) as archive:
        for n, piece in enumerate(pieces):
            new = new_instance("1.1", "1.2", f"1.2.{n}", key=native)
            data = zstandard.ZstdCompressor().compress(piece)
            new.chunks = [Chunk(data, crc32c(data))]
            archive.commit(new)
    hierarchy = zarr.open_group(root, mode="r", zarr_format=3)
    array = hierarchy["studies/1.1/series/1.2/frames-0"]
    assert isinstance(array, zarr.Array)
    assert np.asarray(array[:]).tobytes() == b"".join(pieces)
    assert array.attrs["instances"] == [["1.2.0", 0, 1], ["1.2.1", 1, 1], ["1.2.2", 2, 1]]


def test_zarr_sees_what_is_committed_while_more_comes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committer, "_SETTLE_AFTER", 0.0)
    with opened(root) as archive:
        for n in range(3):
            archive.commit(new_instance("1.1", "1.2", f"1.2.{n}"))
            array = zarr.open_group(root, mode="r", zarr_format=3)["studies/1.1/series/1.2/frames-0"]
            assert isinstance(array, zarr.Array) and array.shape == (n + 1, 8, 8)


def test_the_same_instance_again(root: Path) -> None:
    first = new_instance("1.1", "1.2", "1.2.1")
    with opened(root) as archive:
        assert archive.commit(first, first) == [STORED, DUPLICATE]
        archive.committer.settle()
        sizes = {path: path.stat().st_size for path in root.rglob("*") if path.is_file() and "index" not in path.parts}
        assert archive.commit(first) == [DUPLICATE]
        (outcome,) = archive.outcomes(new_instance("1.1", "1.2", "1.2.1", seed=1))
        assert outcome.status is CONFLICT
        assert isinstance(outcome.error, ConflictError)
        (elsewhere,) = archive.outcomes(new_instance("1.9", "1.10", "1.2.1", seed=2))
        assert elsewhere.status is CONFLICT
        assert sizes == {path: path.stat().st_size for path in sizes}
        assert archive.holds(first)
        with archive.index.read() as view:
            assert view.counters().sequence == 1
            assert view.study("1.9") is None
        assert archive.errors() == []


def test_another_patient_in_the_same_study_is_stored_and_told(root: Path) -> None:
    with opened(root) as archive:
        archive.commit(new_instance("1.1", "1.2", "1.2.1", patient="ANNA"))
        (same,) = archive.outcomes(new_instance("1.1", "1.2", "1.2.3", patient="ANNA"))
        assert (same.status, same.warnings) == (STORED, ())
        (outcome,) = archive.outcomes(new_instance("1.1", "1.2", "1.2.2", patient="BERTA"))
        assert outcome.status is STORED
        assert "BERTA" in outcome.warnings[0]
        assert "ANNA" in outcome.warnings[0]
        with archive.index.read() as view:
            study = view.study("1.1")
            assert study is not None
            assert b"ANNA" in study.attributes[tags.PATIENT_ID]


def test_a_date_that_comes_late_moves_the_study_in_the_order(root: Path) -> None:
    with opened(root) as archive:
        dated = new_instance("2.1", "2.2", "2.2.1", date="20200101")
        archive.commit(new_instance("1.1", "1.2", "1.2.1", date=""), dated)
        with archive.index.read() as view:
            assert [study.uid for study in view.studies()] == ["2.1", "1.1"]
        archive.commit(new_instance("1.1", "1.3", "1.3.1", date="20230101", modality="MR"))
        with archive.index.read() as view:
            assert [study.uid for study in view.studies()] == ["1.1", "2.1"]
            study = view.study("1.1")
            assert study is not None
            assert (study.series, study.instances, study.modalities) == (2, 2, {"CT": 1, "MR": 1})
            assert study.sequence == 2
        assert archive.errors() == []


def test_instances_come_by_number_then_uid(root: Path) -> None:
    order = [(-3, "1.2.4"), (2, "1.2.9"), (10, "1.2.1"), (10, "1.2.2")]
    with opened(root) as archive:
        archive.commit(*(new_instance("1.1", "1.2", uid, number=number) for number, uid in reversed(order)))
        with archive.index.read() as view:
            series = view.series("1.1", "1.2")
            assert series is not None
            assert [entry.descriptor.instance for entry in view.instances_of(series)] == [uid for _, uid in order]


def test_a_flipped_byte_is_never_served(root: Path) -> None:
    with opened(root) as archive:
        archive.commit(new_instance("1.1", "1.2", "1.2.1"))
        with archive.index.read() as view:
            entry = view.instance("1.2.1")
            assert entry is not None
            location = view.chunk(entry, 0)
            with pytest.raises(IndexError):
                view.chunk(entry, 1)
        flip(root / location.path, location.offset + 5)
        with pytest.raises(ChecksumError, match=location.path):
            frames.read_chunk(root, location)


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x10
    path.write_bytes(data)


@pytest.mark.parametrize("what", ["frame", "record head", "record part", "index block", "shape", "group"])
def test_check_finds_a_flipped_byte(root: Path, what: str) -> None:
    with opened(root) as archive:
        archive.commit(*(new_instance("1.1", "1.2", f"1.2.{n}", bulk=(b"q" * 2000,)) for n in range(3)))
        archive.committer.settle()
        # A second sync, so that nothing is excused as not settled yet.
        archive.commit(new_instance("5.1", "5.2", "5.2.1"))
        with archive.index.read() as view:
            entry = view.instance("1.2.1")
            assert entry is not None
            location = view.chunk(entry, 0)
        series = root / layout.series_path("1.1", "1.2")
        path, offset = {
            "frame": (root / location.path, location.offset + 3),
            "record head": (series / "records.log", entry.record_offset + 60),
            "record part": (series / "records.log", entry.parts[3].offset + 7),
            "index block": (root / location.path, 20),
            "shape": (series / "frames-0" / "zarr.json", 30),
            "group": (series / "zarr.json", 3),
        }[what]
        assert archive.errors() == []
        flip(path, offset)
        found = archive.errors()
        assert found
        assert all(finding.path in str(path) or "1.2.1" in finding.text for finding in found)


def test_check_finds_what_only_one_side_knows(root: Path) -> None:
    with opened(root) as archive:
        archive.commit(new_instance("1.1", "1.2", "1.2.1"), new_instance("1.1", "1.3", "1.3.1"))
        log = root / layout.log_path("1.1", "1.2")
        whole = log.read_bytes()
        log.write_bytes(whole[:-10])
        assert any("the log has no whole record" in finding.text for finding in archive.errors())
        log.write_bytes(whole)
        assert archive.errors() == []
        shutil.copytree(root / "studies" / "1.1", root / "studies" / "7.7")
        assert any("7.7" in finding.path for finding in archive.errors())


# --- index and records apart ----------------------------------------------------------------------------------


def test_an_older_index_is_refused(root: Path, tmp_path: Path) -> None:
    with opened(root) as archive:
        archive.commit(new_instance("1.1", "1.2", "1.2.1"))
    shutil.copytree(root / "index", tmp_path / "yesterday")
    for n in range(2, 4):
        with opened(root) as archive:
            archive.commit(new_instance("1.1", "1.2", f"1.2.{n}"))
    shutil.rmtree(root / "index")
    shutil.copytree(tmp_path / "yesterday", root / "index")
    with pytest.raises(IndexMismatchError, match="reindex"), opened(root):
        pass
    assert reindex(root).instances == 3
    with opened(root) as archive:
        assert archive.uids() == {"1.2.1", "1.2.2", "1.2.3"}
        assert archive.errors() == []


def test_an_index_of_one_commit_ago_catches_up(root: Path, tmp_path: Path) -> None:
    with opened(root) as archive:
        archive.commit(new_instance("1.1", "1.2", "1.2.1"))
    shutil.copytree(root / "index", tmp_path / "before")
    second = new_instance("1.1", "1.4", "1.2.2", key=FOUR, chunks=6)
    with opened(root) as archive:
        archive.commit(second)
        after = archive.dump()
    shutil.rmtree(root / "index")
    shutil.copytree(tmp_path / "before", root / "index")
    with opened(root) as archive:
        assert archive.holds(second)
        assert archive.dump() == after
        assert archive.errors() == []


def test_a_missing_index_is_refused_and_built_again_the_same(root: Path) -> None:
    with opened(root) as archive:
        for n in range(4):
            archive.commit(
                new_instance("1.1", f"1.{n % 2}", f"1.2.{n}", number=9 - n, date="" if n < 2 else "20240102"),
                new_instance("2.1", "2.2", f"2.2.{n}", key=FOUR, chunks=1 + n, patient=f"P{n}"),
                # Each study gains one thing that it is found by.
                new_instance("3.1", f"3.{2 + n}", f"3.2.{n}", modality="CT" if n < 2 else "MR"),
                new_instance("4.1", "4.2", f"4.2.{n}", sop_class="1.2.3" if n < 2 else "1.2.4"),
                new_instance("5.1", "5.2", f"5.2.{n}", description="" if n < 2 else "Thorax"),
            )
        before = archive.dump()
    shutil.rmtree(root / "index")
    with pytest.raises(IndexMismatchError, match="reindex"), opened(root):
        pass
    steps: list[tuple[str, int, int]] = []
    assert reindex(root, progress=lambda *step: steps.append(step)).damaged == []
    assert ("enter instances", 20, 20) in steps
    assert steps[-1] == ("pack the index", 1, 1)
    with opened(root) as archive:
        assert archive.dump() == before
        assert archive.errors() == []


def test_entries_of_a_series_lie_side_by_side(root: Path) -> None:
    """A list of instances must not read a page of the index for each, however many series there are."""
    with opened(root) as archive:
        archive.commit(*(new_instance("1.1", f"1.{n % 8}", f"2.25.{n * 7919 % 997}", number=n) for n in range(320)))
        with archive.index.read() as view:
            series = view.series("1.1", "1.3")
            assert series is not None
            listed = list(view.instances_of(series))
            assert listed == [view.instance(entry.descriptor.instance) for entry in listed]
            tables = (np.frombuffer(view.table(entry.descriptor.instance), np.uint8) for entry in listed)
            pages = {table.ctypes.data // 4096 for table in tables}
    assert [n % 8 for n in range(320)].count(3) == len(listed) == 40
    assert len(pages) <= 12


def test_studies_of_a_day_are_counted(root: Path) -> None:
    with opened(root) as archive:
        archive.commit(new_instance("1.1", "1.2", "1.2.1", date=""))
        archive.commit(*(new_instance(f"1.{n}", f"1.{n}.2", f"1.{n}.3", date="20240105") for n in range(3, 6)))
        archive.commit(new_instance("1.1", "1.3", "1.2.2", date="20240106"))
        with archive.index.read() as view:
            assert [COUNT.unpack(count)[0] for _, count in view.cursor(DAYS)] == [1, 3]
        assert archive.errors() == []
        with archive.index.write() as writing:
            writing.put(DAYS, b"day", COUNT.pack(1))
        assert any("day" in found.text for found in archive.errors())


def test_an_index_of_another_format_is_refused(root: Path) -> None:
    with opened(root) as archive:
        archive.commit(new_instance("1.1", "1.2", "1.2.1"))
        with archive.index.write() as view:
            state = view.state()
            state.index_format -= 1
            view.put_state(state)
        with archive.index.read() as reading, pytest.raises(IndexMismatchError, match="reindex"):
            reading.counters()
    with pytest.raises(IndexMismatchError, match="reindex"), opened(root):
        pass
    assert reindex(root).instances == 1


def test_a_rebuilt_index_is_no_larger_than_its_rows(root: Path) -> None:
    with opened(root) as archive:
        archive.commit(*(new_instance(f"1.{n % 7}", f"1.{n % 7}.2", f"1.9.{n * 7919 % 997}") for n in range(400)))
        before, grown = archive.dump(), archive.index.size()[0]
    assert reindex(root).instances == 400
    with opened(root) as archive:
        assert archive.dump() == before
        rows = sum(len(key) + len(value) + 10 for rows in before.values() for key, value in rows)
        assert rows < archive.index.size()[0] < min(grown, 1.2 * rows + 40 * 4096)
        assert archive.errors() == []
    assert not (root / layout.NEW_INDEX).exists()
    assert sorted(path.name for path in (root / "index").iterdir()) == ["data.mdb", "lock.mdb"]


def test_a_deleted_index_stops_writes_and_not_reads(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = new_instance("1.1", "1.2", "1.2.1")
    with opened(root) as archive:
        archive.commit(first)
        shutil.rmtree(root / "index")
        (outcome,) = archive.outcomes(new_instance("1.1", "1.2", "1.2.2"))
        assert outcome.status is FAILED
        assert isinstance(outcome.error, IndexMismatchError)
        assert "deleted or replaced" in caplog.text
        assert archive.holds(first)
    assert reindex(root).instances == 1


def test_reindex_leaves_out_what_is_damaged_and_keeps_its_bytes(root: Path) -> None:
    with opened(root) as archive:
        archive.commit(*(new_instance("1.1", "1.2", f"1.2.{n}") for n in range(4)))
        with archive.index.read() as view:
            entries = [view.instance(f"1.2.{n}") for n in range(4)]
            location = view.chunk(entries[1], 0)  # type: ignore[arg-type]
    log = root / layout.log_path("1.1", "1.2")
    flip(root / location.path, location.offset)
    flip(log, entries[3].record_offset + 100)  # type: ignore[union-attr]
    size = log.stat().st_size
    found = reindex(root)
    assert found.instances == 2
    assert len(found.damaged) == 3
    (kept,) = (root / "set-aside").iterdir()
    assert kept.stat().st_size + log.stat().st_size == size
    with opened(root) as archive:
        assert archive.uids() == {"1.2.0", "1.2.2"}
        new = new_instance("1.1", "1.2", "1.2.9")
        assert archive.commit(new) == [STORED]
        assert archive.holds(new)
        archive.committer.settle()
        assert (root / layout.array_path("1.1", "1.2", 1)).is_dir(), "nothing is appended to an array with damage"


def test_reindex_keeps_a_record_whose_frames_cannot_be_read_for_a_while(root: Path) -> None:
    with opened(root) as archive:
        archive.commit(*(new_instance("1.1", "1.2", f"1.2.{n}") for n in range(3)))
        with archive.index.read() as view:
            entry = view.instance("1.2.2")
            assert entry is not None
            shard = root / view.chunk(entry, 0).path
    shard.rename(shard.with_suffix(".away"))
    assert reindex(root).instances == 0
    assert not (root / "set-aside").exists()
    shard.with_suffix(".away").rename(shard)
    found = reindex(root)
    assert (found.instances, found.damaged) == (3, [])


def held(root: Path) -> list[str]:
    """Files at `root` and below that this process has open, deleted ones too."""
    links = []
    for name in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # of another thread, or of this listing
            links.append(str(name.readlink()))
    return [link for link in links if link.startswith(str(root))]


def test_an_archive_that_is_closed_or_cannot_be_opened_keeps_no_file_open(root: Path) -> None:
    with Engine(root):
        assert held(root)
    for _ in range(3):
        Engine(root).close()
    many = [new_instance("1.1", "1.2", f"1.2.{n}", key=FOUR, chunks=5, bulk=(b"a" * 900,)) for n in range(3)]
    with opened(root) as archive:
        archive.commit(many[0], stage(archive.committer, many[1]))
        with archive.index.read() as view:
            entries = [entry for new in many[:2] if (entry := view.instance(new.descriptor.instance)) is not None]
        assert len(list(records.read_parts(root, entries, records.JSON))) == 2
        assert all(archive.holds(new) for new in many[:2])
        assert archive.errors() == []
    with (root / layout.log_path("1.1", "1.2")).open("ab") as log:
        log.write(b"left by nobody")
    with opened(root) as archive:
        archive.commit(many[2])
        assert archive.holds(many[2])
    (root / "staging" / "left").mkdir(parents=True)
    with opened(root):
        pass
    assert reindex(root).damaged == []
    shutil.rmtree(root / "index")
    for _ in range(3):
        with pytest.raises(IndexMismatchError):
            Engine(root)
    assert held(root) == []


def test_reindex_needs_the_archive_for_itself(root: Path) -> None:
    serving = ArchiveLock(root)
    with pytest.raises(ArchiveLockedError):
        reindex(root)
    serving.close()
    reindex(root)


def test_a_directory_that_is_no_archive_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    with pytest.raises(StorageError):
        create(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]
    begun = tmp_path / "begun"
    (begun / "studies").mkdir(parents=True)
    assert layout.read_description(create(begun)).format_version == FORMAT_VERSION


# --- the disk refuses -----------------------------------------------------------------------------------------


def test_an_archive_is_made_once(tmp_path: Path) -> None:
    """Another process that makes it at the same time gets what the first has made, also for a copy of another."""
    root = tmp_path / "archive"
    made: list[layout.ArchiveDescription] = []
    second = threading.Thread(target=lambda: made.append(layout.create(Disk(), root)))

    def observe(operation: Operation) -> None:
        if operation.name == "rename" and not operation.done:
            second.start()
            second.join(0.2)  # it waits for the first, or would have overwritten all by now

    made.append(layout.create(Disk(observe), root))
    second.join(120)
    assert not second.is_alive()
    assert [layout.read_description(root)] * 2 == made
    with pytest.raises(StorageError, match="another archive"):
        layout.create(Disk(), root, layout.ArchiveDescription(FORMAT_VERSION, "that of the source"))


_AT_ONCE = """
import os, sys
from pathlib import Path
from pacs.storage.commit import Engine
from tests.durability.synthetic import new_instance, opened
for turn in range(3):
    root = Path(sys.argv[1], str(turn))
    waiting, go = os.pipe()
    children = []
    for number in range(4):
        children.append(os.fork())
        if children[-1] == 0:
            os.close(go)
            os.read(waiting, 1)  # all of them go on when the last writing end is closed
            stored = []
            with Engine(root, create=True) as engine:
                engine.commit_soon(new_instance("1.1", "1.2", f"1.2.{number}"), stored.append)
            os._exit(stored[0].status != "stored")
    os.close(go)
    assert not any(os.waitpid(child, 0)[1] for child in children)
    with opened(root) as archive:
        assert archive.uids() == {f"1.2.{number}" for number in range(4)}
        assert archive.errors() == []
"""


def test_processes_that_make_an_archive_at_once(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-W", "error", "-c", _AT_ONCE, str(tmp_path)], check=True, cwd=Path(__file__).parents[2]
    )


def test_a_write_that_is_refused_names_the_file() -> None:
    with pytest.raises(OSError, match="/dev/full") as refused:
        Disk().write("/dev/full", 0, [b"x"])
    assert refused.value.errno == errno.ENOSPC


class Refusing(Disk):
    """Fails with `number` at the operation that `counter` counts down to."""

    def __init__(self, number: int) -> None:
        super().__init__(self._observe)
        self.number = number
        self.left = -1
        self.seen = 0

    def _observe(self, operation: Operation) -> None:
        if operation.done or operation.name not in ("write", "create", "mkdir", "rename", "syncfs"):
            return
        self.seen += 1
        if self.left > 0:
            self.left -= 1
            if self.left == 0:
                raise OSError(self.number, os.strerror(self.number), operation.path)


def test_a_full_disk_at_every_operation_takes_the_batch_back(root: Path) -> None:
    disk = Refusing(errno.ENOSPC)
    with opened(root, disk) as archive:
        first = new_instance("1.1", "1.2", "1.2.0", key=FOUR, chunks=3)
        archive.commit(first)
        archive.committer.settle()
        failures = 0
        for place in range(1, 40):
            batch = [
                new_instance("1.1", "1.2", f"1.2.{place}", key=FOUR, chunks=2),
                stage(archive.committer, new_instance("1.1", f"3.{place}", f"3.2.{place}", key=FOUR, chunks=5)),
                new_instance("1.1", "1.2", "1.2.0", key=FOUR, chunks=3),
            ]
            before = archive.uids()
            disk.left = place
            statuses = archive.commit(*batch)
            if disk.left > 0:  # the batch was over before it came to this operation
                assert statuses == [STORED, STORED, DUPLICATE]
                break
            if statuses[0] is not FAILED:  # only what is derived was refused
                assert statuses == [STORED, STORED, DUPLICATE]
            else:
                failures += 1
                assert statuses == [FAILED] * 3
                assert archive.uids() == before
            assert archive.errors() == []
            assert archive.holds(first)
            assert archive.commit(new_instance("1.1", "1.2", f"4.{place}", key=FOUR)) == [STORED]
            assert archive.errors() == []
        assert failures > 8
        disk.left = -1
        archive.committer.settle()
        before_reindex = archive.uids()
    reindex(root)
    with opened(root) as archive:
        assert archive.uids() == before_reindex
        assert archive.errors() == []


def test_a_failed_sync_stops_writing(root: Path) -> None:
    class FailingSync(Disk):
        def _syncfs(self, descriptor: int) -> None:
            raise OSError(errno.EIO, "Input/output error")

    first = new_instance("1.1", "1.2", "1.2.1")
    with opened(root) as archive:
        archive.commit(first)
    disk = Disk()
    with opened(root, disk) as archive:
        disk.__class__ = FailingSync
        second = new_instance("1.1", "1.2", "1.2.2")
        assert archive.commit(second) == [FAILED]
        disk.__class__ = Disk
        assert archive.commit(second) == [FAILED], "nobody knows what the failed sync has written"
        assert archive.holds(first)
    with opened(root) as archive:
        assert archive.commit(second) == [STORED]
        assert archive.errors() == []


@pytest.mark.parametrize("told", [True, False])
def test_a_sync_that_fails_while_a_batch_is_finished_stops_writing(root: Path, told: bool) -> None:
    """A batch cut short is found by `last-commit`, or where that was taken back, by its records in the way."""

    class FailingSync(Disk):
        def _syncfs(self, descriptor: int) -> None:
            raise OSError(errno.EIO, "Input/output error")

    refusing = False

    def observe(operation: Operation) -> None:
        nonlocal refusing
        if operation.name == "step" and operation.path == "records-written":
            refusing = True
        taken_back = operation.name == "truncate" or (told and operation.path.endswith(layout.LAST_COMMIT))
        if refusing and (operation.name == "step" or taken_back):
            raise OSError(errno.EIO, "Input/output error", operation.path)

    left, disk = new_instance("1.1", "1.2", "1.2.2"), Disk()
    with opened(root, disk) as archive:
        archive.commit(new_instance("1.1", "1.2", "1.2.1"))
        disk.observer = observe
        assert archive.commit(left) == [FAILED]
        assert archive.committer.refusal is None
        disk.observer = None
        disk.__class__ = FailingSync
        assert archive.commit(new_instance("1.1", "1.2", "1.2.3")) == [FAILED]
        assert archive.committer.refusal is not None
        disk.__class__ = Disk
        assert archive.commit(new_instance("1.1", "1.2", "1.2.4")) == [FAILED]
        assert archive.uids() == {"1.2.1"}, "a sync that goes well behind one that failed proves nothing"
    with opened(root) as archive:
        assert archive.commit(new_instance("1.1", "1.2", "1.2.4")) == [STORED]
        assert archive.holds(left)
        assert archive.errors() == []


_UNWRITABLE = """
import resource, sys
from pathlib import Path
from pacs.storage.recovery import recovery
from pacs.storage.commit import Engine
from tests.durability.synthetic import new_instance, opened
root = Path(sys.argv[1])
with opened(root) as archive:
    archive.commit(new_instance("1.1", "1.2", "1.2.1"))
recovery.boot_id = lambda: "another boot"  # the index is written when it is opened
outcomes = []
resource.setrlimit(resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
with Engine(root) as engine:
    assert "index cannot be written" in engine.refusal.message
    with engine.index.read() as view:
        assert view.instance("1.2.1") is not None
    engine.commit_soon(new_instance("1.1", "1.2", "1.2.2"), outcomes.append)
assert outcomes[0].error is engine.refusal
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
with Engine(root) as engine:
    assert engine.refusal is None
    engine.commit_soon(new_instance("1.1", "1.2", "1.2.2"), outcomes.append)
assert outcomes[1].error is None, outcomes
"""


def test_an_index_that_cannot_be_written_can_be_read(root: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", _UNWRITABLE, str(root)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert run.returncode == 0, run.stderr
    assert run.stderr.count("nothing is stored") == 1


_LIMITED = """
import resource, sys
from pathlib import Path
from tests.durability.synthetic import new_instance, opened
from pacs.storage.commit import Status
with opened(Path(sys.argv[1])) as archive:
    limit = 700_000
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    stored, failed = [], 0
    for n in range(60):
        batch = [new_instance("1.1", "1.2", f"1.2.{n}.{m}", chunk_length=5000) for m in range(5)]
        for status in archive.commit(*batch):
            failed += status is Status.FAILED
            stored += [f"1.2.{n}"] if status is Status.STORED else []
    assert stored and failed, (len(stored), failed)
    assert archive.errors() == []
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    after = new_instance("1.1", "1.2", "9.9", chunk_length=5000)
    assert archive.commit(after) == [Status.STORED] and archive.holds(after)
    archive.committer.settle()
    assert archive.errors() == []
    print(len(stored), failed)
"""


def test_files_that_cannot_grow(root: Path) -> None:
    with opened(root):
        pass
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", _LIMITED, str(root)], capture_output=True, text=True, check=False,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    stored, failed = map(int, run.stdout.split())
    assert stored >= 50
    assert failed >= 50
    with opened(root) as archive:
        assert len(archive.uids()) == stored + 1


# --- staging, tails -------------------------------------------------------------------------------------------


def test_abandoned_staging_is_removed_and_live_staging_is_not(root: Path) -> None:
    with opened(root) as archive:
        live = stage(archive.committer, new_instance("1.1", "1.2", "1.2.1", key=FOUR, chunks=5))
        abandoned = root / "staging" / "0123"
        abandoned.mkdir()
        (abandoned / "c.0").write_bytes(b"x")
        staging.remove_abandoned(root, Disk())
        assert not abandoned.exists()
        assert archive.commit(live) == [STORED]


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Within it no file can be opened."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("place", [1, 2, 3])
def test_staging_that_cannot_be_made_is_refused(root: Path, place: int) -> None:
    own = new_instance("1.1", "1.2", "1.2.1", key=FOUR, chunks=5)
    shutil.rmtree(root / "staging")
    disk = Refusing(errno.ENOSPC)
    with opened(root, disk) as archive:
        disk.left = place
        with pytest.raises(StorageError, match="No space left"):
            stage(archive.committer, own)
        assert archive.commit(stage(archive.committer, own)) == [STORED]
        assert archive.holds(own)


def test_too_many_open_files_are_no_damage(root: Path) -> None:
    new = new_instance("1.1", "1.2", "1.2.1", key=FOUR, chunks=5)
    with opened(root) as archive:
        with no_descriptors(), pytest.raises(StorageError, match="Too many open files"):
            archive.committer.stage(FOUR, 0)
        assert not any((root / "staging").iterdir())
        staged = stage(archive.committer, new)
        assert isinstance(staged.staged, frames.StagedArray)
        with no_descriptors(), pytest.raises(StorageError, match="Too many open files"):
            staged.staged.read(0)
        assert archive.commit(staged) == [STORED]
        assert archive.holds(new)
        with no_descriptors(), pytest.raises(StorageError, match="Too many open files"):
            archive.holds(new)
        with archive.index.read() as view:
            entry = view.instance("1.2.1")
        assert entry is not None
        with no_descriptors(), pytest.raises(StorageError, match="Too many open files"):
            records.read_part(root, entry, records.JSON)


def test_a_torn_tail_is_cut_before_the_next_record(root: Path) -> None:
    first, second = new_instance("1.1", "1.2", "1.2.1"), new_instance("1.1", "1.2", "1.2.2")
    own = new_instance("4.1", "4.2", "4.2.1", key=FOUR, chunks=5)
    log = root / layout.log_path("1.1", "1.2")
    with opened(root) as archive:
        archive.commit(first)
        with log.open("ab") as file:
            file.write(b"PACSREC1 and then the power went")
        assert archive.commit(stage(archive.committer, own), second) == [STORED] * 2
        assert archive.holds(second)
        assert archive.holds(own)
        assert archive.errors() == []


@pytest.mark.parametrize("between", [False, True])
def test_what_a_failed_batch_left_is_entered_or_cut(root: Path, between: bool) -> None:
    """A disk that refuses even to take a batch back; and another commit that takes its sequence number, or none."""

    class Stubborn(Disk):
        def truncate(self, path: str, length: int) -> None:
            raise OSError(errno.EIO, "Input/output error", path)

    left, stored_since = new_instance("1.1", "1.2", "1.2.2"), new_instance("1.1", "1.2", "1.2.3")
    disk = Stubborn()
    with opened(root, disk) as archive:
        archive.commit(new_instance("1.1", "1.2", "1.2.1"), new_instance("1.1", "1.3", "1.3.1"))

        def refuse(operation: Operation) -> None:
            if operation.name == "step" and operation.path == "records-written":
                raise OSError(errno.ENOSPC, "No space left on device")

        disk.observer = refuse
        assert archive.commit(left, stored_since) == [FAILED] * 2
        disk.observer = None
        disk.__class__ = Disk
        if between:
            elsewhere = new_instance("1.1", "1.3", "1.2.3", seed=3)
            assert archive.commit(elsewhere) == [STORED]
        assert archive.commit(new_instance("1.1", "1.2", "1.2.4")) == [STORED]
        assert archive.holds(left)
        assert archive.holds(elsewhere if between else stored_since)
        assert archive.uids() == {"1.2.1", "1.2.2", "1.2.3", "1.2.4", "1.3.1"}
        archive.committer.settle()
        assert archive.errors() == []


def test_an_array_that_is_not_sealed_is_refused(root: Path) -> None:
    """Its frames may not be on the disk."""
    with opened(root) as archive:
        new = new_instance("1.1", "1.2", "1.2.1", key=FOUR, chunks=6)
        staged = stage(archive.committer, new)
        staged.staged = archive.committer.stage(FOUR, 0)
        staged.staged.append(new.chunks[0])
        assert archive.commit(staged, new_instance("1.1", "1.2", "1.2.2")) == [FAILED, STORED]
        assert archive.uids() == {"1.2.2"}


@pytest.mark.parametrize("fault", ["levels that differ", "no array"])
def test_chunks_that_make_no_array_are_refused(root: Path, fault: str) -> None:
    wrong = new_instance("1.1", "1.2", "1.2.1", chunks=2)
    if fault == "no array":
        wrong.descriptor = msgspec.structs.replace(wrong.descriptor, array_key=None)
    else:
        wrong.chunks = [wrong.chunks[0], Chunk(wrong.chunks[1].data, wrong.chunks[1].crc32c, (9,))]
    with opened(root) as archive:
        assert archive.commit(wrong, new_instance("1.1", "1.2", "1.2.2")) == [FAILED, STORED]
        archive.committer.settle()
        assert archive.errors() == []


@pytest.mark.parametrize("fault", [{"file_size": 1 << 70}, {"array_key": "long"}])
def test_one_instance_that_cannot_be_written_leaves_its_neighbours(root: Path, fault: dict[str, object]) -> None:
    """Ingest lets neither of these through; should it ever, the batch of other clients must not fail with it."""
    wrong = new_instance("1.1", "1.2", "1.2.2")
    if fault.get("array_key"):
        fault = {"array_key": ArrayKey(Encoding.ENCAPSULATED, 8, 8, 1, "", "1." * 300 + "1", 128)}
        wrong.chunks = [Chunk(chunk.data, chunk.crc32c) for chunk in wrong.chunks]
    wrong.descriptor = msgspec.structs.replace(wrong.descriptor, **fault)
    own, staged_too = (new_instance("1.1", "1.3", f"1.3.{n}", key=FOUR, chunks=9) for n in range(2))
    neighbours = [new_instance("1.1", "1.2", "1.2.1"), new_instance("1.1", "1.2", "1.2.3"), own]
    with opened(root) as archive:
        staged = stage(archive.committer, own)
        assert archive.commit(neighbours[0], staged, wrong, neighbours[1]) == [STORED, STORED, FAILED, STORED]
        assert all(archive.holds(new) for new in neighbours)
        assert archive.uids() == {"1.2.1", "1.2.3", "1.3.0"}
        staged_too.descriptor = msgspec.structs.replace(staged_too.descriptor, file_size=1 << 70)
        assert archive.commit(stage(archive.committer, staged_too)) == [FAILED]
        assert archive.commit(wrong, new_instance("1.1", "1.2", "1.2.4")) == [FAILED, STORED], "also of two"
        assert not any((root / "staging").glob("*/*"))
        archive.committer.settle()
        assert archive.errors() == []


@pytest.mark.parametrize("place", ["records.log", "frames-0"])
def test_a_series_of_which_files_are_gone_leaves_its_neighbours(root: Path, place: str) -> None:
    with opened(root) as archive:
        archive.commit(new_instance("1.1", "1.2", "1.2.1"), new_instance("1.1", "1.3", "1.3.1"))
        gone = root / layout.series_path("1.1", "1.2") / place
        gone.rename(root / "aside")
        own, more = new_instance("1.1", "1.3", "1.3.3", key=FOUR, chunks=9), new_instance("1.1", "1.3", "1.3.2")
        batch = [new_instance("1.1", "1.2", "1.2.2"), more, stage(archive.committer, own)]
        assert archive.commit(*batch) == [FAILED, STORED, STORED]
        assert archive.holds(more)
        assert archive.holds(own)
        assert archive.uids() == {"1.2.1", "1.3.1", "1.3.2", "1.3.3"}
        archive.committer.settle()
        (root / "aside").rename(gone)
        assert archive.commit(batch[0]) == [STORED]
        archive.committer.settle()
        assert archive.errors() == []


def test_after_a_start_of_the_machine_every_tail_is_looked_at(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(root) as archive:
        for uid in ("1.2.1", "1.2.2"):  # the two slots of `last-commit` tell of two in a row
            archive.commit(new_instance("1.1", "1.2", uid))
    log = root / layout.log_path("1.1", "1.2")
    size = log.stat().st_size
    with log.open("ab") as file:
        file.write(bytes(1000))
    with opened(root):
        assert log.stat().st_size == size + 1000
    monkeypatch.setattr(recovery, "boot_id", lambda: "another boot")
    with opened(root) as archive:
        assert log.stat().st_size == size
        assert archive.errors() == []
        assert not (root / "set-aside").exists(), "zeros are what a lost write leaves"
    with log.open("ab") as file:
        file.write(bytes(1000))
    with opened(root):
        assert log.stat().st_size == size + 1000, "once after each start"
