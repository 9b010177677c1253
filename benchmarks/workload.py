"""What is uploaded and asked for: the synthetic head, a real CT series, thousands of small studies."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pydicom

from pacs import demo

ROOT = Path(__file__).resolve().parent.parent
SERIES_OF_CHOICE = "series/ct-head-phantom-140"


@dataclass(frozen=True, slots=True)
class Instance:
    """A file with its UIDs, and the native bytes of its frame."""

    data: bytes
    study: str
    series: str
    instance: str
    pixels: bytes

    def renamed(self, run: str, *, study: bool = True) -> Instance:
        """The same file under UIDs of its own, as long as the old ones, so that nothing else moves.

        `run` decides them; with `study` the Study and Series Instance UID change too.
        """
        new_instance = _renamed(self.instance, run)
        new_study = _renamed(self.study, run) if study else self.study
        new_series = _renamed(self.series, run) if study else self.series
        data = self.data.replace(self.instance.encode(), new_instance.encode())
        if study:
            data = data.replace(self.series.encode(), new_series.encode())
            data = data.replace(self.study.encode(), new_study.encode())
        return Instance(data, new_study, new_series, new_instance, self.pixels)


def _renamed(uid: str, run: str) -> str:
    """Another UID of the same length: digits after the root are drawn anew; zeros would not be allowed to lead."""
    draw = random.Random(f"{uid} {run}")
    head = len(uid) // 3
    return uid[:head] + "".join(draw.choice("123456789") if digit != "." else "." for digit in uid[head:])


def read(data: bytes) -> Instance:
    """A single-frame file with native pixel data."""
    import io

    ds = pydicom.dcmread(io.BytesIO(data))
    return Instance(
        data, str(ds.StudyInstanceUID), str(ds.SeriesInstanceUID), str(ds.SOPInstanceUID), bytes(ds.PixelData)
    )


def synthetic(count: int, rows: int) -> list[Instance]:
    """Slices of the demo's head."""
    return [read(data) for data in demo.head_slices(count, rows=rows, name="benchmark")]


def shared_file(data: Path | None, name: str) -> Path | None:
    """A file or folder of the real data, when it is at hand."""
    named = os.environ.get("PACS_SHARED_DATA")
    places = [data] if data else [Path(named)] if named else [parent / "shared" / "data" for parent in ROOT.parents]
    return next((place / name for place in places if (place / name).exists()), None)


def real_series(data: Path | None, most: int) -> list[Instance]:
    """The real CT series, when it is at hand."""
    folder = shared_file(data, SERIES_OF_CHOICE)
    return [read(path.read_bytes()) for path in sorted(folder.iterdir())[:most]] if folder else []


def series_of(instances: list[Instance], count: int, run: str) -> list[Instance]:
    """One series of `count` instances made of `instances`, repeated under new UIDs as often as needed."""
    base = [instance.renamed(run) for instance in instances]
    one = base[0]
    out = []
    for index in range(count):
        source = base[index % len(base)]
        assert (source.study, source.series) == (one.study, one.series)
        out.append(source.renamed(f"{run} {index}", study=False))
    return out


# --- small studies --------------------------------------------------------------------------------------------------

FAMILIES = (
    "Abbott", "Almeida", "Andersson", "Bakker", "Bianchi", "Carvalho", "Dubois", "Eriksen", "Fischer", "Garcia",
    "Hansen", "Horvat", "Ivanova", "Jansen", "Johnson", "Kowalski", "Larsen", "Lopez", "Meyer", "Moreau", "Nielsen",
    "Novak", "Okafor", "Olsen", "Papadopoulos", "Petrov", "Quinn", "Rossi", "Santos", "Schmidt", "Silva", "Suzuki",
    "Tanaka", "Taylor", "Ueda", "Virtanen", "Wagner", "Wilson", "Yilmaz", "Zhang",
)  # fmt: skip
GIVEN = ("Anna", "Ben", "Clara", "David", "Elena", "Felix", "Grace", "Hugo", "Ines", "Jonas", "Karin", "Liam")
_DESCRIPTIONS = ("CT head", "MR knee", "CT abdomen", "CR chest", "US liver", "MG screening", "MR spine")


@dataclass(frozen=True, slots=True)
class SmallStudy:
    """A study of one instance without an image, with what it is searched by."""

    uid: str
    patient_name: str
    patient_id: str
    date: str
    modality: str
    description: str
    data: bytes


def small_studies(count: int, name: str = "search") -> Iterator[SmallStudy]:
    """`count` studies, different patients, spread over eight years."""
    draw = random.Random(name)
    for index in range(count):
        patient = f"{draw.choice(FAMILIES)}^{draw.choice(GIVEN)}"
        patient_id = f"P{index:07d}"
        date = f"{draw.randint(2017, 2024)}{draw.randint(1, 12):02d}{draw.randint(1, 28):02d}"
        description = draw.choice(_DESCRIPTIONS)
        modality = description[:2]
        uid = demo.uid(f"{name} {index}")
        elements: list[demo.Element] = [
            (0x00080005, "CS", "ISO_IR 192"),
            (0x00080016, "UI", "1.2.840.10008.5.1.4.1.1.88.11"),
            (0x00080018, "UI", demo.uid(f"{name} {index} instance")),
            (0x00080020, "DA", date),
            (0x00080030, "TM", f"{draw.randint(0, 23):02d}{draw.randint(0, 59):02d}00"),
            (0x00080050, "SH", f"A{index:07d}"),
            (0x00080060, "CS", modality),
            (0x00080090, "PN", "Referring^Doctor"),
            (0x00081030, "LO", description),
            (0x00100010, "PN", patient),
            (0x00100020, "LO", patient_id),
            (0x00100030, "DA", "19700101"),
            (0x00100040, "CS", draw.choice("FM")),
            (0x0020000D, "UI", uid),
            (0x0020000E, "UI", demo.uid(f"{name} {index} series")),
            (0x00200010, "SH", str(index)),
            (0x00200011, "IS", "1"),
            (0x00200013, "IS", "1"),
        ]
        yield SmallStudy(uid, patient, patient_id, date, modality, description, demo.part10(elements))
