"""`python -m tests.house.manual` writes the pages of the manual that are made from the code."""

from __future__ import annotations

import inspect
from dataclasses import fields
from pathlib import Path

from pacs import errors
from pacs.settings import Settings

ROOT = Path(__file__).resolve().parents[2]

_ERRORS_HEAD = """\
# Errors

Every error has a stable code; a code is never reused for another kind. The server answers errors as
`{"code": …, "message": …}`, the command line prints `message [code]`. This page is made from `pacs/errors.py` by
`python -m tests.house.manual`.

| code | kind | meaning |
| --- | --- | --- |
"""

_SETTINGS_HEAD = """\
# Settings

Settings of the server are environment variables; an unknown `PACS_…` variable stops the start. Sizes are in bytes,
durations in seconds. This page is made from `pacs/settings.py` by `python -m tests.house.manual`.
"""


def errors_manual() -> str:
    """The text of docs/errors.md."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.PacsError)]
    rows = [(kind.code, kind.__name__, " ".join((inspect.getdoc(kind) or "").split())) for kind in kinds]
    return _ERRORS_HEAD + "".join(f"| `{code}` | {name} | {text} |\n" for code, name, text in rows)


def settings_manual() -> str:
    """The text of docs/settings.md."""
    text = _SETTINGS_HEAD
    for entry in fields(Settings):
        default = entry.default
        shown = ",".join(default) if isinstance(default, tuple) else default
        note = f"`{shown}`" if shown != "" else "empty"
        text += f"\n## PACS_{entry.name.upper()}\n\n{entry.metadata['help']}\n\nDefault: {note}\n"
    return text


def main() -> None:
    (ROOT / "docs" / "errors.md").write_text(errors_manual(), encoding="utf-8")
    (ROOT / "docs" / "settings.md").write_text(settings_manual(), encoding="utf-8")


if __name__ == "__main__":
    main()
