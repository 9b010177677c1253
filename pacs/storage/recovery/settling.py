"""Bringing index blocks of shards and shapes of arrays up to what is committed.

All of it is derived from the index and can be written again at any time; our own reading uses none of it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping

from pacs.storage import layout
from pacs.storage.disk import Disk
from pacs.storage.files import hierarchy, shard
from pacs.storage.index import ReadView
from pacs.storage.index.rows import Dirty

_log = logging.getLogger(__name__)


def settle(disk: Disk, root: layout.Root, view: ReadView, dirty: Mapping[tuple[int, int], Dirty]) -> bool:
    """Bring index blocks and shapes of these arrays up to what is committed; whether all of them could be.

    A shard that is missing or a disk that is full must not keep an archive from being read: it is logged, and tried
    again at the next open.
    """
    everything = True
    for (number, k), entry in dirty.items():
        try:
            settle_array(disk, root, view, number, k, sorted(entry.shards))
        except OSError as error:
            _log.error("%s: index blocks and shape will be written later: %s", error.filename, error.strerror)
            everything = False
    return everything


def settle_array(
    disk: Disk, root: layout.Root, view: ReadView, series: int, k: int, shards: Iterable[int],
    *, only_different: bool = False,
) -> None:  # fmt: skip
    """Write index blocks of these shards, then `zarr.json`. Raises OSError.

    The shape comes last: a Zarr reader that sees it finds the index blocks that it covers.
    """
    state = view.array(series, k)
    if state is None:
        return
    directory = f"{root}/{layout.array_path(*view.series_uids(series), k)}"
    for number in shards:
        path = f"{directory}/{layout.shard_name(state.key, number)}"
        entries = view.shard_entries(series, k, number)
        if not entries and not os.path.lexists(path):
            continue  # all that it held was left out: to a Zarr reader a shard that is missing is one without chunks
        block = shard.index_block(entries, state.key.capacity)
        if not only_different or hierarchy.read_start(path, len(block)) != block:
            disk.write(path, 0, [block])
    path = f"{directory}/{layout.ZARR_JSON}"
    content = hierarchy.encode(hierarchy.array_metadata(state.key, state.count, list(view.array_instances(series, k))))
    if not only_different or hierarchy.read_start(path, len(content) + 1) != content:
        disk.replace(path, content)
