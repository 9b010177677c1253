"""Members put into stored DICOM JSON without parsing it (PS3.18 F.2.2: members stand in the order of their tags)."""

from __future__ import annotations

from pacs._codecs import members as _kernel


def put(text: bytes, key: bytes, value: bytes) -> bytes:
    """The JSON object `text` with the member `key` (8 hexadecimal digits), new or in place of one of that name.

    A text that is no object of such members comes back as it is.
    """
    at, length = _kernel.place(text, key)
    if at < 0:
        return text
    member = b'"%s":%s' % (key, value)
    if length:
        return text[:at] + member + text[at + length :]
    if text[at : at + 1] == b"}":
        return text[:at] + (b"," if at > 1 else b"") + member + text[at:]
    return text[:at] + member + b"," + text[at:]
