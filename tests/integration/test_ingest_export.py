"""Every real file goes in and comes out byte for byte; what is refused is refused for a written reason."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from importlib import metadata
from pathlib import Path

import numpy as np
import pydicom
import pytest

from pacs import demo, uids
from pacs.archive import Archive, StoreResult
from tests.reference import zarr_frames

REFUSED = json.loads((Path(__file__).parent / "refused.json").read_text())
"""Path in the real data -> error code. Nothing else there may be refused."""


@pytest.fixture(scope="module")
def stored(
    shared_data: Path, manifest: list[dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Archive, StoreResult]]:
    """Every file, stored in the first archive that does not hold its SOP Instance UID with other bytes."""
    archives: list[Archive] = []
    results: dict[str, tuple[Archive, StoreResult]] = {}
    for row in manifest:
        data = (shared_data / row["path"]).read_bytes()
        for number in range(20):
            if number == len(archives):
                archives.append(Archive.open(tmp_path_factory.mktemp("archive") / "a", create=True))
            result = archives[number].store(data)
            if result.error is None or result.error.code != "STW-02":
                break
        results[row["path"]] = (archives[number], result)
    return results


def test_only_the_listed_files_are_refused(stored: dict[str, tuple[Archive, StoreResult]]) -> None:
    refused = {path: result.error.code for path, (_, result) in stored.items() if result.error is not None}
    assert refused == REFUSED


UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")


@pytest.mark.filterwarnings("ignore")  # of the oracle, about the odd files
def test_one_archive_refuses_62_files_for_what_pydicom_reads_in_them(
    shared_data: Path, manifest: list[dict[str, str]], stored: dict[str, tuple[Archive, StoreResult]]
) -> None:
    """A UID that is missing or malformed, or a SOP Instance UID that came before with other bytes."""

    def read(path: str) -> list[str]:
        data_set = pydicom.dcmread(shared_data / path, force=True, stop_before_pixels=True)
        return [str(data_set.get(name) or "") for name in UIDS]

    first = stored[manifest[0]["path"]][0]
    sha256 = {row["path"]: row["sha256"] for row in manifest}
    came = {result.instance: path for path, (archive, result) in stored.items() if archive is first}
    reasons: Counter[str] = Counter()
    for path, (archive, result) in stored.items():
        if result.error is not None:
            assert not all(re.fullmatch(r"[0-9]+(\.[0-9]+)*", uid) for uid in read(path)), path
            reasons[result.error.code] += 1
        elif archive is not first:
            before = came[result.instance]
            assert before < path and read(before)[2] == read(path)[2] and sha256[before] != sha256[path], path
            reasons["STW-02"] += 1
    assert reasons == {"STW-02": 40, "UID-01": 21, "P10-01": 1}
    assert len(stored) == len(manifest) == 1043


def test_every_accepted_file_comes_back_byte_for_byte(
    shared_data: Path, stored: dict[str, tuple[Archive, StoreResult]]
) -> None:
    wrong = []
    for path, (archive, result) in stored.items():
        if result.status == "refused":
            continue
        entry = archive.instance(result.study, result.series, result.instance)
        rebuilt = hashlib.sha256()
        for piece in archive.part10(entry):
            rebuilt.update(piece)
        if rebuilt.digest() != hashlib.sha256((shared_data / path).read_bytes()).digest():
            wrong.append(path)
    assert not wrong


def test_native_8_and_16_bit_images_become_pixel_arrays(
    manifest: list[dict[str, str]], stored: dict[str, tuple[Archive, StoreResult]]
) -> None:
    """All but the listed ones, whose pixel data contradicts their description."""
    kept_as_received = []
    encodings: Counter[str] = Counter()
    for row in manifest:
        archive, result = stored[row["path"]]
        if result.status == "refused" or "VR" not in row["transfer_syntax"] or not row["rows"]:
            continue
        key = archive.instance(result.study, result.series, result.instance).descriptor.array_key
        if key is None:
            continue
        encodings[key.encoding] += 1
        if key.encoding != "htj2k" and row["bits_allocated"] in ("8", "16"):
            kept_as_received.append(row["path"])
    assert encodings["htj2k"] > 700
    assert sorted(kept_as_received) == sorted(KEPT_AS_RECEIVED)


LOSSY = {"multiframe/op/sample-op.dcm"}
"""A lossy JPEG image under a lossless Transfer Syntax."""

KEPT_AS_RECEIVED = ["malformed/MR_truncated.dcm"]


@pytest.mark.filterwarnings("ignore")  # of the oracle, about the odd files
def test_decoded_frames_are_pydicoms(
    shared_data: Path, manifest: list[dict[str, str]], stored: dict[str, tuple[Archive, StoreResult]]
) -> None:
    """Of every tenth image of a long series and every other file: what pydicom decodes, we decode to the same."""
    wrong = []
    for number, row in enumerate(manifest):
        archive, result = stored[row["path"]]
        if result.status == "refused" or "pydicom decodes: yes" not in row["note"]:
            continue
        if row["path"].startswith("series/") and number % 10:
            continue
        entry = archive.instance(result.study, result.series, result.instance)
        if entry.descriptor.array_key is None or archive.frame_count(entry) == 0:
            wrong.append(row["path"])
            continue
        data_set = pydicom.dcmread(shared_data / row["path"], force=True)
        expected = pydicom.pixels.pixel_array(data_set, raw=True, index=0)
        decoded = archive.decode_frame(entry, 1)
        if row["path"] in LOSSY or not uids.transfer_syntax(entry.descriptor.transfer_syntax).lossless:
            # The inverse cosine transform and the upsampling of chroma are not exact in their standards.
            close = decoded.shape == expected.shape and np.abs(decoded.astype(float) - expected).mean() < 1
        else:
            close = np.array_equal(decoded, expected)
        if not close:
            wrong.append(row["path"])
    assert not wrong


# --- Zarr -----------------------------------------------------------------------------------------------------


def plain_zarr_python() -> str | None:
    """A Python without this package whose zarr and imagecodecs can read our arrays by themselves."""
    probe = "import zarr, imagecodecs.zarr as z, importlib.util as u, sys; sys.exit(not hasattr(z, 'Htj2k'))"
    for name in (os.environ.get("PACS_ZARR_PYTHON"), "python3.14", "python3.13", "python3.12"):
        found = shutil.which(name) if name else None
        if found and subprocess.run([found, "-c", probe], capture_output=True, check=False).returncode == 0:
            return found
    return None


def read_with(python: str, archives: list[Path]) -> dict[tuple[str, str, int], str]:
    command = [python, "-W", "error", zarr_frames.__file__, *map(str, archives)]
    listing = subprocess.run(command, capture_output=True, text=True, check=False)
    assert listing.returncode == 0, listing.stderr
    lines = (line.split("\t") for line in listing.stdout.splitlines())
    return {(archive, uid, int(number)): digest for archive, uid, number, digest in lines}


@pytest.fixture(scope="module")
def expected_frames(
    shared_data: Path, manifest: list[dict[str, str]], stored: dict[str, tuple[Archive, StoreResult]]
) -> dict[tuple[str, str, int], str]:
    """What pydicom makes of every instance that went into a pixel array."""
    for archive in {archive for archive, _ in stored.values()}:
        archive.settle()
    expected = {}
    for row in manifest:
        archive, result = stored[row["path"]]
        if result.status == "refused" or "pydicom decodes: yes" not in row["note"]:
            continue
        descriptor = archive.instance(result.study, result.series, result.instance).descriptor
        if descriptor.array_key is None or descriptor.array_key.encoding != "htj2k":
            continue
        data_set = pydicom.dcmread(shared_data / row["path"], force=True)
        assert descriptor.geometry is not None
        for number in zarr_frames.chosen(descriptor.geometry.frames):
            samples = pydicom.pixels.pixel_array(data_set, raw=True, index=number)
            expected[str(archive.root), result.instance, number] = zarr_frames.digest(samples)
    return expected


@pytest.mark.filterwarnings("ignore")  # of the oracle, about the odd files
def test_zarr_python_reads_what_pydicom_reads(expected_frames: dict[tuple[str, str, int], str]) -> None:
    assert metadata.entry_points(group="zarr.codecs", name="imagecodecs_htj2k")
    archives = sorted({Path(archive) for archive, _, _ in expected_frames})
    assert len(expected_frames) > 880
    found = read_with(sys.executable, archives)
    assert {frame: found.get(frame) for frame in expected_frames} == expected_frames


@pytest.mark.filterwarnings("ignore")
def test_zarr_python_reads_it_without_this_package(expected_frames: dict[tuple[str, str, int], str]) -> None:
    python = plain_zarr_python()
    if python is None:
        pytest.skip("no Python >= 3.12 with zarr and imagecodecs >= 2026.5.10 (name one in PACS_ZARR_PYTHON)")
    archives = sorted({Path(archive) for archive, _, _ in expected_frames})
    found = read_with(python, archives)
    assert {frame: found.get(frame) for frame in expected_frames} == expected_frames


def test_an_archive_is_closed_once(tmp_path: Path) -> None:
    """Whoever closes it in a `with` may close it before."""
    (file,) = demo.head_slices(1, rows=32, name="closed")
    with Archive.open(tmp_path / "archive", create=True) as archive:
        stored = archive.store(file)
        archive.close()
    with Archive.open(tmp_path / "archive") as archive:
        assert b"".join(archive.part10(archive.instance(stored.study, stored.series, stored.instance))) == file
