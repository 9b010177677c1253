"""Bytes on disk: records, chunk tables, index blocks, last-commit. Pinned where they must never change."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import threading
from pathlib import Path

import msgspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from pacs.errors import ChecksumError, FormatVersionError, StorageError
from pacs.storage import layout, packing
from pacs.storage.checksum import crc32c
from pacs.storage.disk import Disk, Operation, SyncError
from pacs.storage.files import records, shard
from pacs.storage.files.last_commit import SLOT, LastCommit
from pacs.storage.files.records import Record, RecordError
from pacs.storage.files.shard import TableRow
from pacs.storage.files.walking import walk_damaged
from pacs.storage.locks import WriterLock
from pacs.storage.model import ArrayKey, Buffer, Descriptor, Encoding, NewInstance, Part
from tests.durability.synthetic import FOUR, create, new_instance

ROW = TableRow(7, 4084, 185_293, 0x12345678, (597, 1692, 185_291))


def compose(new: NewInstance, offset: int = 0, ordinal: int = 0) -> tuple[Record, bytes]:
    table = shard.pack_row(ROW)
    record, buffers = records.compose(
        new, table, offset=offset, sequence=9, ordinal=ordinal, levels=3, array=2, chunks=1
    )
    return record, b"".join(buffers)


@pytest.fixture
def new() -> NewInstance:
    return new_instance("1.1", "1.2", "1.2.3", bulk=(b"letter " * 300, b"\x01"))


def write_log(path: Path, *logged: Buffer) -> int:
    path.write_bytes(b"".join(logged))
    return os.open(path, os.O_RDONLY)


# --- pinned ---------------------------------------------------------------------------------------------------


def test_the_bytes_of_format_version_1(new: NewInstance) -> None:
    assert layout.FORMAT_VERSION == 1
    assert shard.pack_row(ROW).hex() == (
        "07000000" "f40f000000000000" "cdd3020000000000" "78563412" "55020000" "9c060000" "cbd30200"
    )  # fmt: skip
    block = shard.index_block(shard.entry(ROW), 255)
    assert len(block) == 4084
    assert block[:16].hex() == "f40f000000000000" "d1d3020000000000"
    assert block[16:-4] == b"\xff" * 254 * 16
    new.json = new.skeleton = Part(b"{}", 2, False)
    new.bulk = ()
    _, data = compose(new)
    assert data[:8] == b"PACSREC1"
    assert hashlib.sha256(data).hexdigest() == PINNED_RECORD


PINNED_RECORD = "e46188ae047e5b7d9481b8551ae19ddad5c27a4a978cc1c1df20f663bdd00df4"


def test_a_descriptor_of_an_earlier_program_is_read(new: NewInstance) -> None:
    """Fields are added at the end, with defaults: what was written before them stays readable."""
    fields = msgspec.msgpack.decode(msgspec.msgpack.encode(new.descriptor))
    earlier = msgspec.msgpack.encode(fields[:FIRST_FIELDS])
    found = msgspec.msgpack.decode(earlier, type=Descriptor)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(found))[:FIRST_FIELDS] == fields[:FIRST_FIELDS]
    assert found.overlay_in_samples is False


FIRST_FIELDS = 16
"""Of the first program that wrote format version 1."""


def test_shard_names() -> None:
    colour = ArrayKey(Encoding.HTJ2K, 8, 8, 3, "uint8", "", 192)
    assert layout.shard_name(ArrayKey(Encoding.HTJ2K, 8, 8, 1, "int16", "", 128), 3) == "c.3.0.0"
    assert layout.shard_name(colour, 0) == "c.0.0.0.0"
    assert layout.shard_name(ArrayKey(Encoding.NATIVE, 0, 0, 0, "uint8", "", 4096), 1) == "c.1.0"
    assert layout.shard_name(FOUR, 12) == "c.12"


# --- records --------------------------------------------------------------------------------------------------


def test_a_record_comes_back_from_its_log(tmp_path: Path, new: NewInstance) -> None:
    first, one = compose(new)
    second, two = compose(new, offset=len(one), ordinal=1)
    log = write_log(tmp_path / "records.log", one, two)
    found = list(records.walk(log, "log", 0, len(one) + len(two)))
    assert found == [first, second]
    for record in found:
        records.verify_parts(log, "log", record)
    parts = [records.read_location(log, "log", part) for part in second.parts]
    assert parts[records.CHUNK_TABLE] == shard.pack_row(ROW)
    assert records.decode_spans(parts[records.SPAN_TABLE]) == list(new.spans)
    assert parts[records.FIRST_BULK] == b"letter " * 300
    os.close(log)


def test_many_spans_are_compressed(new: NewInstance) -> None:
    new.spans = [*new.spans] * 500
    packed = records.pack_spans(new.spans)
    assert packed.zstd
    assert len(packed.data) < packed.raw_length // 10
    assert records.decode_spans(packing.decompress(packed.data, packed.raw_length)) == new.spans


def test_any_flipped_byte_of_a_record_is_noticed(tmp_path: Path, new: NewInstance) -> None:
    _, data = compose(new)
    noise = random.Random(4)
    for place in noise.sample(range(len(data)), 300):
        damaged = bytearray(data)
        damaged[place] ^= 1 << noise.randrange(8)
        log = write_log(tmp_path / "records.log", damaged)
        with pytest.raises(ChecksumError):
            records.verify_parts(log, "log", records.read_head(log, "log", 0, len(data)))
        os.close(log)


def test_any_truncation_of_a_record_is_noticed(tmp_path: Path, new: NewInstance) -> None:
    _, data = compose(new)
    for length in range(1, len(data), 7):
        log = write_log(tmp_path / "records.log", data[:length])
        with pytest.raises(RecordError):
            records.read_head(log, "log", 0, length)
        os.close(log)


def test_walking_goes_on_behind_a_damaged_head(tmp_path: Path, new: NewInstance) -> None:
    _, one = compose(new)
    _, two = compose(new, offset=len(one), ordinal=1)
    damaged = bytearray(one)
    damaged[10] ^= 1
    log = write_log(tmp_path / "records.log", damaged, b"rubbish", two)
    found = list(walk_damaged(log, "log", len(one) + 7 + len(two)))
    assert isinstance(found[0], RecordError)
    assert isinstance(found[-1], Record)
    assert found[-1].offset == len(one) + 7
    os.close(log)


@given(st.binary(max_size=400))
def test_any_bytes_are_a_record_or_an_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "arbitrary.log"
    for prefix in (b"", records.MAGIC):
        log = write_log(path, prefix, data)
        assert all(isinstance(each, RecordError) for each in walk_damaged(log, "log", len(prefix + data)))
        os.close(log)


def test_a_part_never_inflates_beyond_what_is_stated() -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(10_000_000))
    with pytest.raises(ChecksumError, match="instead of 10"):
        packing.decompress(bomb, 10)
    unstated = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(10_000_000))
    with pytest.raises(ChecksumError):
        packing.decompress(unstated, 10)
    with pytest.raises(ChecksumError):
        packing.decompress(b"no zstd", 10)
    assert packing.decompress(bomb, 10_000_000) == bytes(10_000_000)


# --- chunk tables ---------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))))
def test_chunk_tables_come_back(numbers: list[tuple[int, int, int]]) -> None:
    rows = [TableRow(position, offset, length, position ^ 5, (1, 2)) for position, offset, length in numbers]
    table = b"".join(shard.pack_row(row) for row in rows)
    assert list(shard.rows(table, 2)) == rows
    assert [shard.read_row(table, 2, n) for n in range(len(rows))] == rows


def test_a_chunk_that_does_not_fit_its_row_is_refused() -> None:
    with pytest.raises(StorageError):
        shard.pack_row(TableRow(0, 0, 10, 0, (1 << 32,)))


def test_the_end_of_a_shard() -> None:
    assert shard.end(b"", 4) == shard.index_size(4) == 68
    assert shard.end(shard.entry(TableRow(0, 68, 100, 0, ())), 4) == 172


# --- last-commit ----------------------------------------------------------------------------------------------


def test_last_commit_survives_a_torn_write(tmp_path: Path) -> None:
    last = LastCommit(tmp_path, Disk())
    assert last.read()[0].sequence == 0
    last.create()
    assert (last.read()[0].sequence, last.read()[1]) == (0, 0)
    last.write(4, [("1.1", "1.2")])
    last.settle(4)
    last.write(5, [("2.1", "2.2")] * 300)
    state, settled = last.read()
    assert (state.sequence, len(state.series), settled) == (5, 300, 4)
    path = Path(last.path)
    data = bytearray(path.read_bytes())
    data[SLOT + 2000] ^= 1
    path.write_bytes(data)
    state, settled = last.read()
    assert (state.sequence, state.series) == (4, [("1.1", "1.2")])
    last.write(5, [("3.1", "3.2")])
    last.erase(5)
    assert last.read()[0].sequence == 4


@pytest.mark.parametrize("sequence", [2, 5, 8])
def test_an_archive_known_to_stand_at_a_commit_has_both_slots(sequence: int, tmp_path: Path) -> None:
    """Otherwise every opening would look at the end of every log."""
    last = LastCommit(tmp_path, Disk())
    last.create()
    last.write(1, [("1.1", "1.2")])
    assert not last.complete
    last.stand_at(sequence)
    assert last.complete
    assert last.read()[0].sequence == sequence
    last.renew(sequence + 3, sequence)
    assert last.complete
    assert last.read()[0].sequence == sequence + 3


def test_the_uids_of_the_largest_batch_fit(tmp_path: Path) -> None:
    from pacs.storage.files.last_commit import LARGEST_BATCH

    last = LastCommit(tmp_path, Disk())
    last.create()
    arrays = [(place, 2**32 - 2) for place in range(LARGEST_BATCH)]
    last.write(2**63, [("9" * 64, "9" * 64)] * LARGEST_BATCH, arrays)
    assert last.read()[0].made == [("9" * 64, "9" * 64, 2**32 - 2)] * LARGEST_BATCH
    with pytest.raises(ValueError, match="do not fit"):
        last.write(1, [("9" * 64, "9" * 64)] * 600)


# --- the disk, the locks, the description ---------------------------------------------------------------------


@given(st.lists(st.binary(max_size=60), max_size=1200), st.integers(0, 50))
def test_a_write_is_all_of_its_buffers(
    tmp_path_factory: pytest.TempPathFactory, buffers: list[bytes], offset: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "written"
    disk = Disk()
    disk.create(str(path))
    views: list[Buffer] = [memoryview(each) if n % 2 else each for n, each in enumerate(buffers)]
    assert disk.write(str(path), offset, views) == sum(map(len, buffers))
    expected = b"".join(buffers)
    assert path.read_bytes() == (bytes(offset) + expected if expected else b"")


def test_an_observer_sees_every_operation_before_and_after(tmp_path: Path) -> None:
    seen: list[Operation] = []
    disk = Disk(seen.append)
    disk.mkdir(str(tmp_path / "a"))
    assert not disk.mkdir(str(tmp_path / "a"))
    disk.replace(str(tmp_path / "a" / "file"), b"abc")
    disk.truncate(str(tmp_path / "a" / "file"), 1)
    disk.sync([str(tmp_path / "a" / "file"), str(tmp_path / "a")])
    disk.syncfs(str(tmp_path))
    disk.remove_tree(str(tmp_path / "a"))
    disk.remove_tree(str(tmp_path / "a"))
    done = [operation.name for operation in seen if operation.done]
    assert done == ["mkdir", "create", "write", "rename", "truncate", "sync", "sync", "syncfs", "unlink", "rmdir"]
    assert sum(not operation.done for operation in seen) == len(done) + 1
    assert not (tmp_path / "a").exists()
    disk.close()


def test_a_sync_that_fails_is_a_sync_error(tmp_path: Path) -> None:
    with pytest.raises(SyncError) as caught:
        Disk().sync([str(tmp_path / "missing")])
    assert caught.value.errno == errno.ENOENT


def test_a_disk_that_fails_to_sync_is_a_sync_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(SyncError):
        Disk().sync([str(tmp_path)])


def test_the_writers_lock_is_for_one_thread_at_a_time(tmp_path: Path) -> None:
    root = create(tmp_path / "archive")
    lock = WriterLock(root)
    inside: list[int] = []

    def enter() -> None:
        for _ in range(50):
            with lock:
                inside.append(1)
                assert len(inside) == 1
                inside.pop()

    threads = [threading.Thread(target=enter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lock.close()


def test_an_archive_of_another_format_is_refused(tmp_path: Path) -> None:
    root = create(tmp_path / "archive")
    description = root / "archive.json"
    description.write_text(description.read_text().replace('"format_version": 1', '"format_version": 2'))
    with pytest.raises(FormatVersionError):
        layout.read_description(root)
    description.write_text("{")
    with pytest.raises(StorageError):
        layout.read_description(root)
    assert crc32c(b"123456789") == 0xE3069283
