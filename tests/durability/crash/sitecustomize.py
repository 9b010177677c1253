"""Loaded by every Python that has this folder in PYTHONPATH: kills the process at a step of its commits, once.

    CRASH_STEP    name of the step, as storage/disk.py's observers see it
    CRASH_COUNT   at which of its occurrences
    CRASH_ONCE    a file that is made first, so that only one process of all is killed
    CRASH_GROUP   "1": with all processes of its group
"""

import os
import signal

_STEP = os.environ.get("CRASH_STEP")

if _STEP:
    from pacs.storage.disk import Disk

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
        if os.environ.get("CRASH_GROUP") == "1":
            os.killpg(os.getpgid(0), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

    Disk.step = step  # type: ignore[method-assign]
