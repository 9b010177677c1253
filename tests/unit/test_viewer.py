"""Fetching the viewer: only the pinned archive, only plain files of it, and damage is noticed. No network."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import random
import tarfile
from pathlib import Path

import pytest
import zstandard

from pacs import cli, viewer
from pacs.errors import ViewerError

SCRIPT = b"console.log('hello');\n" * 500
FILES = {
    "package/dist/index.html": b"<!doctype html><title>viewer</title>",
    "package/dist/app.js": SCRIPT,
    "package/dist/deep/er/a.wasm": random.Random(1).randbytes(3000),
    "package/package.json": b"{}",
    "package/dist/../../../escaped.js": b"no",
    "package/dist/../dist/around.js": b"no",
    "/absolute.js": b"no",
}


def packed(to: Path, files: dict[str, bytes] = FILES) -> Path:
    """An npm package archive with `files`, and a symbolic link that leads out of it."""
    with tarfile.open(to, "w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        link = tarfile.TarInfo("package/dist/link.js")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return to


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small archive that counts as the pinned one."""
    path = packed(tmp_path / "small.tgz")
    digest = hashlib.sha512(path.read_bytes()).digest()
    monkeypatch.setattr(viewer, "INTEGRITY", "sha512-" + base64.b64encode(digest).decode())
    return path


def test_what_is_unpacked(archive: Path, tmp_path: Path) -> None:
    folder = tmp_path / "kept" / "here"
    found = viewer.fetch(folder, archive)
    assert set(found.files) == {"index.html", "app.js", "deep/er/a.wasm"}
    assert found.location(found.files["app.js"]).read_bytes() == SCRIPT
    script = found.files["app.js"]
    assert (script.size, script.digest) == (len(SCRIPT), hashlib.blake2b(SCRIPT, digest_size=12).hexdigest())
    assert gzip.decompress(found.location(script, "gzip").read_bytes()) == SCRIPT
    assert zstandard.ZstdDecompressor().decompress(found.location(script, "zstd").read_bytes()) == SCRIPT
    assert not found.files["deep/er/a.wasm"].encodings, "what does not get smaller has no copies"
    everything = [path for path in tmp_path.rglob("*") if path.is_file() or path.is_symlink()]
    assert not [path for path in everything if path.name in ("escaped.js", "around.js", "absolute.js", "link.js")]
    assert not Path("/absolute.js").exists()
    assert [path.name for path in folder.iterdir()] == [f"ohif-{viewer.VERSION}"], "nothing is left over"
    assert viewer.load(folder) == found
    assert viewer.fetch(folder, archive) == found, "again, in its own place"


def test_another_archive_is_refused(archive: Path, tmp_path: Path) -> None:
    other = packed(tmp_path / "other.tgz", {**FILES, "package/dist/index.html": b"evil"})
    with pytest.raises(ViewerError, match=r"other\.tgz is not @ohif/app"):
        viewer.fetch(tmp_path / "kept", other)
    with pytest.raises(ViewerError, match="has not been fetched"):
        viewer.load(tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


def test_nothing_is_left_of_a_fetch_that_fails(archive: Path, tmp_path: Path) -> None:
    """But what was there before, and every folder above it."""
    wrong = packed(tmp_path / "wrong.tgz", {"package/dist/a.js": b""})
    before = sorted(tmp_path.iterdir())
    for arguments in (["--from", str(wrong)], ["--from", str(tmp_path / "none.tgz")]):
        assert cli.main(["viewer", "--dir", str(tmp_path / "new" / "deep"), *arguments]) == 1
        assert sorted(tmp_path.iterdir()) == before
    (tmp_path / "here").mkdir()
    assert cli.main(["viewer", "--dir", str(tmp_path / "here" / "new"), "--from", str(wrong)]) == 1
    assert cli.main(["viewer", "--dir", str(tmp_path / "here"), "--from", str(wrong)]) == 1
    assert list((tmp_path / "here").iterdir()) == []


def test_damage_is_noticed(archive: Path, tmp_path: Path) -> None:
    found = viewer.fetch(tmp_path / "kept", archive)
    assert viewer.damaged(found) == []
    found.location(found.files["app.js"]).write_bytes(SCRIPT[:-1] + b"x")
    found.location(found.files["deep/er/a.wasm"]).unlink()
    assert viewer.damaged(found) == ["app.js", "deep/er/a.wasm"]


@pytest.mark.parametrize("listing", ["", "{}", "[]", '{"format": 1, "files": 3}', '{"format": 2, "files": {}}'])
def test_a_listing_that_cannot_be_used(archive: Path, tmp_path: Path, listing: str) -> None:
    found = viewer.fetch(tmp_path / "kept", archive)
    (found.folder / "viewer.json").write_text(listing)
    with pytest.raises(ViewerError, match="pacs viewer --again"):
        viewer.load(tmp_path / "kept")


def test_default_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert viewer.default_folder() == tmp_path / "pacs" / "viewer"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # to be ignored, says the specification
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert viewer.default_folder() == tmp_path / "home" / ".cache" / "pacs" / "viewer"


def test_command(archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "kept"
    arguments = ["viewer", "--dir", str(folder), "--from", str(archive)]
    assert cli.main(arguments) == 0
    assert "verified: 3 files" in capsys.readouterr().out
    assert cli.main(arguments) == 0
    assert "verifying" not in capsys.readouterr().out, "what is there is left alone"
    (folder / f"ohif-{viewer.VERSION}" / "app.js").write_bytes(b"")
    assert cli.main(arguments) == 0
    assert "not as fetched: app.js; fetching again" in capsys.readouterr().out
    assert cli.main(["viewer", "--dir", str(folder), "--again", "--from", str(tmp_path / "absent.tgz")]) == 1
    assert "absent.tgz" in capsys.readouterr().err


def test_serving_without_a_viewer_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PACS_VIEWER", str(tmp_path))
    assert cli.main(["serve", "--archive", str(tmp_path / "archive"), "--viewer"]) == 1
    assert "run `pacs viewer`" in capsys.readouterr().err
    assert not (tmp_path / "archive").exists()
