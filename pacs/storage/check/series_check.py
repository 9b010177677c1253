"""One series against its records, for `pacs check`: every byte of its log and frames, and what the index says of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from pacs.errors import ChecksumError, PacsError
from pacs.storage import layout
from pacs.storage.check.expected import ExpectedSeries, ExpectedStudy, instance_entry
from pacs.storage.check.findings import Finding, error
from pacs.storage.check.index_check import keys_of
from pacs.storage.files import frames, records
from pacs.storage.files.records import Record, RecordError
from pacs.storage.files.walking import walk_damaged
from pacs.storage.index import Index, ReadView, entering
from pacs.storage.index.rows import PLACE, instance_row, nameless
from pacs.storage.model import InstanceEntry

Verify = Callable[[InstanceEntry], None]
"""Rebuilds the received file of an instance and compares its SHA-256; raises a PacsError."""


class SeriesCheck:
    """Walks the log of a series up to a committed end, and adds what its records say to `study` and `expected`."""

    def __init__(
        self, root: layout.Root, index: Index, verify: Verify | None, series: tuple[str, str], number: int,
        study: ExpectedStudy,
    ) -> None:  # fmt: skip
        self._root = root
        self._index = index
        self._verify = verify
        self._series = series
        self._path = layout.log_path(*series)
        self._study = study
        self._seen: set[str] = set()
        """SOP Instance UIDs of records in the log."""
        self._shard = ("", -1)
        """The shard that is open, and its descriptor."""
        self.expected = ExpectedSeries(*series, number)
        self.whole = True

    def walk(self, descriptor: int, end: int) -> Iterator[Finding]:
        try:
            for found in walk_damaged(descriptor, self._path, end):
                if isinstance(found, RecordError):
                    self.whole = False
                    yield error(self._path, found.message)
                else:
                    self._seen.add(found.descriptor.instance)
                    yield from self._check_record(descriptor, found)
        finally:
            self._open("")
        with self._index.read() as view:
            yield from self._missing(view, end)

    def _missing(self, view: ReadView, end: int) -> Iterator[Finding]:
        """Instances that the index has in this series and the log has not."""
        if self.expected.number < 0:
            return
        for key in keys_of(view, b"series_instances", self.expected.number.to_bytes(8, "big")):
            uid = key[PLACE:].decode(errors="replace")
            if uid not in self._seen:
                entry = view.instance(uid)
                if entry is None or entry.record_offset < end:
                    self.whole = False
                    yield error(self._path, f"the index has instance {uid}, the log has no whole record of it")

    # --- a record ---

    def _check_record(self, descriptor: int, record: Record) -> Iterator[Finding]:
        path = self._path
        where = f"record at byte {record.offset}"
        try:
            records.verify_parts(descriptor, path, record)
            json = records.read_location(descriptor, path, record.parts[records.JSON])
            attributes = entering.index_attributes(bytes(json))
            table = entering.table_of(descriptor, path, record)
        except ChecksumError as failure:
            self.whole = False
            yield error(path, failure.message)
            return
        for location in entering.locations(record, table):
            try:
                frames.verify_chunk(self._open(location.path), location)
            except ChecksumError as failure:
                yield error(location.path, failure.message)
        if (record.descriptor.study, record.descriptor.series) != self._series:
            self.whole = False
            yield error(path, f"{where}: it is of another series")
            return
        entry = instance_entry(record, attributes, self.expected.number)
        agrees = self._agrees(entry, table) if self.expected.number >= 0 else None
        if agrees is None:
            yield error(path, f"{where}: the index does not have its instance here")
            return
        if not agrees:
            yield error(path, f"{where}: the index says something else of its instance")
        self._study.add(self.expected, record, table, attributes)
        if self._verify is not None:
            try:
                self._verify(entry)
            except PacsError as failure:
                yield error(path, f"instance {record.descriptor.instance}: {failure.message}")

    def _agrees(self, entry: InstanceEntry, table: bytes) -> bool | None:
        """Whether the index has an instance as its record says; None when it has it elsewhere, or not at all."""
        uid = entry.descriptor.instance
        place, row = instance_row(entry, table)
        with self._index.read() as view:
            there = view.get(b"instances", uid.encode())
            if there is None:
                return None
            found = view.get(b"series_instances", bytes(there) + uid.encode())
            if found is not None and bytes(there) == place and bytes(found) == row:
                return True
            # Versions to come add fields: what is spelled otherwise may say the same.
            try:
                said = view.instance(uid)
            except Exception:  # noqa: BLE001
                return False  # whatever damaged bytes made of the decoder
            if said is None:
                return None
            if said.series_number == entry.series_number and said.record_offset != entry.record_offset:
                return None
            same = bytes(there) == place and nameless(said) == nameless(entry)
            return same and bytes(view.table(uid)) == table

    def _open(self, path: str) -> int:
        """The descriptor of a shard: chunks that follow each other mostly lie in the same one. "" closes it."""
        if self._shard[0] != path:
            if self._shard[1] >= 0:
                os.close(self._shard[1])
            self._shard = ("", -1)
            if path:
                try:
                    descriptor = os.open(f"{self._root}/{path}", os.O_RDONLY | os.O_CLOEXEC)
                except OSError as failure:
                    raise ChecksumError(f"{path} cannot be opened: {failure.strerror}") from None
                self._shard = (path, descriptor)
        return self._shard[1]
