"""Which rung shows frames for the fewest bytes: a level of 128 pixels costs a CT more than its whole size at 38 dB, a
radiograph or a colour photograph at times much less."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from pacs.client import frames
from pacs.client.index import IndexedFrame
from pacs.client.rungs import Rung
from pacs.client.series import NO_SUCH_RESOURCE
from pacs.client.transport import Transport
from pacs.errors import PacsError, RemoteError, UnreachableError

SMALL: Final = Rung("pixels", 128)
FULL_SIZE: Final = Rung("quality", 38)
_SAMPLES: Final = 4
_WORTH: Final = 2
"""A level must be so much cheaper, because for its bytes it shows least. docs/decisions/plans-for-links.md"""


def has_levels(frame: IndexedFrame) -> bool:
    """Whether a part of the frame as it is stored is an image."""
    return frame.length is not None and len(frame.sizes) > 1


async def cheapest(transport: Transport, base: str, of: Sequence[IndexedFrame]) -> Rung:
    """The rung to show frames of a series at, found by asking how long some of them would be. Raises
    UnreachableError."""
    sized = [frame for frame in of if has_levels(frame)]
    count = min(_SAMPLES, len(sized))
    samples = [sized[(2 * number + 1) * len(sized) // (2 * count)] for number in range(count)]
    found = await asyncio.gather(*(_length(transport, base, frame) for frame in samples))
    level = lossy = 0
    for frame, length in zip(samples, found, strict=True):
        if length:
            level += frame.ends[SMALL.level(frame.sizes)]
            lossy += length
    return SMALL if level * _WORTH < lossy else FULL_SIZE


async def _length(transport: Transport, base: str, frame: IndexedFrame) -> int:
    """Bytes of a frame in full size; 0 when it cannot be had."""
    try:
        return await frames.length_alone(transport, base, frame, FULL_SIZE)
    except UnreachableError:
        raise
    except RemoteError as error:
        return frame.length or 0 if error.status in NO_SUCH_RESOURCE else 0
    except PacsError:
        return 0
