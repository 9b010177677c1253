"""The data dictionary of PS3.6 and those of private creators, from the tables that pydicom carries.

The tables are loaded without the rest of pydicom, which takes ten times as long.
"""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

from pacs._codecs.dictionary import Dictionary


def tag_for_keyword(keyword: str) -> int | None:
    """The tag of `PatientName`; None for a word that is no keyword. PS3.6 6"""
    return _keywords().get(keyword)


def keyword_of(tag: int) -> str:
    """The keyword of a tag that PS3.6 6 (or PS3.7 E, of commands) names; "" for others."""
    entry = _table("_dicom_dict").DicomDictionary.get(tag)
    return str(entry[4]) if entry is not None else ""


@cache
def dictionary() -> Dictionary:
    """VRs by tag: public ones, those of repeating groups, and private ones."""
    table = _table("_dicom_dict")
    entries = ((int(tag), entry[0]) for tag, entry in table.DicomDictionary.items())
    repeaters = ((*_bits(pattern), entry[0]) for pattern, entry in table.RepeatersDictionary.items())
    return Dictionary(entries, repeaters, _private_block)


def _bits(pattern: str) -> tuple[int, int]:
    """(digits, mask) of a tag with an `x` for every digit that does not matter."""
    return int(pattern.replace("x", "0"), 16), int("".join("0" if digit == "x" else "F" for digit in pattern), 16)


@cache
def _keywords() -> dict[str, int]:
    return {entry[4]: int(tag) for tag, entry in _table("_dicom_dict").DicomDictionary.items() if entry[4]}


def _private_block(creator: bytes) -> dict[int, str] | None:
    """VRs of a private creator's elements by the keys that `Dictionary.private_vr` looks for; None if unknown."""
    name = creator.decode("latin_1")
    return _known_private_block(name) if name in _table("_private_dict").private_dictionaries else None


@cache
def _known_private_block(name: str) -> dict[int, str]:
    block = {}
    for pattern, entry in _table("_private_dict").private_dictionaries[name].items():
        if pattern[2:6] == "xxxx":
            key = 2 << 32 | int(pattern[:2], 16) << 16 | int(pattern[6:], 16)
        elif pattern[4:6] == "xx":
            key = 1 << 32 | int(pattern[:4], 16) << 16 | int(pattern[6:], 16)
        elif "x" not in pattern:
            key = int(pattern, 16)
        else:
            continue
        block[key] = entry[0]
    return block


@cache
def _table(name: str) -> ModuleType:
    """A module of pydicom that holds nothing but tables; the one in use where pydicom is loaded anyway."""
    loaded = sys.modules.get(f"pydicom.{name}")
    if loaded is not None:
        return loaded
    package = importlib.util.find_spec("pydicom")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("pydicom is not installed", name="pydicom")
    spec = importlib.util.spec_from_file_location(f"pacs.{name}", Path(package.origin).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
