"""What makes the directories a Zarr hierarchy: `zarr.json` of groups and arrays, and the shards' index blocks.

All of it is derived from the index and can be written again at any time; our own reading uses none of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from pacs.storage import layout, shard, zarr_metadata
from pacs.storage.disk import Disk
from pacs.storage.index import Dirty, ReadView
from pacs.storage.model import ArrayKey, Encoding


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


def write_groups(disk: Disk, root: layout.Root, groups: Iterable[str]) -> None:
    """Make the directories of these groups and their `zarr.json`, where they are not there or not right."""
    content = encode(zarr_metadata.group_metadata())
    for group in groups:
        directory = f"{root}/{group}".rstrip("/")
        disk.mkdir(directory)
        path = f"{directory}/{layout.ZARR_JSON}"
        if _content(path) != content:
            disk.create(path)
            disk.write(path, 0, [content])


def _content(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
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


def settle(disk: Disk, root: layout.Root, view: ReadView, dirty: Mapping[tuple[int, int], Dirty]) -> None:
    """Bring index blocks and shapes of these arrays up to what is committed. Raises OSError.

    The shape comes last: a Zarr reader that sees it finds the index blocks that it covers.
    """
    for (number, k), entry in dirty.items():
        state = view.array(number, k)
        if state is None:
            continue
        directory = f"{root}/{layout.array_path(*view.series_uids(number), k)}"
        for shard_number in sorted(entry.shards):
            block = shard.index_block(view.shard_entries(number, k, shard_number), state.key.capacity)
            disk.write(f"{directory}/{layout.shard_name(state.key, shard_number)}", 0, [block])
        instances = list(view.array_instances(number, k))
        content = encode(array_metadata(state.key, state.count, instances))
        disk.replace(f"{directory}/{layout.ZARR_JSON}", content)
