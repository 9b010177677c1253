"""A DICOMweb server from the other side: store, search, metadata, frames, and series that sharpen while they load.

`Client` for programs without asyncio, `AsyncClient` for those with it. docs/client.md has examples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pacs.client.asynchronous import AsyncClient
    from pacs.client.frames import StoredFrame
    from pacs.client.index import IndexedFrame, SeriesIndex
    from pacs.client.patience import Patience
    from pacs.client.rungs import Rung
    from pacs.client.synchronous import Client
    from pacs.client.views import FrameView

__all__ = [
    "AsyncClient",
    "Client",
    "FrameView",
    "IndexedFrame",
    "Patience",
    "Rung",
    "SeriesIndex",
    "StoredFrame",
]

_HOMES = {
    "AsyncClient": "asynchronous",
    "Client": "synchronous",
    "FrameView": "views",
    "IndexedFrame": "index",
    "Patience": "patience",
    "Rung": "rungs",
    "SeriesIndex": "index",
    "StoredFrame": "frames",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for: `pacs import` uses this package without any of HTTP."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
