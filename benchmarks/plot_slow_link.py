"""Quality against time on a slow link, drawn from the figures of `python -m benchmarks slow_link --out FILE`.

`python -m benchmarks.plot_slow_link FILE --out docs/slow-link.svg` (needs matplotlib: `pip install .[plots]`).
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
    ("pacs", "levels"): ("pacs, level, then lossless", "tab:blue", "o"),
    ("pacs", "lossy"): ("pacs, level, lossy, lossless", "tab:green", "s"),
    ("pacs", "layers"): ("pacs, level, layers", "tab:purple", "^"),
    ("pacs", "raw"): ("pacs, raw frames", "tab:gray", "x"),
    ("Orthanc", "raw"): ("Orthanc, raw frames", "tab:red", "x"),
    ("Orthanc", "rendered"): ("Orthanc, rendered JPEG", "tab:orange", "D"),
}


def rows(result: dict[str, Any], rate: float, rtt: float) -> list[dict[str, Any]]:
    """The figures of one link, without stalls."""
    found = []
    for figure in result["figures"]:
        detail = figure["detail"]
        if "plan" in detail and (detail["Mbit_per_s"], detail["rtt_ms"], detail["stalls"]) == (rate, rtt, 0.0):
            found.append({**detail, "server": figure["server"], "seconds": figure["value"]})
    return found


def draw(result: dict[str, Any], out: Path, rate: float, rtt: float) -> None:
    """One panel a subject: steps of PSNR inside the header's window over seconds since the request."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "slow link"
    from matplotlib import pyplot

    found = rows(result, rate, rtt)
    subjects = list(dict.fromkeys(row["subject"] for row in found))
    if not subjects:
        sys.exit(f"no figures of {rate:g} Mbit/s and {rtt:g} ms in there")
    figure, panels = pyplot.subplots(1, len(subjects), figsize=(5.2 * len(subjects), 4.2), sharey=True, squeeze=False)
    for panel, subject in zip(panels[0], subjects, strict=True):
        for (server, plan), (label, colour, marker) in _PLANS.items():
            steps = sorted(
                (row["seconds"], _level(row)) for row in found
                if (row["server"], row["plan"], row["subject"]) == (server, plan, subject)
            )  # fmt: skip
            if steps:
                seconds, levels = zip(*steps, strict=True)
                panel.step(seconds, levels, where="post", color=colour, linewidth=1.4)
                panel.plot(seconds, levels, marker, color=colour, label=label, markersize=5)
        frames = max(row["frames"] for row in found if row["subject"] == subject)
        panel.set_title(f"{subject}, {frames} frame{'s' * (frames > 1)}" + (": every one" if frames > 1 else ""))
        panel.set_xscale("log")
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
    figure.tight_layout(rect=(0, 0.1, 1, 1))
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})


def _level(row: dict[str, Any]) -> float:
    quality = row["dB_in_window"]
    return _TOP if quality is None or quality > _TOP else max(6.0, float(quality))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plot_slow_link", description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="the SVG to write")
    parser.add_argument("--rate", type=float, default=4.0, help="Mbit/s (default: %(default)s)")
    parser.add_argument("--rtt", type=float, default=50.0, help="ms (default: %(default)s)")
    arguments = parser.parse_args()
    draw(json.loads(arguments.results.read_text()), arguments.out, arguments.rate, arguments.rtt)
    return 0


if __name__ == "__main__":
    sys.exit(main())
