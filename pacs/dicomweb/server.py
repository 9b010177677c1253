"""The parent of `pacs serve`: it accepts connections and deals them out to worker processes in turn.

Workers are dealt connections rather than sharing a listening port: SO_REUSEPORT puts the four connections of one
viewer on one of two workers one time in eight. The parent opens no archive and starts no thread, so that nothing it
holds can hang with it: a worker can be killed and started again at any time. It imports what workers need and forks
them: a second worker, or one in the place of another, is there in milliseconds and shares the memory of the code.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import ipaddress
import json
import logging
import multiprocessing
import os
import resource
import selectors
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Final

from pacs import errors
from pacs.dicomweb import access_log, metrics_directory, networks
from pacs.errors import PacsError, SettingsError
from pacs.settings import Settings

_log = logging.getLogger("pacs.server")

_BACKLOG: Final = 1024
_START_SECONDS: Final = 60
_QUICK_DEATH: Final = 5.0
"""Seconds; a worker that dies so soon after another is started again only after a pause."""
_PAUSE: Final = 1.0
_STOP_MARGIN: Final = 5.0
"""Seconds beyond the grace of requests before a worker is killed."""
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def serve(
    archive: Path | str, host: str, port: int, workers: int, settings: Settings, *, insecure: bool = False
) -> None:
    """Serve until SIGTERM or SIGINT, then let running requests finish. Port 0 takes a free one.

    Prints `pacs is ready at http://HOST:PORT/` once every worker is. Raises SettingsError for an address that other
    machines can reach, unless `insecure`; the worker's PacsError when the archive cannot be opened.
    """
    networks.Clients(settings)
    access_log.check(settings.access_log)
    if not insecure and not _is_loopback(host):
        raise SettingsError(f"{host} can be reached by other machines and there is no authentication: say insecure")
    try:
        listener = socket.create_server(
            (host.strip("[]"), port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=_BACKLOG
        )
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (while")[0]  # the address is said already
        hint = "; --port takes another" if error.errno == errno.EADDRINUSE else ""
        raise SettingsError(f"cannot listen on {host}:{port}: {reason}{hint}") from error
    with listener:
        listener.setblocking(False)
        _Parent(Path(archive), listener, max(1, workers), settings).run()


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    return False


@dataclass(slots=True)
class _Worker:
    process: ForkProcess
    channel: socket.socket
    """Connections go one way over it, a line of JSON comes back: that the worker is ready, or why not; perhaps another
    that it leaves."""
    pidfd: int
    number: int
    """Its place among the workers: one that takes its place has the same."""
    ready: bool = False
    replaced: bool = False
    """Whether there is another in its place already."""

    def close(self) -> None:
        self.channel.close()
        os.close(self.pidfd)


class _Parent:
    def __init__(self, archive: Path, listener: socket.socket, count: int, settings: Settings) -> None:
        self._archive = archive
        self._listener = listener
        self._count = count
        self._settings = settings
        self._workers: list[_Worker] = []
        self._turn = 0
        self._stopping = False
        self._listening = False
        self._deaths = 0
        self._last_death = float("-inf")
        self._told, self._tell = socket.socketpair()
        """Signals become bytes on it, so that the selector sees them."""
        self._metrics = metrics_directory.make()
        self._selector = selectors.DefaultSelector()

    def run(self) -> None:
        with self._signals():
            try:
                _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
                resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
                _import_worker()
                # The first one alone: it may have to bring the archive into order.
                self._start(1)
                self._start(self._count - 1)
                if self._stopping:
                    return
                address = self._listener.getsockname()
                name = f"[{address[0]}]" if ":" in address[0] else address[0]
                print(f"pacs is ready at http://{name}:{address[1]}/", flush=True)  # noqa: T201
                while not self._stopping:
                    self._turn_once(None)
            finally:
                self._listener.close()
                self._stop()
                self._selector.close()
                metrics_directory.remove(self._metrics)

    # --- connections

    def _turn_once(self, timeout: float | None) -> None:
        for key, _ in self._selector.select(timeout):
            if key.fileobj is self._listener:
                self._deal()
            elif isinstance(key.data, _Worker):
                if key.fileobj is not key.data.channel:
                    self._bury(key.data)
                elif key.data in self._workers:  # else it was buried a moment ago
                    self._selector.unregister(key.data.channel)
                    if key.data.ready:
                        self._dismiss(key.data)
                    else:
                        self._welcome(key.data)
            elif isinstance(key.fileobj, socket.socket):
                self._stopping = any(number in _SIGNALS for number in key.fileobj.recv(64)) or self._stopping

    def _deal(self) -> None:
        """Accept what is waiting, each connection to the next worker that can take it."""
        if not any(worker.ready for worker in self._workers):
            # All of them died and others are starting: until then connections wait in the backlog.
            self._selector.unregister(self._listener)
            self._listening = False
            return
        for _ in range(64):
            try:
                connection, _address = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                # Out of descriptors: those waiting stay in the backlog.
                _log.warning("a connection could not be accepted: %s", error)
                time.sleep(0.01)
                return
            with connection:
                for _worker in range(len(self._workers)):
                    self._turn = (self._turn + 1) % len(self._workers)
                    worker = self._workers[self._turn]
                    if worker.ready:
                        with contextlib.suppress(OSError):
                            socket.send_fds(worker.channel, [b"c"], [connection.fileno()])
                            break

    # --- workers

    def _start(self, count: int) -> None:
        """Start workers and wait until they are ready. Raises what the first of them to fail says."""
        fresh = [self._spawn() for _ in range(count)]
        for worker in fresh:
            self._await_ready(worker)

    def _spawn(self) -> _Worker:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        number = min(set(range(len(self._workers) + 1)) - {worker.number for worker in self._workers})
        task = theirs, ours, number, os.getpid()
        process = multiprocessing.get_context("fork").Process(target=self._become, args=task)
        # Signals wait until it is clear whose they are.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        theirs.close()
        ours.settimeout(_START_SECONDS)
        assert process.pid is not None
        worker = _Worker(process, ours, os.pidfd_open(process.pid), number)
        self._workers.append(worker)
        return worker

    def _become(self, channel: socket.socket, ours: socket.socket, number: int, parent: int) -> None:
        """In the new process: be a worker, and hold nothing of the parent's."""
        from pacs.dicomweb import worker

        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's ^C reaches all: the parent decides
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        for end in (ours, self._listener, self._told, self._tell):
            end.close()
        self._selector.close()
        for sibling in self._workers:
            sibling.close()
        os.environ[metrics_directory.DIRECTORY] = self._metrics
        worker.run(self._archive, channel, self._settings, number, self._deaths, parent)

    def _await_ready(self, worker: _Worker) -> None:
        try:
            said = json.loads(worker.channel.recv(65_536) or b"{}")
        except (TimeoutError, ConnectionError):
            said = {}
        if said.get("ready"):
            worker.ready = True
            worker.channel.setblocking(False)
            if not self._listening:
                self._selector.register(self._listener, selectors.EVENT_READ)
                self._listening = True
            self._selector.register(worker.pidfd, selectors.EVENT_READ, worker)
            self._selector.register(worker.channel, selectors.EVENT_READ, worker)
        elif not self._stopping:
            raise _error(said.get("code", ""), said.get("message", "a worker ended before it was ready"))

    def _bury(self, worker: _Worker) -> None:
        """A worker died: start another in its place."""
        self._selector.unregister(worker.pidfd)
        with contextlib.suppress(KeyError):
            self._selector.unregister(worker.channel)
        self._workers.remove(worker)
        worker.close()
        worker.process.join()
        metrics_directory.mark_dead(self._metrics, worker.number)
        self._deaths += 1
        if self._stopping or worker.replaced:
            return
        _log.error("worker %d died with status %d; another is started", worker.process.pid, worker.process.exitcode)
        self._replace_lost()

    def _dismiss(self, worker: _Worker) -> None:
        """A worker can serve no more: give it no more connections, and start another in its place. It ends when what
        it has in work is answered."""
        try:
            leaves = bool(worker.channel.recv(65_536))
        except OSError:
            leaves = False
        if not leaves or self._stopping:
            return  # it died: the selector tells of that by itself
        worker.ready = False
        worker.replaced = True
        worker.channel.shutdown(socket.SHUT_WR)
        _log.error("worker %d can serve no more; another is started", worker.process.pid)
        self._replace_lost()

    def _replace_lost(self) -> None:
        if time.monotonic() - self._last_death < _QUICK_DEATH:
            time.sleep(_PAUSE)
        self._last_death = time.monotonic()
        self._replace()

    def _replace(self) -> None:
        if not self._workers:
            # Nobody can take connections meanwhile: they wait in the backlog.
            self._start(1)
            return
        fresh = self._spawn()
        self._selector.register(fresh.channel, selectors.EVENT_READ, fresh)

    def _welcome(self, worker: _Worker) -> None:
        """A worker started in another's place has something to say."""
        try:
            self._await_ready(worker)
        except PacsError as error:
            _log.error("a worker could not start: %s", error.message)
            self._workers.remove(worker)
            worker.process.kill()
            worker.process.join()
            worker.close()
            metrics_directory.mark_dead(self._metrics, worker.number)
            self._deaths += 1
            time.sleep(_PAUSE)
            self._replace()

    def _stop(self) -> None:
        for worker in self._workers:
            worker.process.terminate()
        deadline = time.monotonic() + self._settings.shutdown_grace + _STOP_MARGIN
        for worker in self._workers:
            worker.process.join(max(0.0, deadline - time.monotonic()))
            if worker.process.exitcode is None:
                _log.error("worker %d did not stop and is killed", worker.process.pid)
                worker.process.kill()
                worker.process.join()
            worker.close()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        self._tell.setblocking(False)
        old_fd = signal.set_wakeup_fd(self._tell.fileno(), warn_on_full_buffer=False)
        old = {number: signal.signal(number, lambda *_: None) for number in _SIGNALS}
        self._selector.register(self._told, selectors.EVENT_READ)
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(old_fd)
            self._told.close()
            self._tell.close()


def _import_worker() -> None:
    """What workers need, before they are forked: the collector leaves its memory alone, so that they share it."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy would start a thread at import
    collects = gc.isenabled()
    gc.disable()
    try:
        from pacs.dicomweb import worker  # noqa: F401
        from pacs.rewriting import file  # noqa: F401  (loaded by the first who needs it otherwise)
    finally:
        gc.freeze()
        if collects:
            gc.enable()


def _error(code: str, message: str) -> PacsError:
    """The error that a worker told of, of its own kind again."""
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, PacsError) and kind.code == code:
            error = kind.__new__(kind)
            PacsError.__init__(error, message)
            return error
    return errors.InternalError(message)
