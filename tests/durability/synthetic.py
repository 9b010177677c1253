"""Instances made up for the storage tests: real records and arrays, bytes that need no codec."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import zstandard

from pacs import tags
from pacs.geometry import FrameGeometry
from pacs.storage import layout
from pacs.storage.check import Finding, Severity, check
from pacs.storage.checksum import crc32c
from pacs.storage.commit import Committer, Outcome, Status
from pacs.storage.disk import Disk
from pacs.storage.files import frames, records
from pacs.storage.index import Index
from pacs.storage.locks import WriterLock
from pacs.storage.model import ArrayKey, Chunk, Descriptor, Encoding, NewInstance, Part, Span
from pacs.storage.recovery import recovery

SMALL = ArrayKey(Encoding.HTJ2K, 8, 8, 1, "int16", "", 128)
"""Capacity 255: single frames share it."""
FOUR = ArrayKey(Encoding.ENCAPSULATED, 8, 8, 1, "", "1.2.840.10008.1.2.4.50", 16 << 20)
"""Capacity 4: shards fill quickly."""


def part(data: bytes) -> Part:
    packed = zstandard.ZstdCompressor().compress(data)
    return Part(packed, len(data), True) if len(packed) < len(data) else Part(data, len(data), False)


def element(vr: str, value: str | int) -> bytes:
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return f'{{"vr":"{vr}","Value":[{text}]}}'.encode()


def new_instance(
    study: str, series: str, uid: str, *, number: int = 1, key: ArrayKey | None = SMALL, chunks: int = 1,
    bulk: tuple[bytes, ...] = (), seed: int = 0, chunk_length: int = 700, patient: str = "P1", date: str = "20240131",
    modality: str = "CT", sop_class: str = "1.2.840.10008.5.1.4.1.1.2", description: str = "",
) -> NewInstance:  # fmt: skip
    """An instance whose content depends on its UID and `seed` alone."""
    noise = random.Random(f"{uid}/{seed}")
    levels = 3 if key is not None and key.encoding is Encoding.HTJ2K else 0
    made = []
    for _ in range(chunks if key is not None else 0):
        data = noise.randbytes(chunk_length + noise.randrange(50))
        made.append(Chunk(data, crc32c(data), tuple(len(data) * (i + 1) // levels for i in range(levels))))
    attributes = {
        tags.SOP_CLASS_UID: element("UI", sop_class),
        tags.SOP_INSTANCE_UID: element("UI", uid),
        tags.MODALITY: element("CS", modality),
        tags.PATIENT_ID: element("LO", patient),
        tags.STUDY_INSTANCE_UID: element("UI", study),
        tags.SERIES_INSTANCE_UID: element("UI", series),
        tags.INSTANCE_NUMBER: element("IS", number),
    }
    if date:
        attributes[tags.STUDY_DATE] = element("DA", date)
    if description:
        attributes[tags.STUDY_DESCRIPTION] = element("LO", description)
    json = b"{" + b",".join(b'"%08X":%s' % (tag, attributes[tag]) for tag in sorted(attributes)) + b"}"
    geometry = FrameGeometry(8, 8, 1, 16, 12, 11, 1, 0, "MONOCHROME2", max(1, chunks)) if key is not None else None
    sha256 = hashlib.sha256(f"{uid}/{seed}".encode()).digest()
    descriptor = Descriptor(
        study, series, uid, "1.2.840.10008.1.2.1", sha256, 5000, 1_700_000_000, geometry=geometry, array_key=key,
    )  # fmt: skip
    return NewInstance(
        descriptor, part(json), part(noise.randbytes(300) + bytes(500)), None, [part(value) for value in bulk],
        [Span(1000, 128, -1), *(Span(2000, len(value), i) for i, value in enumerate(bulk))], made, None, attributes,
    )  # fmt: skip


def stage(committer: Committer, new: NewInstance) -> NewInstance:
    """Move the chunks of an instance into an array of its own."""
    key = new.descriptor.array_key
    assert key is not None
    staged = committer.stage(key, len(new.chunks[0].level_ends))
    for chunk in new.chunks:
        staged.append(chunk)
    staged.seal()
    return NewInstance(new.descriptor, new.json, new.skeleton, None, new.bulk, new.spans, (), staged, new.attributes)


@dataclass
class Opened:
    root: Path
    index: Index
    committer: Committer

    def commit(self, *batch: NewInstance) -> list[Status]:
        return [outcome.status for outcome in self.outcomes(*batch)]

    def outcomes(self, *batch: NewInstance) -> list[Outcome]:
        return self.committer.commit(batch)

    def uids(self) -> set[str]:
        """SOP Instance UIDs that are visible."""
        with self.index.read() as view:
            return {
                instance.descriptor.instance
                for study in view.studies()
                for series in view.series_of(study.uid)
                for instance in view.instances_of(series)
            }

    def holds(self, new: NewInstance) -> bool:
        """Whether an instance is there with exactly these bytes; raises where they cannot be read."""
        with self.index.read() as view:
            entry = view.instance(new.descriptor.instance)
            if entry is None or entry.descriptor != new.descriptor:
                return False
            locations = [view.chunk(entry, n) for n in range(view.chunk_count(entry))]
        chunks = [frames.read_chunk(self.root, location) for location in locations]
        parts = [new.json, new.skeleton, *new.bulk]
        numbers = [records.JSON, records.SKELETON, *range(records.FIRST_BULK, records.FIRST_BULK + len(new.bulk))]
        stored = [records.read_part(self.root, entry, number) for number in numbers]
        return (
            chunks == [bytes(chunk.data) for chunk in new.chunks]
            and [location.level_ends for location in locations] == [chunk.level_ends for chunk in new.chunks]
            and stored == [unpacked(each) for each in parts]
            and records.read_spans(self.root, entry) == list(new.spans)
        )

    def errors(self) -> list[Finding]:
        return [found for found in check(self.root, self.index) if found.severity is Severity.ERROR]

    def dump(self) -> dict[bytes, list[tuple[bytes, bytes]]]:
        """Everything in the index but what awaits a sync."""
        with self.index.read() as view:
            return {
                name: [(bytes(key), bytes(value)) for key, value in view.cursor(name)]
                for name in self.index.databases
                if name != b"dirty"
            }


def unpacked(stored: Part) -> bytes:
    return zstandard.ZstdDecompressor().decompress(stored.data) if stored.zstd else bytes(stored.data)


def create(root: Path) -> Path:
    disk = Disk()
    layout.create(disk, root)
    disk.close()
    return root


@contextmanager
def opened(root: Path, disk: Disk | None = None) -> Iterator[Opened]:
    disk = disk if disk is not None else Disk()
    lock = WriterLock(root)
    try:
        with lock:
            index = recovery.open_index(root, disk)
        try:
            committer = Committer(root, index, disk, lock)
            try:
                yield Opened(root, index, committer)
            finally:
                committer.close()
        finally:
            index.close()
    finally:
        lock.close()
        disk.close()
