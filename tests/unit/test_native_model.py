"""The Native DICOM Model, read by the XML parser of the standard library."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from pacs.dicomweb import native_model

_MODEL = "{http://dicom.nema.org/PS3.19/models/NativeDICOM}"
_VALUE = f"{_MODEL}Value"


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("a\rb\r\nc\td", "a\rb\r\nc\td"), ("]]>&amp;<!--\"'", "]]>&amp;<!--\"'"), (" \u2028\x85 ", " \u2028\x85 "),
        ("\0\x1b\ud800\udfff\ufffe\uffff\U0010ffff", 6 * "\ufffd" + "\U0010ffff"),
    ],
)  # fmt: skip
def test_hostile_text_is_read_as_it_was(text: str, read: str) -> None:
    named = {"00081155": {"vr": "UI", "Value": [text, "1.2"]}, "00081197": {"vr": "US", "Value": [272]}}
    root = ElementTree.fromstring(native_model.document({"00081198": {"vr": "SQ", "Value": [named]}}))
    assert [value.text for value in root.iter(_VALUE)] == [read, "1.2", "272"]
    assert [(attribute.get("tag"), attribute.get("keyword")) for attribute in root.iter(f"{_MODEL}DicomAttribute")] == [
        ("00081198", "FailedSOPSequence"), ("00081155", "ReferencedSOPInstanceUID"), ("00081197", "FailureReason")
    ]  # fmt: skip
    assert [value.get("number") for value in root.iter(_VALUE)] == ["1", "2", "1"]
