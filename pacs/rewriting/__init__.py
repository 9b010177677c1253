"""A stored instance as a Part 10 file in another Transfer Syntax, with a Data Set that describes what it holds then.

Data Elements pass as bytes (`recoded`), all but those that describe the pixel data, which pydicom reads and writes.
Frames pass one by one, so that a long multi-frame never lies whole in memory.
PS3.5 Annex A, PS3.10 7, PS3.18 8.7.3.5.2
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from pacs import export, uids
from pacs.dicom import part10
from pacs.errors import UnsupportedTransferSyntaxError
from pacs.reading import Committed
from pacs.storage.model import Buffer
from pacs.transcode import Rendition

NATIVE: Final = (
    uids.EXPLICIT_VR_LITTLE_ENDIAN, uids.IMPLICIT_VR_LITTLE_ENDIAN, uids.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN
)  # fmt: skip
"""Transfer Syntaxes with native pixel data that files are rewritten in."""

LOOKED_AT: Final = (uids.EXPLICIT_VR_LITTLE_ENDIAN, uids.IMPLICIT_VR_LITTLE_ENDIAN)
"""Transfer Syntaxes of arrival in which a file may lack a File Meta Information that says so, and is given one."""


REVISION: Final = 3
"""To be raised when this program makes other bytes of the same file than before: validators contain it."""


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A file that is made while it is read."""

    pieces: Iterator[Buffer]
    length: int | None
    """Of the file, where it is known before all frames are made."""
    received: bool = False
    """Whether it is the received file, byte for byte."""


@dataclass(frozen=True, slots=True)
class Frames:
    """The frames of an instance in the form they are to be sent in."""

    rendition: Rendition
    count: int
    make: Callable[[int], Buffer]
    """Frame `number`, from 1."""
    lengths: Sequence[int] | None = None
    """Of all frames, where they are known before the frames."""
    mark: str = ""
    """Of lossy frames: differs when their samples may."""


def rewrite(source: Committed, transfer_syntax: str, frames: Frames | None) -> Rewritten:
    """The instance as a file in `transfer_syntax`.

    `frames` are those of Pixel Data that has to change its form; None where there is none, or where native pixel data
    stays native. Raises UnsupportedTransferSyntaxError or PixelError, before the first piece, when it cannot be done.
    """
    received = _received(source, transfer_syntax) if frames is None else None
    if received is not None:
        return received
    # pydicom takes long to load, and most commands do without it; a server has it loaded.
    from pacs.rewriting import file

    if transfer_syntax in NATIVE:
        return file.native(source, transfer_syntax, frames)
    if frames is None:
        name = uids.transfer_syntax(transfer_syntax).name
        raise UnsupportedTransferSyntaxError(f"{name} is for images, which this instance is none of")
    return file.encapsulated(source, transfer_syntax, frames)


def _received(source: export.Source, transfer_syntax: str) -> Rewritten | None:
    """The received file if it is in this Transfer Syntax, and says so in a File Meta Information."""
    descriptor = source.descriptor
    if descriptor.transfer_syntax != transfer_syntax or descriptor.whole_file:
        return None
    skeleton = source.skeleton()
    begins = part10.beginning(skeleton)
    if not begins.proper or begins.transfer_syntax != transfer_syntax:
        return None
    return Rewritten(export.rebuild(source, skeleton), descriptor.file_size, received=True)
