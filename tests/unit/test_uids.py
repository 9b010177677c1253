"""The table of Transfer Syntaxes beside pydicom's dictionary and the media types of PS3.18."""

from __future__ import annotations

import pytest
from pydicom._uid_dict import UID_dictionary
from pydicom.uid import UID

from pacs import uids

PS3_6 = {uid for uid, entry in UID_dictionary.items() if entry[1] == "Transfer Syntax"}
NEWER = {
    "1.2.840.10008.1.2.4.110", "1.2.840.10008.1.2.4.111", "1.2.840.10008.1.2.4.112", "1.2.840.10008.1.2.8.1",
}  # fmt: skip
"""Not yet in this pydicom."""

DIFFERENT = {
    "1.2.840.10008.1.20": "pydicom says explicit VR; its name says implicit",
    "1.2.840.10008.1.2.4.94": "no Pixel Data, so nothing is encapsulated",
    "1.2.840.10008.1.2.4.95": "the same, and deflated as its name says: PS3.5 A.7",
    "1.2.840.10008.1.2.4.204": "no Pixel Data",
    "1.2.840.10008.1.2.4.205": "no Pixel Data, deflated",
    "1.2.840.10008.1.2.7.1": "no Pixel Data",
    "1.2.840.10008.1.2.7.2": "no Pixel Data",
    "1.2.840.10008.1.2.7.3": "no Pixel Data",
}


def test_every_transfer_syntax_of_the_standard_is_there() -> None:
    assert uids.TRANSFER_SYNTAXES.keys() == PS3_6 | NEWER
    assert len(PS3_6) > 55


@pytest.mark.parametrize("uid", sorted(PS3_6))
def test_a_transfer_syntax_is_what_pydicom_says(uid: str) -> None:
    ours, theirs = uids.transfer_syntax(uid), UID(uid)
    assert ours.known and ours.uid == uid and ours.name == theirs.name
    said = (theirs.is_implicit_VR, not theirs.is_little_endian, theirs.is_deflated, theirs.is_encapsulated)
    assert ((ours.implicit, ours.big_endian, ours.deflated, ours.encapsulated) != said) == (uid in DIFFERENT)


@pytest.mark.parametrize(
    ("last", "media_type"),
    [
        ("50", "image/jpeg"), ("51", "image/jpeg"), ("57", "image/jpeg"), ("66", "image/jpeg"), ("70", "image/jpeg"),
        ("80", "image/jls"), ("81", "image/jls"), ("90", "image/jp2"), ("91", "image/jp2"), ("92", "image/jpx"),
        ("93", "image/jpx"), ("100", "video/mpeg"), ("101.1", "video/mpeg"), ("102", "video/mp4"),
        ("106.1", "video/mp4"), ("107", "video/H265"), ("108", "video/H265"), ("110", "image/jxl"),
        ("111", "image/jxl"), ("112", "image/jxl"), ("201", "image/jphc"), ("202", "image/jphc"), ("203", "image/jphc"),
        ("94", "application/octet-stream"),
    ],
)  # fmt: skip
def test_media_types(last: str, media_type: str) -> None:
    """PS3.18 Table 8.7.3-5"""
    known = uids.transfer_syntax(f"1.2.840.10008.1.2.4.{last}")
    assert known.media_type == media_type
    assert known.video == media_type.startswith("video/")


def test_what_can_lose_nothing_says_so_in_its_name() -> None:
    """The UIDs that PS3.6 calls lossless or lossless only, and those that do not compress."""
    for known in uids.TRANSFER_SYNTAXES.values():
        if known.media_type.startswith("image/") and "Recompression" not in known.name:
            assert known.lossless == ("Lossless" in known.name.replace("Near-Lossless", "")), known
        assert not (known.video and known.lossless)


def test_an_unknown_one_is_opaque() -> None:
    unknown = uids.transfer_syntax("1.2.3.4")
    assert not unknown.known and unknown.encapsulated and not unknown.lossless
    assert unknown.media_type == "application/octet-stream"
