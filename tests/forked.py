"""`pacs` in processes of its own that need not import it first: forked from one that has imported everything.

What runs in them is `pacs.cli.main`, as in `python -m pacs`, in the environment, the session and on the streams asked
for; a server forks its workers from itself in the same way. Loading the modules would take longer than most tests.
Tests of the start itself begin with a new interpreter: `fresh` of the fixtures.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import io
import json
import os
import select
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
_LOADED = (
    "pacs.cli.serving", "pacs.cli.sending", "pacs.cli.upkeep", "pacs.cli.backing_up", "pacs.cli.fetching",
    "pacs.cli.benching", "pacs.client.upload", "pacs.dicomweb.worker", "pacs.proof", "pacs.rewriting.file",
    "pacs.storage.recovery.reindex",
)  # fmt: skip
"""The commands, and what they import only when they run."""
_LONGEST = 1 << 20
_STATUS = struct.Struct("i")


class Forked:
    """A process of `pacs ARGS`, like a `subprocess.Popen` as far as tests use one; it leads a session of its own.

    `output` and `errors` are descriptors that it gets copies of.
    """

    def __init__(self, args: Sequence[str], output: int, errors: int, env: Mapping[str, str], cwd: Path) -> None:
        self.args = args
        self.returncode: int | None = None
        self._lock = threading.Lock()
        self._ended, theirs = os.pipe()
        try:
            self.pid = _parent().fork({"args": [*args], "env": {**env}, "cwd": str(cwd)}, (output, errors, theirs))
        finally:
            os.close(theirs)

    def __del__(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self._ended)

    def poll(self) -> int | None:
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        """Raises subprocess.TimeoutExpired."""
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if until is None else max(0.0, until - time.monotonic())
            status = self._look(left)
            if status is not None:
                return status
            if left == 0.0:
                raise subprocess.TimeoutExpired([*self.args], timeout or 0.0)

    def _look(self, seconds: float | None) -> int | None:
        if self.returncode is None:
            waiting = select.poll()
            waiting.register(self._ended, select.POLLIN)
            found = waiting.poll(None if seconds is None else seconds * 1000)
            with self._lock:
                if found and self.returncode is None:
                    told = os.read(self._ended, _STATUS.size)
                    if not told:
                        raise RuntimeError("the process that tests fork others from has ended")
                    (self.returncode,) = _STATUS.unpack(told)
        return self.returncode

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


class _Parent:
    """The process that others are forked from. It ends when this one does."""

    def __init__(self) -> None:
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.forked", str(theirs.fileno())],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd=ROOT, pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )  # fmt: skip
        self._lock = threading.Lock()
        atexit.register(self._end)

    def _end(self) -> None:
        self._channel.close()
        self._process.wait()

    def fork(self, wanted: Mapping[str, object], descriptors: Sequence[int]) -> int:
        with self._lock:
            socket.send_fds(self._channel, [json.dumps(wanted).encode()], descriptors)
            told = self._channel.recv(64)
        if not told:
            raise RuntimeError("the process that tests fork others from has ended")
        return int(told)


@functools.cache
def _parent() -> _Parent:
    return _Parent()


# --- in that process ------------------------------------------------------------------------------------------------


def _serve(channel: socket.socket) -> None:
    """Fork a process for each request on the channel, and tell its status through the pipe that came with it."""
    _load()
    running: dict[int, tuple[int, int]] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(channel, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd != channel.fileno():
                    selector.unregister(key.fd)
                    _tell(key.fd, *running.pop(key.fd))
                    continue
                request, descriptors, _, _ = socket.recv_fds(channel, _LONGEST, 3)
                if not request:
                    # Only when the tests were interrupted does one still run, with its workers in its session.
                    for pid, _ in running.values():
                        with contextlib.suppress(ProcessLookupError):
                            os.killpg(pid, signal.SIGKILL)
                    return
                output, errors, ended = descriptors
                pid = os.fork()
                if pid == 0:
                    selector.close()
                    channel.close()
                    for pidfd, (_, pipe) in running.items():
                        os.close(pidfd)
                        os.close(pipe)
                    os.close(ended)
                    _become(json.loads(request), output, errors)
                os.close(output)
                os.close(errors)
                pidfd = os.pidfd_open(pid)
                running[pidfd] = pid, ended
                selector.register(pidfd, selectors.EVENT_READ)
                channel.send(str(pid).encode())


def _tell(pidfd: int, pid: int, pipe: int) -> None:
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(BrokenPipeError):
        os.write(pipe, _STATUS.pack(os.waitstatus_to_exitcode(status)))
    os.close(pipe)
    os.close(pidfd)


def _load() -> None:
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the server does: no thread may run where is forked
    for name in _LOADED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    assert len([*Path("/proc/self/task").iterdir()]) == 1, "a thread would be missing in what is forked"


def _become(wanted: Mapping[str, object], output: int, errors: int) -> NoReturn:
    """`python -m pacs` from here on."""
    os.setsid()
    for descriptor, standard in ((output, 1), (errors, 2)):
        os.dup2(descriptor, standard)
        os.close(descriptor)
    sys.stdout, sys.stderr = _text(1, "strict"), _text(2, "backslashreplace")
    env, args = wanted["env"], wanted["args"]
    assert isinstance(env, dict) and isinstance(args, list)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(str(wanted["cwd"]))
    sys.argv = ["pacs", *args]
    folder = env.get("PYTHONPATH", "")
    if (Path(folder) / "sitecustomize.py").is_file():
        sys.path.insert(0, folder)
        sys.modules.pop("sitecustomize", None)
        importlib.import_module("sitecustomize")
    from pacs.cli import main

    sys.exit(main(args))


def _text(descriptor: int, errors: str) -> io.TextIOWrapper:
    file = io.FileIO(descriptor, "w", closefd=False)
    return io.TextIOWrapper(file, "utf-8", errors, write_through=True)  # type: ignore[arg-type]


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as _channel:
        _serve(_channel)
