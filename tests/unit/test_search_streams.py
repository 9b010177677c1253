"""Streams of sort keys against plain sets: lists near and far apart, walked from anywhere, counted."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise

import lmdb
import pytest

from pacs.storage.search import Level, Match, streams
from pacs.storage.search.compiling import compile_rules
from pacs.storage.search.rules import Keys
from pacs.storage.search.streams import FIRST, Fixed, Intersection, Opener, Order, Postings, Stream, Union, successor

ALL = 3000
DENSITIES = {b"all": 1.0, b"most": 0.8, b"half": 0.5, b"few": 0.02, b"one": 0.0, b"none": 0.0}


def key(number: int) -> bytes:
    return number.to_bytes(12, "big")


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Opener, dict[bytes, set[bytes]]]]:
    """Lists of every density; `early` and `late` have nothing in common and lie one behind the other."""
    draw = random.Random(7)
    everything = [key(number * 5) for number in range(ALL)]
    lists = {name: {at for at in everything if draw.random() < density} for name, density in DENSITIES.items()}
    lists[b"one"] = {everything[1234]}
    lists[b"early"], lists[b"late"] = set(everything[:1000]), set(everything[2000:])
    env = lmdb.open(str(tmp_path_factory.mktemp("lists")), max_dbs=2, map_size=1 << 28, sync=False)
    postings, order = env.open_db(b"postings", dupsort=True, dupfixed=True), env.open_db(b"order")
    with env.begin(write=True) as txn:
        for name, keys in lists.items():
            for at in keys:
                txn.put(name, at, db=postings)
        for at in everything:
            txn.put(at, b"uid", db=order)
    with env.begin(buffers=True) as txn:
        yield Opener(txn, postings, order), lists
    env.close()


def stream(opener: Opener, name: bytes) -> Postings:
    found = opener._lookup(Keys((name,)))
    assert isinstance(found, Postings)
    return found


@pytest.fixture(params=[(128, 8), (3, 1)])
def _blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they are, and so short that every list is longer than they are."""
    first, walked = request.param
    monkeypatch.setattr(streams, "_FIRST_BLOCK", first)
    monkeypatch.setattr(streams, "_LARGEST_BLOCK", 4 * first)
    monkeypatch.setattr(streams, "_WALKED", walked)


def make(opener: Opener, lists: dict[bytes, set[bytes]], draw: random.Random, depth: int) -> tuple[Stream, set[bytes]]:
    kind = draw.choice(("list", "list", "order", "fixed", "and", "or") if depth else ("list", "order", "fixed"))
    if kind == "order":
        low, high = sorted((key(draw.randrange(5 * ALL)), key(draw.randrange(5 * ALL))))
        return opener.order(low, high), {at for at in lists[b"all"] if low <= at < high}
    if kind == "fixed":
        keys = set(draw.sample(sorted(lists[b"all"]), 40))
        return Fixed(sorted(keys)), keys
    if kind == "list":
        name = draw.choice(list(lists))
        return stream(opener, name), lists[name]
    parts = [make(opener, lists, draw, depth - 1) for _ in range(draw.randint(2, 3))]
    sets = [keys for _, keys in parts]
    if kind == "and":
        return Intersection([one for one, _ in parts]), set.intersection(*sets)
    return Union([one for one, _ in parts]), set.union(*sets)


@pytest.mark.usefixtures("_blocks")
@pytest.mark.parametrize("seed", range(60))
def test_streams_are_sets(opened: tuple[Opener, dict[bytes, set[bytes]]], seed: int) -> None:
    opener, lists = opened
    for question in ("walk", "walk from", "seek", "among"):
        draw = random.Random(seed)
        found, keys = make(opener, lists, draw, 2)
        ordered = sorted(keys)
        assert found.at_least() <= len(keys) <= found.size()
        assert found.exact() in (None, len(keys))
        at = key(draw.randrange(5 * ALL))
        if question == "walk":
            assert list(found.walk()) == ordered
        elif question == "walk from":
            assert list(found.walk(at)) == [one for one in ordered if one >= at]
        elif question == "seek":
            asked = sorted(key(draw.randrange(5 * ALL)) for _ in range(30))
            assert [found.seek(one) for one in asked] == [
                min((k for k in keys if k >= one), default=None) for one in asked
            ]
        else:
            every = sorted(lists[b"all"])
            for begin, end in pairwise(sorted({0, *(draw.randrange(ALL) for _ in range(3)), ALL})):
                assert list(found.among(every[begin:end])) == [one for one in every[begin:end] if one in keys]


class Counting(Postings):
    """Counts what is asked of it."""

    asked = 0

    def seek(self, at: bytes) -> bytes | None:
        Counting.asked += 1
        return super().seek(at)

    def walk(self, at: bytes = FIRST) -> Iterator[bytes]:
        for one in super().walk(at):
            Counting.asked += 1
            yield one


def test_lists_that_lie_apart_are_not_walked(opened: tuple[Opener, dict[bytes, set[bytes]]]) -> None:
    opener, _ = opened
    both = [Counting(opener._txn.cursor(opener._postings), name) for name in (b"early", b"late")]
    Counting.asked = 0
    assert list(Intersection(both).walk()) == []
    assert Counting.asked < 10


def test_a_text_is_tested_as_its_values_are() -> None:
    """The quick test of what lies in the index says what the test of the values says."""
    draw = random.Random(3)
    letters = "ab=?*\N{LATIN SMALL LETTER E WITH ACUTE}"
    for _ in range(4000):
        pattern = "".join(draw.choice(letters) for _ in range(draw.randint(1, 5))) + draw.choice(("*", "?", ""))
        pattern = draw.choice(("*", "", "")) + pattern
        for tag in (0x00100010, 0x00081030, 0x00100020):
            rules = compile_rules([Match((tag,), (pattern,))])
            texts = ["".join(draw.choice("ab=\N{LATIN SMALL LETTER E WITH ACUTE}e") for _ in range(draw.randint(1, 6)))
                     for _ in range(draw.randint(0, 3))]  # fmt: skip
            for rule in rules:
                assert rule.level is Level.STUDY
                assert rule.text_test()("\0".join(texts).encode()) == rule.accepts(texts), (pattern, texts)


def test_order_and_successor(opened: tuple[Opener, dict[bytes, set[bytes]]]) -> None:
    opener, lists = opened
    everything = opener.all()
    assert isinstance(everything, Order)
    assert everything.exact() == everything.at_least() == ALL
    first = min(lists[b"all"])
    assert everything.seek(successor(first)) == min(lists[b"all"] - {first})
