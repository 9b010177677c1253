"""The data dictionary: the tables of pydicom, and nothing else of it."""

from __future__ import annotations

import subprocess
import sys

from pydicom import datadict
from pydicom._dicom_dict import DicomDictionary

from pacs.dicom import dictionary
from tests.conftest import ROOT


def test_keywords_are_those_of_pydicom() -> None:
    for tag, entry in DicomDictionary.items():
        keyword = entry[4]
        if keyword:
            assert dictionary.tag_for_keyword(keyword) == datadict.tag_for_keyword(keyword) == tag
    for word in ("", "patientName", "NoSuchKeyword"):
        assert dictionary.tag_for_keyword(word) is None


def test_a_file_is_read_without_the_rest_of_pydicom() -> None:
    """A guard of start-up time, by what is loaded; elements of the public, a repeating and a private group."""
    program = (
        "import struct, sys\n"
        "from pacs.dicom import dictionary, part10\n"
        "values = ((0x0008, 0x0060, b'CT'), (0x6002, 0x0010, bytes(2)), (0x0029, 0x0010, b'SIEMENS CSA HEADER'),\n"
        "          (0x0029, 0x1008, b'IMAGE NUM 4 '), (0x7FE1, 0x0010, b'NOBODY KNOWS'), (0x7FE1, 0x1001, b'x '))\n"
        "data = b''.join(struct.pack('<HHI', group, element, len(v)) + v for group, element, v in sorted(values))\n"
        "print(part10.scan(data).json.decode())\n"
        "print(dictionary.tag_for_keyword('PatientName'))\n"
        "print(*(name for name in sys.modules if name.partition('.')[0] == 'pydicom'))\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    json, tag, loaded = run.stdout.splitlines()
    vrs = ('"00080060":{"vr":"CS"', '"60020010":{"vr":"US"', '"00291008":{"vr":"CS"', '"7FE11001":{"vr":"UN"')
    assert all(vr in json for vr in vrs), json
    assert (int(tag), loaded) == (0x00100010, "")
