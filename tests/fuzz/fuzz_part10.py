"""Any bytes whatever give an answer or a DicomError, with JSON that loads and spans that lie inside the file.

    tests/fuzz/build.sh build/fuzz dictionary jsonmodel part10
    tests/fuzz/run.sh build/fuzz tests/fuzz/fuzz_part10.py --seed build/corpus
    tests/fuzz/run.sh build/fuzz tests/fuzz/fuzz_part10.py -max_total_time=60 -max_len=8192 build/corpus
"""

import json
import sys
from pathlib import Path

import atheris
import msgspec

with atheris.instrument_imports(include=["pacs.dicom.part10", "pacs.dicom.fragments", "pacs.dicom.charset"]):
    from pacs.dicom import attributes, fragments, part10
from pacs.errors import DicomError

MOST_BYTES_PER_BYTE = 64
"""JSON of one byte of input: an empty item in a wrapper, an escaped control character or a path come to far less."""


def check(data: bytes) -> None:
    try:
        answer = part10.scan(data)
    except DicomError as error:
        assert error.offset >= 0
        return
    size = answer.data.nbytes
    assert len(answer.json) <= 4096 + MOST_BYTES_PER_BYTE * size
    loaded = json.loads(answer.json)
    msgspec.json.decode(answer.json)
    assert list(loaded) == sorted(loaded)
    assert len({span.path for span in answer.bulk}) == len(answer.bulk)
    for span in answer.bulk:
        assert 0 <= span.offset <= span.offset + span.length <= size
        assert f'"bulkdata/{span.path}"'.encode() in answer.json
    if answer.pixel is not None:
        assert 0 <= answer.pixel.offset <= answer.pixel.offset + answer.pixel.length <= size
        for offset, length in answer.pixel.fragments:
            assert answer.pixel.offset <= offset <= offset + length <= answer.pixel.offset + answer.pixel.length
        if answer.pixel.encapsulated:
            check_frames(answer, answer.pixel)
    attributes.geometry(answer.json)
    attributes.uids(answer.json)


def check_frames(answer: part10.Part10, pixel: part10.PixelSpan) -> None:
    geometry = attributes.geometry(answer.json)
    stated = geometry.frames if geometry is not None else 1
    layout = fragments.layout(answer.data, pixel, stated, answer.transfer_syntax)
    assert [fragment for frame in layout.frames for fragment in frame] == list(pixel.fragments)
    assert layout.apart or layout.warnings


def seed(folder: Path) -> None:
    """The small files of pydicom's wheel, pixel data cut short, as a corpus."""
    import pydicom

    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted((Path(pydicom.__file__).parent / "data").rglob("*")):
        if path.is_file() and path.suffix not in (".py", ".pyc", ".json"):
            (folder / path.name).write_bytes(path.read_bytes()[:8192])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--seed"]:
        seed(Path(sys.argv[2]))
    else:
        atheris.Setup(sys.argv, check)
        atheris.Fuzz()
