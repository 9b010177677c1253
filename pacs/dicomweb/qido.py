"""QIDO-RS: the three searches, answered from the fragments of DICOM JSON that the index keeps (PS3.18 10.6)."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

import msgspec
import zstandard
from aiohttp.web import BaseRequest

from pacs import tags
from pacs.archive import Archive
from pacs.dicomweb import metadata, negotiation, query, urls
from pacs.dicomweb.answer import Answer
from pacs.dicomweb.query import Query
from pacs.dicomweb.service import Service
from pacs.dicomweb.target import ResourceId
from pacs.storage.model import InstanceEntry, SeriesEntry, StudyEntry
from pacs.storage.search import Item, Level, Page, Search

NESTED_LIMIT: Final = 50_000
"""Most results below a study named in the path: clients take such a list for the whole study, and do not page."""
_MOST_BYTES: Final = 64 << 20
"""Of an answer, beyond which it takes no further result: with `includefield=all` one may be megabytes."""
_INLINE: Final = 200
"""Results that are found and written faster than a thread is entered."""
_COMPRESSED: Final = 1400
"""Shorter bodies are one packet anyway."""

_LEVELS: Final = {
    "search.studies": Level.STUDY,
    "search.series": Level.SERIES,
    "search.instances": Level.INSTANCE,
}
TOO_MANY: Final = (
    "The number of results exceeded the maximum supported by the server. Additional results can be requested."
)

# Required attributes that are sent without a value where there is none. PS3.18 Tables 10.6.3-3, -4, -5
# Modalities in Study is left out instead: one without a value ends OHIF's list of all studies with an error.
_STUDY_REQUIRED: Final = {
    tags.STUDY_DATE: "DA", tags.STUDY_TIME: "TM", tags.ACCESSION_NUMBER: "SH",
    tags.REFERRING_PHYSICIAN_NAME: "PN", tags.PATIENT_NAME: "PN", tags.PATIENT_ID: "LO", tags.PATIENT_BIRTH_DATE: "DA",
    tags.PATIENT_SEX: "CS", tags.STUDY_ID: "SH",
}  # fmt: skip
_SERIES_REQUIRED: Final = {tags.MODALITY: "CS", tags.SERIES_NUMBER: "IS"}
_INSTANCE_REQUIRED: Final = {tags.SOP_CLASS_UID: "UI", tags.INSTANCE_NUMBER: "IS"}


def _empty(required: Mapping[int, str]) -> dict[int, bytes]:
    return {tag: b'{"vr":"%s"}' % vr.encode() for tag, vr in required.items()}


_STUDY_EMPTY: Final = _empty(_STUDY_REQUIRED)
_SERIES_EMPTY: Final = _empty(_SERIES_REQUIRED)
_INSTANCE_EMPTY: Final = _empty(_INSTANCE_REQUIRED)
_ONLINE: Final = b'{"vr":"CS","Value":["ONLINE"]}'
_KEYS: Final = {tag: b'"%08X":' % tag for tag in (*query.INDEXED, *query.STUDY_EXTRA, *query.SERIES_EXTRA)}

_LONG_VALUE: Final = re.compile(rb',"BulkDataURI":"bulkdata/[^"]*"')

_encode = msgspec.json.Encoder().encode
_decode_raw = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


async def search(service: Service, request: BaseRequest, target: ResourceId) -> Answer:
    """`/studies`, `/series`, `/instances`, and the latter two below a study or series. PS3.18 10.6

    Raises QueryError, NotAcceptableError, and NotFoundError for a parent in the path that is not here.
    """
    content_type = negotiation.json_type(service.choices(request))
    asked = query.parse(request.raw_path.partition("?")[2])
    wanted = _wanted(service, asked, target)
    base = urls.base(request, service.settings)
    coding = negotiation.content_coding(request.headers.get("Accept-Encoding", ""))
    if target.series is not None:
        service.archive.series(target.study or "", target.series)
    elif target.study is not None:
        service.archive.study(target.study)
    make = _Response(service.archive, wanted, asked, base, coding)
    if make.quick:
        page, body, coded = make()
    else:
        page, body, coded = await service.offload.read(make)
    headers = [("Cache-Control", "private, no-cache")]
    if coded:
        headers.append(("Content-Encoding", coding))
    if page.total is not None:
        headers.append(("X-Total-Count", str(page.total)))
    warnings = list(asked.warnings)
    if page.more and (asked.limit is None or wanted.limit < asked.limit or make.cut):
        warnings.append(TOO_MANY)
    headers.extend(("Warning", f'299 {base} "{text}"') for text in warnings)
    return Answer(200, content_type, body, tuple(headers), vary="Accept, Accept-Encoding")


def _wanted(service: Service, asked: Query, target: ResourceId) -> Search:
    most = service.settings.query_limit if target.study is None else max(NESTED_LIMIT, service.settings.query_limit)
    return Search(
        _LEVELS[target.kind],
        asked.matches,
        target.study,
        target.series,
        limit=most if asked.limit is None else min(asked.limit, most),
        offset=asked.offset,
        fuzzy=asked.fuzzy,
    )


class _Response:
    """Finds one page and writes it. Called in a thread, or in the event loop when it is `quick`."""

    def __init__(self, archive: Archive, wanted: Search, asked: Query, base: str, coding: str) -> None:
        self._archive = archive
        self._wanted = wanted
        self._asked = asked
        self._base = base
        self._coding = coding
        self.cut = False
        """Whether results are left out for the length of the answer."""
        level = wanted.level
        extra = (query.STUDY_EXTRA, query.STUDY_EXTRA | query.SERIES_EXTRA, frozenset[int]())[level]
        beyond = asked.include - query.INDEXED - {tags.AVAILABLE_TRANSFER_SYNTAX_UID}
        self._extra = frozenset(extra if asked.include_all else beyond & extra if level < Level.INSTANCE else beyond)
        self._everything = asked.include_all and level is Level.INSTANCE
        self._available = asked.include_all or tags.AVAILABLE_TRANSFER_SYNTAX_UID in asked.include

    @property
    def quick(self) -> bool:
        """One plain key and a short page, or the series of a study: less than entering a thread costs."""
        if self._extra or self._everything:
            return False
        wanted = self._wanted
        if wanted.study is not None:
            return wanted.level is Level.SERIES and not wanted.matches
        plain = all(not set(value) & set("*?-") for match in wanted.matches for value in match.values)
        single = len(wanted.matches) <= 1 and all(len(match.values) <= 8 for match in wanted.matches)
        return wanted.level is Level.STUDY and wanted.limit <= _INLINE and plain and single and not wanted.fuzzy

    def __call__(self) -> tuple[Page, bytes, bool]:
        """The page, its body, and whether that is compressed."""
        page = self._archive.search(self._wanted)
        objects: list[bytes] = []
        size = 0
        for item in page.items:
            objects.append(self._object(item))
            size += len(objects[-1])
            if size >= _MOST_BYTES and len(objects) < len(page.items):
                page = replace(page, items=page.items[: len(objects)], more=True)
                self.cut = True
                break
        body = b"[" + b",".join(objects) + b"]"
        if not self._coding or len(body) < _COMPRESSED:
            return page, body, False
        if self._coding == "zstd":
            return page, zstandard.ZstdCompressor(level=3).compress(body), True
        return page, zlib.compress(body, 1, 31), True

    def _object(self, item: Item) -> bytes:
        """One result as a DICOM JSON object, tags ascending. Parents that the path does not name are included."""
        wanted = self._wanted
        elements: dict[int, bytes] = {}
        if self._extra or self._everything:
            elements.update(self._stored(item))
        if wanted.study is None or wanted.level is Level.STUDY or self._asked.include_all:
            elements |= _study_elements(item.study)
        elif self._asked.include:
            study = _study_elements(item.study)
            elements.update((tag, study[tag]) for tag in self._asked.include & study.keys())
        url = f"{self._base}/studies/{item.study.uid}"
        elements[tags.STUDY_INSTANCE_UID] = _uid(item.study.uid)
        if item.series is not None:
            if wanted.series is None or wanted.level is Level.SERIES or self._asked.include_all:
                elements |= _series_elements(item.series)
            elif self._asked.include:
                series = _series_elements(item.series)
                elements.update((tag, series[tag]) for tag in self._asked.include & series.keys())
            url += f"/series/{item.series.uid}"
            elements[tags.SERIES_INSTANCE_UID] = _uid(item.series.uid)
        if item.instance is not None:
            elements |= _instance_elements(item.instance)
            if self._available:
                elements[tags.AVAILABLE_TRANSFER_SYNTAX_UID] = metadata.available_transfer_syntaxes(item.instance)
            url += f"/instances/{item.instance.descriptor.instance}"
        if tags.SOP_CLASSES_IN_STUDY not in self._asked.include and not self._asked.include_all:
            elements.pop(tags.SOP_CLASSES_IN_STUDY, None)
        elements[tags.INSTANCE_AVAILABILITY] = _ONLINE
        elements[tags.RETRIEVE_URL] = b'{"vr":"UR","Value":[%s]}' % _encode(url)
        found = b"{" + b",".join(_key(tag) + elements[tag] for tag in sorted(elements)) + b"}"
        # The index does not know of which instance: what it keeps is without the long values inside.
        return _LONG_VALUE.sub(b"", found) if b'"BulkDataURI"' in found else found

    def _stored(self, item: Item) -> dict[int, bytes]:
        """Elements that only the stored Data Set has: of the instance, or of the first one of the series or study."""
        instance = item.instance
        if instance is None:
            series = item.series.uid if item.series is not None else None
            first = self._archive.search(Search(Level.INSTANCE, study=item.study.uid, series=series, limit=1)).items
            instance = first[0].instance if first else None
        if instance is None:
            return {}
        stored = _decode_raw(self._archive.metadata_json(instance))
        found = ((int(key, 16), bytes(element)) for key, element in stored.items())
        # Long values stay where they are: the metadata of the instance names them.
        return {
            tag: element
            for tag, element in found
            if (self._everything or tag in self._extra) and b'"BulkDataURI"' not in element
        }


def _key(tag: int) -> bytes:
    return _KEYS.get(tag) or b'"%08X":' % tag


def _uid(uid: str) -> bytes:
    return b'{"vr":"UI","Value":["%s"]}' % uid.encode()


def _count(number: int) -> bytes:
    return b'{"vr":"IS","Value":[%d]}' % number


def _texts(vr: bytes, values: Iterable[str]) -> bytes:
    listed = sorted(values)
    return b'{"vr":"%s","Value":%s}' % (vr, _encode(listed)) if listed else b'{"vr":"%s"}' % vr


def _study_elements(entry: StudyEntry) -> dict[int, bytes]:
    return {
        **_STUDY_EMPTY,
        **entry.attributes,
        **({tags.MODALITIES_IN_STUDY: _texts(b"CS", entry.modalities)} if entry.modalities else {}),
        tags.SOP_CLASSES_IN_STUDY: _texts(b"UI", entry.sop_classes),
        tags.NUMBER_OF_STUDY_RELATED_SERIES: _count(entry.series),
        tags.NUMBER_OF_STUDY_RELATED_INSTANCES: _count(entry.instances),
    }


def _series_elements(entry: SeriesEntry) -> dict[int, bytes]:
    return {
        **_SERIES_EMPTY,
        **entry.attributes,
        tags.NUMBER_OF_SERIES_RELATED_INSTANCES: _count(entry.instances),
    }


def _instance_elements(entry: InstanceEntry) -> dict[int, bytes]:
    return {**_INSTANCE_EMPTY, **entry.attributes, tags.SOP_INSTANCE_UID: _uid(entry.descriptor.instance)}
