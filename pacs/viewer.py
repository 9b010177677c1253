"""The viewer that can be served beside the archive: OHIF as npm has it, fetched once, verified, never changed.

Nothing of it is part of this package. `fetch` brings the pinned version, compares it with the digest pinned here, and
unpacks it; browsers get these very files, and a configuration of ours (`pacs.dicomweb.viewer`).
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

import zstandard

from pacs.errors import ViewerError

PACKAGE: Final = "@ohif/app"
VERSION: Final = "3.13.2"
INTEGRITY: Final = "sha512-WZdxmpmG7rqFgW9ZJLcbgr3XCtLi1KDNPoMaeY5PPe6j4G4fjEjjkycZM6C6Zk2F87BKxFfpq+jd5xXZB9E8EA=="
"""Of the package's archive, as npm states it (Subresource Integrity)."""

_INSIDE: Final = PurePosixPath("package/dist")
_LISTING: Final = "viewer.json"
_FORMAT: Final = 1
_MOST_FILES: Final = 10_000
_MOST_BYTES: Final = 1 << 30
_COMPRESSED: Final = frozenset({".css", ".html", ".js", ".json", ".jsonc", ".svg", ".txt", ".wasm"})
_LEFT_AS_THEY_ARE: Final = ("ort/",)
"""Folders not worth compressing ahead: a tool asks for them that needs models from elsewhere as well."""
_ZSTD_LEVEL: Final = 12
_FETCH_SECONDS: Final = 600


@dataclass(frozen=True, slots=True)
class ViewerFile:
    """A file of the viewer. `path` is relative to the viewer's root, with slashes."""

    path: str
    size: int
    digest: str
    """BLAKE2b of the content, 12 bytes in hexadecimal."""
    encodings: Mapping[str, int]
    """Sizes of its compressed copies, by content coding (`zstd`, `gzip`)."""


@dataclass(frozen=True, slots=True)
class Viewer:
    """A fetched viewer: a folder, and every file that may be served from it."""

    folder: Path
    version: str
    files: Mapping[str, ViewerFile]

    def location(self, file: ViewerFile, coding: str = "") -> Path:
        """Where the file, or its copy in a content coding, lies."""
        return self.folder / (file.path + _SUFFIX[coding])


_SUFFIX: Final = {"": "", "zstd": ".zst", "gzip": ".gz"}


def default_folder() -> Path:
    """Where the viewer is kept when nothing else is said: below the user's cache folder (XDG Base Directory)."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "")
    return (cache if cache.is_absolute() else Path.home() / ".cache") / "pacs" / "viewer"


def load(folder: Path) -> Viewer:
    """The viewer in `folder`. Raises ViewerError when it has not been fetched, or another version has."""
    listing = folder / f"ohif-{VERSION}" / _LISTING
    try:
        found = json.loads(listing.read_text(encoding="utf-8"))
        whole = found["format"] == _FORMAT and found["integrity"] == INTEGRITY
        files = {
            path: ViewerFile(path, entry["size"], entry["digest"], entry["encodings"])
            for path, entry in found["files"].items()
        }
    except FileNotFoundError:
        raise ViewerError(f"the viewer has not been fetched to {folder}: run `pacs viewer`") from None
    except (ValueError, LookupError, TypeError) as error:
        raise ViewerError(f"{listing} cannot be read ({error}): run `pacs viewer --again`") from error
    if not whole or "index.html" not in files:
        raise ViewerError(f"{listing} is of another version: run `pacs viewer --again`")
    return Viewer(listing.parent, VERSION, files)


def damaged(viewer: Viewer) -> list[str]:
    """Paths of files that are missing or not as they were unpacked, their compressed copies included."""
    wrong = []
    for file in viewer.files.values():
        try:
            if digest(viewer.location(file).read_bytes()) != file.digest:
                wrong.append(file.path)
                continue
            for coding, size in file.encodings.items():
                if viewer.location(file, coding).stat().st_size != size:
                    wrong.append(file.path)
        except OSError:
            wrong.append(file.path)
    return wrong


def fetch(folder: Path, archive: Path | None = None, tell: Callable[[str], None] = lambda _: None) -> Viewer:
    """Fetch the viewer into `folder` with npm, or take it from a package archive that lies here already.

    The archive must have the pinned digest. Files appear all at once, by a rename; what was there is replaced.
    `tell` gets a line before each step. Raises ViewerError; folders that were made for nothing are gone then.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return _fetch(folder, archive, tell)
    except BaseException:
        with suppress(OSError):  # of a folder in which something is by now
            for path in missing:
                path.rmdir()
        raise


def _fetch(folder: Path, archive: Path | None, tell: Callable[[str], None]) -> Viewer:
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as name:
        work = Path(name)
        if archive is None:
            tell(f"fetching {PACKAGE} {VERSION} with npm")
            archive = _pack(work)
        tell(f"verifying {archive.name}, {archive.stat().st_size / 1e6:.1f} MB")
        _verify(archive)
        tell("unpacking and compressing")
        fresh = work / "fresh"
        files = {file.path: file for file in _unpack(archive, fresh)}
        if "index.html" not in files:
            raise ViewerError(f"{archive.name} holds no built viewer")
        listing = {
            "format": _FORMAT, "package": PACKAGE, "version": VERSION, "integrity": INTEGRITY,
            "files": {
                path: {"size": file.size, "digest": file.digest, "encodings": dict(file.encodings)}
                for path, file in sorted(files.items())
            },
        }  # fmt: skip
        (fresh / _LISTING).write_text(json.dumps(listing, indent=1) + "\n", encoding="utf-8")
        place = folder / f"ohif-{VERSION}"
        if place.exists():
            place.rename(work / "old")
        fresh.rename(place)
    return load(folder)


def _pack(work: Path) -> Path:
    """npm's own archive of the package, from the registry that npm is configured for."""
    npm = shutil.which("npm")
    if npm is None:
        raise ViewerError("npm is not installed; give the package's archive with --from instead")
    options = ["--ignore-scripts", "--loglevel=error", f"--pack-destination={work}"]
    command = [npm, "pack", f"{PACKAGE}@{VERSION}", *options]
    try:
        run = subprocess.run(
            command, capture_output=True, text=True, timeout=_FETCH_SECONDS, cwd=work, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise ViewerError(f"npm did not finish within {_FETCH_SECONDS} s") from None
    packed = list(work.glob("*.tgz"))
    if run.returncode or len(packed) != 1:
        raise ViewerError(f"npm could not fetch {PACKAGE} {VERSION}: {run.stderr.strip()[-500:] or 'no archive came'}")
    return packed[0]


def _verify(archive: Path) -> None:
    digest = hashlib.sha512()
    try:
        with archive.open("rb") as data:
            while block := data.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise ViewerError(f"{archive} cannot be read: {error.strerror}") from error
    found = "sha512-" + base64.b64encode(digest.digest()).decode()
    if found != INTEGRITY:
        raise ViewerError(f"{archive.name} is not {PACKAGE} {VERSION}: its digest is {found}, not {INTEGRITY}")


def _unpack(archive: Path, to: Path) -> Iterator[ViewerFile]:
    """Write the built viewer's files below `to`. Only plain files with plain names are taken."""
    count = size = 0
    with tarfile.open(archive, "r:gz") as members:
        for member in members:
            path = PurePosixPath(member.name)
            if not member.isfile() or not path.is_relative_to(_INSIDE) or ".." in path.parts:
                continue
            count, size = count + 1, size + member.size
            if count > _MOST_FILES or size > _MOST_BYTES:
                raise ViewerError(f"{archive.name} unpacks to more than {_MOST_BYTES >> 20} MiB")
            content = members.extractfile(member)
            assert content is not None
            yield _write(to, path.relative_to(_INSIDE), content.read())


def _write(to: Path, path: PurePosixPath, data: bytes) -> ViewerFile:
    target = to / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
    encodings = {}
    if path.suffix in _COMPRESSED and not str(path).startswith(_LEFT_AS_THEY_ARE):
        for coding, compress in (("zstd", _zstd), ("gzip", _gzip)):
            packed = compress(data)
            if len(packed) < len(data) * 0.9:
                target.with_name(target.name + _SUFFIX[coding]).write_bytes(packed)
                encodings[coding] = len(packed)
    return ViewerFile(str(path), len(data), digest(data), encodings)


def _zstd(data: bytes) -> bytes:
    # Browsers refuse a window above 8 MiB. RFC 9659
    parameters = zstandard.ZstdCompressionParameters.from_level(_ZSTD_LEVEL, window_log=23)
    return zstandard.ZstdCompressor(compression_params=parameters).compress(data)


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data, 6, mtime=0)


def digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=12).hexdigest()
