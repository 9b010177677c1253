"""Text by Specific Character Set (0008,0005): single sets, ISO 2022 code extensions, UTF-8, GB18030 (PS3.5 6.1.2).

Bytes that no named character set explains become U+FFFD: text is for reading and searching, the original file is
kept beside it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import IntEnum
from functools import lru_cache, partial
from typing import Final

Decoder = Callable[[bytes], str]


class Encoding(IntEnum):
    """What the scanner can do without a decoder; it calls one for everything else, and wherever there is an ESC."""

    LATIN_1 = 0
    UTF_8 = 1
    OTHER = 2


DEFAULT: Final = "iso8859_1"
"""ISO 646 is the default repertoire; the upper half of ISO 8859-1 is what writers mean who forget to declare it.

Not spelt like the declared ISO 8859-1: only a declared set may be the target of an escape sequence.
"""

_TERMS: Final = {
    "": DEFAULT,
    "ISO_IR 6": DEFAULT,
    "ISO_IR 13": "shift_jis",
    "ISO_IR 100": "latin_1",
    "ISO_IR 101": "iso8859_2",
    "ISO_IR 109": "iso8859_3",
    "ISO_IR 110": "iso8859_4",
    "ISO_IR 126": "iso8859_7",
    "ISO_IR 127": "iso8859_6",
    "ISO_IR 138": "iso8859_8",
    "ISO_IR 144": "iso8859_5",
    "ISO_IR 148": "iso8859_9",
    "ISO_IR 166": "tis_620",
    "ISO_IR 203": "iso8859_15",
    "ISO 2022 IR 6": DEFAULT,
    "ISO 2022 IR 13": "shift_jis",
    "ISO 2022 IR 58": "gb2312",
    "ISO 2022 IR 87": "iso2022_jp",
    "ISO 2022 IR 100": "latin_1",
    "ISO 2022 IR 101": "iso8859_2",
    "ISO 2022 IR 109": "iso8859_3",
    "ISO 2022 IR 110": "iso8859_4",
    "ISO 2022 IR 126": "iso8859_7",
    "ISO 2022 IR 127": "iso8859_6",
    "ISO 2022 IR 138": "iso8859_8",
    "ISO 2022 IR 144": "iso8859_5",
    "ISO 2022 IR 148": "iso8859_9",
    "ISO 2022 IR 149": "euc_kr",
    "ISO 2022 IR 159": "iso2022_jp_2",
    "ISO 2022 IR 166": "tis_620",
    "ISO 2022 IR 203": "iso8859_15",
    "ISO_IR 192": "utf_8",
    "GB18030": "gb18030",
    "GBK": "gbk",
    "ISO 2022 GBK": "gbk",
    "ISO 2022 58": "gb2312",
}
"""Defined terms of PS3.3 Table C.12-2 to C.12-5, and three spellings of software that preceded them."""

_ESCAPES: Final = {
    b"\x1b(B": DEFAULT,
    b"\x1b-A": "latin_1",
    b"\x1b)I": "shift_jis",
    b"\x1b(J": "shift_jis",
    b"\x1b-B": "iso8859_2",
    b"\x1b-C": "iso8859_3",
    b"\x1b-D": "iso8859_4",
    b"\x1b-F": "iso8859_7",
    b"\x1b-G": "iso8859_6",
    b"\x1b-H": "iso8859_8",
    b"\x1b-L": "iso8859_5",
    b"\x1b-M": "iso8859_9",
    b"\x1b-T": "tis_620",
    b"\x1b-b": "iso8859_15",
    b"\x1b$)C": "euc_kr",
    b"\x1b$)A": "gb2312",
    b"\x1b$B": "iso2022_jp",
    b"\x1b$(D": "iso2022_jp_2",
}
"""Escape sequences of PS3.3 Table C.12-3 and C.12-4, and the codec of what follows them."""

_KEEPS_ESCAPE: Final = frozenset(["iso2022_jp", "iso2022_jp_2"])
"""Codecs of Python that need the escape sequence to stand before the text."""

_STANDS_ALONE: Final = frozenset(["ISO_IR 192", "GB18030", "GBK"])
"""No code extensions with these. PS3.5 6.1.2.5.4"""

_KINDS: Final = {DEFAULT: Encoding.LATIN_1, "latin_1": Encoding.LATIN_1, "utf_8": Encoding.UTF_8}

_FRAGMENT: Final = re.compile(rb"^[^\x1b]+|\x1b[^\x1b]*")
_DELIMITER: Final = re.compile(rb"[\r\n\t\f]")
_MISSPELT: Final = re.compile(r"(ISO)[-_ ]*(2022)?[-_ ]*(IR)[-_ ]*([0-9]+)", re.IGNORECASE)


def _codec(term: str) -> str:
    """The codec of a defined term, also of one that is spelt almost right."""
    known = _TERMS.get(term)
    if known is not None:
        return known
    match = _MISSPELT.fullmatch(term)
    if match is not None:
        single = f"ISO_IR {match[4]}"
        extended = f"ISO 2022 IR {match[4]}"
        first, second = (extended, single) if match[2] else (single, extended)
        return _TERMS.get(first) or _TERMS.get(second) or DEFAULT
    return DEFAULT


def codecs(value: str) -> tuple[str, ...]:
    """Python's codecs for the values of (0008,0005): the first for plain bytes, the others for escape sequences."""
    terms = [term.strip() for term in value.split("\\")]
    if terms[0] in _STANDS_ALONE:
        return (_codec(terms[0]),)
    return tuple(_codec(term) for term in terms[:1] + [term for term in terms[1:] if term not in _STANDS_ALONE])


def decode(text: bytes, names: tuple[str, ...]) -> str:
    """Text with code extensions. A control character that ends a line ends them, too. PS3.5 6.1.2.5.3"""
    if b"\x1b" not in text:
        return text.decode(names[0], "replace")
    return "".join(_decode_fragment(fragment, names) for fragment in _FRAGMENT.findall(text))


def _decode_fragment(fragment: bytes, names: tuple[str, ...]) -> str:
    if not fragment.startswith(b"\x1b"):
        return fragment.decode(names[0], "replace")
    escape = fragment[: 4 if fragment[1:3] in (b"$(", b"$)") else 3]
    codec = _ESCAPES.get(escape)
    if codec is None or (codec not in names and codec != DEFAULT):
        # Not declared: what follows is read as the first set, and the escape sequence stays visible.
        return fragment.decode(names[0], "replace")
    if codec in _KEEPS_ESCAPE:
        return fragment.decode(codec, "replace")
    body = fragment[len(escape) :]
    delimiter = _DELIMITER.search(body)
    if delimiter is None:
        return body.decode(codec, "replace")
    end = delimiter.start()
    return body[:end].decode(codec, "replace") + body[end:].decode(names[0], "replace")


def repertoire(value: bytes) -> tuple[int, Decoder]:
    """How text is encoded in a Data Set whose (0008,0005) has this value: `Encoding`, and a decoder for the rest."""
    return _repertoire(value) if len(value) <= 256 else _repertoire(b"")


@lru_cache(maxsize=128)
def _repertoire(value: bytes) -> tuple[int, Decoder]:
    names = codecs(value.decode("latin_1"))
    return int(_KINDS.get(names[0], Encoding.OTHER)), partial(decode, names=names)
