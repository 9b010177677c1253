"""Arrays in our layout, written here byte by byte, open with plain zarr-python and equal the samples."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
import zarr
import zarr.registry
import zstandard

from pacs import transcode
from pacs.geometry import FrameGeometry
from pacs.storage import zarr_codec
from pacs.storage.files import zarr_metadata
from pacs.storage.model import ArrayKey, Encoding

CASES = [("int16", 12, (40, 50)), ("uint16", 12, (1, 7)), ("uint8", 7, (40, 50)), ("uint8", 8, (30, 20, 3))]
CASES += [("int8", 5, (9, 8)), ("uint16", 16, (30, 20, 3)), ("uint8", 8, (12, 10, 4))]


def write_array(folder: Path, metadata: dict[str, Any], chunks: list[bytes]) -> None:
    """`chunks` as inner chunks of as many shards as it takes: an index block at the start, then chunk and crc32c."""
    folder.mkdir(parents=True)
    (folder / "zarr.json").write_text(json.dumps(metadata))
    capacity = metadata["chunk_grid"]["configuration"]["chunk_shape"][0]
    for number in range(-(-len(chunks) // capacity)):
        index, body = [(2**64 - 1, 2**64 - 1)] * capacity, b""
        for i, chunk in enumerate(chunks[number * capacity : (number + 1) * capacity]):
            index[i] = (16 * capacity + 4 + len(body), len(chunk) + 4)
            body += chunk + struct.pack("<I", google_crc32c.value(chunk))
        block = b"".join(struct.pack("<QQ", *entry) for entry in index)
        name = ".".join(["c", str(number), *["0"] * (len(metadata["shape"]) - 1)])
        (folder / name).write_bytes(block + struct.pack("<I", google_crc32c.value(block)) + body)


def pixel_array(folder: Path, dtype: str, stored: int, shape: tuple[int, ...], photometric: str) -> np.ndarray:
    signed = dtype[0] == "i"
    low, high = (-(1 << (stored - 1)), 1 << (stored - 1)) if signed else (0, 1 << stored)
    frames = np.random.default_rng(stored).integers(low, high, (5, *shape)).astype(dtype)
    samples = shape[2] if len(shape) == 3 else 1
    bits = 8 * frames.itemsize
    geometry = FrameGeometry(*shape[:2], samples, bits, stored, stored - 1, int(signed), 0, photometric, 5)
    # Two frames a shard, so that the array has a full shard, another and a part of one.
    key = ArrayKey(Encoding.HTJ2K, *shape[:2], samples, dtype, "", (64 << 20) // 2)
    chunks = [transcode.encode_frame(frame, geometry).codestream for frame in frames]
    write_array(folder, zarr_metadata.pixel_array_metadata(key, len(frames)), chunks)
    return frames


@pytest.fixture(scope="module")
def hierarchy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray]]:
    root = tmp_path_factory.mktemp("zarr")
    (root / "zarr.json").write_text(json.dumps(zarr_metadata.group_metadata()))
    expected = {}
    for dtype, stored, shape in CASES:
        for photometric in ("RGB", "YBR_FULL") if shape[2:] == (3,) else ("MONOCHROME2",):
            name = f"{dtype}-{stored}-{photometric}-{'x'.join(map(str, shape))}"
            expected[name] = pixel_array(root / name, dtype, stored, shape, photometric)
    return root, expected


def test_zarr_with_the_codec_of_the_entry_point(hierarchy: tuple[Path, dict[str, np.ndarray]]) -> None:
    root, expected = hierarchy
    zarr.registry.register_codec(zarr_codec.NAME, zarr_codec.Htj2k)
    group = zarr.open_group(str(root), mode="r")
    assert sorted(group.array_keys()) == sorted(expected)
    for name, frames in expected.items():
        array = group[name]
        assert array.dtype == frames.dtype and array.shape == frames.shape
        assert np.array_equal(array[:], frames) and np.array_equal(array[3], frames[3])
        names = ("frame", "row", "column", "sample")
        assert array.metadata.dimension_names == names[: frames.ndim]


def test_the_codec_writes_what_it_reads(tmp_path: Path) -> None:
    zarr.registry.register_codec(zarr_codec.NAME, zarr_codec.Htj2k)
    frames = np.random.default_rng(0).integers(0, 256, (2, 9, 11, 3)).astype(np.uint8)
    codec = zarr_codec.Htj2k.from_dict({"name": zarr_codec.NAME, "configuration": {"planar": False}})
    array = zarr.create_array(
        str(tmp_path / "a"), shape=frames.shape, chunks=(1, 9, 11, 3), dtype="uint8", serializer=codec, compressors=None
    )
    array[:] = frames
    assert np.array_equal(zarr.open_array(str(tmp_path / "a"), mode="r")[:], frames)
    with pytest.raises(ValueError, match="imagecodecs_htj2k"):
        zarr_codec.Htj2k.from_dict({"name": "other"})


READ_ALL = """
import sys, json, numpy, zarr, imagecodecs, imagecodecs.zarr
imagecodecs.zarr.register_codecs()
assert not any(name.split(".")[0] == "pacs" for name in sys.modules)
group = zarr.open_group(sys.argv[1], mode="r")
for name in group.array_keys():
    numpy.save(f"{sys.argv[2]}/{name}.npy", group[name][:])
print(zarr.__version__, imagecodecs.__version__)
"""


def other_python() -> str:
    """A Python ≥ 3.12 whose imagecodecs registers its codecs with zarr; skips, saying so, where there is none."""
    for name in (os.environ.get("PACS_ZARR_PYTHON", ""), "python3.14", "python3.13", "python3.12"):
        found = shutil.which(name) if name else None
        if found is None:
            continue
        probe = "import zarr, imagecodecs.zarr; imagecodecs.zarr.Htj2k"
        if subprocess.run([found, "-c", probe], capture_output=True, check=False, env=_clean()).returncode == 0:
            return found
    pytest.skip("no Python ≥ 3.12 with zarr and imagecodecs ≥ 2026.5.10 at hand (name one in PACS_ZARR_PYTHON)")


def _clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def test_zarr_without_our_package(hierarchy: tuple[Path, dict[str, np.ndarray]], tmp_path: Path) -> None:
    root, expected = hierarchy
    python = other_python()
    command = [python, "-c", READ_ALL, str(root), str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=_clean())
    assert run.returncode == 0, run.stderr
    for name, frames in expected.items():
        assert np.array_equal(np.load(tmp_path / f"{name}.npy"), frames), name


def test_native_pieces_need_no_codec_of_ours(tmp_path: Path) -> None:
    key = ArrayKey(Encoding.NATIVE, 0, 0, 0, "uint8", "", 4096)
    value = np.random.default_rng(0).integers(0, 4, 3 * 4096 - 100).astype(np.uint8).tobytes()
    pieces = [value[at : at + 4096].ljust(4096, b"\0") for at in range(0, len(value), 4096)]
    chunks = [zstandard.ZstdCompressor().compress(piece) for piece in pieces]
    write_array(tmp_path / "a", zarr_metadata.opaque_array_metadata(key, len(pieces)), chunks)
    array = zarr.open_array(str(tmp_path / "a"), mode="r")
    assert array[:].tobytes()[: len(value)] == value


def test_encapsulated_frames_are_named_and_no_more() -> None:
    key = ArrayKey(Encoding.ENCAPSULATED, 512, 512, 3, "", "1.2.840.10008.1.2.4.50", 512 * 512 * 3)
    metadata = zarr_metadata.opaque_array_metadata(key, 7)
    assert metadata["shape"] == [7]
    assert metadata["attributes"] == {"transfer_syntax": "1.2.840.10008.1.2.4.50"}


def test_metadata_is_made_without_zarr() -> None:
    """zarr takes a large part of a second to import, which a server does not have."""
    code = "import sys, pacs.storage.files.zarr_metadata; sys.exit('zarr' in sys.modules)"
    root = Path(zarr_metadata.__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
