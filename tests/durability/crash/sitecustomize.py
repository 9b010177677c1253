"""Loaded by every Python that has this folder in PYTHONPATH: maltreats the process at a step of its commits, once.

    CRASH_STEP    name of the step, as storage/disk.py's observers see it
    CRASH_COUNT   at which of its occurrences
    CRASH_ONCE    a file that is made first, so that only one process of all is hit
    CRASH_HOW     "kill" it, kill its "group" with all processes, or "meta page": LMDB cannot write that any more
"""

import contextlib
import fcntl
import os
import signal
from pathlib import Path

_STEP = os.environ.get("CRASH_STEP")

if _STEP:
    from pacs.storage.disk import Disk

    def refuse_meta_page() -> None:
        """LMDB has a descriptor for its meta page alone, with O_DSYNC: put one in its place that writes nothing."""
        for entry in list(Path("/proc/self/fd").iterdir()):
            with contextlib.suppress(FileNotFoundError):  # the listing had a descriptor of its own
                path, number = str(entry.readlink()), int(entry.name)
                if path.endswith("/index/data.mdb") and fcntl.fcntl(number, fcntl.F_GETFL) & os.O_DSYNC:
                    readonly = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                    os.dup2(readonly, number, inheritable=False)
                    os.close(readonly)

    _left = int(os.environ.get("CRASH_COUNT", "1"))
    _step = Disk.step

    def step(self: Disk, name: str) -> None:
        global _left
        _step(self, name)
        if name != _STEP:
            return
        _left -= 1
        if _left > 0:
            return
        try:
            os.close(os.open(os.environ["CRASH_ONCE"], os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        if os.environ["CRASH_HOW"] == "meta page":
            refuse_meta_page()
            return
        if os.environ["CRASH_HOW"] == "group":
            os.killpg(os.getpgid(0), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

    Disk.step = step  # type: ignore[method-assign]
