"""Outside encoders: OpenJPEG's and OpenJPH's programs, and the same libraries in imagecodecs.

A test that asks for a program which is not installed is skipped, saying so; `.ci/run` installs them all.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

Samples = NDArray[np.signedinteger | np.unsignedinteger]
"""(rows, columns) of one component."""

SECONDS = 600


def _run(program: str, package: str, folder: str, args: Sequence[str]) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"no {program}: install Debian's {package}")
    result = subprocess.run(
        [program, *args], cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False, encoding="latin-1"
    )
    if result.returncode or not any(Path(folder).glob("out.*")):
        raise RuntimeError(f"{program} {' '.join(args)}\n{result.stdout}\n{result.stderr}")


def _planes(components: Sequence[Samples], precision: int, order: str) -> bytes:
    kind = "i" if components[0].dtype.kind == "i" else "u"
    dtype = np.dtype(f"{order}{kind}{1 if precision <= 8 else 2}")
    return b"".join(np.ascontiguousarray(plane, dtype).tobytes() for plane in components)


def _size(components: Sequence[Samples], sampling: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Columns and rows of the image that components of these sizes cover."""
    return (
        max(plane.shape[1] * dx for plane, (dx, _) in zip(components, sampling, strict=True)),
        max(plane.shape[0] * dy for plane, (_, dy) in zip(components, sampling, strict=True)),
    )


def openjpeg(
    components: Sequence[Samples],
    precision: int,
    options: Sequence[str] = (),
    *,
    sampling: Sequence[tuple[int, int]] | None = None,
    boxed: bool = False,
) -> bytes:
    """JPEG 2000 Part 1 by opj_compress; `options` are its own, `sampling` is (columns, rows) of each component."""
    sampling = sampling or [(1, 1)] * len(components)
    columns, rows = _size(components, sampling)
    sign = "s" if components[0].dtype.kind == "i" else "u"
    layout = ":".join(f"{dx}x{dy}" for dx, dy in sampling)
    out = "out.jp2" if boxed else "out.j2k"
    with tempfile.TemporaryDirectory() as folder:
        data = _planes(components, precision, ">")
        if len(components) == 1 and sign == "u":  # PGM takes every precision, RAW the even ones
            header = b"P5\n%d %d\n%d\n" % (columns, rows, (1 << precision) - 1)
            (Path(folder) / "in.pgm").write_bytes(header + data)
            args = ["-i", "in.pgm", "-o", out]
        else:
            (Path(folder) / "in.raw").write_bytes(data)
            args = ["-i", "in.raw", "-o", out, "-F", f"{columns},{rows},{len(components)},{precision},{sign}@{layout}"]
        _run("opj_compress", "libopenjp2-tools", folder, [*args, *options])
        return (Path(folder) / out).read_bytes()


def openjph(
    components: Sequence[Samples],
    precision: int,
    options: Sequence[str] = (),
    *,
    sampling: Sequence[tuple[int, int]] | None = None,
) -> bytes:
    """HTJ2K by ojph_compress; `options` are its own. Three components of 8 bits without `sampling` are RGB."""
    colour = len(components) == 3 and precision == 8 and sampling is None
    sampling = sampling or [(1, 1)] * len(components)
    columns, rows = _size(components, sampling)
    with tempfile.TemporaryDirectory() as folder:
        if colour:
            pixels = np.ascontiguousarray(np.stack(components, axis=-1), np.uint8).tobytes()
            (Path(folder) / "in.ppm").write_bytes(b"P6\n%d %d\n255\n" % (columns, rows) + pixels)
            args = ["-i", "in.ppm", "-o", "out.j2c"]
        else:
            (Path(folder) / "in.yuv").write_bytes(_planes(components, precision, "<"))
            args = ["-i", "in.yuv", "-o", "out.j2c", "-dims", f"{{{columns},{rows}}}"]
            args += ["-num_comps", str(len(components))]
            args += ["-signed", ",".join([str(components[0].dtype.kind == "i").lower()] * len(components))]
            args += ["-bit_depth", ",".join([str(precision)] * len(components))]
            args += ["-downsamp", ",".join(f"{{{dx},{dy}}}" for dx, dy in sampling)]
        _run("ojph_compress", "openjph-tools", folder, [*args, *options])
        return (Path(folder) / "out.j2c").read_bytes()
