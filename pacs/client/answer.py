"""Reading the answer to a STOW-RS request: which instance was stored, which refused and why (PS3.18 10.5.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

REFERENCED_SOP_SEQUENCE = "00081199"
FAILED_SOP_SEQUENCE = "00081198"
OTHER_FAILURES_SEQUENCE = "0008119A"
"""Failures of parts whose SOP Instance UID is not known."""
REFERENCED_SOP_INSTANCE_UID = "00081155"
FAILURE_REASON = "00081197"
WARNING_REASON = "00081196"
ERROR_COMMENT = "00000902"

FAILURE_REASONS: Mapping[int, str] = {
    0x0110: "processing failure",
    0x0111: "stored already with other bytes",
    0x0112: "no such object instance",
    0x0117: "invalid object instance",
    0x0118: "no such SOP Class",
    0x0119: "class and instance conflict",
    0x0122: "SOP Class not supported",
    0x0124: "not authorized",
    0x0131: "duplicate transaction",
    0xA700: "out of resources",
    0xA900: "Data Set does not match SOP Class",
    0xC000: "cannot be understood",
    0xC122: "Transfer Syntax not supported",
    0xC409: "study does not match the request",
}
"""PS3.18 Table I.2-2, PS3.7 C; groups A9 and C0 as in PS3.4 B.2.3."""


@dataclass(frozen=True, slots=True)
class Item:
    """What the answer says of one instance; `failure` is None when it was stored."""

    uid: str
    failure: int | None
    comment: str = ""
    warning: int | None = None

    @property
    def duplicate(self) -> bool:
        """Whether the server says that it had these bytes before. The standard has no field for that; ours comments."""
        return self.failure is None and "already stored" in self.comment


def failure_text(reason: int) -> str:
    """The words for a Failure Reason, with its number."""
    text = FAILURE_REASONS.get(reason) or FAILURE_REASONS.get(reason & 0xFF00) or "refused"
    return f"{text} ({reason:04X}H)"


def read(body: bytes) -> list[Item] | None:
    """The instances that a Store Instances Response names; None when `body` is not one."""
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if isinstance(answer, list) and len(answer) == 1:  # some servers wrap the object
        answer = answer[0]
    if not isinstance(answer, dict):
        return None
    # What is said to be stored must be named: no file is taken for safe by an answer that says nothing of it.
    stored = [item for entry in _values(answer, REFERENCED_SOP_SEQUENCE) if (item := _item(entry, failed=False)).uid]
    failed = [
        _item(entry, failed=True)
        for sequence in (FAILED_SOP_SEQUENCE, OTHER_FAILURES_SEQUENCE)
        for entry in _values(answer, sequence)
    ]
    return stored + failed or None


def explain(body: bytes) -> str:
    """The message of an error answer: of our JSON, or the first words of whatever else was sent."""
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        text = " ".join(body[:400].decode("utf-8", "replace").split())
        return "" if text.startswith("<") else text[:160]
    if not isinstance(answer, dict):
        return ""
    code = answer.get("code")
    message = next((answer[key] for key in ("message", "Message", "Details", "detail") if answer.get(key)), "")
    return f"{code}: {message}" if code and message else str(message)


def _item(entry: Any, *, failed: bool) -> Item:
    reason = _number(entry, FAILURE_REASON)
    return Item(
        uid=str(next(iter(_values(entry, REFERENCED_SOP_INSTANCE_UID)), "")),
        failure=(reason if reason is not None else 0x0110) if failed else None,
        comment=str(next(iter(_values(entry, ERROR_COMMENT)), "")),
        warning=_number(entry, WARNING_REASON),
    )


def _number(entry: Any, key: str) -> int | None:
    value = next(iter(_values(entry, key)), None)
    return value if isinstance(value, int) else None


def _values(entry: Any, key: str) -> Sequence[Any]:
    element = entry.get(key) if isinstance(entry, dict) else None
    value = element.get("Value") if isinstance(element, dict) else None
    return value if isinstance(value, list) else ()
