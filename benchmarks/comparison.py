"""`python -m benchmarks rivals`: the whole comparison in one run, as a table in Markdown for README and the manual.

Every server meets the same client and the same data on the same machine, one after the other, with its own durability
on. Answers are verified before they are timed. The ceiling, encode and proof alone on all cores, stands beside STOW.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import machine, report, workload
from benchmarks.measure import measure
from benchmarks.report import Figure
from benchmarks.rivals import CompressedNginx, Nginx, Orthanc
from benchmarks.scale import FULL, TINY
from benchmarks.servers import Pacs, StartError
from pacs.bench import stages

BEGIN, END = "<!-- rivals: written by python -m benchmarks rivals -->", "<!-- /rivals -->"
MEASURED = ("store", "metadata", "frames", "rendered", "search")


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table: which figure, and the ratio that is aimed at."""

    label: str
    benchmark: str
    case: str
    """A regular expression that the whole case matches."""
    unit: str
    aim: float = 0.0
    """Of Orthanc's figure, turned so that more is better; 0 where nothing is aimed at."""
    aim_nginx: float = 0.0
    """Of nginx with the same compressed bytes."""


ROWS = (
    Row("store, 1 a request, 1 client", "store", ".* CT, 1 a request, 1 client", "instances/s"),
    Row("store, 10 a request, 1 client", "store", ".* CT, 10 a request, 1 client", "instances/s"),
    Row("store, 1 a request, 4 clients", "store", ".* CT, 1 a request, 4 clients", "instances/s", 1.6),
    Row("store, 10 a request, 4 clients", "store", ".* CT, 10 a request, 4 clients", "instances/s"),
    Row("bytes on disk of bytes received", "disk", ".*", "share", 1 / 0.45),
    Row("most memory held", "memory", ".*", "MB", 1.0),
    Row("metadata of a series, first", "metadata", ".*, first", "ms", 10.0),
    Row("the same again", "metadata", ".*, again", "ms", 3.0),
    Row("frames as stored, 1 client", "frames", "frames as stored, 1 client", "frames/s"),
    Row("frames as stored, 8 clients", "frames", "frames as stored, 8 clients", "frames/s", 4.0, 0.6),
    Row("frames decoded, 1 client", "frames", "frames decoded, 1 client", "frames/s"),
    Row("frames decoded, 8 clients", "frames", "frames decoded, 8 clients", "frames/s", 1.0),
    Row("CT rendered, 4 clients", "rendered", "CT .*, 4 clients", "pictures/s"),
    Row("CR rendered, 4 clients", "rendered", "CR .*, 4 clients", "pictures/s", 4.0),
    Row("MG rendered, 4 clients", "rendered", "MG .*, 4 clients", "pictures/s", 4.0),
    Row("search, first page", "search", "first page", "ms", 10.0),
    Row("search, one Patient ID", "search", "one Patient ID", "ms", 10.0),
    Row("search, `*name*`", "search", r"\*name\*", "ms", 10.0),
    Row("search, dates of a month", "search", "dates of a month", "ms", 10.0),
)


def main(argv: Sequence[str]) -> int:
    """Measure everything, print the table; 1 when a rival is missing."""
    arguments = _parser().parse_args(argv)
    scale = TINY if arguments.tiny else FULL
    found: list[Figure] = []
    description = machine.describe()

    def take(figures: Any) -> None:
        for figure in figures:
            found.append(figure)
            value = f"{report.number(figure.value)} {figure.unit}"
            print(f"  {figure.server:14} {figure.benchmark}: {figure.case}: {value}", file=sys.stderr)

    # The real series alone where it is at hand: a table has one line for a thing.
    real = workload.real_series(arguments.data, scale.real_slices)
    data = {"real CT": real} if real else {"synthetic CT": workload.synthetic(scale.slices, scale.rows)}
    ceiling = stages.encode_and_prove(
        [one.data for one in next(iter(data.values()))], scale.seconds, int(description["cores"])
    )
    versions, missing = _measure_all(arguments, scale, data, take)
    text = markdown(found, description, versions, ceiling, next(iter(data)))
    print(text)
    for path in arguments.into:
        path.write_text(replaced(path.read_text(encoding="utf-8"), text, path), encoding="utf-8")
    if arguments.out:
        result = {
            "machine": description, "servers": versions, "missing": missing, "tiny": arguments.tiny,
            "ceiling": ceiling, "figures": [figure.as_json() for figure in found],
        }  # fmt: skip
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    return 1 if missing else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks rivals", description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of the real files (default: ../shared/data, if there)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="workers of pacs (default: cores)")
    parser.add_argument("--out", type=Path, help="file for the figures as JSON")
    parser.add_argument(
        "--into", metavar="FILE", type=Path, action="append", default=[],
        help=f"put the table between the lines {BEGIN} and {END} of a file; may be repeated",
    )  # fmt: skip
    parser.add_argument("--tiny", action="store_true", help="only show that everything runs; figures mean nothing")
    return parser


def _measure_all(
    arguments: argparse.Namespace, scale: Any, data: dict[str, Any], take: Any
) -> tuple[dict[str, str], list[str]]:
    versions: dict[str, str] = {}
    missing = []
    for make in (lambda: Pacs(arguments.workers), Orthanc, Nginx, CompressedNginx):
        began = time.monotonic()
        try:
            versions.update(measure(make, MEASURED, data, scale, arguments.data, take))
        except StartError as error:
            missing.append(str(error))
            print(error, file=sys.stderr)
        print(f"  {time.monotonic() - began:.0f} s", file=sys.stderr)
    return versions, missing


# --- the table ------------------------------------------------------------------------------------------------------


def markdown(
    figures: Sequence[Figure], description: dict[str, Any], versions: dict[str, str], ceiling: float, source: str
) -> str:
    """The table with what it was measured on. Ratios are turned so that above 1 this archive is ahead; what falls
    short of its aim is bold."""
    servers = [name for name in ("pacs", "Orthanc", "nginx", "nginx, HTJ2K") if any(f.server == name for f in figures)]
    packages = description["packages"]
    lines = [
        f"{description['date'][:10]}, {description['processor']}, {description['cores']} cores, Linux "
        f"{description['kernel']}, the client on the same cores; commit {description['commit'] or 'unknown'}"
        f"{' with changes' if description['uncommitted_changes'] else ''}; CPython {description['python']}, "
        f"imagecodecs {packages['imagecodecs']}, aiohttp {packages['aiohttp']}, lmdb {packages['lmdb']}. "
        + "; ".join(versions[name] for name in servers if name in versions) + f". Source: {source}. "
        f"`{description['command']}`", "",
    ]  # fmt: skip
    ratios = ["pacs / Orthanc", "aim", "pacs / nginx, HTJ2K"]
    lines.append("| | unit | " + " | ".join([*servers, *ratios]) + " |")
    lines.append("| --- | --- |" + " --: |" * (len(servers) + len(ratios)))
    for row in ROWS:
        cells = {figure.server: figure for figure in figures if _is(figure, row)}
        if not cells:
            continue
        own = cells.get("pacs")
        values = [report.number(cells[name].value) if name in cells else "" for name in servers]
        aim = f"{row.aim:.2g} ×" if row.aim else ""  # noqa: RUF001
        against = _ratio(own, cells.get("Orthanc"), row.aim)
        physical = _ratio(own, cells.get("nginx, HTJ2K"), row.aim_nginx)
        lines.append(f"| {row.label} | {row.unit} | " + " | ".join([*values, against, aim, physical]) + " |")
        if row.label == "store, 1 a request, 4 clients" and own is not None:
            empty = " | ".join([""] * (len(servers) - 1 + len(ratios)))
            lines.append(f"| ceiling: encode and proof alone | {row.unit} | {report.number(ceiling)} | {empty} |")
            lines.append(f"| share of the ceiling | | {own.value / ceiling:.0%} | {empty} |")
    return "\n".join(lines) + "\n"


def _is(figure: Figure, row: Row) -> bool:
    same = figure.benchmark == row.benchmark and figure.unit == row.unit
    return same and re.fullmatch(row.case, figure.case) is not None


def _ratio(own: Figure | None, other: Figure | None, aim: float) -> str:
    if own is None or other is None or not own.value or not other.value:
        return ""
    ratio = own.value / other.value if own.more_is_better else other.value / own.value
    text = f"{ratio:.2f} ×" if ratio < 10 else f"{ratio:.0f} ×"  # noqa: RUF001
    return f"**{text}**" if ratio < (aim or 0.0) else text


def replaced(page: str, text: str, path: Path) -> str:
    """The page with `text` between its marks. Exits where it has none."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        sys.exit(f"{path} has no lines {BEGIN} and {END}")
    return f"{before}{begin}\n\n{text}\n{end}{after}"
