"""`pacs backup` beside a server that stores: the copy is the archive at a commit, its files are those uploaded."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

from tests.conftest import CtSlices, StartServer
from tests.integration.exchange import Client, Stored

Run = Callable[..., subprocess.CompletedProcess[str]]


def test_backup_while_uploads_run(
    start_server: StartServer, archive_dir: Path, tmp_path: Path, ct_slices: CtSlices, pacs_command: Run
) -> None:
    server = start_server(archive_dir)
    copy = tmp_path / "copy"
    studies = [ct_slices(3, name=f"study {n}") for n in range(60)]
    begun, stop = threading.Event(), threading.Event()
    acknowledged: list[int] = []

    def upload(numbers: range) -> None:
        client = Client(server)
        for n in numbers:
            if stop.is_set():
                break
            client.store(*studies[n])
            acknowledged.append(n)
            if len(acknowledged) > 4:
                begun.set()
        client.close()

    uploaders = [threading.Thread(target=upload, args=(range(k, 60, 2),)) for k in range(2)]
    for uploader in uploaders:
        uploader.start()
    assert begun.wait(300)
    before = set(acknowledged)
    run = pacs_command("backup", "--archive", archive_dir, "--to", copy, fresh=True)
    after = set(acknowledged)
    stop.set()
    for uploader in uploaders:
        uploader.join(600)
    assert run.returncode == 0, run.stderr
    assert not run.stderr and "the copy is the archive as of commit" in run.stdout
    checked = pacs_command("check", "--archive", copy)
    assert checked.returncode == 0, checked.stdout
    info = json.loads(pacs_command("info", "--archive", copy, "--json").stdout)
    assert 3 * len(before) <= info["instances"] <= 3 * (len(after) + 2), "a moment while it ran"
    out = tmp_path / "out"
    sent = {Stored(file).data.SOPInstanceUID: file for file in studies[min(before)]}
    run = pacs_command("export", *sent, "--archive", copy, "--out", out)
    assert run.returncode == 0, run.stderr
    assert {path.stem: path.read_bytes() for path in out.rglob("*.dcm")} == sent
    runs = [pacs_command("backup", "--archive", archive_dir, "--to", copy) for _ in range(2)]
    assert [run.returncode for run in runs] == [0, 0]
    assert runs[1].stdout.startswith("0 instances copied, 0 bytes")
    server.stop()
    restored = start_server(copy)
    client = Client(restored)
    for n in acknowledged:
        stored = Stored(studies[n][0])
        reply = client.get(stored.path, "application/dicom; transfer-syntax=*")
        assert reply.status == 200 and reply.body == stored.file, "the copy is served as it is"
    client.close()


def test_folders_are_told_on_standard_error(
    archive_dir: Path, tmp_path: Path, ct_slices: CtSlices, pacs_command: Run
) -> None:
    files = tmp_path / "files"
    files.mkdir()
    (files / "a.dcm").write_bytes(ct_slices(1)[0])
    for archive in (archive_dir, tmp_path / "other"):
        assert pacs_command("import", files, "--archive", archive).returncode == 0
    run = pacs_command("backup", "--archive", archive_dir, "--to", tmp_path / "other")
    assert run.returncode == 1 and "[STO-06]" in run.stderr and not run.stdout
    run = pacs_command("backup", "--archive", archive_dir, "--to", archive_dir / "inside")
    assert run.returncode == 1 and "[STO-06]" in run.stderr
    assert not (archive_dir / "inside").exists()
