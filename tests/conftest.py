"""Fixtures that every suite shares: the real data, throw-away archives, and a real server over HTTP."""

from __future__ import annotations

import contextlib
import csv
import functools
import gc
import http.client
import itertools
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pytest
from hypothesis import HealthCheck, settings

from tests.forked import Forked

ROOT = Path(__file__).resolve().parent.parent
READY = "pacs is ready at "
START_SECONDS = 180
STOP_SECONDS = 90
"""Limits of waits that end at once when all is well; on a machine that does much else, steps take many times longer."""

# Deadlines of hypothesis, and what it calls slow, measure the machine and not the code. The examples are the same at
# every run, so that a change is refused for what is in it; TEST_RANDOM=1 looks for others.
settings.register_profile(
    "house", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow],
    derandomize=not os.environ.get("TEST_RANDOM"),
)  # fmt: skip
settings.load_profile("house")


# The collector of cyclic garbage would take a tenth of the time of the process that tests.
gc.set_threshold(10_000, 10, 10)


def pytest_collection_finish() -> None:
    """Modules and tests stay: what looks for garbage need not visit them."""
    gc.freeze()


def find_shared_data() -> Path | None:
    """The folder of real DICOM files: PACS_SHARED_DATA, or `shared/data` beside the checkout or one of its parents."""
    named = os.environ.get("PACS_SHARED_DATA")
    candidates = [Path(named)] if named else [parent / "shared" / "data" for parent in ROOT.parents]
    return next((path for path in candidates if (path / "MANIFEST.tsv").is_file()), None)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Whatever asks for the real data carries the marker, so that `-m "not shared_data"` leaves it out."""
    if "shared_data" in getattr(item, "fixturenames", ()):
        item.add_marker(pytest.mark.shared_data)


@functools.cache
def _in_one_worker(module: str) -> str:
    """What the tests of a module share: a browser, codestreams of every kind, what is made once for it; "": nothing."""
    if module.startswith("tests/browser/"):
        return "browser"
    source = (ROOT / module).read_text(encoding="utf-8")
    if re.search(r"^from tests\.streams import .*\b(kinds|rewritten)\b", source, re.MULTILINE):
        return "streams"
    return module if 'scope="module"' in source else ""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `--dist loadgroup`, tests that share something run in one worker, so that no other makes it again.

    pytest-xdist 3.8 would do so by its marker, but silently does not under pytest 9.2, whose items name themselves in
    another way.
    """
    if config.getoption("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _in_one_worker(nodeid.partition("::")[0]) or nodeid

    return Scheduling(config, log)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    found = find_shared_data()
    if found is None:
        pytest.skip("the real DICOM files are absent: set PACS_SHARED_DATA or put them at ../shared/data")
    return found


@pytest.fixture(scope="session")
def manifest(shared_data: Path) -> list[dict[str, str]]:
    """The rows of MANIFEST.tsv; `row["path"]` is relative to `shared_data`."""
    with (shared_data / "MANIFEST.tsv").open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))


@pytest.fixture
def archive_dir(tmp_path: Path) -> Path:
    """Where a test may create an archive; nothing is there yet."""
    return tmp_path / "archive"


class CtSlices(Protocol):
    def __call__(self, count: int = 4, *, rows: int = 64, name: str | None = None) -> list[bytes]: ...


@pytest.fixture
def ct_slices(request: pytest.FixtureRequest) -> CtSlices:
    """`ct_slices(count, rows=64, name=None)`: Part 10 files of one synthetic CT series, `rows` by `rows`.

    Each call makes another study, the same ones at every run of the test; equal names give equal bytes.
    """
    from pacs import demo

    calls = itertools.count()

    def make(count: int = 4, *, rows: int = 64, name: str | None = None) -> list[bytes]:
        label = name if name is not None else f"{request.node.nodeid} {next(calls)}"
        return list(demo.head_slices(count, rows=rows, name=label))

    return make


class Server:
    """A `pacs serve` process. `url` is the DICOMweb root, `root_url` the page's; `fresh`: in a new interpreter."""

    def __init__(
        self, archive: Path, *, workers: int, env: Mapping[str, str], args: Sequence[str], fresh: bool = False
    ) -> None:
        self.archive = archive
        self.lines: list[str] = []
        self._connections: list[http.client.HTTPConnection] = []
        command = ["serve", "--archive", str(archive), "--host", "127.0.0.1", "--port", "0"]
        command += ["--workers", str(workers), *args]
        env = {**os.environ, "PYTHONUNBUFFERED": "1", **env}
        self._output, theirs = os.pipe()
        try:
            self.process = _started(command, theirs, env) if fresh else Forked(command, theirs, theirs, env, ROOT)
        finally:
            os.close(theirs)
        self._url: str | None = None
        self._answered = threading.Event()
        self._more = threading.Condition()
        self._reader = threading.Thread(target=self._read, name="server output", daemon=True)
        self._reader.start()
        if not self._answered.wait(START_SECONDS) or self._url is None:
            self.stop(check=False)
            raise RuntimeError("the server did not start:\n" + self.log)
        self.root_url = self._url.rstrip("/").removesuffix("/dicomweb")
        self.url = self.root_url + "/dicomweb"
        self.address = self.root_url.removeprefix("http://")

    def _read(self) -> None:
        with os.fdopen(self._output, encoding="utf-8", errors="replace") as output:
            for line in output:
                with self._more:
                    self.lines.append(line)
                    self._more.notify_all()
                _, found, url = line.partition(READY)
                if found and self._url is None:
                    self._url = url.split()[0].rstrip(".,")
                    self._answered.set()
        self._answered.set()

    @property
    def log(self) -> str:
        """What has been read so far of what the server prints, stdout and stderr; all of it once it has stopped.

        What it printed before an answer may be read after that: see `logged`.
        """
        return "".join(self.lines)

    def logged(self, text: str) -> bool:
        """Whether the server prints this, waited for."""
        with self._more:
            return self._more.wait_for(lambda: text in self.log, START_SECONDS)

    @property
    def workers(self) -> list[int]:
        """Process ids of the workers that run now."""
        import psutil

        with contextlib.suppress(psutil.NoSuchProcess):
            return sorted(child.pid for child in psutil.Process(self.process.pid).children())
        return []

    def connect(self, timeout: float = START_SECONDS) -> http.client.HTTPConnection:
        """A plain connection of the standard library, for what a client library would hide; closed with the server at
        the latest."""
        self._connections.append(http.client.HTTPConnection(self.address, timeout=timeout))
        return self._connections[-1]

    def kill(self) -> None:
        """SIGKILL to every process of the server at once, as a crash of the machine would."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(STOP_SECONDS)
        self._reader.join(STOP_SECONDS)

    def stop(self, *, check: bool = True) -> None:
        """SIGTERM and wait; `check` fails when the server needs to be killed or leaves an error status."""
        while self._connections:
            self._connections.pop().close()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
                if check:
                    raise RuntimeError("the server did not stop on SIGTERM:\n" + self.log) from None
            if check and self.process.returncode not in (0, -signal.SIGTERM):
                raise RuntimeError(f"the server ended with status {self.process.returncode}:\n{self.log}")
        with contextlib.suppress(ProcessLookupError):  # workers that outlived their parent
            os.killpg(self.process.pid, signal.SIGKILL)
        self._reader.join(STOP_SECONDS)


def _started(args: Sequence[str], output: int, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "pacs", *args],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=env,
        cwd=ROOT,
        start_new_session=True,
    )


class StartServer(Protocol):
    def __call__(
        self,
        archive: Path,
        *,
        workers: int = 2,
        env: Mapping[str, str] | None = None,
        args: Sequence[str] = (),
        fresh: bool = False,
    ) -> Server: ...


def _server_factory() -> Iterator[StartServer]:
    started: list[Server] = []

    def start(
        archive: Path,
        *,
        workers: int = 2,
        env: Mapping[str, str] | None = None,
        args: Sequence[str] = (),
        fresh: bool = False,
    ) -> Server:
        server = Server(archive, workers=workers, env=env or {}, args=args, fresh=fresh)
        started.append(server)
        return server

    try:
        yield start
    finally:
        for server in reversed(started):
            server.stop(check=False)


@pytest.fixture
def start_server() -> Iterator[StartServer]:
    """`start_server(archive, workers=2, env=None, args=())`: a server of the test's own, stopped after it.

    With `fresh=True` by a new interpreter, as users start it; else forked from a process that has loaded it already.
    """
    yield from _server_factory()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for the whole session, two workers, over an archive that the tests share: use your own UIDs.

    A series that a test has stored is still received as long as the test runs, however long that is.
    """
    for start in _server_factory():
        yield start(tmp_path_factory.mktemp("shared") / "archive", env={"PACS_RECEIVING": "36000"}, fresh=True)


@pytest.fixture
def pacs_command() -> Callable[..., subprocess.CompletedProcess[str]]:
    """`pacs_command("info", "--archive", path)`: a run of the command line in a process of its own.

    With `fresh=True` by a new interpreter, as users start it; else forked from a process that has loaded it already.
    """

    def run(*args: str | Path, timeout: float = 600, fresh: bool = False) -> subprocess.CompletedProcess[str]:
        words = [*map(str, args)]
        if fresh:
            command = [sys.executable, "-m", "pacs", *words]
            return subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd=ROOT, check=False)
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
            process = Forked(words, output.fileno(), errors.fileno(), os.environ, ROOT)
            try:
                status = process.wait(timeout)
            finally:
                process.kill()
            for file in (output, errors):
                file.seek(0)
            return subprocess.CompletedProcess(words, status, output.read().decode(), errors.read().decode())

    return run
