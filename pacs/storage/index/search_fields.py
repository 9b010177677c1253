"""The attributes that can be searched for at each level, how their values compare, and what is looked up of them.

PS3.18 Table 10.6.1-5, PS3.4 C.2.2.2
"""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple

from pacs import tags


class Kind(Enum):
    """How the values of an attribute compare."""

    NAME = "PN: without regard to case and accents, any component group or all of them"
    TEXT = "free text: without regard to case and accents"
    EXACT = "identifiers and codes: as they are"
    UID = "UID"
    DATE = "DA"
    TIME = "TM"
    NUMBER = "IS, US"
    SEQUENCE = "SQ"


class Field(NamedTuple):
    """What is looked up of one attribute. `code` is part of keys on disk: never reuse one."""

    code: int
    kind: Kind
    trigrams: bool = False
    posted: bool = True


STUDY_FIELDS: Final[dict[int, Field]] = {
    tags.STUDY_INSTANCE_UID: Field(1, Kind.UID, posted=False),
    tags.STUDY_DATE: Field(2, Kind.DATE, posted=False),  # the sort key begins with it
    tags.STUDY_TIME: Field(3, Kind.TIME),
    tags.ACCESSION_NUMBER: Field(4, Kind.EXACT, trigrams=True),
    tags.REFERRING_PHYSICIAN_NAME: Field(5, Kind.NAME, trigrams=True),
    tags.STUDY_DESCRIPTION: Field(6, Kind.TEXT, trigrams=True),
    tags.PATIENT_NAME: Field(7, Kind.NAME, trigrams=True),
    tags.PATIENT_ID: Field(8, Kind.EXACT, trigrams=True),
    tags.ISSUER_OF_PATIENT_ID: Field(9, Kind.EXACT),
    tags.PATIENT_BIRTH_DATE: Field(10, Kind.DATE),
    tags.PATIENT_SEX: Field(11, Kind.EXACT),
    tags.STUDY_ID: Field(12, Kind.EXACT, trigrams=True),
    tags.TIMEZONE_OFFSET_FROM_UTC: Field(13, Kind.EXACT),
    tags.MODALITIES_IN_STUDY: Field(14, Kind.EXACT),
    tags.SOP_CLASSES_IN_STUDY: Field(15, Kind.UID),
}
SERIES_FIELDS: Final[dict[int, Field]] = {
    tags.SERIES_INSTANCE_UID: Field(32, Kind.UID),
    # Modality is posted by the study's list of modalities, under MODALITIES_IN_STUDY.
    tags.MODALITY: Field(33, Kind.EXACT, posted=False),
    tags.SERIES_DATE: Field(34, Kind.DATE),
    tags.SERIES_TIME: Field(35, Kind.TIME),
    tags.SERIES_DESCRIPTION: Field(36, Kind.TEXT, trigrams=True),
    tags.BODY_PART_EXAMINED: Field(37, Kind.EXACT),
    tags.SERIES_NUMBER: Field(38, Kind.NUMBER),
    tags.PERFORMED_PROCEDURE_STEP_START_DATE: Field(39, Kind.DATE),
    tags.PERFORMED_PROCEDURE_STEP_START_TIME: Field(40, Kind.TIME),
    tags.REQUEST_ATTRIBUTES_SEQUENCE: Field(41, Kind.SEQUENCE, posted=False),
}
INSTANCE_FIELDS: Final[dict[int, Field]] = {
    # SOP Class UID is posted by the study, under SOP_CLASSES_IN_STUDY; the rest narrows what was found above it.
    tags.SOP_CLASS_UID: Field(64, Kind.UID, posted=False),
    tags.SOP_INSTANCE_UID: Field(65, Kind.UID, posted=False),
    tags.INSTANCE_NUMBER: Field(66, Kind.NUMBER, posted=False),
    tags.ROWS: Field(67, Kind.NUMBER, posted=False),
    tags.COLUMNS: Field(68, Kind.NUMBER, posted=False),
    tags.BITS_ALLOCATED: Field(69, Kind.NUMBER, posted=False),
    tags.NUMBER_OF_FRAMES: Field(70, Kind.NUMBER, posted=False),
}

SCHEDULED_PROCEDURE_STEP_ID: Final = 0x00400009
REQUESTED_PROCEDURE_ID: Final = 0x00401001
REQUEST_FIELDS: Final[dict[int, Field]] = {
    SCHEDULED_PROCEDURE_STEP_ID: Field(42, Kind.EXACT),
    REQUESTED_PROCEDURE_ID: Field(43, Kind.EXACT),
}
"""Of the items of Request Attributes Sequence (PS3.18 Table 10.6.1-5). Other elements of its items match unposted."""
