"""Any bytes whatever give the headers of a codestream or a CodestreamError, and no list grows beyond the bytes read.

    tests/fuzz/build.sh build/fuzz codestream
    tests/fuzz/run.sh build/fuzz tests/fuzz/fuzz_codestream.py --seed build/corpus-codestream
    tests/fuzz/run.sh build/fuzz tests/fuzz/fuzz_codestream.py -max_total_time=60 -max_len=4096 build/corpus-codestream
"""

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["pacs.codestream"]):
    from pacs import codestream
from pacs.errors import CodestreamError


def check(data: bytes) -> None:
    try:
        parsed = codestream.parse(data)
    except CodestreamError as error:
        assert 0 <= error.offset <= len(data)
        return
    assert 0 <= parsed.start <= parsed.start + parsed.length <= len(data)
    assert 3 * len(parsed.components) < len(data)
    assert 12 * len(parsed.tile_parts) < len(data)
    assert 2 * len(parsed.tlm) < len(data)
    for part in parsed.tile_parts:
        assert 0 < part.offset < part.data <= parsed.length
    assert list(parsed.level_ends) == sorted(parsed.level_ends)
    assert len(parsed.level_ends) in (0, parsed.decompositions + 1)
    declared = bytearray(data)
    codestream.set_precision(declared, 11, True)
    again = codestream.parse(declared)
    assert again.precision == 11 and again.signed and again.tile_parts == parsed.tile_parts
    for dropped in range(min(parsed.decompositions, 6) + 1):
        try:
            smaller = codestream.reduce(data, dropped)
        except CodestreamError:
            continue
        assert len(smaller) <= len(data) + 64
        reduced = codestream.parse(smaller)
        assert reduced.decompositions == parsed.decompositions - dropped
        assert reduced.complete and reduced.eoc


def seed(folder: Path) -> None:
    """Codestreams of both kinds and of several layouts, raw and boxed, as a corpus."""
    import imagecodecs
    import numpy as np

    folder.mkdir(parents=True, exist_ok=True)
    gray = (np.arange(40 * 50).reshape(40, 50) % 251).astype(np.uint8)
    colour = np.stack([gray, gray[::-1], gray], axis=-1)
    for name, image in (("gray", gray), ("colour", colour)):
        for parts in (None, imagecodecs.HTJ2K.TILEPART.RESOLUTIONS):
            for tile in (None, (16, 16)):
                encoded = imagecodecs.htj2k_encode(image, reversible=True, tlm=True, tilepart=parts, tile=tile)
                (folder / f"ht-{name}-{parts is None}-{tile is None}").write_bytes(encoded)
        for codec in ("J2K", "JP2"):
            encoded = imagecodecs.jpeg2k_encode(image, codecformat=codec, level=0, reversible=True)
            (folder / f"j2k-{name}-{codec}").write_bytes(encoded)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--seed"]:
        seed(Path(sys.argv[2]))
    else:
        atheris.Setup(sys.argv, check)
        atheris.Fuzz()
