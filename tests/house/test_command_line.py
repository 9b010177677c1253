"""The command line as a newcomer meets it: quick, explained, with honest exit statuses."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = ("serve", "store", "fetch", "import", "export", "backup", "check", "reindex", "info", "bench", "viewer")
Run = Callable[..., subprocess.CompletedProcess[str]]

_HEAVY = {
    "numpy", "zarr", "imagecodecs", "pydicom", "aiohttp", "asyncio", "lmdb", "tqdm", "msgspec", "uvloop", "zstandard",
    "concurrent", "multiprocessing",
}  # fmt: skip


def test_help_loads_nothing_heavy() -> None:
    """The guard of start-up time: not by the clock, which depends on the machine, but by what is loaded."""
    program = (
        "import sys\nfrom pacs.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print(' '.join(sorted({name.partition('.')[0] for name in sys.modules})), file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not _HEAVY & set(run.stderr.split())
    assert "serve" in run.stdout


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    from pacs import cli

    with pytest.raises(SystemExit) as stopped:
        cli.main(["--help"])
    assert stopped.value.code == 0
    listed = capsys.readouterr().out
    for command in COMMANDS:
        assert f"\n    {command} " in listed
        with pytest.raises(SystemExit) as stopped:
            cli.main([command, "--help"])
        assert stopped.value.code == 0
        text = capsys.readouterr().out
        assert text.startswith(f"usage: pacs {command} ")
        assert len(text.splitlines()) > 6


@pytest.mark.parametrize("columns", [60, 80])
def test_help_fits_the_terminal(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pacs import cli

    monkeypatch.setattr(os, "get_terminal_size", lambda *_: os.terminal_size((columns, 24)))
    for arguments in ([], *([command] for command in COMMANDS)):
        with pytest.raises(SystemExit):
            cli.main([*arguments, "--help"])
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= columns, arguments
        assert lines.count("") >= 3, "paragraphs stay apart"


@pytest.mark.parametrize(
    "arguments",
    [
        [], ["nonsense"], ["serve"], ["store"], ["export", "1.2.3"], ["serve", "--archive", "x", "--port", "99999"],
        ["fetch"], ["fetch", "no url"],
        ["serve", "--archive", "x", "--workers", "0"], ["store", "x", "--header", "no colon"],
        ["serve", "--archive", "x", "--host", "0.0.0.0"], ["serve", "--archive", "x", "--host", "pacs.example"],
        ["store", "x", "--url", "nonsense"], ["store", "x", "--url", "127.0.0.1:8080/dicomweb"], ["store", ""],
        ["store", "x", "--url", "http://127.0.0.1:99999/"], ["bench", "ftp://x/", "--yes"], ["bench", ""],
        ["info", "--archive", ""], ["import", "x", "--archive", ""], ["fetch", "http://x/studies/1", "--out", ""],
        ["bench"], ["bench", "a", "b"], ["bench", "compare", "a"], ["bench", ".", "--size", "none"],
        ["bench", ".", "--size", "0"], ["bench", ".", "--seconds", "-1"], ["bench", "http://x/dicomweb"],
        ["bench", ".", "--header", "no colon"], ["bench", ".", "--size", "100M"],
    ],
)  # fmt: skip
def test_misuse_is_status_two(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    from pacs import cli

    try:
        status = cli.main(arguments)
    except SystemExit as stopped:
        status = int(str(stopped.code))
    assert status == 2
    captured = capsys.readouterr()
    assert captured.err and not captured.out


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (["serve", "--port", "x"], "argument --port: 'x' is not a whole number"),
        (["serve", "--workers", "1.5"], "argument --workers: '1.5' is not a whole number"),
        (["bench", "--seconds", "x"], "argument --seconds: 'x' is not a number"),
        (["bench", "--size", "xM"], "argument --size: 'x' is not a number"),
        (["info", "--archive", ""], "argument --archive: the name is empty"),
    ],
)
def test_misuse_is_explained_in_words(option: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    from pacs import cli

    with pytest.raises(SystemExit):
        cli.main(option)
    assert capsys.readouterr().err.splitlines()[-1] == f"pacs {option[0]}: error: {said}"


@pytest.mark.parametrize("command", ["check", "reindex", "info", "export", "backup"])
def test_folder_that_is_no_archive(command: str, tmp_path: Path, pacs_command: Run) -> None:
    out = str(tmp_path / "out")
    more = {"export": ["1.2.3", "--out", out], "backup": ["--to", out]}.get(command, [])
    file = tmp_path / "file"
    file.write_text("text")
    for path, what in ((tmp_path, "is not an archive"), (tmp_path / "missing", "does not exist"),
                       (file, "is a file, not an archive"), (file / "x", "does not exist")):  # fmt: skip
        run = pacs_command(command, "--archive", path, *more)
        assert (run.returncode, run.stdout, run.stderr) == (1, "", f"pacs {command}: {path} {what} [ARC-01]\n")
        assert list(tmp_path.iterdir()) == [file], "something was created"
