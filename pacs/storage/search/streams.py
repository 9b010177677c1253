"""Studies nominated by postings, as streams of sort keys in answer order that skip ahead by seeking in LMDB.

Walking a list costs a fifth of a microsecond a key, seeking in it one or two: lists are walked in blocks, and sought
in where their keys lie far apart.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Final, Protocol

import lmdb

from pacs.storage.index.matching import COUNT, SORT_KEY
from pacs.storage.search.rules import Days, Keys, Lookup, Range, Rule

LISTS: Final = 4000
"""Lists that one union reads side by side; a range over more is tested study by study instead."""
VALUES: Final = 256
"""Values of a text that are rather looked up one by one than found by their trigrams and tested."""
GATHERED: Final = 4000
"""Postings of a union that are rather sorted in memory than merged."""
FIRST: Final = b"\x00" * SORT_KEY
_FIRST_BLOCK: Final = 128
_LARGEST_BLOCK: Final = 4096
_WALKED: Final = 2
"""Keys of a list that are rather read one after the other than one is sought."""


def successor(at: bytes) -> bytes:
    """The next possible sort key."""
    return (int.from_bytes(at, "big") + 1).to_bytes(SORT_KEY, "big")


class Stream(Protocol):
    """Ascending sort keys. It is either walked or asked; `seek` and `among` are called with ascending keys only."""

    def seek(self, at: bytes) -> bytes | None:
        """The first sort key that is not below `at`."""

    def walk(self, at: bytes = FIRST) -> Iterator[bytes]:
        """All sort keys from the first on that is not below `at`. Ends an earlier walk."""

    def among(self, keys: Sequence[bytes]) -> Sequence[bytes]:
        """Those of some studies' sort keys, ascending, that are here."""

    def size(self) -> int:
        """How many there are, or an upper bound of it."""

    def exact(self) -> int | None:
        """How many there are, where that is known without a walk."""

    def at_least(self) -> int:
        """How many there are for certain."""


class Postings:
    """The duplicates of one key."""

    def __init__(self, cursor: lmdb.Cursor, key: bytes) -> None:
        self._cursor = cursor
        self._key = key
        self._size = cursor.count() if cursor.set_key(key) else 0
        self._dense = False
        """Whether many keys lie between those that are asked for."""

    def seek(self, at: bytes) -> bytes | None:
        cursor = self._cursor
        return bytes(cursor.value()) if self._size and cursor.set_range_dup(self._key, at) else None

    def walk(self, at: bytes = FIRST) -> Iterator[bytes]:
        cursor = self._cursor
        if not self._size or not cursor.set_range_dup(self._key, at):
            return iter(())
        return map(bytes, cursor.iternext_dup(keys=False, values=True))

    def among(self, keys: Sequence[bytes]) -> Sequence[bytes]:
        cursor, own = self._cursor, self._key
        if self._dense:
            return [key for key in keys if cursor.set_key_dup(own, key)]
        near = list(islice(self.walk(keys[0]), _WALKED * len(keys)))
        here = set(near)
        found = [key for key in keys if key in here]
        if len(near) == _WALKED * len(keys):
            self._dense = near[-1] < keys[-1]
            found += (key for key in keys[bisect_left(keys, successor(near[-1])) :] if cursor.set_key_dup(own, key))
        return found

    def size(self) -> int:
        return self._size

    def exact(self) -> int | None:
        return self._size

    def at_least(self) -> int:
        return self._size


class Order:
    """The sort keys of all studies from `low` to `high` (not included)."""

    def __init__(self, cursor: lmdb.Cursor, entries: int, low: bytes = FIRST, high: bytes | None = None) -> None:
        self._cursor = cursor
        self._entries = entries
        self._low = low
        self._high = high

    def seek(self, at: bytes) -> bytes | None:
        if not self._cursor.set_range(max(at, self._low)):
            return None
        found = bytes(self._cursor.key())
        return found if self._high is None or found < self._high else None

    def after(self, skipped: int, days: lmdb.Cursor) -> Iterator[bytes]:
        """All sort keys but the first `skipped` ones of all studies: `days` tells where the next one lies."""
        left = skipped
        for day, count in days:
            here = COUNT.unpack(count)[0]
            if left < here:
                return islice(self.walk(bytes(day).ljust(SORT_KEY, b"\0")), left, None)
            left -= here
        return iter(())

    def walk(self, at: bytes = FIRST) -> Iterator[bytes]:
        if not self._cursor.set_range(max(at, self._low)):
            return iter(())
        keys = map(bytes, self._cursor.iternext(keys=True, values=False))
        return keys if self._high is None else _below(keys, self._high)

    def among(self, keys: Sequence[bytes]) -> Sequence[bytes]:
        end = len(keys) if self._high is None else bisect_left(keys, self._high)
        return keys[bisect_left(keys, self._low) : end]

    def size(self) -> int:
        return self._entries

    def exact(self) -> int | None:
        return self._entries if self._low == FIRST and self._high is None else None

    def at_least(self) -> int:
        return self.exact() or 0


def _below(keys: Iterator[bytes], high: bytes) -> Iterator[bytes]:
    for key in keys:
        if key >= high:
            return
        yield key


class Fixed:
    """Sort keys known beforehand."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = keys

    def seek(self, at: bytes) -> bytes | None:
        i = bisect_left(self._keys, at)
        return self._keys[i] if i < len(self._keys) else None

    def walk(self, at: bytes = FIRST) -> Iterator[bytes]:
        return iter(self._keys[bisect_left(self._keys, at) :])

    def among(self, keys: Sequence[bytes]) -> Sequence[bytes]:
        return [key for key in keys if self.seek(key) == key]

    def size(self) -> int:
        return len(self._keys)

    def exact(self) -> int | None:
        return len(self._keys)

    def at_least(self) -> int:
        return len(self._keys)


class Union:
    """What is in any of the streams."""

    def __init__(self, streams: Sequence[Stream]) -> None:
        self._streams = streams
        self._heads: list[tuple[bytes, int]] | None = None

    def seek(self, at: bytes) -> bytes | None:
        if self._heads is None:
            found = ((stream.seek(at), i) for i, stream in enumerate(self._streams))
            self._heads = [(head, i) for head, i in found if head is not None]
            heapq.heapify(self._heads)
        heads = self._heads
        while heads and heads[0][0] < at:
            i = heads[0][1]
            head = self._streams[i].seek(at)
            if head is None:
                heapq.heappop(heads)
            else:
                heapq.heapreplace(heads, (head, i))
        return heads[0][0] if heads else None

    def walk(self, at: bytes = FIRST) -> Iterator[bytes]:
        last = b""
        for key in heapq.merge(*(stream.walk(at) for stream in self._streams)):
            if key != last:
                yield key
                last = key

    def among(self, keys: Sequence[bytes]) -> Sequence[bytes]:
        return [key for key in keys if self.seek(key) == key]

    def size(self) -> int:
        return sum(stream.size() for stream in self._streams)

    def exact(self) -> int | None:
        return None

    def at_least(self) -> int:
        return max(stream.at_least() for stream in self._streams)


class Intersection:
    """What is in all of the streams: the shortest is walked, the others are asked for what it has."""

    def __init__(self, streams: Sequence[Stream]) -> None:
        self._streams = sorted(streams, key=lambda stream: stream.size())

    def seek(self, at: bytes) -> bytes | None:
        first, others = self._streams[0], self._streams[1:]
        head = first.seek(at)
        while head is not None:
            for stream in others:
                found = stream.seek(head)
                if found is None:
                    return None
                if found != head:
                    head = first.seek(found)
                    break
            else:
                return head
        return None

    def walk(self, at: bytes = FIRST) -> Iterator[bytes]:
        first, others = self._streams[0], self._streams[1:]
        head: bytes | None = self.seek(at)
        size = _FIRST_BLOCK
        while head is not None:
            keys: Sequence[bytes] = list(islice(first.walk(head), size))
            last = keys[-1]
            for stream in others:
                keys = stream.among(keys)
                if not keys:
                    break
            yield from keys
            # Where nothing was found the lists may be apart for long: they seek each other.
            head = self.seek(successor(last)) if not keys else first.seek(successor(last))
            size = min(2 * size, _LARGEST_BLOCK)

    def among(self, keys: Sequence[bytes]) -> Sequence[bytes]:
        for stream in self._streams:
            keys = stream.among(keys) if keys else keys
        return keys

    def size(self) -> int:
        return self._streams[0].size()

    def exact(self) -> int | None:
        return None

    def at_least(self) -> int:
        return 0


def union(streams: Sequence[Stream]) -> Stream:
    """The cheapest form of a union."""
    if len(streams) == 1:
        return streams[0]
    if sum(stream.size() for stream in streams) <= GATHERED:
        return Fixed(sorted({key for stream in streams for key in stream.walk()}))
    return Union(streams)


def intersection(streams: Sequence[Stream]) -> Stream:
    """The cheapest form of an intersection."""
    return streams[0] if len(streams) == 1 else Intersection(streams)


class Opener:
    """Opens the streams of one search in one LMDB read transaction."""

    def __init__(self, txn: lmdb.Transaction, postings: Any, order: Any) -> None:
        self._txn = txn
        self._postings = postings
        self._order = order

    def all(self) -> Order:
        """Every study."""
        return self.order()

    def order(self, low: bytes = FIRST, high: bytes | None = None) -> Order:
        entries: int = self._txn.stat(self._order)["entries"]
        return Order(self._txn.cursor(self._order), entries, low, high)

    def rule(self, rule: Rule) -> tuple[Stream | None, bool]:
        """(the studies that `rule` nominates; None when its postings do not narrow the search,
        whether they match for certain, so that at the study's level no test is needed)."""
        streams = []
        proven = rule.items is None
        for key in rule.keys:
            if key.values is not None and (values := self._range(key.values, VALUES)) is not None:
                streams.append(values)
                continue
            proven = proven and key.proven
            found = [stream for lookup in key.lookups if (stream := self._lookup(lookup)) is not None]
            if not found:
                return None, False
            if rule.text_field is not None:
                # Testing the text costs hardly more than asking a second list, and settles the matter.
                found = [min(found, key=lambda stream: stream.size())]
            streams.append(intersection(found))
        return union(streams), proven

    def _lookup(self, lookup: Lookup) -> Stream | None:
        match lookup:
            case Keys(keys):
                return union([self._list(key) for key in keys])
            case Days(low, high):
                return self.order(low, high)
            case Range():
                return self._range(lookup, LISTS)

    def _list(self, key: bytes) -> Postings:
        return Postings(self._txn.cursor(self._postings), key)

    def _range(self, lookup: Range, most: int) -> Stream | None:
        cursor = self._txn.cursor(self._postings)
        keys: list[bytes] = []
        more = cursor.set_range(lookup.low)
        while more and (key := bytes(cursor.key())) < lookup.high:
            # The two bytes before the text are the field and the kind of posting. A text that was cut is let through.
            text = key[2:].decode("utf-8", "replace")
            if lookup.accept is None or lookup.accept(text) or len(text) >= 100:
                if len(keys) == most:
                    return None
                keys.append(key)
            more = cursor.next_nodup()
        return union([self._list(key) for key in keys]) if keys else Fixed(())
