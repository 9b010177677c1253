"""What a figure was measured on, with the commit and the command; what a server takes is asked of `pacs.bench`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from pacs.bench import machine
from pacs.bench.machine import cpu_seconds, memory, peak_memory

__all__ = ["ROOT", "cpu_seconds", "describe", "memory", "peak_memory"]

ROOT = Path(__file__).resolve().parent.parent


def describe() -> dict[str, Any]:
    """Processor, memory, kernel, versions, commit, date and command line."""
    return {
        **machine.describe(),
        "command": " ".join(["python -m benchmarks", *sys.argv[1:]]),
        "commit": _git("rev-parse", "--short=12", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain", "-uno")),
    }


def _git(*arguments: str) -> str:
    try:
        run = subprocess.run(["git", *arguments], capture_output=True, text=True, cwd=ROOT, check=False)
    except FileNotFoundError:
        return ""
    return run.stdout.strip()
