"""The examples of docs/client.md run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pacs import demo
from tests.conftest import ROOT, StartServer


def test_examples_run(
    start_server: StartServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs" / "client.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 6
    incoming = tmp_path / "incoming"
    incoming.mkdir()
    for number, file in enumerate(demo.head_slices(3, rows=150, name="the page of the client")):
        (incoming / f"{number}.dcm").write_bytes(file)
    monkeypatch.chdir(tmp_path)
    url = start_server(tmp_path / "archive", workers=1).url
    program = "\n".join(blocks)
    assert "http://127.0.0.1:8080/dicomweb" in program
    exec(compile(program.replace("http://127.0.0.1:8080/dicomweb", url), "docs/client.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "1.2.840.10008.1.2.4.202" in printed and "(150, 150) uint16" in printed
    assert printed.count("lossless, (150, 150)") == 3
