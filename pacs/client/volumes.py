"""Arrays on disk that are written frame by frame: `.npy` files and Zarr arrays, in memory that does not depend on
their size."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from pacs.client.saving import PARTIAL


class Volume(Protocol):
    """An array (frames, rows, columns[, samples]) that has no name of its own until it is finished."""

    def write(self, number: int, frame: NDArray[Any]) -> None:
        """Put a frame at its place, counted from 0."""

    def sync(self) -> None:
        """What was written is on disk when this returns."""

    def blank(self, number: int) -> None:
        """Leave the place of a frame empty: NaN where samples are floating, else 0."""

    def finish(self, path: Path, attributes: Mapping[str, Any]) -> None:
        """Give the array its name, in place of what is there under it."""

    def close(self) -> None:
        """Keep what is there for another run."""


class NpyVolume:
    """A `.npy` file. numpy's NEP 1"""

    suffix = ".npy"

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], *, resume: bool) -> None:
        self._partial = path.with_name(path.name + PARTIAL)
        head = io.BytesIO()
        dtype = dtype.newbyteorder("<")
        npy.write_array_header_2_0(
            head, {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        )  # fmt: skip
        self._start = head.tell()
        self._dtype = dtype
        self._shape = shape[1:]
        self._bytes = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
        flags = os.O_RDWR | os.O_CREAT | (0 if resume else os.O_TRUNC)
        self._descriptor = os.open(self._partial, flags, 0o666)
        os.pwrite(self._descriptor, head.getvalue(), 0)
        os.ftruncate(self._descriptor, self._start + self._bytes * shape[0])

    @staticmethod
    def there(path: Path) -> bool:
        """Whether an earlier run began the file."""
        return path.with_name(path.name + PARTIAL).is_file()

    @staticmethod
    def take_up(path: Path, source: Path) -> None:
        """Make the finished array at `source` one that is begun again, to be at `path` in the end."""
        source.replace(path.with_name(path.name + PARTIAL))

    def write(self, number: int, frame: NDArray[Any]) -> None:
        _check(frame, self._shape)
        data = np.ascontiguousarray(frame, self._dtype).data.cast("B")
        position = self._start + number * self._bytes
        while data:
            written = os.pwrite(self._descriptor, data, position)
            data, position = data[written:], position + written

    def sync(self) -> None:
        os.fsync(self._descriptor)

    def blank(self, number: int) -> None:
        self.write(number, _blank(self._shape, self._dtype))

    def finish(self, path: Path, attributes: Mapping[str, Any]) -> None:
        self.sync()
        self.close()
        self._partial.replace(path)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class ZarrVolume:
    """A Zarr v3 array, one frame a chunk."""

    suffix = ".zarr"

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], *, resume: bool) -> None:
        import zarr

        self._partial = path.with_name(path.name + PARTIAL)
        self._shape = shape[1:]
        self._unsynced: list[int] = []
        if not resume:
            shutil.rmtree(self._partial, ignore_errors=True)
        names = ("frame", "row", "column", "sample")[: len(shape)]
        self._array: Any = (
            zarr.open_array(str(self._partial), mode="r+")
            if resume
            else zarr.create_array(
                str(self._partial), shape=shape, chunks=(1, *shape[1:]), dtype=dtype, dimension_names=names,
                zarr_format=3, config={"write_empty_chunks": True},
            )
        )  # fmt: skip

    @staticmethod
    def there(path: Path) -> bool:
        """Whether an earlier run began the array."""
        return (path.with_name(path.name + PARTIAL) / "zarr.json").is_file()

    @staticmethod
    def take_up(path: Path, source: Path) -> None:
        """As `NpyVolume.take_up`."""
        partial = path.with_name(path.name + PARTIAL)
        shutil.rmtree(partial, ignore_errors=True)
        source.replace(partial)

    def write(self, number: int, frame: NDArray[Any]) -> None:
        _check(frame, self._shape)
        self._array[number] = frame
        self._unsynced.append(number)

    def sync(self) -> None:
        for number in self._unsynced:
            chunk = self._partial / "c" / str(number) / "/".join("0" * len(self._shape))
            # A chunk of the fill value alone may have no file.
            if chunk.is_file():
                _fsync(chunk)
        self._unsynced.clear()

    def blank(self, number: int) -> None:
        self.write(number, _blank(self._shape, self._array.dtype))

    def finish(self, path: Path, attributes: Mapping[str, Any]) -> None:
        # Those of an earlier run that it was finished by are gone.
        self._array.attrs.put(dict(attributes))
        self.sync()
        _fsync(self._partial / "zarr.json")
        shutil.rmtree(path, ignore_errors=True)
        self._partial.replace(path)

    def close(self) -> None:
        """Nothing is open."""


def remove(path: Path) -> None:
    """Remove an array, or another file, if it is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _blank(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    return np.full(shape, np.nan if dtype.kind == "f" else 0, dtype)


def _check(frame: NDArray[Any], shape: tuple[int, ...]) -> None:
    if frame.shape != shape:
        raise ValueError(f"a frame {frame.shape} for an array of {shape}")


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
