"""`python -m benchmarks [NAME…]`: measure, show a table, write JSON."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path

from benchmarks import machine, report, workload
from benchmarks.measure import measure
from benchmarks.report import Figure
from benchmarks.scale import FULL, TINY, Scale
from benchmarks.servers import Pacs, Server, StartError
from benchmarks.workload import Instance

LONG = ("slow_link", "rungs")
"""Not measured unless they are named: they take many minutes."""
NAMES = ("client", "micro", "codestream", "store", "metadata", "frames", "rendered", "search", "readers")


WITH_OPTIONS = {"rivals": "comparison", "growth": "growth", "index": "bench_index"}
"""Modules of those that have options of their own."""


class Figures(list[Figure]):
    """Those that were measured; each is told as it comes."""

    def take(self, some: Iterator[Figure]) -> None:
        for figure in some:
            self.append(figure)
            value = f"{report.number(figure.value)} {figure.unit}"
            print(f"  {figure.server:10} {figure.benchmark}: {figure.case}: {value}", file=sys.stderr)


def main(argv: list[str] | None = None) -> int:
    """Run what is asked for; the status is for `sys.exit`."""
    words = sys.argv[1:] if argv is None else argv
    if words and words[0] in WITH_OPTIONS:
        return int(import_module(f"benchmarks.{WITH_OPTIONS[words[0]]}").main(words[1:]))
    arguments = _parser().parse_args(argv)
    scale = TINY if arguments.tiny else replace(FULL, links=arguments.links, plans=arguments.plans)
    description = machine.describe()
    print(
        f"{description['processor']}, {description['cores']} cores, Python {description['python']}, "
        f"commit {description['commit'] or 'unknown'}, load {description['load_average_before']}",
        file=sys.stderr,
    )
    names = tuple(arguments.names) or NAMES
    figures = Figures()
    _alone(names, scale, arguments.data, figures.take)
    data = _data(arguments.data, scale) if {"store", "metadata", "frames", "readers"} & set(names) else {}
    if "readers" in names:
        from benchmarks.bench_readers import readers

        figures.take(readers(list(data.values())[-1], scale))
    versions, missing = _with_servers(arguments, names, data, scale, figures)
    _show(figures, names)
    result = {
        "machine": description, "servers": versions, "missing": missing, "tiny": arguments.tiny,
        "data": {name: len(series) for name, series in data.items()},
        "figures": [figure.as_json() for figure in figures],
    }  # fmt: skip
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")
        print(f"\nwritten to {arguments.out}")
    return 1 if missing and arguments.rivals else 0


def _with_servers(
    arguments: argparse.Namespace, names: tuple[str, ...], data: dict[str, list[Instance]], scale: Scale,
    figures: Figures,
) -> tuple[dict[str, str], list[str]]:  # fmt: skip
    """Measure each server; their versions, and why some could not be started."""
    versions: dict[str, str] = {}
    missing: list[str] = []
    for make in _servers(arguments):
        try:
            versions.update(measure(make, names, data, scale, arguments.data, figures.take))
        except StartError as error:
            missing.append(str(error))
            print(error, file=sys.stderr)
    return versions, missing


def _show(figures: Figures, names: tuple[str, ...]) -> None:
    if "rungs" in names:
        from benchmarks import bench_rungs

        print(bench_rungs.table(figures), end="\n\n")
    print(report.table(figure for figure in figures if figure.server != "null" and figure.benchmark != "rungs"))
    others = [figure for figure in figures if figure.server == "null"]
    if others:
        print("\nthe client alone\n" + report.table(others))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__,
        epilog="Three have options of their own: `rivals --help`, the whole comparison as a table; `growth --help`, "
        "cost against the size of the archive; `index --help`, searches over a million studies.",
    )  # fmt: skip
    known = f"{', '.join(NAMES)} (default: all of these), {', '.join(LONG)}"
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"what to measure: {known}")
    parser.add_argument("--data", type=Path, help="folder of the real files (default: ../shared/data, if there)")
    parser.add_argument("--out", type=Path, help="file for the figures as JSON")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="workers of pacs (default: cores)")
    parser.add_argument("--rivals", action="store_true", help="also Orthanc and nginx (see benchmarks/rivals.py)")
    for option, known_names, what in (
        ("--links", FULL.links, "slow links, Mbit/s and ms"), ("--plans", FULL.plans, "ways to read over them"),
    ):  # fmt: skip
        parser.add_argument(
            option,
            type=partial(_some_of, known_names),
            default=known_names,
            metavar="NAME,…",
            help=f"{what} (default: {','.join(known_names)})",
        )
    parser.add_argument("--tiny", action="store_true", help="only show that everything runs; figures mean nothing")
    return parser


def _some_of(known: tuple[str, ...], text: str) -> tuple[str, ...]:
    """Names out of those that are known, separated by commas."""
    names = tuple(text.split(","))
    if not set(names) <= set(known):
        raise argparse.ArgumentTypeError(f"there are {', '.join(known)}")
    return names


def _data(folder: Path | None, scale: Scale) -> dict[str, list[Instance]]:
    data = {"synthetic CT": workload.synthetic(scale.slices, scale.rows)}
    real = workload.real_series(folder, scale.real_slices)
    if real:
        data["real CT"] = real
    else:
        print("the real CT series is not there: only the synthetic one is measured", file=sys.stderr)
    return data


def _servers(arguments: argparse.Namespace) -> list[Callable[[], Server]]:
    makers: list[Callable[[], Server]] = [lambda: Pacs(arguments.workers)]
    if arguments.rivals:
        from benchmarks.rivals import CompressedNginx, Nginx, Orthanc

        makers += [Orthanc, Nginx, CompressedNginx]
    return makers


def _alone(names: tuple[str, ...], scale: Scale, folder: Path | None, take: Callable[[Iterator[Figure]], None]) -> None:
    """What needs no server to be compared."""
    unknown = sorted(set(names) - set(NAMES) - set(LONG))
    if unknown:
        sys.exit(f"there is no benchmark {', '.join(unknown)}; there are {', '.join((*NAMES, *LONG))}")
    if "client" in names:
        from benchmarks.bench_client import client

        take(client(scale))
    if "micro" in names:
        from benchmarks.bench_micro import micro

        take(micro(scale))
    if "codestream" in names:
        from benchmarks.bench_codestream import codestreams

        take(codestreams(scale))
    if "rungs" in names:
        from benchmarks.bench_rungs import measured

        take(measured(folder, scale))


if __name__ == "__main__":
    sys.exit(main())
