"""What a figure was measured on: without it a figure says nothing. And what a server takes of it, from /proc."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = (
    "pacs", "imagecodecs", "numpy", "aiohttp", "uvloop", "lmdb", "msgspec", "zstandard", "google-crc32c", "zarr",
)  # fmt: skip
_TICK = os.sysconf("SC_CLK_TCK")


def describe() -> dict[str, Any]:
    """Processor, memory, kernel, versions and date."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "host": platform.node(),
        "processor": processor(),
        "cores": cores(),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "load_average_before": round(os.getloadavg()[0], 2),
    }


def cores() -> int:
    """Logical cores that this program may use."""
    return len(os.sched_getaffinity(0))


def processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def file_system(folder: Path) -> dict[str, str]:
    """Device, type and mount point of the file system below `folder`; empty where /proc does not tell."""
    found: dict[str, str] = {}
    resolved = str(folder.resolve())
    with suppress(OSError):
        for line in Path("/proc/mounts").read_text(encoding="utf-8", errors="replace").splitlines():
            device, mount, kind, *_ = line.split(" ")
            inside = mount == "/" or resolved == mount or resolved.startswith(mount + "/")
            if inside and len(mount) >= len(found.get("mount", "")):
                found = {"device": device, "mount": mount, "type": kind}
    return found


def links() -> dict[str, int]:
    """Mbit/s of each network interface that is up and tells; virtual ones mostly do not."""
    found: dict[str, int] = {}
    with suppress(OSError):
        for interface in sorted(Path("/sys/class/net").iterdir()):
            with suppress(OSError, ValueError):
                speed = int((interface / "speed").read_text())
                if speed > 0 and (interface / "operstate").read_text().strip() == "up":
                    found[interface.name] = speed
    return found


def busy_seconds() -> float:
    """Processor time that this machine has used since it started, by whomever, and what its host withheld."""
    with suppress(OSError, ValueError):
        user, nice, system, _idle, _wait, irq, soft, stolen = map(
            int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
        )
        return (user + nice + system + irq + soft + stolen) / _TICK
    return 0.0


# --- a server and its workers -----------------------------------------------------------------------------------


def family(pid: int) -> Iterator[int]:
    """A process and all its descendants."""
    yield pid
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                for child in (task / "children").read_text().split():
                    yield from family(int(child))


def peak_memory(pid: int) -> int:
    """Sum over a process and its descendants of the most memory each has held, in bytes."""
    return sum(_kilobytes(member, "status", "VmHWM") for member in family(pid)) * 1024


def memory(pid: int) -> int:
    """Bytes that a process and its descendants hold now, each shared page divided among those that share it."""
    return sum(_kilobytes(member, "smaps_rollup", "Pss") for member in family(pid)) * 1024


def _kilobytes(pid: int, file: str, name: str) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1])
    return 0


def major_faults(pid: int) -> int:
    """Pages that a process and its descendants have had read from disk into what they map."""
    total = 0
    for member in family(pid):
        with suppress(OSError):
            total += int(Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()[9])
    return total


def cpu_seconds(pid: int) -> float:
    """User and system time that a process and its descendants have used."""
    ticks = 0
    for member in family(pid):
        with suppress(OSError):
            fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICK
