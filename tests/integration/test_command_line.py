"""The commands end to end, each in a process of its own, the way a user meets them."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import pty
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pydicom
import pytest

from pacs import demo
from pacs.archive import Archive
from pacs.storage.layout import LAST_COMMIT
from pacs.storage.locks import ArchiveLock
from tests.conftest import ROOT, CtSlices, Server, StartServer
from tests.forked import Forked

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def folder(tmp_path: Path, ct_slices: CtSlices) -> Path:
    """Two series in subfolders, and what lies about in real folders: a text, a DICOMDIR, a conflict, a broken file."""
    files = tmp_path / "files"
    for name, count in (("a", 3), ("b", 4)):
        (files / name).mkdir(parents=True)
        for number, data in enumerate(ct_slices(count, name=f"{tmp_path.name} {name}")):
            (files / name / f"{number}").write_bytes(data)
    (files / "notes.txt").write_text("these are notes, not DICOM")
    return files


def counts(output: str) -> dict[str, int]:
    """The counts that `store` and `import` end with."""
    rows = [line for line in output.splitlines() if re.fullmatch(r"\w[\w ]{13}[ \d,]{9}(   .*)?", line)]
    return {line[:14].strip(): int(line[14:23].replace(",", "")) for line in rows}


def spoil(folder: Path) -> None:
    """Add a file without UIDs, and another image under a SOP Instance UID that is taken."""
    good = (folder / "a" / "0").read_bytes()
    (folder / "z-conflict").write_bytes(good.replace(b"Demo^Emergency", b"Demo^Different"))
    (folder / "z-no-uids").write_bytes(good[:132] + good[132:].replace(b"\x20\0\x0d\0UI", b"\x20\0\x0c\0UI"))


def spoil_a_shard(archive: Path) -> None:
    shard = max(archive.glob("studies/*/series/*/frames-*/c.*"), key=lambda path: path.stat().st_size)
    data = bytearray(shard.read_bytes())
    data[-40] ^= 1
    shard.write_bytes(data)


def test_import_info_check_export_reindex(folder: Path, archive_dir: Path, pacs_command: Run, tmp_path: Path) -> None:
    run = pacs_command("import", folder, "--archive", archive_dir, fresh=True)
    assert (run.returncode, run.stderr) == (0, ""), run.stdout + run.stderr
    assert counts(run.stdout) == {"stored": 7, "already there": 0, "refused": 0, "skipped": 1}
    assert "skipped, not DICOM: 1" in run.stdout
    again = pacs_command("import", folder, "--archive", archive_dir)
    assert again.returncode == 0
    assert counts(again.stdout) == {"stored": 0, "already there": 7, "refused": 0, "skipped": 1}

    shown = json.loads(pacs_command("info", "--archive", archive_dir, "--json", fresh=True).stdout)
    received = sum(path.stat().st_size for name in "ab" for path in (folder / name).iterdir())
    assert (shown["studies"], shown["series"], shown["instances"]) == (2, 2, 7)
    assert shown["received_bytes"] == received and shown["stored_bytes"] > 0 and shown["format_version"] == 1
    assert "instances       7\n" in pacs_command("info", "--archive", archive_dir).stdout

    checked = pacs_command("check", "--archive", archive_dir, fresh=True)
    assert (checked.returncode, checked.stdout) == (0, "7 instances checked: everything is in order\n")

    before = _exported(partial(pacs_command, fresh=True), archive_dir, folder, tmp_path / "out 1")
    shutil.rmtree(archive_dir / "index")
    lost = pacs_command("info", "--archive", archive_dir)
    assert lost.returncode == 1 and "pacs reindex" in lost.stderr
    rebuilt = pacs_command("reindex", "--archive", archive_dir, fresh=True)
    assert (rebuilt.returncode, rebuilt.stdout) == (0, "the index is new: 7 instances\n"), rebuilt.stderr
    assert _exported(pacs_command, archive_dir, folder, tmp_path / "out 2") == before


def test_an_index_of_yesterday_is_not_believed(
    folder: Path, archive_dir: Path, pacs_command: Run, tmp_path: Path
) -> None:
    """A copy by it would end where it does, and pass for the archive; so would its counts."""
    pacs_command("import", folder / "a" / "0", "--archive", archive_dir)
    shutil.copytree(archive_dir / "index", tmp_path / "index")
    for path in sorted((folder / "a").iterdir())[1:3]:
        pacs_command("import", path, "--archive", archive_dir)
    shutil.rmtree(archive_dir / "index")
    (tmp_path / "index").rename(archive_dir / "index")
    for words in (("backup", "--to", tmp_path / "copy"), ("info",)):
        run = pacs_command(*words, "--archive", archive_dir)
        assert run.returncode == 1 and "[STO-03]" in run.stderr and "pacs reindex" in run.stderr
    assert not (tmp_path / "copy").exists()
    assert pacs_command("reindex", "--archive", archive_dir).returncode == 0
    assert pacs_command("backup", "--archive", archive_dir, "--to", tmp_path / "copy").returncode == 0
    assert pacs_command("info", "--archive", archive_dir).returncode == 0


def test_a_last_commit_that_cannot_be_read(folder: Path, archive_dir: Path, pacs_command: Run, tmp_path: Path) -> None:
    """Of a disk that fails: what it still reads is told, and saved."""
    pacs_command("import", folder / "a" / "0", "--archive", archive_dir)
    last = archive_dir / LAST_COMMIT
    last.unlink()
    last.symlink_to(last.name)  # ELOOP, for root too
    study = pydicom.dcmread(folder / "a" / "0", stop_before_pixels=True).StudyInstanceUID
    for words in (("info",), ("export", study, "--out", tmp_path / "out"), ("backup", "--to", tmp_path / "copy")):
        run = pacs_command(*words, "--archive", archive_dir)
        assert run.returncode == 0, run.stderr


def _exported(pacs_command: Run, archive: Path, folder: Path, out: Path) -> set[bytes]:
    """A study, a series and an instance come back byte for byte, below their UIDs."""
    one = pydicom.dcmread(folder / "a" / "0", stop_before_pixels=True)
    other = pydicom.dcmread(folder / "b" / "0", stop_before_pixels=True)
    run = pacs_command(
        "export",
        one.StudyInstanceUID,
        other.SeriesInstanceUID,
        other.SOPInstanceUID,
        "--archive",
        archive,
        "--out",
        out,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("8 files, ")
    found = {path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert found == {path.read_bytes() for name in "ab" for path in (folder / name).iterdir()}
    path = out / other.StudyInstanceUID / other.SeriesInstanceUID / f"{other.SOPInstanceUID}.dcm"
    assert path.read_bytes() == (folder / "b" / "0").read_bytes()
    return found


def test_export_of_what_is_not_there(folder: Path, archive_dir: Path, pacs_command: Run, tmp_path: Path) -> None:
    pacs_command("import", folder / "a", "--archive", archive_dir)
    uid = pydicom.dcmread(folder / "a" / "1", stop_before_pixels=True).SOPInstanceUID
    run = pacs_command("export", "1.2.3.4", "../..", uid, "--archive", archive_dir, "--out", tmp_path / "out")
    assert run.returncode == 1
    assert run.stderr.splitlines() == [
        "pacs export: 1.2.3.4 is not stored [ARC-01]",
        "pacs export: the UID '../..' is not digits separated by single dots [UID-01]",
    ]
    assert run.stdout.startswith("1 file, ")
    assert len([path for path in (tmp_path / "out").rglob("*") if path.is_file()]) == 1
    for nothing in ("1.2.3.4", "", "1" * 1000):
        run = pacs_command("export", nothing, "--archive", archive_dir, "--out", tmp_path / "none")
        assert run.returncode == 1 and not run.stdout
        assert len(run.stderr.splitlines()) == 1 and run.stderr.startswith("pacs export: ")
        assert not (tmp_path / "none").exists()


def test_nothing_to_import_makes_no_archive(folder: Path, tmp_path: Path, pacs_command: Run) -> None:
    (tmp_path / "empty").mkdir()
    missing, notes = tmp_path / "missing", folder / "notes.txt"
    for paths, said in (
        ([missing], [f"{missing}: no such file or directory"]),
        ([missing, notes], [f"{missing}: no such file or directory", f"{notes}: not DICOM"]),
        ([tmp_path / "empty"], ["there is no DICOM file"]),
    ):
        for command, place in (("import", ["--archive", tmp_path / "new"]), ("store", ["--url", "http://127.0.0.1:9"])):
            run = pacs_command(command, *paths, *place)
            assert (run.returncode, run.stdout) == (1, "")
            assert run.stderr.splitlines() == [f"pacs {command}: {line}" for line in said]
    notes.rename(tmp_path / "empty" / "notes.txt")
    run = pacs_command("import", tmp_path / "empty", "--archive", tmp_path / "new")
    assert run.stderr == "pacs import: there is no DICOM file among 1 file\n" and not run.stdout
    assert not (tmp_path / "new").exists()
    run = pacs_command("import", missing, folder / "a", "--archive", tmp_path / "new")
    assert run.returncode == 1 and counts(run.stdout)["stored"] == 3 and counts(run.stdout)["not read"] == 1


def test_a_file_where_a_folder_has_to_be(folder: Path, archive_dir: Path, pacs_command: Run) -> None:
    """It is said before anything is asked of the archive or a server."""
    pacs_command("import", folder / "a", "--archive", archive_dir)
    notes = folder / "notes.txt"
    for out in (notes, notes / "below" / "it"):
        for words in (["export", "1.2.3", "--archive", archive_dir], ["fetch", "http://127.0.0.1:9/studies/1.2.3"]):
            run = pacs_command(*words, "--out", out)
            assert (run.returncode, run.stdout) == (1, "")
            assert run.stderr == f"pacs {words[0]}: Not a directory: {notes}\n"


def test_fetch_from_nobody_makes_no_folder(tmp_path: Path, pacs_command: Run) -> None:
    url = "http://127.0.0.1:9/dicomweb/studies/1.2/series/1.3/instances/1.4"
    run = pacs_command("fetch", url, "--out", tmp_path / "out", "--patience", "1")
    assert run.returncode == 1 and "nobody answers" in run.stderr
    assert not (tmp_path / "out").exists()


def test_a_disk_that_is_full_is_named(folder: Path, server: Server, tmp_path: Path, pacs_command: Run) -> None:
    """Nearly: a file may not grow beyond a block, which fails in the same place."""
    pacs_command("store", folder / "a", "--url", server.url)
    study = pydicom.dcmread(folder / "a" / "0", stop_before_pixels=True).StudyInstanceUID
    words = [sys.executable, "-m", "pacs", "fetch", f"{server.url}/studies/{study}", "--out", tmp_path / "out"]
    run = subprocess.run(
        ["sh", "-c", 'ulimit -f 1; exec "$@"', "sh", *words], capture_output=True, text=True, cwd=ROOT, check=False,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},  # it would be cut off, and others would read it
    )  # fmt: skip
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr == f"pacs fetch: File too large: {tmp_path / 'out'}\n"
    assert not list((tmp_path / "out").rglob("*.dcm"))


def test_an_archive_that_may_not_be_looked_into(archive_dir: Path, folder: Path, pacs_command: Run) -> None:
    """It is not called something else than an archive."""
    pacs_command("import", folder / "a", "--archive", archive_dir)
    drop = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    if drop and not shutil.which("setpriv"):
        pytest.skip("root may look into everything, and there is no setpriv")
    archive_dir.chmod(0)
    try:
        for command in ("info", "check", "reindex"):
            words = [*drop, sys.executable, "-m", "pacs", command, "--archive", str(archive_dir)]
            run = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=False)
            assert run.returncode == 1 and not run.stdout
            assert run.stderr.startswith(f"pacs {command}: Permission denied: {archive_dir}"), run.stderr
    finally:
        archive_dir.chmod(0o755)


def test_an_archive_that_may_only_be_read(archive_dir: Path, folder: Path, tmp_path: Path, pacs_command: Run) -> None:
    """It can be looked at and exported while nobody else has it open; what has to write says what it may not."""
    pacs_command("import", folder / "a", "--archive", archive_dir)
    study = next(path.name for path in (archive_dir / "studies").iterdir() if path.is_dir())
    drop = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    if drop and not shutil.which("setpriv"):
        pytest.skip("root may write everything, and there is no setpriv")
    everything = [archive_dir, *archive_dir.rglob("*")]

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        line = [*drop, sys.executable, "-m", "pacs", *map(str, words), "--archive", str(archive_dir)]
        return subprocess.run(line, capture_output=True, text=True, cwd=ROOT, check=False)

    for path in everything:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        for words in (["info"], ["check"], ["export", study, "--out", tmp_path / "out"]):
            done = run(*words)
            assert (done.returncode, done.stderr) == (0, ""), done.stdout
        assert list((tmp_path / "out").rglob("*.dcm"))
        for words in (["reindex"], ["import", folder / "b"]):
            done = run(*words)
            text = f"pacs {words[0]}: {archive_dir}/write.lock cannot be opened: Permission denied [STO-01]\n"
            assert (done.returncode, done.stderr) == (1, text)
        lock = ArchiveLock(archive_dir)  # nobody would tell whoever writes now of this reader
        assert "[STO-04]" in run("info").stderr
        lock.close()
    finally:
        for path in everything:
            path.chmod(0o755)


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="not root, or no setpriv")
def test_a_reader_without_rights_keeps_nobody_waiting(archive_dir: Path, ct_slices: CtSlices) -> None:
    """Who stores opens the archive meanwhile; and the reader is told, of whom LMDB did not know."""
    first, second = ct_slices(2)
    with Archive.open(archive_dir, create=True) as archive:
        assert archive.store(first).status == "stored"
    everything = [archive_dir, *archive_dir.rglob("*")]
    for path in everything:
        path.chmod(0o555 if path.is_dir() else 0o444)
    program = (
        "import sys\nfrom pathlib import Path\nfrom pacs.storage.index import readers\n"
        "with readers.reading(Path(sys.argv[1])):\n    print('reading', flush=True)\n    sys.stdin.readline()\n"
    )
    drop = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
    with subprocess.Popen(
        [*drop, sys.executable, "-c", program, archive_dir], cwd=ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as reader:  # fmt: skip
        assert reader.stdout is not None
        assert reader.stdout.readline() == "reading\n"
        with Archive.open(archive_dir) as archive:
            assert archive.store(second).status == "stored"
        _, told = reader.communicate("\n")
    assert "something was stored" in told
    for path in everything:
        path.chmod(0o755)


def test_check_runs_nothing_of_the_working_directory(archive_dir: Path, ct_slices: CtSlices, tmp_path: Path) -> None:
    with Archive.open(archive_dir, create=True) as archive:
        archive.store(ct_slices(1)[0])
    (tmp_path / "lmdb.py").write_text("open('ran', 'w')\n")
    run = subprocess.run(
        [Path(sys.executable).with_name("pacs"), "check", "--archive", archive_dir], cwd=tmp_path, check=False,
        capture_output=True,
    )  # fmt: skip
    assert run.returncode == 0
    assert not (tmp_path / "ran").exists()


def test_closed_standard_streams(folder: Path, tmp_path: Path) -> None:
    """Work is done all the same, and no file of the archive gets the number of a stream."""
    archive = tmp_path / "archive"
    program = 'exec "$0" -m pacs import "$1" --archive "$2" <&- >&- 2>&-'
    run = subprocess.run(["sh", "-c", program, sys.executable, folder, archive], cwd=ROOT, check=False)
    assert run.returncode == 0
    program = (
        "import os, sys\nfrom pacs import cli\ncli.main(['info', '--archive', sys.argv[1]])\n"
        "sys.exit(not all(os.fstat(number).st_rdev == os.stat(os.devnull).st_rdev for number in range(3)))"
    )
    words = ["sh", "-c", 'exec "$0" -c "$1" "$2" <&- >&- 2>&-', sys.executable, program, archive]
    assert subprocess.run(words, cwd=ROOT, check=False).returncode == 0


def test_standard_output_that_is_full(folder: Path, archive_dir: Path, pacs_command: Run) -> None:
    """It is not taken for the disk of the archive, neither by what writes at once nor by what writes at its end."""
    pacs_command("import", folder / "a", "--archive", archive_dir)
    spoil_a_shard(archive_dir)
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONUNBUFFERED"}
    for command in ("info", "check"):
        with Path("/dev/full").open("w") as full:
            run = subprocess.run(
                [sys.executable, "-m", "pacs", command, "--archive", archive_dir],
                stdout=full, stderr=subprocess.PIPE, text=True, env=environment, cwd=ROOT, check=False,
            )  # fmt: skip
        assert (run.returncode, run.stderr) == (1, "pacs: standard output: No space left on device\n")


@pytest.mark.parametrize("command", ["fetch", "store"])
def test_ctrl_c_says_so_and_leaves_nothing(command: str, folder: Path, tmp_path: Path) -> None:
    """While a server is asked that never answers."""
    program = (  # a shell starts what runs in the background with SIGINT ignored
        "import signal, sys\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from pacs.cli import main\nsys.exit(main())"
    )
    with socket.create_server(("127.0.0.1", 0)) as listening:
        root = f"http://127.0.0.1:{listening.getsockname()[1]}/dicomweb"
        one = f"{root}/studies/1.2/series/1.3/instances/1.4"
        words = [one, "--out", tmp_path / "out"] if command == "fetch" else [folder, "--url", root, "--jobs", "1"]
        with subprocess.Popen(
            [sys.executable, "-c", program, command, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            cwd=ROOT,
        ) as process:  # fmt: skip
            try:
                listening.settimeout(300)
                connection, _ = listening.accept()
                with connection:
                    assert connection.recv(1)
                    process.send_signal(signal.SIGINT)
                    assert process.communicate(timeout=300) == ("", f"\npacs {command}: interrupted\n")
            finally:
                process.kill()
    assert process.returncode == 130
    assert not (tmp_path / "out").exists()


def test_refused_files_are_named_with_their_reason(folder: Path, archive_dir: Path, pacs_command: Run) -> None:
    pacs_command("import", folder, "--archive", archive_dir)
    spoil(folder)
    (folder / "unreadable").symlink_to(folder / "nowhere")
    run = pacs_command("import", folder, "--archive", archive_dir)
    assert run.returncode == 1
    lines = run.stdout.splitlines()
    assert counts(run.stdout)["refused"] == 2
    assert "refused, a SOP Instance UID that is already stored with other bytes [STW-02]: 1" in lines
    assert "refused, a UID that is missing or malformed (PS3.5 9.1) [UID-01]: 1" in lines
    assert any(line.startswith(f"    {folder}/z-conflict: ") for line in lines)
    assert "not read, no such file or directory: 1" in lines
    nothing = pacs_command("import", folder / "notes.txt", "--archive", archive_dir)
    assert nothing.returncode == 1


def test_check_lists_damage(folder: Path, archive_dir: Path, pacs_command: Run) -> None:
    pacs_command("import", folder, "--archive", archive_dir)
    spoil_a_shard(archive_dir)
    run = pacs_command("check", "--archive", archive_dir)
    assert run.returncode == 1
    *findings, verdict = run.stdout.splitlines()
    assert findings and all(line.startswith(("error: studies/", "note: ")) for line in findings)
    of_shards = [line for line in findings if "/frames-" in line.split(": ")[1]]
    assert of_shards and all(line.count("/frames-") == 1 for line in of_shards), "each is named once"
    assert verdict.startswith("7 instances checked: ") and "error" in verdict


def all_of(terminal: io.FileIO) -> bytes:
    """What is shown on a terminal until nobody has it open any more: the longer it takes, the more, and the kernel does
    not keep all of it."""
    shown = b""
    with contextlib.suppress(OSError):  # the end of a terminal is an error
        while piece := terminal.read(65536):
            shown += piece
    return shown


def test_a_bar_on_a_terminal(folder: Path, archive_dir: Path, tmp_path: Path, server: Server) -> None:
    """It is gone at the end. Without a terminal standard error stays empty: asserted above."""
    study = pydicom.dcmread(folder / "a" / "0", stop_before_pixels=True).StudyInstanceUID
    for command, what in (
        (["import", folder, "--archive", archive_dir], "importing   0% |"),
        (["store", folder, "--url", server.url], "uploading   0% |"),
        (["check", "--archive", archive_dir], " series, "),
        (["export", study, "--archive", archive_dir, "--out", tmp_path / "out"], "exporting   0% |"),
        (["backup", "--archive", archive_dir, "--to", tmp_path / "copy"], "backing up   0% |"),
        (["reindex", "--archive", archive_dir], "reindexing   0% |"),
    ):
        terminal, end = pty.openpty()
        with tempfile.TemporaryFile() as output, os.fdopen(terminal, "rb", buffering=0) as reading:
            try:
                fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("4H", 30, 100, 0, 0))
                process = Forked([str(word) for word in command], output.fileno(), end, os.environ, ROOT)
            finally:
                os.close(end)
            try:
                shown = all_of(reading).decode()
                assert process.wait(600) == 0
            finally:
                process.kill()
        assert what in shown and not shown.rpartition("\r")[0].rpartition("\r")[2].strip(), shown
        assert ", ," not in shown and "s/ " not in shown, shown  # seconds for one


def test_store_uploads_over_http(server: Server, folder: Path, pacs_command: Run) -> None:
    run = pacs_command("store", folder, "--url", server.url, "--per-request", "2", "--jobs", "2", fresh=True)
    assert (run.returncode, run.stderr) == (0, ""), run.stdout + run.stderr
    assert counts(run.stdout)["stored"] == 7
    spoil(folder)
    again = pacs_command("store", folder, "--url", f"{server.url}/studies/")
    assert again.returncode == 1
    lines = again.stdout.splitlines()
    assert counts(again.stdout) == {"stored": 0, "already there": 7, "refused": 2, "skipped": 1}
    assert any(line.startswith("refused, stored already with other bytes (0111H): 1") for line in lines)
    assert any(line.startswith(f"    {folder}/z-conflict") for line in lines)
    assert any(line.startswith(f"    {folder}/z-no-uids") for line in lines)


def test_store_says_when_nobody_answers(folder: Path, pacs_command: Run) -> None:
    run = pacs_command("store", folder, "--url", "http://127.0.0.1:9/dicomweb")
    assert run.returncode == 1 and not run.stdout
    assert run.stderr.startswith(
        "pacs store: nobody answers at http://127.0.0.1:9/dicomweb/studies: connection refused"
    )


def test_every_shared_file_is_stored_or_explained(
    shared_data: Path, server: Server, pacs_command: Run, tmp_path: Path
) -> None:
    """A folder as it is found in the world goes through one command; nothing is lost without a word."""
    for name in ("charset", "malformed", "dicomdir", "non-image"):
        shutil.copytree(shared_data / name, tmp_path / name)
    total = sum(1 for path in tmp_path.rglob("*") if path.is_file())
    run = pacs_command("store", tmp_path, "--url", server.url)
    found = counts(run.stdout)
    assert sum(found.values()) == total, run.stdout
    assert found["stored"] + found["already there"] > 0.8 * total, run.stdout
    assert not run.stderr


def test_demo_is_loaded_once(archive_dir: Path, start_server: StartServer, pacs_command: Run) -> None:
    first = start_server(archive_dir, workers=1, args=["--demo"], fresh=True)
    assert first.logged("loading a demo")
    first.stop()
    shown = json.loads(pacs_command("info", "--archive", archive_dir, "--json").stdout)
    assert shown["instances"] == demo.FILES
    assert shown["stored_bytes"] < 0.45 * shown["received_bytes"]
    second = start_server(archive_dir, workers=1, args=["--demo"])
    second.stop()
    assert "loading a demo" not in second.log


def test_second_server_on_the_same_port_says_so(server: Server, archive_dir: Path, pacs_command: Run) -> None:
    run = pacs_command("serve", "--archive", archive_dir, "--port", server.address.rpartition(":")[2])
    assert run.returncode == 1
    assert "cannot listen on 127.0.0.1" in run.stderr and "Traceback" not in run.stderr


def test_unknown_setting_stops_the_start(archive_dir: Path, pacs_command: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "PACS_NO_SUCH_THING", "1")
    run = pacs_command("serve", "--archive", archive_dir, "--port", "0")
    assert run.returncode == 1
    assert "there is no setting PACS_NO_SUCH_THING" in run.stderr
