"""`imagecodecs_htj2k` for zarr-python: the class of imagecodecs where it has one, else one that reads the same.

The entry point `zarr.codecs` names `Htj2k`. Never two classes under one name: zarr would warn at every opening. This
module is for Zarr users alone; the server reads inner chunks itself.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import imagecodecs
import numpy as np
from zarr.abc.codec import ArrayBytesCodec

if TYPE_CHECKING:
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer, NDBuffer

NAME = "imagecodecs_htj2k"


@dataclass(frozen=True)
class _Htj2k(ArrayBytesCodec):
    """One frame an inner chunk, losslessly, `planar` as imagecodecs means it.

    Of the configuration of imagecodecs' own class it takes `planar`, the one that reading depends on, and keeps the
    others as they are.
    """

    is_fixed_size = False

    configuration: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        if data.get("name") != NAME:
            raise ValueError(f"expected the codec {NAME}, got {data.get('name')!r}")
        return cls(tuple((data.get("configuration") or {}).items()))

    def to_dict(self) -> dict[str, Any]:
        named: dict[str, Any] = {"name": NAME}
        if self.configuration:
            named["configuration"] = dict(self.configuration)
        return named

    @property
    def planar(self) -> bool | None:
        found = dict(self.configuration).get("planar")
        return None if found is None else bool(found)

    def _decode_sync(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        decoded = imagecodecs.htj2k_decode(bytes(chunk_bytes.to_bytes()), planar=self.planar)
        samples = decoded.reshape(chunk_spec.shape)
        return chunk_spec.prototype.nd_buffer.from_numpy_array(samples)

    def _encode_sync(self, chunk_array: NDBuffer, chunk_spec: ArraySpec) -> Buffer | None:
        samples = np.atleast_2d(np.squeeze(chunk_array.as_numpy_array()))
        encoded = imagecodecs.htj2k_encode(np.ascontiguousarray(samples), reversible=True, planar=self.planar)
        return chunk_spec.prototype.buffer.from_bytes(bytes(encoded))

    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        return await asyncio.to_thread(self._decode_sync, chunk_bytes, chunk_spec)

    async def _encode_single(self, chunk_array: NDBuffer, chunk_spec: ArraySpec) -> Buffer | None:
        return await asyncio.to_thread(self._encode_sync, chunk_array, chunk_spec)

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        raise NotImplementedError("the size of a codestream is known when it is encoded")


try:
    from imagecodecs.zarr import Htj2k
except ImportError:
    Htj2k = _Htj2k

__all__ = ["NAME", "Htj2k"]
