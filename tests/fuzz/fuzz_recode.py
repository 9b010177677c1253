"""Any bytes whatever are recoded or refused; what is recoded comes back, and the scanner reads the same in it.

    tests/fuzz/build.sh build/fuzz dictionary jsonmodel part10 recode
    tests/fuzz/run.sh build/fuzz tests/fuzz/fuzz_recode.py -max_total_time=60 -max_len=4096 build/corpus
"""

import sys

import atheris

with atheris.instrument_imports(include=["pacs.dicom.charset"]):
    from pacs.dicom import charset
from pacs._codecs.part10 import scan_data_set
from pacs._codecs.recode import recode
from pacs.dicom.dictionary import dictionary
from pacs.errors import DicomError


def recoded(data: bytes, *, implicit: bool, to_implicit: bool) -> bytes | None:
    try:
        elements, out, pixel, _ = recode(data, 0, implicit, to_implicit, dictionary(), 0x7FE00010)
    except DicomError as error:
        assert 0 <= error.offset <= len(data)
        return None
    assert pixel is None or 0 <= pixel[0] <= len(data)
    assert len(out) <= 2 * len(data) + 64
    for _, new, start, length in elements:
        assert 0 <= start <= start + length <= len(out if new else data)
    return b"".join((out if new else data)[start : start + length] for _, new, start, length in elements)


def json(data: bytes, *, implicit: bool) -> bytes:
    answer = scan_data_set(data, 0, implicit, False, dictionary(), charset.repertoire)
    if answer[4] is not None:
        answer = scan_data_set(data, 0, implicit, False, dictionary(), charset.repertoire, *answer[4])
    return answer[0]


def check(data: bytes) -> None:
    if not data:
        return
    implicit, data = bool(data[0] & 1), data[1:]
    explicit = recoded(data, implicit=implicit, to_implicit=False)
    if explicit is not None:
        assert recoded(explicit, implicit=False, to_implicit=False) == explicit
        if implicit:
            back = recoded(explicit, implicit=False, to_implicit=True)
            assert back is None or recoded(back, implicit=True, to_implicit=False) == explicit
            if explicit:
                json(explicit, implicit=False)
    recoded(data, implicit=implicit, to_implicit=True)


if __name__ == "__main__":
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()
