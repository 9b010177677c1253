"""Wild card matching: `*` is any text, `?` any character. PS3.4 C.2.2.2.4"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from pacs.storage.index import matching
from pacs.storage.index.matching import END, KEY_TEXT, START
from pacs.storage.index.search_fields import Field, Kind
from pacs.storage.search.rules import Key, Keys, Lookup, Range, Test, TextTest, decoded

WILDCARDS: Final = re.compile(r"[*?]")


def wildcard_key(field: Field, value: str) -> Key:
    """What one value with wildcards asks for."""
    pattern = value.strip() if field.kind is Kind.EXACT else matching.fold(value.strip())
    fullmatch = re.compile(_expression(pattern), re.DOTALL).fullmatch

    def accept(text: str) -> bool:
        return fullmatch(text) is not None

    if field.kind is Kind.NAME:

        def test(values: Sequence[str]) -> bool:
            return any(accept(text) for value in values for text in matching.name_texts(value))
    else:

        def test(values: Sequence[str]) -> bool:
            return any(map(accept, values))

    if not field.trigrams:
        # Codes have few distinct values: each key is tested instead of each study.
        prefix = matching.exact_key(field, WILDCARDS.split(pattern, maxsplit=1)[0])
        return Key(test, (Range(prefix, _after(prefix), accept),))
    runs = _runs(pattern)
    proven = len(runs) == 1 and len(runs[0]) <= 3 and "?" not in pattern
    lookups = tuple(lookup for run in runs for lookup in run_lookups(field, run))
    begin = matching.exact_key(field, pattern[:-1])
    values = None
    # A question mark there would be of a character that has no place in a key.
    if not proven and pattern[-1] == "*" and b"?" not in begin and b"*" not in begin and len(begin) < KEY_TEXT:
        values = Range(begin, _after(begin))
    return Key(test, lookups, proven, values, _within_text(field, pattern, test))


def _within_text(field: Field, pattern: str, test: Test) -> TextTest:
    """For `x*`, `*x` and `*x*`: looks for x where a value, or a component group of a name, may begin or end. Other
    patterns are tested where all their literal texts are."""
    slow = decoded(test)
    try:
        literals = [part.encode() for part in WILDCARDS.split(pattern) if part]
    except UnicodeEncodeError:
        return slow
    if len(literals) != 1 or "?" in pattern or not (pattern[0] == "*" or pattern[-1] == "*"):
        whole = pattern[0] == pattern[-1] == "*" and "?" not in pattern
        return lambda text: _in_order(text, literals) and ((whole and b"\0" not in text) or slow(text))
    (wanted,) = literals
    if pattern[0] == pattern[-1]:
        return lambda text: wanted in text
    borders = (b"\0", b"=") if field.kind is Kind.NAME and b"=" not in wanted else (b"\0",)
    if pattern[0] == "*":
        ends = tuple(wanted + border for border in borders)
        return lambda text: text.endswith(wanted) or any(end in text for end in ends)
    begins = tuple(border + wanted for border in borders)
    return lambda text: text.startswith(wanted) or any(begin in text for begin in begins)


def _in_order(text: bytes, literals: Iterable[bytes]) -> bool:
    at = 0
    for literal in literals:
        at = text.find(literal, at)
        if at < 0:
            return False
        at += len(literal)
    return True


def _expression(pattern: str) -> str:
    """A regular expression that takes each text between `*` where it first appears, and never tries another place:
    plain `.*` would let a client's pattern run for years."""
    first, *rest = ("".join("." if char == "?" else re.escape(char) for char in part) for part in pattern.split("*"))
    if not rest:
        return first
    return first + "".join(f"(?>.*?{part})" for part in rest[:-1] if part) + ".*" + rest[-1]


def _runs(pattern: str) -> list[str]:
    """The literal texts between wildcards; the first and last with START and END where they are anchored."""
    runs = WILDCARDS.split(f"{START}{pattern}{END}")
    runs[-1] += END if len(runs[-1]) > 1 else ""
    return [run for run in runs if run.strip(START + END)]


def run_lookups(field: Field, run: str) -> list[Lookup]:
    """All of them nominate the studies in which a text has this run of characters."""
    if len(run) < 3:
        prefix = matching.trigram_key(field, run)
        return [Range(prefix, _after(prefix))]
    return [Keys((matching.trigram_key(field, run[i : i + 3]),)) for i in range(len(run) - 2)]


def _after(prefix: bytes) -> bytes:
    """The smallest key greater than all that begin with `prefix` (which never ends in FF: it is UTF-8 or a code)."""
    return prefix[:-1] + bytes((prefix[-1] + 1,))
