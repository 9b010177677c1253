"""What makes the directories a Zarr hierarchy: `zarr.json` of groups and arrays, and the shards' index blocks.

All of it is derived from the index and can be written again at any time; our own reading uses none of it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from pacs.storage import layout, shard, zarr_metadata
from pacs.storage.disk import Disk
from pacs.storage.model import ArrayKey, Encoding
from pacs.storage.views import Dirty, ReadView

_log = logging.getLogger(__name__)


def encode(metadata: Any) -> bytes:
    return msgspec.json.format(msgspec.json.encode(metadata), indent=2)


def archive_groups() -> Iterator[str]:
    """Relative paths of the groups that an archive has from the beginning."""
    yield from ("", layout.STUDIES)


def series_groups(study: str, series: str) -> Iterator[str]:
    """Relative paths of the groups down to a series, the study's first."""
    yield layout.study_path(study)
    yield f"{layout.study_path(study)}/series"
    yield layout.series_path(study, series)


def group_content() -> bytes:
    """`zarr.json` of a group."""
    return encode(zarr_metadata.group_metadata())


def write_groups(disk: Disk, root: layout.Root, groups: Iterable[str]) -> None:
    """Make the directories of these groups and their `zarr.json`, where they are not there or not right."""
    content = group_content()
    for group in groups:
        directory = f"{root}/{group}".rstrip("/")
        disk.mkdir(directory)
        path = f"{directory}/{layout.ZARR_JSON}"
        if read_start(path, len(content) + 1) != content:
            disk.create(path)
            disk.write(path, 0, [content])


def read_start(path: str, length: int) -> bytes | None:
    """The first bytes of a file, None when it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(length)
    except OSError:
        return None


def array_metadata(key: ArrayKey, count: int, instances: list[tuple[str, int, int]]) -> dict[str, Any]:
    """`zarr.json` of an array of `count` frames or pieces, with the instances that lie in it, in order."""
    make = (
        zarr_metadata.pixel_array_metadata
        if key.encoding is Encoding.HTJ2K
        else zarr_metadata.opaque_array_metadata
    )
    metadata = dict(make(key, count))
    attributes = dict(metadata.get("attributes", {}))
    # Arrival order alone would tell a Zarr user nothing: [SOP Instance UID, first frame, number of frames].
    attributes["instances"] = [list(instance) for instance in instances]
    metadata["attributes"] = attributes
    return metadata


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
        if not only_different or read_start(path, len(block)) != block:
            disk.write(path, 0, [block])
    path = f"{directory}/{layout.ZARR_JSON}"
    content = encode(array_metadata(state.key, state.count, list(view.array_instances(series, k))))
    if not only_different or read_start(path, len(content) + 1) != content:
        disk.replace(path, content)
