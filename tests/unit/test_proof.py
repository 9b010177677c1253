"""What is stored is proven before the commit, and `pacs check` proves it again for every way of storing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pacs import ingest, proof
from pacs.archive import Archive
from pacs.storage.checksum import crc32c
from pacs.storage.model import Chunk, Encoding, NewInstance
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
        monkeypatch.setattr(ingest, "prepare", lambda *arguments: tamper(PREPARE(*arguments)))
    with Archive.open(root, create=True, threads=1) as archive:
        result = archive.store(built.file)
        assert result.status == "stored", result.error
        entry = archive.instance(result.study, result.series, result.instance)
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
