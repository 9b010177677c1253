"""The `zarr.json` of groups and arrays, as plain objects: nothing here imports zarr, which takes its time.

Zarr v3 core specification; ZEP 2 (sharding). `imagecodecs_htj2k` is the name under which imagecodecs registers HTJ2K.
"""

from __future__ import annotations

from typing import Any, Final

from pacs.storage.model import ArrayKey, Encoding

FRAME_CODEC: Final = "pacs_encapsulated_frame"
"""Names the bytes of a frame in the Transfer Syntax of arrival. Nobody registers it: only this archive decodes them."""

_BYTES: Final = {"name": "bytes", "configuration": {"endian": "little"}}
_CRC32C: Final = {"name": "crc32c"}
_ZSTD: Final = {"name": "zstd", "configuration": {"level": 3, "checksum": False}}
"""The level matters to a writer alone."""


def group_metadata() -> dict[str, Any]:
    """`zarr.json` of a group."""
    return {"zarr_format": 3, "node_type": "group", "attributes": {}}


def pixel_array_metadata(key: ArrayKey, frames: int) -> dict[str, Any]:
    """`zarr.json` of a pixel array: (frames, rows, columns[, samples]), an inner chunk for each frame."""
    shape = [key.rows, key.columns]
    names = ["frame", "row", "column"]
    codec: dict[str, Any] = {"name": "imagecodecs_htj2k"}
    if key.samples_per_pixel > 1:
        shape.append(key.samples_per_pixel)
        names.append("sample")
        # Without a colour transform imagecodecs would take the components for planes, and order them so.
        codec["configuration"] = {"planar": False}
    return _sharded(key, frames, shape, key.dtype, [codec], names)


def opaque_array_metadata(key: ArrayKey, chunks: int) -> dict[str, Any]:
    """`zarr.json` of an opaque array.

    Native: (pieces, bytes of a piece), readable by any Zarr; the end of a value's last piece is padding. Encapsulated:
    one element a frame, which says no more than how many there are.
    """
    if key.encoding is Encoding.NATIVE:
        return _sharded(key, chunks, [key.chunk_bytes], "uint8", [_BYTES, _ZSTD], ["piece", "byte"])
    metadata = _sharded(key, chunks, [], "uint8", [{"name": FRAME_CODEC}], ["frame"])
    metadata["attributes"]["transfer_syntax"] = key.transfer_syntax
    return metadata


def _sharded(
    key: ArrayKey, count: int, inner: list[int], dtype: str, codecs: list[dict[str, Any]], names: list[str]
) -> dict[str, Any]:
    sharding = {
        "chunk_shape": [1, *inner],
        "codecs": [*codecs, _CRC32C],
        "index_codecs": [_BYTES, _CRC32C],
        "index_location": "start",
    }
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [count, *inner],
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [key.capacity, *inner]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": 0,
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "dimension_names": names,
        "attributes": {},
    }
