"""CRC-32C (Castagnoli), the checksum of Zarr's `crc32c` codec and of every record."""

from __future__ import annotations

import google_crc32c

from pacs.storage.model import Buffer

_PIECE = 1 << 20


def crc32c(data: Buffer, crc: int = 0) -> int:
    """CRC-32C of `data`, going on from `crc`.

    The library takes `bytes` only, so other buffers are copied in pieces: a mapped file of any size stays on disk.
    """
    if isinstance(data, bytes):
        return int(google_crc32c.extend(crc, data)) if crc else int(google_crc32c.value(data))
    view = memoryview(data).cast("B")
    for start in range(0, len(view), _PIECE):
        crc = int(google_crc32c.extend(crc, bytes(view[start : start + _PIECE])))
    return crc
