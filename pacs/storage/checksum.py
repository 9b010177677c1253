"""CRC-32C (Castagnoli), the checksum of Zarr's `crc32c` codec and of every record."""

from __future__ import annotations

import google_crc32c
import numpy as np

from pacs.storage.model import Buffer


def crc32c(data: Buffer, crc: int = 0) -> int:
    """CRC-32C of `data`, going on from `crc`.

    The library takes nothing that could be let go meanwhile, as `bytes` and arrays cannot; an array is a view.
    """
    fixed = data if isinstance(data, bytes) else np.frombuffer(data, np.uint8)
    return int(google_crc32c.extend(crc, fixed)) if crc else int(google_crc32c.value(fixed))
