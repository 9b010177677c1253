"""A member is put where the order of tags wants it, and nothing else changes."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacs.dicom import json_members

tags = st.integers(0, 0xFFFFFFFF).map(lambda tag: f"{tag:08X}") | st.sampled_from(["00083001", "00083002", "00083003"])
values = st.recursive(
    st.none() | st.integers() | st.text() | st.sampled_from(['"', "\\", "}", "{", "],", '\\"}', '","00083002":{']),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(tags, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(tags, values, max_size=8), tags, values)
def test_it_is_what_a_dict_would_be(members: dict[str, Any], key: str, value: Any) -> None:
    text = json.dumps(dict(sorted(members.items())), separators=(",", ":"), ensure_ascii=False)
    member = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    expected = json.dumps(dict(sorted({**members, key: value}.items())), separators=(",", ":"), ensure_ascii=False)
    assert json_members.put(text.encode(), key.encode(), member).decode() == expected


@given(st.binary(max_size=60) | st.text('{}[]",:\\0A', max_size=60).map(str.encode))
def test_anything_else_comes_back_as_it_is(text: bytes) -> None:
    found = json_members.put(text, b"00083002", b"{}")
    assert found == text or b'"00083002":{}' in found


@pytest.mark.parametrize("cut", range(1, 60))
def test_a_text_that_ends_early(cut: int) -> None:
    whole = b'{"00080005":{"vr":"CS","Value":["ISO_IR 192"]},"00080008":{"vr":"CS"}}'
    assert json_members.put(whole[:cut], b"00083002", b"{}") == whole[:cut]


def test_depth_costs_no_stack() -> None:
    text = b'{"00080005":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    took = []
    for _ in range(3):  # a collection of garbage may come into one of them
        began = time.thread_time()
        assert json_members.put(text, b"00083002", b"1").endswith(b',"00083002":1}')
        took.append(time.thread_time() - began)
    assert min(took) < 0.1
