"""Data Sets in XML: the Native DICOM Model. PS3.19 A.1

Only the Store Instances Response is sent so: Weasis and dcm4che's stowrs ask for it, and Weasis reads nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from xml.sax.saxutils import escape

from pacs.dicom.dictionary import keyword_of

# What XML 1.0 has no way to write (2.2); UIDs of what was refused may hold anything.
_UNWRITABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

_LINE_BREAKS = {"\r": "&#13;"}
"""Readers make a line feed of it else. XML 1.0 2.11"""


def document(data_set: Mapping[str, object]) -> bytes:
    """The XML of a Data Set in the DICOM JSON model, of UIDs, texts, numbers and sequences of them."""
    body = "".join(_attributes(data_set))
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<NativeDicomModel xmlns="http://dicom.nema.org/PS3.19/models/NativeDICOM" xml:space="preserve">'
        f"{body}</NativeDicomModel>\n"
    ).encode()


def _attributes(data_set: Mapping[str, object]) -> list[str]:
    written = []
    for tag, element in sorted(data_set.items()):
        assert isinstance(element, dict)
        values = "".join(_value(number, value) for number, value in enumerate(element.get("Value", ()), 1))
        keyword = keyword_of(int(tag, 16))
        named = f' keyword="{keyword}"' if keyword else ""
        written.append(f'<DicomAttribute tag="{tag}" vr="{element["vr"]}"{named}>{values}</DicomAttribute>')
    return written


def _value(number: int, value: object) -> str:
    if isinstance(value, dict):
        return f'<Item number="{number}">{"".join(_attributes(value))}</Item>'
    text = _UNWRITABLE.sub("\ufffd", str(value))
    return f'<Value number="{number}">{escape(text, _LINE_BREAKS)}</Value>'
