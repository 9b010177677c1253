"""`last-commit`: what the newest batch was about to change, so that a batch cut short can be finished or taken back.

    slot 0 at 0, slot 1 at 65,536    magic 8 | payload length u32 | crc32c of the payload u32 | payload
    settled at 131,072               sequence u64 | crc32c of it u32

The payload is a msgpack array [sequence, [[Study Instance UID, Series Instance UID], …], [[n, k], …], found]: the logs
that the batch grows, the arrays that it makes, `frames-<k>` of the n-th of these series, and whether it is no batch. A
batch writes the slot of its sequence's parity before it touches a log, so a torn write leaves the slot before it. The
file has its full length from the beginning: writing it needs no new space on a full disk.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence

import msgspec

from pacs.storage import layout
from pacs.storage.checksum import crc32c
from pacs.storage.disk import Disk

SLOT = 64 << 10
LARGEST_BATCH = 256
"""Instances, so that the UIDs of their series fit a slot."""
_MAGIC = b"PACSLAST"
_HEAD = struct.Struct("<8sII")
_SETTLED = struct.Struct("<QI")
_LENGTH = 2 * SLOT + _SETTLED.size
_USUAL = 4096


class LastCommitState(msgspec.Struct, array_like=True):
    """A slot. `sequence` 0: nothing was ever committed."""

    sequence: int = 0
    series: list[tuple[str, str]] = []
    arrays: list[tuple[int, int]] = []
    """(place in `series`, k) of the arrays that the batch makes: none of these names was taken before it."""
    found: bool = False
    """No batch, but what an opening found behind the ends of logs: it may have been answered."""

    @property
    def made(self) -> list[tuple[str, str, int]]:
        """(study, series, k) of these."""
        return [(*self.series[place], k) for place, k in self.arrays if place < len(self.series)]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(LastCommitState).decode


class LastCommit:
    """Reads and writes the file. Only under the writer's lock."""

    def __init__(self, root: layout.Root, disk: Disk) -> None:
        self.path = f"{root}/{layout.LAST_COMMIT}"
        self._disk = disk

    def create(self) -> None:
        self._disk.create(self.path)
        self._disk.write(self.path, 0, [bytes(_LENGTH)])

    def renew(self, sequence: int, settled: int) -> None:
        """A new file in its place, or the old one when it cannot be written."""
        content = bytearray(_LENGTH)
        for offset, data in (*_slots_up_to(sequence), (2 * SLOT, _packed(settled))):
            content[offset : offset + len(data)] = data
        self._disk.replace(self.path, bytes(content))

    @property
    def whole(self) -> bool:
        """Whether the file is there, and as long as it should be."""
        try:
            return os.stat(self.path).st_size == _LENGTH
        except FileNotFoundError:
            return False

    @property
    def complete(self) -> bool:
        """Whether both slots can be read, and are of two commits in a row: no slot of a newer one is lost."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            even, odd = _read_slot(descriptor, 0).sequence, _read_slot(descriptor, SLOT).sequence
        finally:
            os.close(descriptor)
        return min(even, odd) > 0 and abs(even - odd) == 1

    def read(self) -> tuple[LastCommitState, int]:
        """(the newer of the two slots, the last sequence whose index blocks and shapes were written)."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return LastCommitState(), 0
        try:
            slots = [_read_slot(descriptor, 0), _read_slot(descriptor, SLOT)]
            settled = os.pread(descriptor, _SETTLED.size, 2 * SLOT)
        finally:
            os.close(descriptor)
        newest = max(slots, key=lambda slot: slot.sequence)
        if len(settled) == _SETTLED.size:
            sequence, crc = _SETTLED.unpack(settled)
            if crc == crc32c(settled[:8]):
                return newest, sequence
        return newest, 0

    def write(
        self, sequence: int, series: Sequence[tuple[str, str]], arrays: Sequence[tuple[int, int]] = (), *,
        found: bool = False,
    ) -> None:  # fmt: skip
        self._disk.write(self.path, SLOT * (sequence % 2), [_slot(sequence, series, arrays, found)])

    def stand_at(self, sequence: int) -> None:
        """Say in both slots that `sequence` is the newest commit, and that nothing of it is going on."""
        for offset, data in _slots_up_to(sequence):
            self._disk.write(self.path, offset, [data])

    def erase(self, sequence: int) -> None:
        """Take back `write`: the batch before is the newest again."""
        self._disk.write(self.path, SLOT * (sequence % 2), [bytes(_HEAD.size)])

    def settle(self, sequence: int) -> None:
        """Note that the index blocks and shapes of the batches up to `sequence` have been written."""
        self._disk.write(self.path, 2 * SLOT, [_packed(sequence)])


def _slot(
    sequence: int, series: Sequence[tuple[str, str]], arrays: Sequence[tuple[int, int]] = (), found: bool = False
) -> bytes:
    payload = _encode(LastCommitState(sequence, list(series), list(arrays), found))
    if _HEAD.size + len(payload) > SLOT:
        raise ValueError(f"{len(series)} series do not fit a slot")
    return _HEAD.pack(_MAGIC, len(payload), crc32c(payload)) + payload


def _slots_up_to(sequence: int) -> list[tuple[int, bytes]]:
    """(offset, content) of the slots of a commit and of the one before it, which are `complete`."""
    return [(SLOT * (each % 2), _slot(each, [])) for each in (sequence - 1, sequence) if each > 0]


def _packed(settled: int) -> bytes:
    return _SETTLED.pack(settled, crc32c(struct.pack("<Q", settled)))


def _read_slot(descriptor: int, offset: int) -> LastCommitState:
    data = os.pread(descriptor, _USUAL, offset)
    if len(data) < _HEAD.size:
        return LastCommitState()
    magic, length, crc = _HEAD.unpack_from(data)
    if magic != _MAGIC or length > SLOT - _HEAD.size:
        return LastCommitState()
    payload = data[_HEAD.size : _HEAD.size + length]
    if len(payload) < length:
        payload += os.pread(descriptor, length - len(payload), offset + len(data))
    if len(payload) != length or crc32c(payload) != crc:
        return LastCommitState()
    try:
        return _decode(payload)
    except msgspec.DecodeError:
        return LastCommitState()


def flaws(path: str) -> list[tuple[bool, str]]:
    """(whether it is damage for certain, what it is) of what `read` passes over. Raises OSError.

    A crash tears a slot that is not the newest, and what a longer payload left behind a shorter one says nothing.
    """
    found = []
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        for parity, name in enumerate(("even", "odd")):
            head = os.pread(file.fileno(), _HEAD.size, SLOT * parity)
            if any(head) and not _read_slot(file.fileno(), SLOT * parity).sequence:
                found.append((False, f"its slot of {name} commits was torn by a crash, or is damaged"))
        settled = os.pread(file.fileno(), _SETTLED.size, 2 * SLOT)
    whole = 2 * SLOT + _SETTLED.size
    if size != whole:
        found.append((size < whole, f"has {size} bytes instead of {whole}"))
    if len(settled) == _SETTLED.size and any(settled) and _SETTLED.unpack(settled)[1] != crc32c(settled[:8]):
        found.append((True, "how far index blocks and shapes were written does not match its checksum"))
    return found
