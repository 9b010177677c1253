"""Who commits: the commit thread, or the thread that has an instance ready while nobody else commits."""

from __future__ import annotations

import errno
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pacs.crew import Crew
from pacs.measure import Measure, nobody
from pacs.storage.commit import Outcome, Status, committer, engine
from pacs.storage.commit.engine import CommitQueue
from pacs.storage.disk import Disk, Operation
from pacs.storage.locks import WriterLock
from tests.durability.synthetic import Opened, create, new_instance, opened


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Opened]:
    with opened(create(tmp_path / "archive")) as archive:
        yield archive


LIMIT = 120
"""Seconds: of waits that end at once when all is well."""


def ended(condition: threading.Event) -> None:
    assert condition.wait(LIMIT)


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.001)


@contextmanager
def queue_of(archive: Opened) -> Iterator[CommitQueue]:
    """Closed also when the test fails: its thread must not meet an index that is closed."""
    queue = CommitQueue(archive.committer)
    try:
        yield queue
    finally:
        queue.close()


def test_the_thread_that_is_ready_commits_unless_another_does(archive: Opened) -> None:
    told: list[tuple[str, Status]] = []
    lock = threading.Lock()

    def store(thread: int) -> None:
        for number in range(20):
            uid = f"1.2.{thread}.{number}"

            def note(outcome: Outcome, uid: str = uid) -> None:
                with lock:
                    told.append((uid, outcome.status))

            queue.put(new_instance("1.1", f"1.{thread % 2}", uid, number=number), note, here=number % 3 > 0)

    with queue_of(archive) as queue:
        threads = [threading.Thread(target=store, args=(thread,)) for thread in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        committing: list[int] = []
        deadline = time.monotonic() + LIMIT
        # The commit thread may be at it still.
        while threading.get_ident() not in committing and time.monotonic() < deadline:
            done = threading.Event()

            def note_thread(outcome: Outcome, done: threading.Event = done) -> None:
                committing.append(threading.get_ident())
                done.set()

            queue.put(new_instance("1.1", "1.9", f"1.9.{len(committing)}"), note_thread, here=True)
            ended(done)
    assert threading.get_ident() in committing
    assert sorted(uid for uid, _ in told) == sorted(f"1.2.{t}.{n}" for t in range(4) for n in range(20))
    assert {status for _, status in told} == {Status.STORED}
    assert archive.errors() == []


def test_what_another_thread_committed_is_settled_too(tmp_path: Path) -> None:
    settled = threading.Event()

    def observe(operation: Operation) -> None:
        if operation.name == "step" and operation.path == "settled":
            settled.set()

    with opened(create(tmp_path / "archive"), Disk(observe)) as archive, queue_of(archive) as queue:
        wait_for(lambda: queue._asleep)  # only a thread that sleeps has to be woken
        outcomes: list[Outcome] = []
        queue.put(new_instance("1.1", "1.2", "1.2.1"), outcomes.append, here=True)
        assert [outcome.status for outcome in outcomes] == [Status.STORED]
        ended(settled)
        assert not archive.committer.unsettled


def test_a_lock_that_is_refused_ends_no_thread(
    archive: Opened, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(committer, "_SETTLE_AFTER", math.inf)  # on a slow machine the first commit would settle itself
    tried = threading.Event()

    def refused(lock: WriterLock) -> None:
        tried.set()
        raise OSError(errno.ENOLCK, "No locks available")

    outcomes: list[Outcome] = []
    done = threading.Event()

    def told(outcome: Outcome) -> None:
        if not outcomes:  # here, since the thread that has committed settles it in a moment
            failing.setattr(WriterLock, "__enter__", refused)
        outcomes.append(outcome)
        done.set()

    def store(uid: str, *, here: bool = False) -> Status:
        done.clear()
        queue.put(new_instance("1.1", "1.2", uid), told, here=here)
        ended(done)
        return outcomes[-1].status

    with queue_of(archive) as queue:
        with caplog.at_level(logging.CRITICAL), monkeypatch.context() as failing:
            assert store("1.2.1") is Status.STORED
            ended(tried)  # to settle what was stored
            assert store("1.2.2") is Status.FAILED
            assert store("1.2.2", here=True) is Status.FAILED
        assert store("1.2.2") is Status.STORED
    assert len(outcomes) == 4 and archive.errors() == []


def test_what_ends_the_queue_is_passed_on_by_who_meets_it(archive: Opened) -> None:
    """Another thread that commits takes what waits along, also the word that nothing more comes."""
    outcomes: list[Outcome] = []
    with queue_of(archive) as queue:
        closing = threading.Thread(target=queue.close)
        with queue._turn:
            # For the commit thread, which waits for its turn.
            queue.put(new_instance("1.1", "1.2", "1.2.1"), outcomes.append)
            wait_for(lambda: not queue.length)
            closing.start()
            wait_for(lambda: queue.length)
        queue.put(new_instance("1.1", "1.2", "1.2.2"), outcomes.append, here=True)
        closing.join(LIMIT)
        assert not closing.is_alive()
    assert outcomes[0].status is Status.STORED


def test_what_is_left_behind_the_end_is_committed(archive: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commit thread queues anew what others left while it committed; the word to stop may be there before."""
    queue = CommitQueue(archive.committer)
    closing = threading.Thread(target=queue.close)
    outcomes: list[Outcome] = []

    def left_meanwhile(outcome: Outcome) -> None:
        outcomes.append(outcome)
        queue.put(new_instance("1.1", "1.2", "1.2.2"), outcomes.append, here=True)  # this thread has the turn
        monkeypatch.setattr(engine, "_IN_A_ROW", 0)
        closing.start()
        wait_for(queue._waiting.qsize)

    queue.put(new_instance("1.1", "1.2", "1.2.1"), left_meanwhile)
    queue._thread.join(LIMIT)
    closing.join(LIMIT)
    assert [outcome.status for outcome in outcomes] == [Status.STORED] * 2
    assert queue.length == 0


def test_a_crew_takes_calls_in_turn_and_finishes_them(caplog: pytest.LogCaptureFixture) -> None:
    crew = Crew(1, "crew")
    crew.close()  # without ever having begun
    crew = Crew(1, "crew")
    done: list[int] = []
    first, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        first.set()
        go_on.wait(LIMIT)

    def fail() -> None:
        raise ValueError("a fault of ours")

    crew.call_soon(wait)
    ended(first)
    with caplog.at_level(logging.CRITICAL):
        crew.call_soon(fail)
        for number in range(50):
            crew.call_soon(lambda number=number: done.append(number))
        assert crew.waiting == 51
        go_on.set()
        crew.close()
    assert done == list(range(50))
    with pytest.raises(RuntimeError):
        crew.call_soon(wait)
    crew.close()


def test_a_crew_makes_do_with_the_threads_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    crew = Crew(3, "crew")
    done = threading.Event()
    left = 0

    class Scarce(threading.Thread):
        def start(self) -> None:
            nonlocal left
            if left == 0:
                raise RuntimeError("can't start new thread")
            left -= 1
            super().start()

    monkeypatch.setattr("pacs.crew.threading.Thread", Scarce)
    with pytest.raises(RuntimeError, match="new thread"):
        crew.call_soon(done.set)
    assert crew.waiting == 0
    left = 1
    crew.call_soon(done.set)
    ended(done)
    assert len(crew._threads) == 1
    done.clear()
    left = 5
    crew.call_soon(done.set)
    ended(done)
    assert len(crew._threads) == 3
    crew.close()


def test_what_is_committed_is_not_taken_back(archive: Opened) -> None:
    """Whatever fails behind the transaction: neither who measures nor what follows from it undoes a commit."""
    new = new_instance("1.1", "1.2", "1.2.1")

    def observe(measure: Measure, value: float) -> None:
        if measure is Measure.INDEX:
            raise ValueError("a fault of ours")

    archive.committer.observe = observe
    archive.commit(new)
    archive.committer.observe = nobody
    assert archive.holds(new)
    assert archive.commit(new) == [Status.DUPLICATE]
    assert archive.errors() == []


def test_a_fault_of_ours_takes_the_batch_back(archive: Opened) -> None:
    """When all of it is written and synced already, too: who is told that it failed finds nothing of it later."""
    new = new_instance("1.1", "1.2", "1.2.1")

    def observe(measure: Measure, value: float) -> None:
        if measure is Measure.SYNC:
            raise ValueError("a fault of ours")

    archive.committer.observe = observe
    assert archive.commit(new) == [Status.FAILED]
    archive.committer.observe = nobody
    assert not [path for path in archive.root.glob("studies/**/*") if path.name in ("records.log", "c.0.0.0")]
    assert archive.commit(new) == [Status.STORED]
    assert archive.errors() == []
