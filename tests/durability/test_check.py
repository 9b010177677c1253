"""What `check` finds: bytes that change, files that go or come, rows of the index that say something else."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pacs import tags
from pacs.cli import main
from pacs.storage import layout
from pacs.storage.check import Finding, Severity, check
from pacs.storage.files import last_commit
from pacs.storage.index import Index, ReadView, WriteView
from pacs.storage.recovery.reindex import reindex
from tests.conftest import ROOT
from tests.durability.synthetic import FOUR, SMALL, Opened, create, element, new_instance, opened, stage

NUMBER = struct.Struct(">Q")
SERIES = [("1.1", "1.3"), ("2.1", "2.2")]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive closed cleanly: shared arrays, one of its own, two series of one study, one without pixels."""
    root = create(tmp_path_factory.mktemp("made") / "archive")
    with opened(root) as archive:
        archive.commit(*(new_instance("1.1", "1.2", f"1.2.{n}", number=n) for n in range(3)))
        archive.commit(new_instance("1.1", "1.3", "1.3.1", key=FOUR, chunks=3, modality="MR"))
        archive.commit(stage(archive.committer, new_instance("1.1", "1.3", "1.3.2", key=FOUR, chunks=6, modality="MR")))
        archive.commit(new_instance("2.1", "2.2", "2.2.1", key=None, bulk=(b"a" * 3000,), patient="P2"))
        archive.commit(new_instance("1.1", "1.2", "1.2.9", number=9))
    assert findings(root) == []
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "archive"))


def findings(root: Path) -> list[Finding]:
    index = Index(str(root / layout.INDEX), readonly=True)
    try:
        return list(check(root, index))
    finally:
        index.close()


def errors(root: Path) -> list[Finding]:
    return [finding for finding in findings(root) if finding.severity is Severity.ERROR]


def flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def files(root: Path) -> Iterator[Path]:
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.parent.name != layout.INDEX and path.stat().st_size:
            yield path


# --- files ----------------------------------------------------------------------------------------------------


def test_the_checksum_behind_every_chunk(root: Path) -> None:
    """Nothing but Zarr reads it."""
    for path in sorted(root.rglob("frames-*/c.*")):
        capacity = 255 if path.name == "c.0.0.0" else 4
        content = path.read_bytes()
        for offset, length in struct.iter_unpack("<QQ", content[: 16 * capacity]):
            if offset == 2**64 - 1:
                continue
            flip(path, offset + length - 2)
            (found,) = errors(root)
            assert found.path == str(path.relative_to(root)) and f"at byte {offset + length - 4} " in found.text
            path.write_bytes(content)


def test_damage_is_told_where_it_is(root: Path) -> None:
    """Not once more of the study and the series, whose records cannot all be read."""
    log = root / layout.log_path("1.1", "1.2")
    for offset in (60, log.stat().st_size - 10):
        flip(log, offset)
        assert {found.path for found in errors(root)} == {layout.log_path("1.1", "1.2")}
        flip(log, offset)


def test_index_blocks_and_shapes_of_an_archive_closed_cleanly(root: Path) -> None:
    for path in (*root.rglob("frames-*/c.*"), *root.rglob("frames-*/zarr.json")):
        name, content = str(path.relative_to(root)), path.read_bytes()
        flip(path, 3)
        assert [found.path for found in errors(root)] == [name]
        path.unlink()
        assert {found.path for found in errors(root)} == {name}
        path.write_bytes(content)


def reopen(root: Path) -> None:
    with opened(root):
        pass


@pytest.mark.parametrize("write", [reopen, reindex])
def test_index_blocks_and_shapes_that_were_not_written_yet_are_late(root: Path, write: Callable[[Path], None]) -> None:
    """A process that was killed before it came to that: the next open writes them."""
    shape = next(root.rglob("studies/1.1/series/1.2/frames-0/zarr.json"))
    before = shape.read_bytes()
    with opened(root) as archive:
        settled = (root / layout.LAST_COMMIT).read_bytes()[2 * last_commit.SLOT :]
        archive.commit(new_instance("1.1", "1.2", "1.2.10", number=10))
    shape.write_bytes(before)
    with (root / layout.LAST_COMMIT).open("r+b") as file:
        file.seek(2 * last_commit.SLOT)
        file.write(settled)
    name = str(shape.relative_to(root))
    assert [(found.severity, found.path) for found in findings(root)] == [(Severity.NOTE, name)]
    write(root)
    assert findings(root) == []
    shape.write_bytes(before)
    assert [(found.severity, found.path) for found in findings(root)] == [(Severity.ERROR, name)]
    log = root / layout.log_path("1.1", "1.2")
    size = log.stat().st_size
    flip(log, size - 10)
    reindex(root)
    assert log.stat().st_size == size, "damage to what was whole by then is no torn end"


def test_every_file_that_goes(root: Path) -> None:
    for path in files(root):
        if path.name == layout.ARCHIVE_JSON:
            continue
        content = path.read_bytes()
        path.unlink()
        assert str(path.relative_to(root)) in {found.path for found in errors(root)}
        path.write_bytes(content)
    assert findings(root) == []


def test_a_study_that_goes(root: Path) -> None:
    shutil.rmtree(root / "studies/1.1")
    assert {layout.log_path("1.1", series) for series in ("1.2", "1.3")} <= {found.path for found in errors(root)}


class Growing:
    """The index of an archive that commits and settles right after a snapshot was taken, the number `moment`."""

    def __init__(self, archive: Opened, moment: int) -> None:
        self.archive, self.moment, self.taken = archive, moment, 0

    @contextmanager
    def read(self) -> Iterator[ReadView]:
        with self.archive.index.read() as view:
            self.taken += 1
            if self.taken == self.moment:
                self.archive.commit(*(new_instance(*uids, f"8.{self.moment}.{uids[1]}", key=FOUR) for uids in SERIES))
                self.archive.committer.settle()
            yield view


def test_a_commit_at_any_moment(root: Path) -> None:
    """What changes while it is looked at is no error."""
    with opened(root) as archive:
        moment, snapshots = 0, 1
        while moment < snapshots:
            moment += max(1, snapshots // 20)
            index = Growing(archive, moment)
            assert [found for found in check(root, index) if found.severity is Severity.ERROR] == [], moment
            snapshots = index.taken
    assert moment > 20


def test_every_file_that_grows_and_every_file_that_comes(root: Path) -> None:
    for path in files(root):
        if path.name == layout.ARCHIVE_JSON:
            continue
        content = path.read_bytes()
        path.write_bytes(content + b"more")
        assert str(path.relative_to(root)) in {found.path for found in findings(root)}
        path.write_bytes(content)
    for directory in [root, *(path for path in sorted(root.rglob("*")) if path.is_dir())]:
        stray = directory / "stray"
        stray.write_bytes(b"")
        (found,) = findings(root)
        assert (found.severity, found.path) == (Severity.NOTE, str(stray.relative_to(root)))
        stray.unlink()
    for directory in ("staging/left", "studies/9.9", "studies/1.1/series/1.2/frames-0/inside"):
        (root / directory).mkdir()
        assert [(found.severity, found.path) for found in findings(root)] == [(Severity.NOTE, directory)]
        (root / directory).rmdir()


def test_last_commit(root: Path) -> None:
    path = root / layout.LAST_COMMIT
    index = Index(str(root / layout.INDEX), readonly=True)
    with index.read() as view:
        newest = view.counters().sequence % 2 * last_commit.SLOT
    index.close()
    older = last_commit.SLOT - newest
    for offset in range(newest, newest + 17):
        flip(path, offset)
        assert {found.path for found in errors(root)} == {layout.LAST_COMMIT}
        flip(path, offset)
    for offset in range(older, older + 17):
        flip(path, offset)
        assert {found.path for found in findings(root)} == {layout.LAST_COMMIT}
        flip(path, offset)
    for offset in range(2 * last_commit.SLOT, 2 * last_commit.SLOT + 12):
        flip(path, offset)
        assert {found.path for found in errors(root)} == {layout.LAST_COMMIT}
        flip(path, offset)
    path.write_bytes(path.read_bytes()[:-1])
    assert layout.LAST_COMMIT in {found.path for found in errors(root)}


def test_archive_json(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = root / layout.ARCHIVE_JSON
    described = json.loads(path.read_text())
    path.write_text(json.dumps({**described, "archive_id": "another"}))
    assert [found.path for found in errors(root)] == [layout.ARCHIVE_JSON]
    assert main(["check", "--archive", str(root)]) == 1
    path.write_bytes(json.dumps(described).encode().replace(described["archive_id"][:1].encode(), b"\xb2"))
    for command in ("check", "info", "reindex"):
        assert main([command, "--archive", str(root)]) == 1
        assert "archive.json cannot be read: " in capsys.readouterr().err


# --- the index ------------------------------------------------------------------------------------------------


def change(root: Path, what: Callable[[WriteView], None]) -> None:
    index = Index(str(root / layout.INDEX))
    with index.write() as view:
        what(view)
    index.close()


def instance_attribute(view: WriteView) -> None:
    entry = view.instance("1.2.1")
    assert entry is not None
    table = bytes(view.table("1.2.1"))
    attributes = {**entry.attributes, tags.ROWS: element("US", 17)}
    view.put_instance(msgspec.structs.replace(entry, attributes=attributes), table)


def study_attribute(view: WriteView) -> None:
    """Together with its postings: only the records say otherwise."""
    study = view.study("1.1")
    assert study is not None
    attributes = {**study.attributes, tags.PATIENT_ID: element("LO", "P9")}
    view.put_study(msgspec.structs.replace(study, attributes=attributes), study)


def study_counts(view: WriteView) -> None:
    study = view.study("1.1")
    assert study is not None
    counts = {uid: count + 1 for uid, count in study.sop_classes.items()}
    view.put_study(msgspec.structs.replace(study, sop_classes=counts), study)


def series_attribute(view: WriteView) -> None:
    study, series = view.study("1.1"), view.series("1.1", "1.2")
    assert study is not None and series is not None
    attributes = {**series.attributes, tags.BODY_PART_EXAMINED: element("CS", "HEAD")}
    view.put_series(study, msgspec.structs.replace(series, attributes=attributes), series)


def series_name(view: WriteView) -> None:
    study, series = view.study("1.1"), view.series("1.1", "1.2")
    assert study is not None and series is not None
    view.put(b"series", b"1.1\x001.2", msgspec.msgpack.encode(msgspec.structs.replace(series, study="1.5")))


def series_number(view: WriteView) -> None:
    view.put(b"series_numbers", NUMBER.pack(0), b"1.1\x001.3")


def array_instance(view: WriteView) -> None:
    view.put_array_instance(0, 0, 1, 1, "1.2.0")


def array_length(view: WriteView) -> None:
    state = view.array(0, 0)
    assert state is not None
    state.count += 1
    view.put_array(0, 0, state)


def open_array(view: WriteView) -> None:
    view.put_open_array(1, FOUR, 1)


def open_array_of_another_kind(view: WriteView) -> None:
    view.delete_open_arrays(1)
    view.put_open_array(1, SMALL, 0)


def next_array(view: WriteView) -> None:
    files = view.files(1)
    files.next_array = 1
    view.put_files(1, files)


def shard_entry(view: WriteView) -> None:
    entries = bytearray(view.shard_entries(0, 0, 0))
    entries[16] += 1
    view.put_shard(0, 0, 0, bytes(entries))


def instance_place(view: WriteView) -> None:
    view.put(b"instances", b"1.2.1", NUMBER.pack(0) + NUMBER.pack(3))


def missing_instance(view: WriteView) -> None:
    view.txn.delete(b"1.2.1", db=view.databases[b"instances"])


def posting_too_many(view: WriteView) -> None:
    study = view.study("1.1")
    assert study is not None
    view.txn.put(b"\x08=P2", study.sort_key, db=view.databases[b"postings"])


def received_bytes(view: WriteView) -> None:
    state = view.state()
    state.counters.received_bytes += 1
    view.put_state(state)


def late_array(view: WriteView) -> None:
    view.put(b"dirty", struct.pack(">QI", 0, 0), NUMBER.pack(99))


def unreadable(database: bytes, key: bytes) -> Callable[[WriteView], None]:
    def cut(view: WriteView) -> None:
        found = view.get(database, key)
        assert found is not None
        view.put(database, key, bytes(found)[:-1])

    return cut


UNREADABLE: dict[bytes, Any] = {
    b"meta": b"state", b"studies": b"1.1", b"series": b"1.1\x001.2", b"series_numbers": NUMBER.pack(0),
    b"files": NUMBER.pack(0), b"instances": b"1.2.1", b"arrays": struct.pack(">QI", 0, 0),
    b"array_instances": struct.pack(">QII", 0, 0, 1), b"shards": struct.pack(">QII", 0, 0, 0),
    b"series_instances": NUMBER.pack(0) + NUMBER.pack((1 << 63) + 1) + b"1.2.1",
}  # fmt: skip


@pytest.mark.parametrize("what", [
    instance_attribute, study_attribute, study_counts, series_attribute, series_name, series_number, array_instance,
    array_length, open_array, open_array_of_another_kind, next_array, shard_entry,
    instance_place, missing_instance, posting_too_many, received_bytes, late_array,
    *(unreadable(*row) for row in UNREADABLE.items()),
], ids=lambda what: what.__name__)  # fmt: skip
def test_a_row_that_says_something_else(root: Path, what: Callable[[WriteView], None]) -> None:
    change(root, what)
    assert errors(root)
    assert main(["check", "--archive", str(root)]) == 1


@pytest.mark.parametrize("pages", [0, 2, 5])
def test_pages_that_are_gone(root: Path, pages: int) -> None:
    """LMDB reads behind the end of a file that has been cut off, which ends the process."""
    data = root / layout.INDEX / "data.mdb"
    data.write_bytes(data.read_bytes()[: pages * 4096])
    command = [sys.executable, "-m", "pacs", "check", "--archive", str(root)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 1 and "Traceback" not in run.stderr
    assert f"{layout.INDEX}/data.mdb: " in run.stdout or str(root / layout.INDEX) in run.stderr
    assert "run `pacs reindex`" in run.stdout + run.stderr


def zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize(
    ("name", "fault"),
    [(layout.INDEX, shutil.rmtree), (layout.LAST_COMMIT, Path.unlink), (layout.LAST_COMMIT, zeros)],
)
def test_after_a_reindex_nothing_is_found(root: Path, name: str, fault: Callable[[Path], None]) -> None:
    with opened(root) as archive:
        archive.commit(new_instance("3.1", "3.2", "3.2.1"))  # an even commit, the newest was odd
    for _ in range(2):
        fault(root / name)
        for left in (layout.NEW_INDEX, layout.OLD_INDEX):  # by one that was killed
            (root / left / "grown").mkdir(parents=True)
        reindex(root)
        assert findings(root) == []
        with opened(root) as archive:
            archive.commit(new_instance("3.1", "3.2", "3.2.2"))


def test_an_array_to_append_to_of_a_series_that_is_none(root: Path) -> None:
    change(root, lambda view: view.put_open_array(7, SMALL, 0))
    assert [found.path for found in errors(root)] == [layout.INDEX]
