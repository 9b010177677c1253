"""Beside DICOMweb: whether the server lives (`/healthz`), whether it can work (`/readyz`), and its `/metrics`."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Final

from aiohttp.web import BaseRequest

from pacs.dicomweb import metrics
from pacs.dicomweb.answer import Answer, Headers
from pacs.dicomweb.metrics import Now
from pacs.dicomweb.offload import Once
from pacs.dicomweb.service import Service
from pacs.errors import ForbiddenError, MethodError, PacsError

HEALTH: Final = "/healthz"
READY: Final = "/readyz"
METRICS: Final = "/metrics"
PATHS: Final = frozenset((HEALTH, READY, METRICS))

CHECKS: Final = ("index", "disk", "space")

_KEEP: Final = 1.0
"""Seconds that an answer to "ready?" holds: looking writes and syncs a page."""
_PATIENCE: Final = 5.0
"""Seconds after which a disk that does not answer is said to be failing."""
_FEWEST_FILES: Final = 10_000
"""Inodes; a new series takes a handful."""
_HEADERS: Final[Headers] = (("Cache-Control", "no-store"),)

class Health:
    """Answers for one worker."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._looking: Once[Mapping[str, str]] = Once()
        self._exposing: Once[bytes] = Once()
        self._known: tuple[float, Mapping[str, str]] = (float("-inf"), {})
        self._probe: asyncio.Future[dict[str, str]] | None = None

    async def answer(self, request: BaseRequest, path: str) -> Answer:
        """Raises MethodError, ForbiddenError for metrics asked for from elsewhere."""
        if request.method not in ("GET", "HEAD"):
            raise MethodError(f"{request.method[:20]} is not known here", ("GET", "HEAD"))
        if path == HEALTH:
            return _json(200, {"status": "alive"})
        if path == READY:
            troubles = await self.troubles()
            if troubles:
                reasons = [{"check": check, "reason": reason} for check, reason in troubles.items()]
                return _json(503, {"status": "not ready", "reasons": reasons})
            return _json(200, {"status": "ready"})
        if not self._service.observer.clients.may_see_metrics(request):
            raise ForbiddenError("metrics are not for this address: PACS_METRICS_FROM names those that may see them")
        body = await self._exposing(METRICS, self._exposed)
        return Answer(200, metrics.CONTENT_TYPE, body, _HEADERS)

    async def troubles(self) -> Mapping[str, str]:
        """What keeps the server from its work, by the name of the check."""
        since, known = self._known
        if time.monotonic() - since < _KEEP:
            return known
        return await self._looking(READY, self._look)

    async def _look(self) -> Mapping[str, str]:
        # One at a time, in a thread of its own: a disk that hangs must not take up those that read.
        if self._probe is None or self._probe.done():
            self._probe = asyncio.ensure_future(asyncio.to_thread(self._checked))
        await asyncio.wait((self._probe,), timeout=_PATIENCE)
        if self._probe.done():
            found = self._probe.result()
        else:
            found = {"disk": f"the disk has not answered for {_PATIENCE:.0f} seconds"}
        self._known = (time.monotonic(), found)
        return found

    def _checked(self) -> dict[str, str]:
        archive = self._service.archive
        found: dict[str, str] = {}
        # The disk first: where it hangs, reading the index would hold up the whole worker, not this thread alone.
        for check, call in (("disk", archive.check_disk), ("space", self._check_space), ("index", archive.check_index)):
            try:
                call()
            except PacsError as error:
                found[check] = error.message
            except OSError as error:
                found[check] = error.strerror or type(error).__name__
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
                found[check] = type(error).__name__
        return found

    def _check_space(self) -> None:
        room, least = self._service.archive.room(), self._service.settings.least_free
        if room.disk_free < least:
            raise OSError(0, f"{room.disk_free} bytes are free, {least} are wanted")
        if room.files and room.files_free < _FEWEST_FILES:
            raise OSError(0, f"{room.files_free} files can be made, {_FEWEST_FILES} are wanted")

    async def _exposed(self) -> bytes:
        observer = self._service.observer
        observer.flush()
        troubles = await self.troubles()
        found = {
            "pacs_ready": Now(
                "Whether a check of /readyz is passed.",
                {(("check", check),): float(check not in troubles) for check in CHECKS},
            )
        }
        if self._probe is None or self._probe.done():  # else the disk hangs, and would hold this up too
            found.update(await asyncio.to_thread(self._archive_now))
        return await asyncio.to_thread(observer.metrics.exposition, found)

    def _archive_now(self) -> dict[str, Now]:
        archive = self._service.archive
        try:
            counters, room = archive.counters(), archive.room()
        except (PacsError, OSError):
            return {}  # `pacs_ready` tells of it

        def one(text: str, value: float) -> Now:
            return Now(text, {(): value})

        return {
            "pacs_archive_studies": one("Studies.", counters.studies),
            "pacs_archive_series": one("Series.", counters.series),
            "pacs_archive_instances": one("Instances.", counters.instances),
            "pacs_archive_received_bytes": one("Part 10 files as received.", counters.received_bytes),
            "pacs_archive_stored_bytes": one("Records and frames they became.", counters.stored_bytes),
            "pacs_archive_commits": one("Sequence number of the newest commit.", counters.sequence),
            "pacs_disk_free_bytes": one("Free on the archive's file system.", room.disk_free),
            "pacs_disk_size_bytes": one("Size of the archive's file system.", room.disk_size),
            "pacs_disk_wanted_bytes": one("PACS_LEAST_FREE.", self._service.settings.least_free),
            "pacs_disk_free_files": one("Inodes left; 0 also where there is no such limit.", room.files_free),
            "pacs_index_used_bytes": one("LMDB pages that have ever been used.", room.index_used),
            "pacs_index_limit_bytes": one("Size of the LMDB map.", room.index_limit),
            "pacs_index_readers": one("Slots of LMDB readers that have been taken.", room.index_readers),
        }


def _json(status: int, value: object) -> Answer:
    return Answer(status, "application/json", json.dumps(value).encode() + b"\n", _HEADERS)
