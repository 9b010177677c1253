"""Frames found at the least cost: the same place as by the whole entry, and what decides on their form."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import msgspec

from pacs import demo, reading, uids
from pacs.archive import Archive
from pacs.errors import NotFoundError
from pacs.reading import Frame
from pacs.renditions import available
from pacs.storage.index.frame_rows import DescriptorStart, EntryStart, FrameRows
from pacs.storage.model import Descriptor, Encoding, Form, InstanceEntry
from tests.objects import images, instances


def located(archive: Archive, named: tuple[str, str, str], number: int) -> Frame | None:
    try:
        return archive.located(*named, number)
    except NotFoundError:
        return None


def test_it_is_found_where_the_whole_entry_says(tmp_path: Path) -> None:
    files = [
        *demo.head_slices(3, rows=64),
        *(built.file for built in chain(
            images.compressions(), (images.long_multi_frame(9), images.slide(3, 2, side=16)),
            (instances.segmentation("BINARY"), instances.dose(), instances.document("pdf"), instances.report()),
            [images.native("native", [images.pattern(20, 30, 12)] * 3)],
        )),
    ]  # fmt: skip
    forms: dict[Form, tuple[object, ...]] = {}
    kinds = set()
    with Archive.open(tmp_path / "archive", create=True) as archive:
        results = [archive.store(file) for file in files]
        assert {result.status for result in results} == {"stored"}
        for result in results:
            named = result.study, result.series, result.instance
            entry = archive.instance(*named)
            key = entry.descriptor.array_key
            kinds.add(key and key.encoding)
            for number in range(entry.chunks + 2):
                frame, row = located(archive, named, number), archive.find_chunk(*named, number)
                if frame is not None and not reading.is_native(frame):
                    assert row is not None
                    assert (row[1],) == frame.chunks
                    assert reading.validator(row[1]) == frame.etag
                    decided = available.stored(entry), frame.transfer_syntax, bool(frame.level_ends)
                    assert forms.setdefault(row[0], decided) == decided
                else:
                    assert row is None or 1 <= number <= entry.chunks
            for wrong in range(3):
                other = [*named]
                other[wrong] += "1"
                assert archive.find_chunk(*other, 1) is None
        assert archive.find_chunk("1", "1", "1", 1) is None
        assert archive.find_chunk(results[0].study, f"{results[0].series}\0", results[0].instance, 1) is None
    assert kinds == {None, *Encoding}
    assert len(forms) > 10


def test_slices_of_a_series_are_of_one_form(tmp_path: Path) -> None:
    with Archive.open(tmp_path / "archive", create=True) as archive:
        results = [archive.store(file) for file in demo.head_slices(3, rows=64)]
        rows = [archive.find_chunk(result.study, result.series, result.instance, 1) for result in results]
    assert len({row[0] for row in rows if row is not None}) == 1
    assert rows[0] is not None and rows[0][0].transfer_syntax in uids.TRANSFER_SYNTAXES


class Passing:
    """A transaction after which other things stand where its values did, as the pages of LMDB are used again."""

    def __init__(self, txn: Any) -> None:
        self._txn = txn
        self._given: list[bytearray] = []

    def get(self, *key: Any) -> memoryview:
        self._given.append(bytearray(self._txn.get(*key)))
        return memoryview(self._given[-1])

    def __enter__(self) -> Passing:
        return self

    def __exit__(self, *_: object) -> None:
        self._txn.abort()
        for value in self._given:
            value[:] = b"\xc1" * len(value)


def test_nothing_is_read_after_the_transaction(tmp_path: Path) -> None:
    with Archive.open(tmp_path / "archive", create=True) as archive:
        result = archive.store(next(demo.head_slices(1, rows=64)))
        index = archive._engine.index
        rows = FrameRows(index)
        rows._begin = lambda **how: Passing(index.begin(**how))
        named = result.study, result.series, result.instance, 1
        assert rows.find(*named) == archive.find_chunk(*named) is not None


def test_the_fields_are_those_of_the_entry() -> None:
    for start, whole in ((DescriptorStart, Descriptor), (EntryStart, InstanceEntry)):
        names = [field.name for field in msgspec.structs.fields(start)]
        assert names == [field.name for field in msgspec.structs.fields(whole)][: len(names)]
