"""docs/storage-format.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from pacs.geometry import FrameGeometry
from pacs.storage import layout
from pacs.storage.files import last_commit, records, shard
from pacs.storage.model import ArrayKey, Descriptor

PAGE = (Path(__file__).parents[2] / "docs" / "storage-format.md").read_text()


def test_the_version_and_the_sizes() -> None:
    assert f"Format version {layout.FORMAT_VERSION}." in PAGE
    assert f"| {records._FIXED.size} | D | descriptor" in PAGE
    assert f"| 48 + D | {records._PART.size} P | part table" in PAGE
    assert f"chunk table: {shard.row_struct(0).size} + 4 L" in PAGE
    assert f"| {2 * last_commit.SLOT:,} | 8 + 4 |" in PAGE
    assert f"`{records.MAGIC.decode()}`" in PAGE


def test_the_fields_in_their_order() -> None:
    table = PAGE[PAGE.index("### Descriptor") : PAGE.index("## Frame arrays")]
    rows = re.findall(r"^\| ([a-z0-9_, ]+) \|", table, re.MULTILINE)
    named = [name for row in rows[1:] for name in row.split(", ")]
    assert named == list(Descriptor.__struct_fields__)
    for kind in (FrameGeometry, ArrayKey):
        assert f"[{', '.join(kind.__struct_fields__)}]" in table
