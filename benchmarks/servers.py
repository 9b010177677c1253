"""The servers that are measured: how each is started, where its DICOMweb root is, what it holds on disk."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks import machine
from pacs.storage import layout


class StartError(Exception):
    """A server that did not come up, with what it said."""


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


class Server(ABC):
    """A server process with an empty archive of its own, for the length of a `with` block."""

    name: str
    root: str
    """Path of the DICOMweb root."""

    def __init__(self) -> None:
        self.version = ""
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self._folder = tempfile.TemporaryDirectory(prefix=f"pacs-benchmark-{self.name.split(',')[0]}-")
        self.folder = Path(self._folder.name)

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.port

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @abstractmethod
    def start(self) -> None:
        """Start the process and wait until it answers."""

    @property
    def storage(self) -> Path:
        """The folder whose size on disk counts."""
        return self.folder

    def bytes_on_disk(self) -> int:
        return layout.bytes_on_disk(self.storage)

    def peak_memory(self) -> int:
        assert self.process is not None
        return machine.peak_memory(self.process.pid)

    def cpu_seconds(self) -> float:
        assert self.process is not None
        return machine.cpu_seconds(self.process.pid)

    def spawn(self, command: list[str], env: dict[str, str] | None = None) -> None:
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})}, cwd=machine.ROOT, start_new_session=True,
            )  # fmt: skip

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-3000:]

    def wait_until(self, ready: bytes | None) -> None:
        """Until the log contains `ready`; without it, until the port takes connections."""
        assert self.process is not None
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise StartError(f"{self.name} ended with status {self.process.returncode}:\n{self.log()}")
            if ready is not None:
                if ready in (self.folder / "log").read_bytes():
                    return
            else:
                with socket.socket() as probe:
                    if probe.connect_ex(self.address) == 0:
                        return
            time.sleep(0.05)
        raise StartError(f"{self.name} did not answer:\n{self.log()}")

    def take_port(self, ready: bytes) -> None:
        """The port that the server took: its number comes behind `ready` in the log, which is waited for. One that was
        free a moment ago may have been taken by another program."""
        self.wait_until(ready)
        said = (self.folder / "log").read_bytes().partition(ready)[2]
        self.port = int(re.match(rb"[0-9]+", said)[0])  # type: ignore[index]

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        self._folder.cleanup()


class Pacs(Server):
    """This archive, as `pacs serve` starts it."""

    name = "pacs"
    root = "/dicomweb"

    def __init__(self, workers: int, archive: Path | None = None) -> None:
        """`archive` is one that is there already; it stays."""
        super().__init__()
        self._workers = workers
        self._archive = archive or self.folder / "archive"

    @property
    def storage(self) -> Path:
        return self._archive

    def start(self) -> None:
        from pacs import __version__

        self.version = f"pacs {__version__}, {self._workers} workers"
        self.spawn(
            [sys.executable, "-m", "pacs", "serve", "--archive", str(self.storage), "--port", "0",
             "--workers", str(self._workers)],
            {"PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        self.take_port(b"pacs is ready at http://127.0.0.1:")


class Null(Server):
    """Answers everything with a fixed body at once: what is left is the client's own cost."""

    name = "null"
    root = "/null"

    def start(self) -> None:
        self.version = "null server"
        self.spawn([sys.executable, "-m", "benchmarks.null_server", "0"], {"PYTHONUNBUFFERED": "1"})
        self.take_port(b"the null server listens on ")
