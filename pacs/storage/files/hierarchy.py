"""What makes the directories a Zarr hierarchy: `zarr.json` of groups and arrays. Our own reading uses none of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from pacs.storage import layout
from pacs.storage.disk import Disk
from pacs.storage.files import zarr_metadata
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
    make = zarr_metadata.pixel_array_metadata if key.encoding is Encoding.HTJ2K else zarr_metadata.opaque_array_metadata
    metadata = dict(make(key, count))
    attributes = dict(metadata.get("attributes", {}))
    # Arrival order alone would tell a Zarr user nothing: [SOP Instance UID, first frame, number of frames].
    attributes["instances"] = [list(instance) for instance in instances]
    metadata["attributes"] = attributes
    return metadata
