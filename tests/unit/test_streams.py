"""The codestreams that tests build are what they claim to be, and the plain walker reads them."""

from __future__ import annotations

import numpy as np
import pytest

from tests.reference import j2k
from tests.reference.j2k_bits import Bits, TagTree
from tests.streams import decoders, kinds, rewritten
from tests.streams.kinds import Stream
from tests.streams.packet_headers import BitWriter, TagTreeWriter, coding_passes


def assert_samples(name: str, stream: Stream) -> None:
    found = j2k.walk(stream.codestream)
    assert found.fault is None
    assert found.notes == []
    readers = [decoders.openjpeg] * ("placeholder" not in name and not name.endswith(rewritten.BEYOND_OPENJPEG))
    readers += [decoders.openjph] * (stream.ht and not name.endswith(rewritten.BEYOND_OPENJPH))
    for read in readers:
        samples = read(stream.codestream)
        assert [plane.shape for plane in samples] == [plane.shape for plane in stream.components]
        for plane, original in zip(samples, stream.components, strict=True):
            difference = np.abs(plane - original.astype(np.int64)).max()
            assert difference <= (0 if stream.lossless else 1 << (stream.precision - 4))


@pytest.mark.parametrize("name", kinds.NAMES)
def test_streams_decode_to_what_was_encoded(name: str) -> None:
    assert_samples(name, kinds.stream(name))


@pytest.mark.parametrize("name", rewritten.NAMES)
def test_rewritten_streams_decode_to_what_was_encoded(name: str) -> None:
    assert_samples(name, rewritten.stream(name))


def test_a_tag_tree_of_the_standard() -> None:
    """T.800 B.10.2, Figure B.12: 6 by 3 leaves; the bits that tell the first two and the third of the first row."""
    leaves = [[1, 3, 2, 3, 2, 3], [2, 2, 1, 4, 3, 2], [2, 2, 2, 2, 1, 2]]
    writer, bits = TagTreeWriter(3, 6, {(r, c): leaves[r][c] for r in range(3) for c in range(6)}), BitWriter()
    for column in range(3):
        writer.tell(bits, 0, column, leaves[0][column] + 1)
    spelt = "01111" + "001" + "101"
    assert bits.finish() == int(spelt.ljust(16, "0"), 2).to_bytes(2, "big")
    reader, data = TagTree(3, 6), int(spelt.ljust(16, "0"), 2).to_bytes(2, "big")
    read = Bits(data, 0, 2)
    assert [reader.value(read, 0, column) for column in range(3)] == [1, 3, 2]
    assert read.at == 2 and read.left == 16 - len(spelt)


@pytest.mark.parametrize(
    ("passes", "spelt"),
    [(1, "0"), (2, "10"), (3, "1100"), (5, "1110"), (6, "111100000"), (36, "111111110"), (37, "1111111110000000")],
)
def test_codewords_of_coding_passes(passes: int, spelt: str) -> None:
    """T.800 Table B.4"""
    bits = BitWriter()
    coding_passes(bits, passes)
    bits.number(0, -len(spelt) % 8)
    assert "".join(f"{byte:08b}" for byte in bits.finish()).startswith(spelt[:8])


def test_a_byte_of_ones_is_followed_by_a_stuffed_bit() -> None:
    """T.800 B.10.1"""
    bits = BitWriter()
    bits.number(0x1FF, 9)
    assert bits.finish() == b"\xff\x40"
    read = Bits(b"\xff\x40", 0, 2)
    assert read.number(9) == 0x1FF
    full = BitWriter()
    full.number(0xFF, 8)
    assert full.finish() == b"\xff\x00"
    assert Bits(b"\xff\x00", 0, 2).number(8) == 0xFF
