"""Quality against time on a slow link, drawn from the figures of `python -m benchmarks slow_link --out FILE`.

`python -m benchmarks.plot_slow_link FILE… --out docs/slow-link.svg` (needs matplotlib: `pip install .[plots]`) draws
one link and prints the tables of docs/performance.md: that link in full, the others in seconds.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

_TOP = 80.0
"""Where lossless is drawn, in dB."""
_PLANS = {
    ("pacs", "levels"): ("pacs: level, lossless", "tab:blue", "o"),
    ("pacs", "ranges"): ("pacs: level, rest, by `Range`", "", ""),
    ("pacs", "both"): ("pacs: level, lossy, lossless", "tab:cyan", "v"),
    ("pacs", "lossy"): ("pacs: lossy, lossless", "tab:green", "s"),
    ("pacs", "layers"): ("pacs: layers", "tab:purple", "^"),
    ("pacs", "equal"): ("pacs: lossy, equal to the JPEG", "tab:olive", "P"),
    ("pacs", "rendered"): ("pacs: JPEG, 512 pixels, 8 bit", "tab:brown", "d"),
    ("pacs", "raw"): ("pacs: raw frames", "tab:gray", "x"),
    ("Orthanc", "rendered"): ("Orthanc: JPEG, 512 pixels, 8 bit", "tab:orange", "D"),
    ("Orthanc", "default"): ("Orthanc: the same, no window named", "", ""),
    ("Orthanc", "raw"): ("Orthanc: raw frames", "tab:red", "x"),
}
"""(label, colour, marker) by (server, plan); without a colour it is not drawn."""
_LOOKS = ("first", "readable", "lossless")


def rows(figures: list[dict[str, Any]], rate: float, rtt: float, stalls: float = 0.0) -> list[dict[str, Any]]:
    """The figures of one link."""
    found = []
    for figure in figures:
        detail = figure["detail"]
        if "plan" in detail and (detail["Mbit_per_s"], detail["rtt_ms"], detail["stalls"]) == (rate, rtt, stalls):
            found.append({**detail, "server": figure["server"], "seconds": figure["value"]})
    return found


def tables(figures: list[dict[str, Any]], rate: float, rtt: float) -> str:
    """Markdown: a table a subject for one link, with bytes and dB; then one a subject for all links, in seconds."""
    links = list(dict.fromkeys(
        (figure["detail"]["Mbit_per_s"], figure["detail"]["rtt_ms"], figure["detail"]["stalls"]) for figure in figures
    ))  # fmt: skip
    lines = []
    one = rows(figures, rate, rtt)
    for subject in dict.fromkeys(row["subject"] for row in one):
        frames = max(row["frames"] for row in one if row["subject"] == subject)
        lines += [f"**{subject}**, {frames} frame{'s, every one of them' * (frames > 1)}:", "",
                  "| plan | first look | readable | lossless |", "| --- | --- | --- | --- |"]  # fmt: skip
        for (server, plan), (label, _, _) in _PLANS.items():
            cells = [_cell(one, subject, server, plan, look) for look in _LOOKS]
            if any(cells):
                lines.append(f"| {label} | {' | '.join(cells)} |")
        lines.append("")
    for subject in dict.fromkeys(row["subject"] for row in one):
        names = " | ".join(
            f"{rate:g} Mbit/s, {rtt:g} ms" + f", {stalls:.0%} stalls" * bool(stalls) for rate, rtt, stalls in links
        )
        lines += [f"| {subject} | {names} |", "| --- |" + " --- |" * len(links)]
        for (server, plan), (label, _, _) in _PLANS.items():
            cells = [_seconds(rows(figures, *link), subject, server, plan) for link in links]
            if any(cells):
                lines.append(f"| {label} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def _found(some: list[dict[str, Any]], subject: str, server: str, plan: str, look: str) -> dict[str, Any] | None:
    wanted = (subject, server, plan, look)
    return next((row for row in some if (row["subject"], row["server"], row["plan"], row["look"]) == wanted), None)


def _cell(some: list[dict[str, Any]], subject: str, server: str, plan: str, look: str) -> str:
    row = _found(some, subject, server, plan, look)
    if row is None:
        return ""
    full, window, size = row["dB_full_range"], row["dB_in_window"], row["bytes"]
    told = f"{size / 1e6:.2f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"
    quality = "" if window is None or window > _TOP or full > 900 else f", {full:.0f} / {window:.0f} dB"
    if plan in ("rendered", "default"):
        quality = f", {window:.0f} dB"
    return f"{_short(row['seconds'])} s, {told}{quality}"


def _seconds(some: list[dict[str, Any]], subject: str, server: str, plan: str) -> str:
    found = [_found(some, subject, server, plan, look) for look in _LOOKS]
    return " / ".join(dict.fromkeys(_short(row["seconds"]) for row in found if row))


def _short(seconds: float) -> str:
    return f"{seconds:.2f}" if seconds < 10 else f"{seconds:.1f}" if seconds < 100 else f"{seconds:.0f}"


def draw(figures: list[dict[str, Any]], out: Path, rate: float, rtt: float) -> None:
    """One panel a subject: steps of PSNR inside the header's window over seconds since the request."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "slow link"
    from matplotlib import pyplot

    found = rows(figures, rate, rtt)
    subjects = list(dict.fromkeys(row["subject"] for row in found))
    if not subjects:
        sys.exit(f"no figures of {rate:g} Mbit/s and {rtt:g} ms in there")
    figure, panels = pyplot.subplots(1, len(subjects), figsize=(5.2 * len(subjects), 4.8), sharey=True, squeeze=False)
    for panel, subject in zip(panels[0], subjects, strict=True):
        for (server, plan), (label, colour, marker) in _PLANS.items():
            steps = sorted(
                (row["seconds"], _level(row)) for row in found
                if (row["server"], row["plan"], row["subject"]) == (server, plan, subject)
            )  # fmt: skip
            if steps and colour:
                seconds, levels = zip(*steps, strict=True)
                panel.step(seconds, levels, where="post", color=colour, linewidth=1.4)
                panel.plot(seconds, levels, marker, color=colour, label=label, markersize=5)
        frames = max(row["frames"] for row in found if row["subject"] == subject)
        panel.set_title(f"{subject}, {frames} frame{'s' * (frames > 1)}" + (": every one" if frames > 1 else ""))
        panel.set_xscale("log")
        panel.xaxis.set_major_formatter(lambda seconds, _: f"{seconds:g}")
        panel.set_xlabel("seconds since the request")
        panel.grid(True, which="major", alpha=0.3)
    panels[0][0].set_ylabel("PSNR inside the header's window, dB")
    ticks = [20, 30, 40, 50, 60, _TOP]
    panels[0][0].set_yticks(ticks, [*map(str, ticks[:-1]), "lossless"])
    panels[0][0].set_ylim(5, _TOP + 4)
    handles: dict[str, Any] = {}
    for panel in panels[0]:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(list(handles.values()), list(handles), loc="lower center", ncol=3, frameon=False)
    figure.suptitle(f"{rate:g} Mbit/s, {rtt:g} ms")
    figure.tight_layout(rect=(0, 0.19, 1, 1))
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})


def _level(row: dict[str, Any]) -> float:
    quality = row["dB_in_window"]
    return _TOP if quality is None or quality > _TOP else max(6.0, float(quality))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plot_slow_link", description=__doc__)
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True, help="the SVG to write")
    parser.add_argument("--rate", type=float, default=4.0, help="Mbit/s (default: %(default)s)")
    parser.add_argument("--rtt", type=float, default=50.0, help="ms (default: %(default)s)")
    arguments = parser.parse_args()
    found = {}  # of what is measured twice, the last file has it
    for path in arguments.results:
        for figure in json.loads(path.read_text())["figures"]:
            found[figure["benchmark"], figure["case"], figure["server"]] = figure
    figures = list(found.values())
    draw(figures, arguments.out, arguments.rate, arguments.rtt)
    print(tables(figures, arguments.rate, arguments.rtt))
    return 0


if __name__ == "__main__":
    sys.exit(main())
