"""What ends a run is an outcome and a sentence, and what it had committed by then is never said to be undone."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from millstream.hadoop_loader.commit import ClaimedError, Entry, EntryKind, FencedError, Role, UnappliedError
from millstream.hadoop_loader.driver import Outcome
from millstream.hadoop_loader.driver.problems import outcome_in
from millstream.hadoop_loader.driver.surroundings import StoppedError

CLAIMED = ClaimedError("load", "host:1", "run-1")


class WrongError(Exception):
    """What was asked for cannot be."""


@dataclass
class ARun:
    number: int | None = None
    outcome: Outcome = Outcome.LOADED
    destination: str = "file:///lake"
    errors: list[str] = field(default_factory=list)


def unapplied() -> UnappliedError:
    error = UnappliedError("no room")
    error.published = Entry(8, EntryKind.LOAD, Role.LOAD, 1, "run-2", "host:2", 7, 0, "token")
    return error


@pytest.mark.parametrize(
    ("error", "before", "after"),
    [
        (None, None, (Outcome.LOADED, None, [])),
        (StoppedError(), None, (Outcome.STOPPED, None, [])),
        (StoppedError(), 7, (Outcome.PARTIAL, 7, [])),
        (CLAIMED, None, (Outcome.CLAIMED, None, [str(CLAIMED)])),
        (CLAIMED, 7, (Outcome.PARTIAL, 7, [str(CLAIMED)])),
        (FencedError("another is at it"), None, (Outcome.FAILED, None, ["another is at it"])),
        (FencedError("another is at it"), 7, (Outcome.PARTIAL, 7, ["another is at it"])),
        (unapplied(), None, (Outcome.PARTIAL, 8, ["no room"])),
        (unapplied(), 7, (Outcome.PARTIAL, 8, ["no room"])),
        (WrongError("no such table"), None, (Outcome.FAILED, None, ["no such table"])),
    ],
)
def test_what_ends_a_run_is_its_outcome(
    error: Exception | None, before: int | None, after: tuple[Outcome, int | None, list[str]]
) -> None:
    run = ARun(before)
    with outcome_in(run, WrongError):
        if error is not None:
            raise error
    assert (run.outcome, run.number, run.errors) == after


def test_a_mistake_of_ours_is_no_outcome() -> None:
    run = ARun()
    with pytest.raises(WrongError), outcome_in(run):
        raise WrongError
    assert (run.outcome, run.errors) == (Outcome.LOADED, [])
