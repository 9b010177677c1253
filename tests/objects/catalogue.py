"""Everything that is built here, by kind."""

from __future__ import annotations

from collections.abc import Iterator

from tests.objects import fragmentation, images, instances
from tests.objects.base import Built


def everything() -> Iterator[Built]:
    """Each object once; every one is to be accepted."""
    yield from images.natives()
    yield from images.compressions()
    yield images.slide()
    yield from instances.instances()
    yield from fragmentation.fragmentations()
    yield from fragmentation.mislabelled()
    yield from fragmentation.unknown()
