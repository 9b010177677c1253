"""DCMTK beside us: the C-STORE gateway of the README, and its reader on what we rewrite."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pacs import demo, uids
from pacs.archive import Archive
from pacs.dicom import attributes, part10

pytestmark = pytest.mark.skipif(
    shutil.which("dcmdump") is None, reason="DCMTK is absent: apt-get install dcmtk"
)


@contextlib.contextmanager
def storescp(incoming: Path) -> Iterator[int]:
    """A storescp that answers, and its port: it takes none by itself, and one that was free may be taken by another."""
    for _ in range(10):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        with subprocess.Popen(["storescp", "--fork", "-od", str(incoming), str(port)]) as receiver:
            try:
                deadline = time.monotonic() + 120
                while receiver.poll() is None:
                    echo = subprocess.run(["echoscu", "127.0.0.1", str(port)], capture_output=True, check=False)
                    if echo.returncode == 0:
                        yield port
                        return
                    assert time.monotonic() < deadline, "storescp did not start"
            finally:
                receiver.terminate()
    pytest.fail("storescp found no port")


def test_a_modality_that_only_knows_c_store(
    tmp_path: Path, start_server: Callable[..., Any], pacs_command: Callable[..., Any]
) -> None:
    """storescu -> storescp -> pacs store, as the README tells it."""
    sent = tmp_path / "sent"
    incoming = tmp_path / "incoming"
    sent.mkdir()
    incoming.mkdir()
    files = list(demo.head_slices(5, rows=64, name="c-store"))
    for number, data in enumerate(files):
        (sent / f"{number}.dcm").write_bytes(data)
    with storescp(incoming) as port:
        subprocess.run(["storescu", "+sd", "127.0.0.1", str(port), str(sent)], check=True, timeout=600)
    server = start_server(tmp_path / "archive")
    stored = pacs_command("store", incoming, "--url", server.url)
    assert stored.returncode == 0, stored.stdout + stored.stderr
    server.stop()
    with Archive.open(tmp_path / "archive") as archive:
        for data in files:
            found = attributes.uids(part10.scan(data).json)
            assert archive.instance(found.study, found.series, found.instance)
        assert archive.counters().instances == len(files)


def dcmdump(*arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["dcmdump", *map(str, arguments)], capture_output=True, check=False)


def all_read(paths: list[Path]) -> bool:
    """Whether all are read without complaint, as explicit little endian: in two runs, for they take longer to start."""
    syntaxes = dcmdump("--search", "0002,0010", *paths).stdout
    return (
        dcmdump("--quiet", "--read-file-only", *paths).returncode == 0
        and syntaxes.count(b"(0002,0010)") == syntaxes.count(b"LittleEndianExplicit") == len(paths)
    )


@pytest.mark.filterwarnings("ignore")  # pydicom warns of the odd files that it rewrites
def test_dcmtk_reads_what_is_rewritten_as_explicit_little_endian(
    shared_data: Path, manifest: list[dict[str, str]], tmp_path: Path
) -> None:
    """One file of each folder and Transfer Syntax."""
    seen: set[tuple[str, str]] = set()
    rewritten = []
    with Archive.open(tmp_path / "archive", create=True) as archive:
        for row in manifest:
            kind = (str(Path(row["path"]).parent), row["transfer_syntax"])
            if kind in seen or row["path"].startswith("malformed/"):
                continue
            result = archive.store((shared_data / row["path"]).read_bytes())
            if result.status == "refused" or "pydicom decodes: no" in row["note"]:
                continue
            seen.add(kind)
            entry = archive.instance(result.study, result.series, result.instance)
            path = tmp_path / f"{len(seen)}.dcm"
            explicit = archive.renditions().instance(entry, uids.EXPLICIT_VR_LITTLE_ENDIAN)
            path.write_bytes(b"".join(explicit.pieces))
            rewritten.append((row["path"], path))
        assert len(rewritten) > 60
        wrong = [] if all_read([path for _, path in rewritten]) else ["none of them alone"]
        for source, path in rewritten if wrong else ():
            dumped = dcmdump("--quiet", "--read-file-only", path)
            syntax = dcmdump("--search", "0002,0010", path)
            if dumped.returncode != 0 or b"LittleEndianExplicit" not in syntax.stdout:
                wrong.append((source, dumped.stderr[:200], syntax.stdout[:100]))
        assert not wrong
