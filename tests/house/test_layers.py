"""Who imports whom: downwards only, and third-party libraries where they belong (docs/architecture.md)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

LAYERS: tuple[tuple[str, ...], ...] = (
    # 0
    ("pacs.__init__", "pacs.errors", "pacs.uids", "pacs.tags", "pacs.geometry", "pacs.measure", "pacs.reading_order"),
    # 1
    ("pacs._codecs",),
    # 2
    (
        "pacs.dicom", "pacs.codestream", "pacs.progression", "pacs.pixels", "pacs.jpeg", "pacs.transcode",
        "pacs.rendering", "pacs.settings", "pacs.demo", "pacs.viewer",
    ),
    # 3: what all of storage shares
    ("pacs.storage",),
    # 4: what lies on the disk; no index
    ("pacs.storage.files",),
    # 5: the index, of what lies there
    ("pacs.storage.index",),
    # 6: who reads the index; who puts it and the files in step
    ("pacs.storage.search", "pacs.storage.recovery"),
    # 7
    ("pacs.storage.commit", "pacs.storage.backup", "pacs.storage.check"),
    # 8
    ("pacs.archive", "pacs.storing", "pacs.crew", "pacs.ingest", "pacs.encoding", "pacs.export", "pacs.reading",
     "pacs.rewriting", "pacs.renditions", "pacs.proof"),
    # 9
    ("pacs.dicomweb", "pacs.client"),
    # 10
    ("pacs.cli", "pacs.bench", "pacs.__main__", "benchmarks"),
)  # fmt: skip

ONLY_IN: dict[str, tuple[str, ...]] = {
    "lmdb": ("pacs.storage.index", "pacs.storage.search", "pacs.storage.commit", "pacs.storage.check"),
    "zarr": ("pacs.storage.zarr_codec", "pacs.client.volumes"),
    "imagecodecs": ("pacs.transcode", "pacs.storage.zarr_codec", "benchmarks"),
    "aiohttp": ("pacs.dicomweb", "pacs.client", "pacs.cli", "benchmarks"),
    "asyncio": ("pacs.dicomweb", "pacs.client", "pacs.cli", "pacs.bench", "pacs.storage.zarr_codec", "benchmarks"),
    "uvloop": ("pacs.dicomweb", "pacs.client", "pacs.cli", "pacs.bench", "benchmarks"),
    # Elsewhere reading files with it is for tests; `pacs.dicom.dictionary` loads tables of it.
    "pydicom": ("pacs.rewriting", "pacs.demo", "benchmarks"),
    "prometheus_client": ("pacs.dicomweb",),
    "tqdm": ("pacs.cli", "benchmarks"),
    "argparse": ("pacs.cli", "benchmarks"),
}


def modules() -> list[tuple[str, Path]]:
    found = []
    for package in ("pacs", "benchmarks"):
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found.append((name if name in ("pacs.__init__", "pacs.__main__") else name.removesuffix(".__init__"), path))
    return found


def layer(name: str) -> int | None:
    """The number of the layer that a module belongs to, by its longest named parent."""
    best: tuple[int, int] | None = None
    for number, names in enumerate(LAYERS):
        for prefix in names:
            if (name == prefix or name.startswith(prefix + ".")) and (best is None or len(prefix) > best[0]):
                best = (len(prefix), number)
    return best[1] if best else None


def imports(path: Path, name: str) -> Iterator[tuple[str, int]]:
    """Everything a file imports, at its top or inside functions, with the line."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parent = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parent, base]).rstrip(".")
            for alias in node.names:
                below = ROOT.joinpath(*base.split("."), alias.name)
                is_module = below.is_dir() or below.with_suffix(".py").is_file() or below.with_suffix(".pyx").is_file()
                yield (f"{base}.{alias.name}" if is_module else base), node.lineno


MODULES = modules()


def test_there_is_something_to_read() -> None:
    assert len(MODULES) > 20


@pytest.mark.parametrize(("name", "path"), MODULES, ids=[name for name, _ in MODULES])
def test_imports_point_downwards(name: str, path: Path) -> None:
    own = layer(name)
    assert own is not None, f"{name} has no layer: add it to LAYERS"
    for imported, line in imports(path, name):
        top = imported.partition(".")[0]
        allowed = ONLY_IN.get(top)
        if allowed is not None:
            at_home = any(name == home or name.startswith(home + ".") for home in allowed)
            assert at_home, f"{path.relative_to(ROOT)}:{line} imports {imported}, which belongs to {', '.join(allowed)}"
        if top == "pacs" and imported != "pacs":
            other = layer(imported)
            assert other is not None, f"{imported} has no layer: add it to LAYERS"
            assert other <= own, f"{path.relative_to(ROOT)}:{line}: layer {own} imports {imported} of layer {other}"


def rows_of_the_page() -> dict[str, int]:
    """The modules and folders that docs/architecture.md lists, with the number of their row."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    listed = page.partition("## Where things are")[2].partition("\n### ")[0]
    found = {}
    for number, row in enumerate(line for line in listed.splitlines() if line.startswith("| `")):
        for name in re.findall(r"`([^`]+)`", row.split("|")[1]):
            found["pacs." + name.removeprefix("pacs/").removesuffix(".py").rstrip("/")] = number
    return found


def test_the_page_lists_all_and_imports_go_from_row_to_row() -> None:
    rows = rows_of_the_page()
    for name, path in MODULES:
        own = rows.get(".".join(name.split(".")[:2]))
        if name.startswith("pacs.") and name not in ("pacs.__init__", "pacs.__main__"):
            assert own is not None, f"docs/architecture.md does not list {name}"
            for imported, line in imports(path, name):
                other = rows.get(".".join(imported.split(".")[:2])) if imported.startswith("pacs.") else None
                assert other is None or own <= other, f"{path.relative_to(ROOT)}:{line} imports {imported} above it"


def part(name: str) -> str:
    """The folder of storage that a module is in, "" for other modules."""
    words = name.split(".")
    return ".".join(words[:3]) if words[:2] == ["pacs", "storage"] and (ROOT / Path(*words[:3])).is_dir() else ""


def test_the_parts_of_storage_know_only_what_is_below_them() -> None:
    """Those of one layer do not know each other: a search is no part of recovery, nor a check of a commit."""
    parts = {part(name) for name, _ in MODULES} - {"", "pacs.storage"}
    assert parts == {name for names in LAYERS for name in names if name.startswith("pacs.storage.")}
    for name, path in MODULES:
        for imported, line in imports(path, name) if part(name) in parts else ():
            beside = part(imported) in parts - {part(name)} and layer(imported) == layer(name)
            assert not beside, f"{path.relative_to(ROOT)}:{line} imports {imported} of its own layer"


def test_http_sees_the_archive_and_not_its_storage() -> None:
    """`pacs.dicomweb` may name storage's types, and never opens, reads or writes anything there by itself."""
    types = {"pacs.storage.model", "pacs.storage.search"}
    for name, path in MODULES:
        if name.startswith("pacs.dicomweb"):
            for imported, line in imports(path, name):
                reaches_in = imported.startswith("pacs.storage") and imported not in types
                assert not reaches_in, f"{path.relative_to(ROOT)}:{line} imports {imported}"
