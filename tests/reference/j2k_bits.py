"""How a packet header spells its numbers: stuffed bits, tag trees, codewords. T.800 B.10"""

from __future__ import annotations


class Malformed(Exception):
    """The codestream breaks the standard, or ends too early. `at` is an offset in the bytes walked."""

    def __init__(self, reason: str, at: int) -> None:
        super().__init__(f"{reason} at byte {at}")
        self.at = at


_ANY = 1 << 62
"""Above every number in a tag tree."""


class Bits:
    """Bits of a packet header, most significant first. After a byte of 0xFF the next holds 7. T.800 B.10.1"""

    def __init__(self, data: bytes, at: int, end: int) -> None:
        self.data, self.at, self.end = data, at, end
        self.left = 0
        """Bits of the byte before `at` that are not read yet."""
        self.byte = 0

    def bit(self) -> int:
        if self.left == 0:
            if self.at >= self.end:
                raise Malformed("the data ends inside a packet header", self.at)
            stuffed = self.byte == 0xFF
            self.byte = self.data[self.at]
            if stuffed and self.byte > 0x7F:
                raise Malformed("a marker inside a packet header", self.at - 1)
            self.at += 1
            self.left = 7 if stuffed else 8
        self.left -= 1
        return self.byte >> self.left & 1

    def number(self, count: int) -> int:
        value = 0
        for _ in range(count):
            value = value << 1 | self.bit()
        return value

    def finish(self) -> int:
        """Where the next byte after the header is: a header that ends in 0xFF has one more byte, stuffed."""
        if self.byte == 0xFF:
            if self.at >= self.end:
                raise Malformed("the data ends inside a packet header", self.at)
            if self.data[self.at] > 0x7F:
                raise Malformed("a marker inside a packet header", self.at - 1)
            self.at += 1
        self.left = self.byte = 0
        return self.at


class TagTree:
    """A table of small numbers, each node of the tree above it holding the least of up to four below. T.800 B.10.2

    Nodes are (level, row, column), level 0 the leaves. `at_least` is what is known of a node, `exact` those that are
    known fully. A tree is read piece by piece, over all packets of its precinct.
    """

    def __init__(self, rows: int, columns: int) -> None:
        self.levels = 1
        while max(rows, columns) > 1:
            rows, columns = (rows + 1) // 2, (columns + 1) // 2
            self.levels += 1
        self.at_least: dict[tuple[int, int, int], int] = {}
        self.exact: set[tuple[int, int, int]] = set()

    def is_below(self, bits: Bits, row: int, column: int, threshold: int) -> bool:
        """Whether the number of a leaf is below `threshold`. Reads only bits that are needed to tell."""
        least = 0
        for level in reversed(range(self.levels)):
            node = (level, row >> level, column >> level)
            least = max(least, self.at_least.get(node, 0))
            while least < threshold and node not in self.exact:
                if bits.bit():
                    self.exact.add(node)
                else:
                    least += 1
            self.at_least[node] = least
        return least < threshold

    def value(self, bits: Bits, row: int, column: int) -> int:
        """The number of a leaf. A node is only looked at once those above it are known: all bits of each in turn."""
        assert self.is_below(bits, row, column, _ANY)
        return self.at_least[0, row, column]


def coding_passes(bits: Bits) -> int:
    """The number of coding passes that a code-block adds, 1 to 164. T.800 Table B.4"""
    if not bits.bit():
        return 1
    if not bits.bit():
        return 2
    if (more := bits.number(2)) < 3:
        return 3 + more
    if (more := bits.number(5)) < 31:
        return 6 + more
    return 37 + bits.number(7)


def lblock_increment(bits: Bits) -> int:
    """By how much Lblock grows: as many ones as there are before a zero. T.800 B.10.7.1"""
    count = 0
    while bits.bit():
        count += 1
    return count


def log2(value: int) -> int:
    """The greatest power of two in `value`, rounded down."""
    return value.bit_length() - 1
