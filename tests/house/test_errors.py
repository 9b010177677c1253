"""Error codes: one for each kind, never shared, all in the manual, which is generated."""

from __future__ import annotations

import re
from pathlib import Path

from pacs import errors
from tests.house.manual import errors_manual

ROOT = Path(__file__).resolve().parents[2]


def kinds() -> list[type[errors.PacsError]]:
    return [
        value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, errors.PacsError)
    ]


def test_codes_are_unique_and_well_formed() -> None:
    codes = [kind.code for kind in kinds()]
    assert len(codes) == len(set(codes)), "two kinds of error share a code"
    for kind in kinds():
        assert re.fullmatch(r"[A-Z][A-Z0-9]{2}-[0-9]{2}", kind.code), kind
        assert "code" in vars(kind), f"{kind.__name__} inherits the code of another kind"


def test_no_error_is_declared_elsewhere() -> None:
    """A code outside `pacs/errors.py` would not be in the manual."""
    declared = re.compile(r"^class \w+\((?:errors\.)?(?:PacsError|\w*Error)\):.*?^    code\b", re.MULTILINE | re.DOTALL)
    for path in (ROOT / "pacs").rglob("*.py"):
        if path.name != "errors.py":
            for match in declared.finditer(path.read_text(encoding="utf-8")):
                assert "\nclass " in match[0], f"{path.relative_to(ROOT)} declares an error code"


def test_manual_is_up_to_date() -> None:
    """`python -m tests.house.manual` writes it."""
    assert (ROOT / "docs" / "errors.md").read_text(encoding="utf-8") == errors_manual()
