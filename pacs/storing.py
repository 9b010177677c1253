"""A file on its way in: identified, encoded and proven in a thread, committed, and what became of it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from pacs import ingest
from pacs.crew import Crew
from pacs.errors import ConflictError, PacsError, StorageError
from pacs.ingest import Identity
from pacs.measure import Measure, Observe, nobody, timed
from pacs.storage.commit import Engine, Outcome
from pacs.storage.commit import Status as CommitStatus
from pacs.storage.model import Buffer, NewInstance

_log = logging.getLogger(__name__)

Status = Literal["stored", "duplicate", "refused"]


@dataclass(frozen=True, slots=True)
class StoreResult:
    """What became of one uploaded file. UIDs are "" where the file did not tell them."""

    status: Status
    study: str = ""
    series: str = ""
    instance: str = ""
    sop_class: str = ""
    error: PacsError | None = None
    """Why it was refused."""
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # A traceback holds the frames it came through, and with them the whole file, as long as the result lives.
        if self.error is not None:
            self.error.__traceback__ = self.error.__context__ = self.error.__cause__ = None


class Storing:
    """Stores into one open archive, with `threads` threads for codecs, one a core for 0."""

    def __init__(self, engine: Engine, threads: int) -> None:
        self._engine = engine
        self._crew = Crew(threads or os.cpu_count() or 1, "codec")
        self._observe: Observe = nobody

    def observe(self, observe: Observe) -> None:
        """Tell `observe` of every measure that is taken from here on."""
        self._observe = observe
        self._engine.observe(observe)

    @property
    def waiting(self) -> tuple[int, int]:
        """Instances taken on that no thread has taken up, instances proven that no commit has taken up."""
        return self._crew.waiting, self._engine.waiting

    def close(self) -> None:
        """Finish the calls that were taken on; what is proven by then is with the engine."""
        self._crew.close()

    def soon(self, data: Buffer, finish: Callable[[StoreResult], None], study: str | None) -> None:
        """Store a Part 10 file, which must belong to `study` unless that is None.

        `finish` is called once, from another thread or before this returns.
        """
        try:
            self._crew.call_soon(partial(self._prepare, data, study, finish))
        except RuntimeError as error:
            finish(_refusal(None, StorageError(f"nothing is stored now: {error}")))

    def _prepare(self, data: Buffer, study: str | None, finish: Callable[[StoreResult], None]) -> None:
        identity: Identity | None = None
        try:
            with timed(self._observe, Measure.IDENTIFY):
                identity = ingest.identify(data)
                ingest.check(identity, study)
                duplicate = self._already_there(identity)
            if duplicate:
                finish(_duplicate(identity))
                return
            new = ingest.prepare(data, identity, self._engine.stage, self._observe)
        except PacsError as error:
            finish(_refusal(identity, error))
        except OSError as error:
            finish(_refusal(identity, StorageError(f"the disk refused: {error.strerror}")))
        except Exception as error:  # noqa: BLE001
            # A fault of ours must cost this one file, not the upload it came in.
            _log.exception("ingest failed")
            finish(_refusal(identity, PacsError(f"the file could not be ingested: {type(error).__name__}")))
        else:
            self._commit(new, identity, finish)

    def _commit(self, new: NewInstance, identity: Identity, finish: Callable[[StoreResult], None]) -> None:
        def committed(outcome: Outcome) -> None:
            finish(_outcome(outcome, identity))

        # With nothing else to do this thread commits it: handing it over and back takes longer than that saves.
        self._engine.commit_soon(new, committed, here=not self._crew.waiting)

    def _already_there(self, identity: Identity) -> bool:
        """Whether the same bytes are stored: a repeated upload is not encoded again. Raises ConflictError."""
        with self._engine.index.read() as view:
            entry = view.instance(identity.instance)
        if entry is None:
            return False
        if entry.descriptor.sha256 == identity.sha256:
            return True
        raise ConflictError(f"SOP Instance UID {identity.instance} is already stored with other content")


def _duplicate(identity: Identity) -> StoreResult:
    return StoreResult(
        "duplicate", identity.study, identity.series, identity.instance, identity.sop_class, None, identity.warnings
    )


def _refusal(identity: Identity | None, error: PacsError) -> StoreResult:
    if identity is None:
        return StoreResult("refused", error=error)
    return StoreResult(
        "refused", identity.study, identity.series, identity.instance, identity.sop_class, error, identity.warnings
    )


_STATUSES: dict[CommitStatus, Status] = {
    CommitStatus.STORED: "stored",
    CommitStatus.DUPLICATE: "duplicate",
    CommitStatus.CONFLICT: "refused",
    CommitStatus.FAILED: "refused",
}


def _outcome(outcome: Outcome, identity: Identity) -> StoreResult:
    return StoreResult(
        _STATUSES[outcome.status], identity.study, identity.series, identity.instance, identity.sop_class,
        outcome.error, (*identity.warnings, *outcome.warnings),
    )  # fmt: skip
