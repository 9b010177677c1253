"""What is stored is proven before the commit, and `pacs check` proves it again for every way of storing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pacs import ingest, proof
from pacs.archive import Archive
from pacs.errors import StorageError
from pacs.storage import layout, records
from pacs.storage.check import check
from pacs.storage.checksum import crc32c
from pacs.storage.commit import Outcome
from pacs.storage.disk import Disk, Operation
from pacs.storage.engine import Engine
from pacs.storage.model import Chunk, Encoding, InstanceEntry, NewInstance
from pacs.storage.reindex import reindex
from tests.objects import fragmentation, images, instances
from tests.objects.base import Built

DEFLATED = "1.2.840.10008.1.2.1.99"

WAYS: dict[str, tuple[Callable[[], Built], Encoding | None]] = {
    "pixel array": (lambda: images.native("a", [images.pattern(8, 8, 16)]), Encoding.HTJ2K),
    "big endian": (lambda: images.native("b", [images.pattern(8, 8, 12)], images.ExplicitVRBigEndian), Encoding.HTJ2K),
    "pieces": (lambda: images.native("c", [images.pattern(8, 8, 32)]), Encoding.NATIVE),
    "fragments": (lambda: images.compressed(images.JPEG_BASELINE, 2, fragments=3), Encoding.ENCAPSULATED),
    "deflated": (lambda: images.native("d", [images.pattern(8, 8, 16)], DEFLATED), Encoding.HTJ2K),
    "deflated pieces": (lambda: images.native("e", [images.pattern(8, 8, 32)], DEFLATED), Encoding.NATIVE),
    "bulk values": (lambda: instances.document("pdf"), None),
    "private": (lambda: next(fragmentation.unknown()), Encoding.NATIVE),
}

PREPARE = ingest.prepare
Tamper = Callable[[NewInstance], NewInstance]


def other_sum(new: NewInstance) -> NewInstance:
    """As if the stored form gave another file."""
    digest = bytes(byte ^ 1 for byte in new.descriptor.sha256)
    return msgspec.structs.replace(new, descriptor=msgspec.structs.replace(new.descriptor, sha256=digest))


def other_frame(new: NewInstance) -> NewInstance:
    """A sound chunk, but of another frame."""
    assert new.descriptor.geometry is not None
    other = images.native("other", [images.pattern(8, 8, new.descriptor.geometry.bits_allocated, number=9)]).file
    chunks = PREPARE(other, ingest.identify(other), lambda key, levels: pytest.fail("no shard")).chunks
    return msgspec.structs.replace(new, chunks=[Chunk(c.data, crc32c(c.data), c.level_ends) for c in chunks])


def store(root: Path, monkeypatch: pytest.MonkeyPatch, built: Built, tamper: Tamper | None = None) -> Any:
    if tamper is not None:
        monkeypatch.setattr(ingest, "prepare", lambda *arguments, **_: tamper(PREPARE(*arguments)))
    with Archive.open(root, create=True, threads=1) as archive:
        result = archive.store(built.file)
        assert result.status == "stored", result.error
        entry = archive.find_instance(result.instance)
    monkeypatch.undo()
    return entry


@pytest.mark.parametrize("way", WAYS)
def test_check_rebuilds_the_file_however_it_is_stored(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pacs.cli import main

    make, encoding = WAYS[way]
    built = make()
    key = store(tmp_path / "sound", monkeypatch, built).descriptor.array_key
    assert (key.encoding if key is not None else None) is encoding
    assert main(["check", "--archive", str(tmp_path / "sound")]) == 0
    store(tmp_path / "tampered", monkeypatch, built, other_sum)
    capsys.readouterr()
    assert main(["check", "--archive", str(tmp_path / "tampered")]) == 1
    assert "the rebuilt file is not the one that was received" in capsys.readouterr().out
    if way.startswith("deflated"):
        store(tmp_path / "frame", monkeypatch, built, other_frame)
        assert main(["check", "--archive", str(tmp_path / "frame")]) == 1
        assert "the frames are not those of the file that was received" in capsys.readouterr().out


@pytest.mark.parametrize("way", WAYS)
def test_what_does_not_rebuild_the_file_is_not_proven(way: str) -> None:
    file = WAYS[way][0]().file
    identity = ingest.identify(file)
    new = ingest.prepare(file, identity, lambda key, levels: pytest.fail("nothing fills a shard"))
    assert proof.rebuilds(new, memoryview(file), identity.file)
    assert not proof.rebuilds(new, memoryview(file + b"\0"), identity.file)
    assert not proof.rebuilds(new, memoryview(file[:-1]), identity.file)
    for at in (0, len(file) // 2, len(file) - 1):
        other = bytearray(file)
        other[at] ^= 1
        assert not proof.rebuilds(new, memoryview(other), identity.file)
        assert not proof.rebuilds(new, memoryview(bytes(other)), identity.file)


def record_of(archive: Archive, uid: str) -> records.Record:
    entry = archive.find_instance(uid)
    descriptor, path = records.open_log(archive.root, entry.descriptor.study, entry.descriptor.series)
    try:
        return records.read_head(descriptor, path, entry.record_offset, os.fstat(descriptor).st_size)
    finally:
        os.close(descriptor)


def test_an_instance_alone_is_proven_while_it_is_synced(tmp_path: Path) -> None:
    built = images.native("alone", [images.pattern(8, 8, 16)])
    with Archive.open(tmp_path / "archive", create=True) as archive:
        assert archive.store(built.file).status == "stored"
        (uid,) = [entry.descriptor.instance for entry in everything(archive)]
        assert record_of(archive, uid).unproven
        assert b"".join(archive.part10(archive.find_instance(uid))) == built.file


def everything(archive: Archive) -> Iterator[InstanceEntry]:
    for study in archive.studies():
        for series in archive.series_of(study.uid):
            yield from archive.instances_of(study.uid, series.uid)


def test_what_cannot_be_proven_is_taken_back_and_kept_in_another_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = images.native("doubtful", [images.pattern(8, 8, 16)])
    prepared: list[bool] = []

    def prepare(*arguments: Any, unproven: bool = False) -> NewInstance:
        prepared.append(unproven)
        new = PREPARE(*arguments, unproven=unproven)
        return other_frame(new) if unproven else new

    monkeypatch.setattr(ingest, "prepare", prepare)
    with Archive.open(tmp_path / "archive", create=True) as archive:
        stored = archive.store(built.file)
        assert (stored.status, prepared) == ("stored", [True, False])
        record = record_of(archive, stored.instance)
        assert not record.unproven
        assert record.offset == 0
        assert b"".join(archive.part10(archive.find_instance(stored.instance))) == built.file
        log = tmp_path / "archive" / layout.log_path(stored.study, stored.series)
        assert log.stat().st_size == record.length
        another = images.native("another", [images.pattern(8, 8, 16)])
        assert archive.store(another.file).status == "stored"
        assert prepared == [True, False, False], "once bitten"
        archive.settle()
        assert list(check(archive.root, archive._engine.index)) == []


@pytest.mark.parametrize("tamper", [None, other_sum, other_frame])
def test_what_a_crash_left_unproven_is_proven_before_it_is_entered(tmp_path: Path, tamper: Tamper | None) -> None:
    built = images.native("cut short", [images.pattern(8, 8, 16)])
    root = tmp_path / "archive"
    new = PREPARE(built.file, ingest.identify(built.file), lambda key, levels: pytest.fail("no shard"), unproven=True)
    assert new.prove is not None
    if tamper is not None:
        new = tamper(new)

    def crash(operation: Operation) -> None:
        if operation.name == "step" and operation.path == "records-written":
            for name in ("opened", "unknown", "reindexed"):
                shutil.copytree(root, tmp_path / name)

    outcomes: list[Outcome] = []
    engine = Engine(root, create=True, disk=Disk(crash), prove=proof.proven)
    assert engine.commit_now(new, outcomes.append)
    engine.close()
    expected = int(tamper is None)
    with pytest.raises(StorageError, match="has to be proven"):
        Engine(tmp_path / "unknown")
    for name in ("opened", "unknown"):
        with Archive.open(tmp_path / name) as archive:
            assert archive.counters().instances == expected
            for entry in everything(archive):
                assert b"".join(archive.part10(entry)) == built.file
            assert archive.store(built.file).status == ("duplicate" if expected else "stored")
    found = reindex(tmp_path / "reindexed", prove=proof.proven)
    assert (found.instances, bool(found.damaged)) == (expected, not expected)
    with Archive.open(tmp_path / "reindexed") as archive:
        assert archive.counters().instances == expected
