"""The server that is loaded: one of our own on a throw-away archive, or one that runs somewhere already."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from pacs.bench import load, machine
from pacs.bench.corpus import Instance
from pacs.bench.load import Address, Request, Response
from pacs.errors import BenchError
from pacs.storage import layout

_READY = "pacs is ready at "
_START_SECONDS = 60
_STOP_SECONDS = 20
FOLDER = "pacs-bench-"
"""How the folder is named that a run works in, below the one it is given."""
_MARK = "of-pacs-bench"
"""A file in it, locked for as long as the run lives."""
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Target:
    """A DICOMweb server."""

    url: str
    address: Address
    root: str
    """Path of the DICOMweb root."""
    host: str
    """Of the Host header."""
    tls: ssl.SSLContext | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    pid: int = 0
    """Of a server on this machine whose memory and CPU time can be read."""
    archive: Path | None = None
    """Of a server of our own."""

    @property
    def own(self) -> bool:
        return self.archive is not None

    def get(self, path: str, accept: str) -> Request:
        return load.get(f"{self.root}/{path}", self.host, accept, self.headers)

    def stow(self, instances: Sequence[Instance]) -> Request:
        return load.stow(f"{self.root}/studies", self.host, [instance.pieces for instance in instances], self.headers)

    def fetch(self, path: str, accept: str = "application/dicom+json") -> Response:
        """Raises RequestFailedError where nobody answers."""
        return load.fetch(self.address, self.get(path, accept), self.tls)

    def cpu_seconds(self) -> float:
        return machine.cpu_seconds(self.pid) if self.pid else 0.0


def at_url(url: str, headers: Mapping[str, str]) -> Target:
    """A server that runs already. Raises BenchError unless it answers as a DICOMweb server does."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise BenchError(f"{url} is not a URL: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BenchError(f"{url} is not a URL of http or https")
    tls = ssl.create_default_context() if parts.scheme == "https" else None
    address = parts.hostname, port or (443 if tls else 80)
    target = Target(url.rstrip("/"), address, parts.path.rstrip("/"), parts.netloc.rpartition("@")[2], tls, headers)
    try:
        answer = target.fetch("studies?limit=1")
    except load.RequestFailedError as error:
        raise BenchError(str(error)) from None
    found: object = None
    with suppress(ValueError):
        found = json.loads(answer.body) if answer.status == 200 else [] if answer.status == 204 else None
    if not isinstance(found, list):
        raise BenchError(
            f"{url} does not answer as the root of a DICOMweb server: status {answer.status} for /studies?limit=1"
        )
    return target


@contextmanager
def working_folder(below: Path) -> Iterator[Path]:
    """A folder of this run's own below `below`, gone afterwards whatever happened.

    A second interrupt does not end the cleaning up. What a run left that was killed is removed by the next one.
    """
    remove_left(below)
    folder = Path(tempfile.mkdtemp(prefix=FOLDER, dir=below))
    try:
        with (folder / (_MARK + ".new")).open("w") as mark:
            fcntl.flock(mark, fcntl.LOCK_EX)
            mark.write("pacs bench works here, and removes all of this\n")
            mark.flush()
            # From here on it is known as ours, and as in use for as long as this process lives.
            (folder / (_MARK + ".new")).rename(folder / _MARK)
            yield folder
    finally:
        with _deaf():
            shutil.rmtree(folder, ignore_errors=True)


def remove_left(below: Path) -> None:
    """Remove the folders of runs that were killed: those with the mark of a run, which no process holds any more."""
    for folder in below.glob(FOLDER + "*"):
        if folder.is_symlink() or layout.is_archive(folder):
            continue
        with suppress(OSError), (folder / _MARK).open() as mark:
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _deaf() -> Iterator[None]:
    """Without interrupts; outside the main thread there are none to be deaf to."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


@contextmanager
def own_server(folder: Path, workers: int) -> Iterator[Target]:
    """`pacs serve` on a new archive in `folder`, stopped afterwards. Raises BenchError when it does not start."""
    archive = folder / "archive"
    environment = {name: value for name, value in os.environ.items() if name != "PACS_PUBLIC_URL"}
    parent, prctl = os.getpid(), ctypes.CDLL(None).prctl

    def end_with_parent() -> None:
        """In the new process: SIGTERM when its parent is gone, which SIGKILL lets stop nothing."""
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
        if os.getppid() != parent:
            os._exit(1)

    server = subprocess.Popen(
        [sys.executable, "-m", "pacs", "serve", "--archive", str(archive), "--port", "0", "--workers", str(workers)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        env={**environment, "PYTHONUNBUFFERED": "1"}, start_new_session=True, preexec_fn=end_with_parent,
    )  # fmt: skip
    said = _Output(server)
    try:
        url = said.url()
        parts = urlsplit(url)
        assert parts.hostname and parts.port
        yield Target(
            url + "dicomweb", (parts.hostname, parts.port), "/dicomweb", parts.netloc, pid=server.pid, archive=archive
        )
    finally:
        with _deaf():
            _stop(server)


class _Output:
    """What a server says: read all the time, so that it never has to wait, and the last lines kept."""

    def __init__(self, server: subprocess.Popen[str]) -> None:
        self._server = server
        self._lines: deque[str] = deque(maxlen=20)
        self._url = ""
        self._known = threading.Event()
        threading.Thread(target=self._read, name="server output", daemon=True).start()

    def _read(self) -> None:
        assert self._server.stdout is not None
        for line in self._server.stdout:
            self._lines.append(line.rstrip())
            if line.startswith(_READY):
                self._url = line[len(_READY) :].strip()
                self._known.set()
        self._known.set()

    def url(self) -> str:
        self._known.wait(_START_SECONDS)
        if not self._url:
            raise BenchError("the server did not start: " + ("; ".join(self._lines) or "it said nothing"))
        return self._url


def _stop(server: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):
        server.terminate()
    try:
        server.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()
