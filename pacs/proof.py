"""That what is stored rebuilds what was received: before a commit, and whenever `pacs check` asks."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from pacs import export, pixels
from pacs.dicom import part10
from pacs.dicom.part10 import Part10
from pacs.encoding import Staged
from pacs.errors import ChecksumError
from pacs.export import Source
from pacs.storage import packing
from pacs.storage.model import Buffer, NewInstance, Span


class Uncommitted:
    """A NewInstance as a Source: reads exactly the bytes that the commit will write."""

    def __init__(self, new: NewInstance) -> None:
        self._new = new
        self._residual: Buffer | None = None
        self.descriptor = new.descriptor
        self._staged: Staged | None = new.staged  # type: ignore[assignment]
        self.chunk_count = self._staged.count if self._staged is not None else len(new.chunks)

    def spans(self) -> Sequence[Span]:
        return self._new.spans

    def skeleton(self) -> Buffer:
        return packing.unpack(self._new.skeleton)

    def residual(self) -> Buffer:
        if self._residual is None:
            self._residual = packing.unpack(self._new.residual) if self._new.residual is not None else b""
        return self._residual

    def bulk(self, index: int) -> Buffer:
        return packing.unpack(self._new.bulk[index])

    def chunk(self, index: int) -> Buffer:
        return self._staged.read(index) if self._staged is not None else self._new.chunks[index].data


def rebuilds(new: NewInstance, received: memoryview, file: Part10) -> bool:
    """Whether the export code rebuilds the received file from what is about to be committed.

    Compared byte by byte, which is stricter than by SHA-256 and a tenth of its cost.
    """
    source = Uncommitted(new)
    position = 0
    for piece in export.rebuild(source):
        view = memoryview(piece).cast("B")
        if not pixels.same(view, received[position : position + len(view)]):
            return False
        position += len(view)
    return position == len(received) and (not new.descriptor.whole_file or _same_pixels(source, file))


def _same_pixels(source: Source, file: Part10) -> bool:
    """Whether the chunks give the pixel data of a file that is not rebuilt from them: a deflated one."""
    received, stored = hashlib.sha256(), hashlib.sha256()
    for span in source.spans():
        if span.bulk < 0:
            received.update(file.data[span.offset : span.offset + span.length])
    for piece in export.pixel_value(source):
        stored.update(piece)
    return received.digest() == stored.digest()


def verify(source: Source) -> None:
    """Rebuild the received file of a committed instance. Raises ChecksumError when it is another file."""
    digest = hashlib.sha256()
    for piece in export.rebuild(source):
        digest.update(piece)
    if digest.digest() != source.descriptor.sha256:
        raise ChecksumError("the rebuilt file is not the one that was received")
    if source.descriptor.whole_file and not _same_pixels(source, part10.scan(bytes(source.skeleton()))):
        raise ChecksumError("the frames are not those of the file that was received")
