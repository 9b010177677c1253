"""Building again compiles what has changed and nothing else, with the very setup.py of this checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("Cython", reason="Cython is not installed: `make build` does it")

ROOT = Path(__file__).resolve().parents[2]
FILES = {
    "ht/outer.h": '#include "inner.h"\n#define OUTER (INNER + 1)\n',
    "ht/inner.h": "#define INNER 1\n",
    "shared.pxd": "cdef inline int shared() noexcept:\n    return 1\n",
    "with_header.pyx": 'cdef extern from "ht/outer.h":\n    int OUTER\ndef value():\n    return OUTER\n',
    "with_pxd.pyx": "from pacs._codecs.shared cimport shared\ndef value():\n    return shared()\n",
}


@pytest.fixture
def codecs(tmp_path: Path) -> Path:
    """A checkout with two small extensions in place of ours."""
    folder = tmp_path / "pacs" / "_codecs"
    (folder / "ht").mkdir(parents=True)
    for name in ("pacs/__init__.py", "pacs/_codecs/__init__.py", "README.md", "LICENSE"):
        (tmp_path / name).touch()
    for name in ("setup.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    for name, text in FILES.items():
        (folder / name).write_text(text)
    return folder


def identity(path: Path) -> tuple[int, int]:
    """Of a file: the number alone may be that of one that was deleted."""
    return path.stat().st_ino, path.stat().st_mtime_ns


def build(codecs: Path) -> tuple[set[str], list[int]]:
    """The extensions that were compiled, and what all of them answer."""
    before = {path: identity(path) for path in codecs.glob("*.so")}
    checkout = codecs.parents[1]
    words = [sys.executable, "setup.py", "build_ext", "--inplace", "--build-lib", "lib", "--build-temp", "temp"]
    run = subprocess.run(words, cwd=checkout, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    for scratch in ("lib", "temp"):  # for an editable installation they are new each time
        shutil.rmtree(checkout / scratch, ignore_errors=True)
    program = "from pacs._codecs import with_header, with_pxd\nprint(with_header.value(), with_pxd.value())"
    told = subprocess.run(
        [sys.executable, "-c", program], cwd=checkout, env={**os.environ, "PYTHONPATH": str(checkout)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    compiled = {path.name.partition(".")[0] for path in codecs.glob("*.so") if before.get(path) != identity(path)}
    return compiled, [int(word) for word in told.stdout.split()]


def test_what_has_changed_is_compiled_again_and_nothing_else(codecs: Path) -> None:
    assert build(codecs) == ({"with_header", "with_pxd"}, [2, 1])
    assert build(codecs) == (set(), [2, 1])
    (codecs / "ht" / "inner.h").write_text("#define INNER 10\n")
    assert build(codecs) == ({"with_header"}, [11, 1])
    (codecs / "shared.pxd").write_text(FILES["shared.pxd"].replace("return 1", "return 7"))
    assert build(codecs) == ({"with_pxd"}, [11, 7])
    setup = codecs.parents[1] / "setup.py"
    setup.write_text(setup.read_text() + "\n# other flags\n")
    assert build(codecs)[0] == {"with_header", "with_pxd"}
