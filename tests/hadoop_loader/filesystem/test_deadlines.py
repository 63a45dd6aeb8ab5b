"""Deadlines: who waits how long, what is concluded, and that nothing is left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from functools import partial

import pytest

from millstream.hadoop_loader.filesystem import UnavailableError, UnknownOutcomeError
from millstream.hadoop_loader.filesystem.deadlines import Deadlines
from millstream.testing.kafka import wait_until

SHORT_S = 0.05
LONG_S = 30.0


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What a hung call waits for; opened at the end of a test at the latest."""
    event = threading.Event()
    yield event
    event.set()


def test_results_and_errors_come_back() -> None:
    calls = Deadlines("file:///lake", LONG_S, 4)
    assert calls.read("path", lambda: 5) == 5
    assert calls.act("path", threading.get_ident) != threading.get_ident()
    with pytest.raises(FileExistsError):
        calls.act("path", lambda: (_ for _ in ()).throw(FileExistsError()).__next__())
    calls.close()


def test_a_missed_deadline_is_unknown_for_acts_and_unavailable_for_reads(gate: threading.Event) -> None:
    calls = Deadlines("hdfs://host:8020/lake", SHORT_S, 4)
    with pytest.raises(UnknownOutcomeError, match=r"hdfs://host:8020/lake/a: no answer within 0.05 s; see that"):
        calls.act("a", gate.wait)
    with pytest.raises(UnavailableError, match=r"/a: no answer within 0.05 s; see that .* run again"):
        calls.read("a", gate.wait)
    calls.close()


def test_a_machine_without_threads_is_told_and_takes_no_room_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Deadlines("file:///lake", LONG_S, 1)

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        for _ in range(2):
            with pytest.raises(UnavailableError, match=r"lake/a: can't start new thread; raise what .*ulimit -u"):
                calls.act("a", lambda: 1)

    assert calls.act("a", lambda: 1) == 1
    calls.close()


def test_what_a_late_call_opened_is_discarded(gate: threading.Event) -> None:
    calls = Deadlines("file:///lake", SHORT_S, 4)
    discarded: list[str] = []

    def open_late() -> str:
        gate.wait()
        return "opened"

    with pytest.raises(UnknownOutcomeError):
        calls.act("a", open_late, discarded.append)
    assert discarded == []
    gate.set()
    wait_until(lambda: discarded, LONG_S, "the late call's result to be discarded")
    assert discarded == ["opened"]
    assert calls.act("a", lambda: "in time", discarded.append, LONG_S) == "in time"
    assert discarded == ["opened"]
    calls.close()


def test_calls_in_progress_are_bounded_and_one_too_many_has_not_begun(gate: threading.Event) -> None:
    calls = Deadlines("file:///lake", SHORT_S, 2)
    for _ in range(2):
        with pytest.raises(UnknownOutcomeError):
            calls.act("hung", gate.wait)
    begun: list[int] = []
    with pytest.raises(UnavailableError, match="2 earlier calls have not ended"):
        calls.act("third", lambda: begun.append(1))
    gate.set()
    calls.act("third", lambda: begun.append(2), deadline_s=LONG_S)
    assert begun == [2]
    calls.close()


def test_threads_are_used_again_and_end_with_the_file_system(gate: threading.Event) -> None:
    before = threading.active_count()
    calls = Deadlines("file:///lake", SHORT_S, 8)
    with pytest.raises(UnknownOutcomeError):
        calls.act("hung", gate.wait)
    used = {calls.read("a", threading.get_ident, deadline_s=LONG_S) for _ in range(50)}
    assert len(used) == 1
    assert threading.active_count() == before + 2
    calls.close()
    gate.set()
    wait_until(lambda: threading.active_count() == before, LONG_S, "all threads to end")


def test_many_threads_call_at_once() -> None:
    calls = Deadlines("file:///lake", LONG_S, 3)
    results: list[int] = []
    running: list[int] = []
    most: list[int] = []

    def work(number: int) -> int:
        running.append(number)
        most.append(len(running))
        time.sleep(0)
        running.remove(number)
        return number

    def call(first: int) -> None:
        results.extend(calls.read("a", partial(work, number)) for number in range(first, first + 100))

    threads = [threading.Thread(target=call, args=(first,)) for first in range(0, 1000, 100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == list(range(1000))
    assert max(most) <= 3
    calls.close()
