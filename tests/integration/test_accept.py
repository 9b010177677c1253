"""Every object that the builders make: stored over HTTP, described as pydicom does, given back byte for byte."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import re
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset

from pacs import uids
from pacs.archive import Archive
from pacs.dicom import part10
from pacs.storage.model import InstanceEntry
from tests.conftest import Server, _server_factory
from tests.integration.exchange import Client, Reply
from tests.objects import catalogue
from tests.objects.base import DEFLATED, Built, uid
from tests.property.test_part10_oracle import differences, expected

UNREAD = {
    "no delimiter at the end",  # pydicom gives up
    "not even a table",  # pydicom calls a value that is nothing but its delimiter empty
}
PARTS = 50
"""Files in one request."""


@dataclass
class Accepted:
    """An archive with everything in it, and what the server said of it."""

    root: Path
    built: list[Built]
    items: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By SOP Instance UID: its item of the Referenced or Failed SOP Sequence."""
    metadata: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    bulk: dict[tuple[str, str], bytes] = field(default_factory=dict)
    native: dict[tuple[str, int], Reply] = field(default_factory=dict)
    """By name and frame number, as `application/octet-stream`."""


def data_set(built: Built) -> Dataset:
    """As pydicom reads it; of deflate it knows one Transfer Syntax."""
    file = built.file
    if built.transfer_syntax in DEFLATED:
        start = part10.beginning(file).data_set
        file = file[:start].replace(built.transfer_syntax.encode(), uids.EXPLICIT_VR_LITTLE_ENDIAN.encode().ljust(
            len(built.transfer_syntax), b"\0")) + zlib.decompress(file[start:], -15)  # fmt: skip
    return pydicom.dcmread(io.BytesIO(file), force=True)


@pytest.fixture(scope="module")
def accepted(tmp_path_factory: pytest.TempPathFactory) -> Accepted:
    found = Accepted(tmp_path_factory.mktemp("accept") / "archive", list(catalogue.everything()))
    for start in _server_factory():
        server = start(found.root)
        _ask(server, found)
        server.stop()
    return found


def _ask(server: Server, found: Accepted) -> None:
    with contextlib.closing(Client(server)) as client:
        _ask_all(client, found)


def _ask_all(client: Client, found: Accepted) -> None:
    for first in range(0, len(found.built), PARTS):
        answer = client.store(*(built.file for built in found.built[first : first + PARTS]), check=False).json
        for sequence in ("00081199", "00081198"):
            for item in answer.get(sequence, {}).get("Value", ()):
                found.items[item["00081155"]["Value"][0]] = item
    for position, built in enumerate(found.built):
        study, series, instance = (uid(built.name, level) for level in ("study", "series", "instance"))
        path = f"/studies/{study}/series/{series}/instances/{instance}"
        (found.metadata[built.name],) = client.get(f"{path}/metadata", "application/dicom+json").json
        arrival = ("*", built.transfer_syntax)[position % 2]
        found.files[built.name] = client.get(path, f"application/dicom; transfer-syntax={arrival}").body
        for name in built.bulk:
            found.bulk[built.name, name] = client.get(f"{path}/bulkdata/{name}", "application/octet-stream").body
        if built.frames is not None and not uids.transfer_syntax(built.transfer_syntax).encapsulated:
            for number in range(1, len(built.frames) + 1):
                reply = client.get(f"{path}/frames/{number}", "application/octet-stream")
                found.native[built.name, number] = reply


def test_there_is_one_of_everything(accepted: Accepted) -> None:
    """An empty catalogue would pass all of what follows."""
    names = [built.name for built in accepted.built]
    assert len(names) == len(set(names)) > 290
    syntaxes = {built.transfer_syntax for built in accepted.built}
    assert not uids.TRANSFER_SYNTAXES.keys() - syntaxes - {
        "1.2.840.10008.1.20", "1.2.840.10008.1.2.6.1", "1.2.840.10008.1.2.6.2",  # no Data Set is known in these
    }  # fmt: skip


def test_all_are_accepted_and_what_is_wrong_is_said(accepted: Accepted) -> None:
    said = {}
    for built in accepted.built:
        item = accepted.items[uid(built.name, "instance")]
        assert "00081197" not in item, (built.name, item)
        comment = item.get("00000902", {"Value": [""]})["Value"][0]
        assert bool(comment) == ("00081196" in item), "a comment comes with a Warning Reason"
        said[built.name] = comment
    wrong = {
        built.name: said[built.name]
        for built in accepted.built
        if bool(built.warns) != bool(said[built.name]) or built.warns not in said[built.name]
    }
    assert not wrong


@pytest.fixture
def quiet_pydicom() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)


@pytest.mark.usefixtures("quiet_pydicom")
def test_metadata_is_what_pydicom_reads(accepted: Accepted) -> None:
    wrong: list[str] = []
    for built in accepted.built:
        if built.name in UNREAD:
            continue
        # The server makes BulkDataURIs absolute, and adds what it has instead of the stored Transfer Syntax.
        text = re.sub(r'"BulkDataURI": ?"[^"]*/bulkdata/', '"BulkDataURI":"bulkdata/', json.dumps(
            accepted.metadata[built.name]))  # fmt: skip
        ours = json.loads(text)
        theirs = expected(data_set(built))
        for added in ("00083002", "00081190"):
            if added not in theirs:
                ours.pop(added, None)
        wrong += [f"{built.name}: {sentence}" for sentence in differences(ours, theirs)]
    assert not wrong, "\n".join(wrong[:40])


def test_every_file_comes_back_byte_for_byte(accepted: Accepted) -> None:
    wrong = [built.name for built in accepted.built if accepted.files[built.name] != built.file]
    assert not wrong


def test_export_gives_the_same_files(accepted: Accepted, tmp_path: Path, pacs_command: Callable[..., Any]) -> None:
    studies = [uid(built.name, "study") for built in accepted.built]
    exported = pacs_command("export", "--archive", accepted.root, "--out", tmp_path / "out", *studies)
    assert exported.returncode == 0, exported.stderr
    files = {path.stem: path.read_bytes() for path in (tmp_path / "out").rglob("*.dcm")}
    assert len(files) == len(accepted.built)
    assert [built.name for built in accepted.built if files[uid(built.name, "instance")] != built.file] == []


def test_bulk_values(accepted: Accepted) -> None:
    assert len(accepted.bulk) > 15
    wrong = [
        (built.name, path)
        for built in accepted.built
        for path, value in built.bulk.items()
        if accepted.bulk[built.name, path] != value
    ]
    assert not wrong


def test_native_frames(accepted: Accepted) -> None:
    """Whatever the byte order, bits or kind of pixel data: little endian, each frame from a byte of its own."""
    assert len(accepted.native) > 250
    wrong = [
        (built.name, number, reply.status)
        for built in accepted.built
        for number, frame in enumerate(built.frames or (), 1)
        if (reply := accepted.native.get((built.name, number))) is not None and reply.body != frame
    ]
    assert not wrong


def entry_of(archive: Archive, built: Built) -> InstanceEntry:
    return archive.instance(uid(built.name, "study"), uid(built.name, "series"), uid(built.name, "instance"))


def test_compressed_frames_are_those_that_were_cut(accepted: Accepted) -> None:
    """As they are stored: one chunk a frame, no more frames and no fewer."""
    wrong = []
    compared = 0
    with Archive.open(accepted.root, threads=1) as archive:
        for built in accepted.built:
            entry = entry_of(archive, built)
            frames = built.frames or ()
            if archive.frame_count(entry) != len(frames):
                wrong.append((built.name, archive.frame_count(entry), len(frames)))
            elif uids.transfer_syntax(built.transfer_syntax).encapsulated:
                for number, frame in enumerate(frames, 1):
                    located = archive.frame(entry, number)
                    assert located.transfer_syntax == built.transfer_syntax
                    compared += 1
                    if bytes(archive.read_frame(located)) != frame:
                        wrong.append((built.name, number, located.length))
    assert not wrong and compared > 250


def test_check_finds_nothing_and_reindex_changes_nothing(
    accepted: Accepted, pacs_command: Callable[..., Any]
) -> None:
    def everything() -> dict[str, tuple[Any, ...]]:
        with Archive.open(accepted.root, threads=1) as archive:
            found = {}
            for built in accepted.built:
                entry = entry_of(archive, built)
                frames = [archive.frame(entry, n + 1).etag for n in range(archive.frame_count(entry))]
                found[built.name] = (entry.descriptor, archive.metadata_json(entry), frames)
            return found

    before = everything()
    checked = pacs_command("check", "--archive", accepted.root)
    assert checked.returncode == 0 and "everything is in order" in checked.stdout, checked.stdout
    assert f"{len(accepted.built)} instances" in checked.stdout
    reindexed = pacs_command("reindex", "--archive", accepted.root)
    assert reindexed.returncode == 0, reindexed.stderr
    assert everything() == before
