"""Where a process gets little address space the index takes less of it, and says so where even that is too much."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GIB = 1 << 30
pytestmark = pytest.mark.skipif(
    resource.getrlimit(resource.RLIMIT_AS)[1] != resource.RLIM_INFINITY, reason="address space is limited already"
)
LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv.pop(1)),) * 2)
"""
OPENS = (
    LIMITED
    + """
import json
from pathlib import Path
from pacs.storage.commit import Status
from pacs.storage.commit.room import room
from tests.durability.synthetic import create, new_instance, opened
root = Path(sys.argv[1])
with opened(root if root.exists() else create(root)) as archive:
    archive.commit(new_instance("1.1", "1.2", f"1.2.{len(archive.uids())}"))
    found = room(root, archive.index)
    print(json.dumps({"limit": found.index_limit, "used": found.index_used, "instances": len(archive.uids())}))
"""
)
PACS = (
    LIMITED
    + """
from pacs.cli import main
sys.exit(main(sys.argv[1:]))
"""
)


def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    env = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # each takes address space, and there is one a core
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600, check=False)


@pytest.mark.parametrize(("space", "limit"), [(600, 256), (40, 16), (13, 4), (7, 4)])
def test_half_of_what_there_is(tmp_path: Path, space: int, limit: int) -> None:
    for instances in (1, 2):
        done = run(OPENS, space * GIB, tmp_path / "archive")
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert (found["limit"], found["instances"]) == (limit * GIB, instances)
        assert 0 < found["used"] < GIB


def test_commands_where_there_is_little(tmp_path: Path, ct_slices: Callable[..., list[bytes]]) -> None:
    archive, files = tmp_path / "archive", tmp_path / "files"
    files.mkdir()
    (files / "slice.dcm").write_bytes(ct_slices(1)[0])
    commands = [["import", files], ["check"], ["reindex"], ["info", "--json"], ["check"]]
    for command, *words in commands:
        done = run(PACS, 14 * GIB, command, "--archive", archive, *words)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "1 instance checked: everything is in order" in done.stdout


def test_too_little(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    assert run(OPENS, 7 * GIB, archive).returncode == 0
    done = run(PACS, 3 * GIB, "info", "--archive", archive)
    assert done.returncode != 0
    assert "it needs 4 GiB of address space, and this process does not get them" in done.stderr
    assert "Traceback" not in done.stderr
