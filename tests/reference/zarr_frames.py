"""Digests of the frames of pixel arrays, read with zarr-python alone, also by a Python without this package.

    python zarr_frames.py ARCHIVE...      a line for each first, middle and last frame: archive, UID, number, digest
"""

import hashlib
import sys
from pathlib import Path

import numpy as np
import zarr


def digest(samples: np.ndarray) -> str:
    little = samples.astype(samples.dtype.newbyteorder("<"))  # the byte order in memory is nobody's promise
    described = f"{little.dtype.str} {little.shape} ".encode()
    return hashlib.sha256(described + little.tobytes()).hexdigest()


def chosen(frames: int) -> list[int]:
    """Numbers, from 0, of the frames that are compared."""
    return sorted({0, frames // 2, frames - 1})


def main(archives: list[str]) -> None:
    try:
        import imagecodecs.zarr

        imagecodecs.zarr.register_codecs()
    except (ImportError, AttributeError):
        pass  # an older imagecodecs has no such class: this package's own comes by its entry point
    for archive in archives:
        zarr.open_group(archive, mode="r")["studies"]
        for path in sorted(Path(archive, "studies").glob("*/series/*/frames-*")):
            if '"imagecodecs_htj2k"' not in (path / "zarr.json").read_text():
                continue
            array = zarr.open_array(path, mode="r")
            for uid, first, count in array.attrs["instances"]:
                for number in chosen(count):
                    print(archive, uid, number, digest(array[first + number]), sep="\t")


if __name__ == "__main__":
    main(sys.argv[1:])
