"""Outside decoders: the samples of a codestream by OpenJPEG and by OpenJPH, one (rows, columns) array a component.

The libraries of imagecodecs are used where they give components as they are, the programs where some are subsampled.
"""

from __future__ import annotations

import re
import struct
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

SECONDS = 600


def _pgx(path: Path) -> NDArray[np.int64]:
    data = path.read_bytes()
    header = re.match(rb"PG (ML|LM)\s+([+-]?)\s*(\d+)\s+(\d+)\s+(\d+)\s", data)
    assert header, data[:40]
    precision, columns, rows = (int(group) for group in header.groups()[2:])
    kind = "i" if header[2] == b"-" else "u"
    order = ">" if header[1] == b"ML" else "<"
    width = 1 if precision <= 8 else 2 if precision <= 16 else 4
    return np.frombuffer(data, f"{order}{kind}{width}", offset=header.end()).reshape(rows, columns).astype(np.int64)


def openjpeg(codestream: bytes, levels_dropped: int = 0, layers: int = 0) -> list[NDArray[np.int64]]:
    """Samples of every component by opj_decompress. `layers` 0 is all of them."""
    sizes = _subsampling(codestream)
    if len(sizes) == 3 and sizes[1] != (1, 1):  # it would turn them into RGB
        return [_openjpeg(codestream, levels_dropped, layers, ["-c", str(i)])[0] for i in range(3)]
    return _openjpeg(codestream, levels_dropped, layers, [])


def _subsampling(codestream: bytes) -> list[tuple[int, int]]:
    siz = codestream.index(b"\xff\x4f\xff\x51") + 2
    count = int.from_bytes(codestream[siz + 38 : siz + 40], "big")
    return [(codestream[siz + 41 + 3 * i], codestream[siz + 42 + 3 * i]) for i in range(count)]


def _openjpeg(codestream: bytes, levels_dropped: int, layers: int, args: list[str]) -> list[NDArray[np.int64]]:
    name = "in.jp2" if codestream[4:8] == b"jP  " else "in.j2k"
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name).write_bytes(codestream)
        command = ["opj_decompress", "-i", name, "-o", "out.pgx", "-r", str(levels_dropped), *args]
        command += ["-l", str(layers)] if layers else []
        try:
            result = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False, encoding="latin-1"
            )
        except FileNotFoundError:
            pytest.skip("no opj_decompress: install Debian's libopenjp2-tools")
        found = sorted(Path(folder).glob("out_*.pgx"), key=lambda path: int(path.stem[4:]))
        if result.returncode or not found:
            raise ValueError(f"opj_decompress: {result.stdout[-600:]} {result.stderr[-600:]}")
        return [_pgx(path) for path in found]


def openjph(codestream: bytes, levels_dropped: int = 0, *, resilient: bool = False) -> list[NDArray[np.int64]]:
    """Samples of every component by OpenJPH."""
    import imagecodecs

    if any(pair != (1, 1) for pair in _subsampling(codestream)):
        return _ojph_expand(codestream, levels_dropped)
    samples = imagecodecs.htj2k_decode(
        codestream, skipres=levels_dropped or None, planar=True, resilient=resilient
    ).astype(np.int64)
    return [samples] if samples.ndim == 2 else list(samples)


def _ojph_expand(codestream: bytes, levels_dropped: int) -> list[NDArray[np.int64]]:
    """Subsampled components of up to 16 bits, unsigned. Their sizes follow T.800 B-2 (dropped levels: B-14)."""
    siz = codestream.index(b"\xff\x4f\xff\x51") + 2
    columns1, rows1, columns0, rows0 = struct.unpack(">4I", codestream[siz + 6 : siz + 22])
    kind = "u1" if codestream[siz + 40] < 8 else "<u2"
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "in.j2c").write_bytes(codestream)
        command = ["ojph_expand", "-i", "in.j2c", "-o", "out.yuv", "-skip_res", str(levels_dropped)]
        try:
            result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False)
        except FileNotFoundError:
            pytest.skip("no ojph_expand: install Debian's openjph-tools")
        if result.returncode:
            raise ValueError(f"ojph_expand: {result.stdout} {result.stderr}")
        samples = np.fromfile(Path(folder) / "out.yuv", kind).astype(np.int64)
    out = []
    for dx, dy in _subsampling(codestream):
        columns = _level(columns1, dx, levels_dropped) - _level(columns0, dx, levels_dropped)
        rows = _level(rows1, dy, levels_dropped) - _level(rows0, dy, levels_dropped)
        out.append(samples[: rows * columns].reshape(rows, columns))
        samples = samples[rows * columns :]
    return out


def _level(edge: int, separation: int, levels_dropped: int) -> int:
    """Where an edge of the reference grid lies in a component, `levels_dropped` levels down."""
    return -((-edge // separation) >> levels_dropped)
