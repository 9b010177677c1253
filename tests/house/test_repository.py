"""What is committed: no paths of somebody's machine, no addresses, stubs in step with sources, a README that leads."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

_MACHINE_PATH = re.compile(r"(?<![\w.])/(?:work|home|Users|root)/[\w.]+")
_MAIL = re.compile(r"\b[\w.+-]+@[\w-]+\.(?:com|org|net|de|io|edu)\b")


def committed() -> list[Path]:
    if not (ROOT / ".git").exists():
        pytest.skip("this is not a git checkout")
    names = subprocess.run(["git", "ls-files", "-z"], capture_output=True, check=True, cwd=ROOT).stdout
    return [ROOT / name for name in names.decode().split("\0") if name and (ROOT / name).is_file()]


def test_no_machine_paths_and_no_addresses() -> None:
    found = []
    for path in committed():
        if path == Path(__file__):
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            match = _MACHINE_PATH.search(line) or _MAIL.search(line)
            if match:
                found.append(f"{path.relative_to(ROOT)}:{number}: {match[0]}")
    assert not found, "\n".join(found)


def _is_alias(node: ast.AnnAssign) -> bool:
    return isinstance(node.annotation, ast.Name) and node.annotation.id == "TypeAlias"


def _public(body: list[ast.stmt]) -> set[str]:
    names = set()
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and not _is_alias(node):
            names.add(node.target.id)
        elif isinstance(node, ast.Assign):
            names.update(target.id for target in node.targets if isinstance(target, ast.Name))
    return {name for name in names if not name.startswith("_")}


@pytest.mark.parametrize("source", sorted((ROOT / "pacs" / "_codecs").glob("*.pyx")), ids=lambda path: path.stem)
def test_stub_names_what_the_extension_has(source: Path) -> None:
    """An extension without a Python function (only for `cimport`) needs no stub."""
    import importlib

    own = set(re.findall(r"^(?:cpdef|def|class)\s+(?:[\w.\[\]]+\s+)*?(\w+)\s*[(:]", source.read_text(), re.MULTILINE))
    own = {name for name in own if not name.startswith("_")}
    stub = source.with_suffix(".pyi")
    if not stub.is_file():
        assert not own, f"{source.name} has no stub"
        return
    module = importlib.import_module(f"pacs._codecs.{source.stem}")
    promised = _public(ast.parse(stub.read_text(encoding="utf-8")).body)
    assert promised, f"{stub.name} promises nothing"
    assert not {name for name in promised if not hasattr(module, name)}, "the stub names what is not there"
    assert not own - promised, "the stub leaves something out"


def test_packages_hold_all_that_the_checkout_has() -> None:
    """A source distribution without the .pyx or the headers below them would install without its extensions."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = declared["tool"]["setuptools"]["package-data"]["pacs"]
    files = [path.relative_to(ROOT / "pacs") for path in committed() if path.is_relative_to(ROOT / "pacs")]
    data = [file.as_posix() for file in files if file.suffix != ".py"]
    assert any(file.endswith(".pyx") for file in data) and any(file.endswith(".h") for file in data)
    assert [file for file in data if not any(fnmatch(file, pattern) for pattern in patterns)] == []


def test_readme_opens_with_what_it_is_and_two_commands() -> None:
    first_screen = "\n".join((ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:40])
    assert "make serve" in first_screen and "make test" in first_screen
    assert "DICOMweb" in first_screen


def test_readme_links_lead_somewhere() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (ROOT / target).exists(), target
