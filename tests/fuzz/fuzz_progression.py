"""Any bytes whatever give the packets of a codestream or a CodestreamError, and what is made of them can be read again.

    tests/fuzz/build.sh build/fuzz codestream coding progression rewrite kept_packets
    tests/fuzz/run.sh build/fuzz tests/fuzz/fuzz_progression.py --seed build/corpus-packets
    tests/fuzz/run.sh build/fuzz tests/fuzz/fuzz_progression.py -max_total_time=60 -max_len=8192 build/corpus-packets
"""

import contextlib
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["pacs.codestream", "pacs.progression"]):
    from pacs import codestream, progression
from pacs.errors import CodestreamError


def check(data: bytes) -> None:
    try:
        found = progression.index(data)
    except CodestreamError as error:
        assert 0 <= error.offset <= len(data)
        return
    assert len(found.packets) <= len(data)
    for packet in found.packets:
        source = found.packed_headers if packet.packed else data
        assert 0 < packet.header_length <= packet.header_offset + packet.header_length <= len(source)
        assert packet.body_offset + packet.body_length <= len(data)
    reordered = progression.reorder(data)
    again = progression.index(reordered)
    assert len(again.packets) == len(found.packets) and again.lengths_agree in (True, None)
    assert codestream.parse(reordered).complete
    with contextlib.suppress(CodestreamError):
        whole = progression.cut(data)
        assert progression.reorder(whole) == reordered
        half = progression.cut(data, most_bytes=len(whole) // 2)
        assert len(half) <= len(whole) // 2
        progression.index(half)
    with contextlib.suppress(CodestreamError):
        progression.index(progression.cut(data, levels_dropped=1, layers=1))
    with contextlib.suppress(CodestreamError, ValueError):
        part = progression.region(data, progression.Rectangle(data[-1] & 31, data[-2] & 31, 5, 9), data[-3] & 1)
        progression.index(part)


def seed(folder: Path) -> None:
    """Codestreams of every kind and layout that the tests know, as a corpus."""
    sys.path.append(str(Path(__file__).resolve().parents[2]))
    from tests.streams import invented, kinds, rewritten

    folder.mkdir(parents=True, exist_ok=True)
    streams = {name: kinds.stream(name).codestream for name in kinds.NAMES}
    streams |= {name: rewritten.stream(name).codestream for name in rewritten.NAMES}
    streams |= {f"invented {number}": invented.codestream(number) for number in range(200)}
    for name, encoded in streams.items():
        if len(encoded) <= 8192:
            (folder / name.replace(" ", "-").replace(":", "")).write_bytes(encoded)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--seed"]:
        seed(Path(sys.argv[2]))
    else:
        atheris.Setup(sys.argv, check)
        atheris.Fuzz()
