"""One job's life in the service, as a machine without I/O: told what happened and when, it says when to run next.

States: WAITING -> RUNNING (handle_started) -> WAITING (handle_ended) ... -> STOPPED (handle_stopped, from either).

A job never overlaps itself: what becomes due while it runs is missed, and `catch_up` says whether that is made good
once, at once, or skipped. A run that ended at its bound (`source.run_bytes_max`) and left something is followed by
the next one at once, until nothing is left. A run that failed is tried again soon, each time later, until the regular
time takes over.
The service keeps nothing between its own starts: a run that finds nothing new is short and harmless, so with catch_up
`once` the first one is due when the service starts.
"""

from __future__ import annotations

import datetime
import math
import random
from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from millstream.hadoop_loader.job import ScheduleSettings
from millstream.hadoop_loader.schedule.timetable import Timetable

RUNS_KEPT: Final = 20
_FAILED: Final = 1


class JobState(Enum):
    """See the module's text."""

    WAITING = "waiting"
    RUNNING = "running"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run that ended. Times are seconds since 1970; `exit_code` as `millstream load run` has it."""

    started_s: float
    ended_s: float
    outcome: str
    exit_code: int
    # What a person should know of it: errors with what to do about them.
    sentences: tuple[str, ...] = ()


class ScheduledJob:
    """When one job runs, and how its runs went. Owned by the job's thread; others read under the service's lock."""

    def __init__(self, name: str, settings: ScheduleSettings, *, now_s: float, chance: random.Random) -> None:
        self.name = name
        self.state = JobState.WAITING
        # The last runs, oldest first.
        self.runs: deque[RunRecord] = deque(maxlen=RUNS_KEPT)
        # Runs in a row that failed.
        self.failures = 0
        # Regular times that no run was started for, since the service began.
        self.missed = 0
        self.started_s: float | None = None
        self._chance = chance
        self._began_s = now_s
        self._settings = settings
        self._timetable = Timetable(settings, began_s=now_s)
        # The first regular time that no run has been started at or after. One that failed is tried again before it.
        self._regular_s = now_s if settings.catch_up == "once" else self._timetable.following(now_s)
        # When the next run starts: the regular time and some jitter, or sooner after a failure.
        self.due_s = self._with_jitter(self._regular_s)

    @property
    def last(self) -> RunRecord | None:
        """The last run that ended."""
        return self.runs[-1] if self.runs else None

    @property
    def is_red(self) -> bool:
        """Whether somebody has to look: the last run failed, or was not whole."""
        return self.last is not None and self.last.exit_code not in (0, 4)

    def update(self, settings: ScheduleSettings, now_s: float) -> None:
        """Take a schedule that was changed in the job's file; it counts from the next run on."""
        if settings == self._settings:
            return
        self._settings = settings
        self._timetable = Timetable(settings, began_s=self._began_s)
        self._regular_s = min(self._regular_s, self._timetable.following(now_s))

    def handle_started(self, now_s: float) -> None:
        """A run has started."""
        assert self.state is JobState.WAITING, self.state
        self.state, self.started_s = JobState.RUNNING, now_s
        if now_s >= self._regular_s:
            self._regular_s = self._timetable.following(now_s)

    def handle_ended(
        self,
        now_s: float,
        outcome: str,
        exit_code: int,
        sentences: tuple[str, ...] = (),
        *,
        is_unapplied: bool = False,
        has_more: bool = False,
    ) -> None:
        """The run has ended; `due_s` is when the next one starts.

        `is_unapplied`: before the next run readers do not see all of what it committed, as urgent as a failure.
        `has_more`: it ended at its bound, and left something.
        """
        assert self.state is JobState.RUNNING, self.state
        assert self.started_s is not None
        self.runs.append(RunRecord(self.started_s, now_s, outcome, exit_code, sentences))
        self.state, self.started_s = JobState.WAITING, None
        self.failures = self.failures + 1 if exit_code == _FAILED or is_unapplied else 0
        if self._regular_s > now_s:
            self.due_s = self._with_jitter(self._regular_s)
        else:
            self.missed += 1
            if self._settings.catch_up == "once":
                # One run stands for all that were missed.
                self.due_s = now_s
            else:
                self._regular_s = self._timetable.following(now_s)
                self.due_s = self._with_jitter(self._regular_s)
        if has_more and not self.failures:
            self.due_s = now_s
        if self.failures and self._settings.retry_after_s > 0:
            pause_s = self._settings.retry_after_s * 2.0 ** min(self.failures - 1, 30)
            if self.due_s <= now_s:
                # It is due at once, and waits all the same: it would only fail faster. No longer than to the next
                # regular time, though, where the first pause is not longer than that already.
                regular_s = self._timetable.following(now_s) - now_s
                self.due_s = now_s + min(pause_s, max(self._settings.retry_after_s, regular_s))
            else:
                self.due_s = min(self.due_s, now_s + pause_s)

    def handle_clock_set_back(self, now_s: float, by_s: float) -> None:
        """The clock was set by `by_s` seconds, which is negative, to `now_s`: nothing waits for that time again."""
        if self._settings.every_s is not None:
            self._began_s += by_s
            self._timetable = Timetable(self._settings, began_s=self._began_s)
            self._regular_s += by_s
            self.due_s += by_s
        else:
            self._regular_s = min(self._regular_s, self._timetable.following(now_s))
            self.due_s = min(self.due_s, self._with_jitter(self._regular_s))

    def handle_stopped(self) -> None:
        """The service ends."""
        self.state = JobState.STOPPED

    def as_json(self) -> dict[str, Any]:
        """Return what a page or a program shows of the job; times of day are ISO 8601, UTC."""
        return {
            "name": self.name,
            "state": self.state.value,
            "due": None if math.isinf(self.due_s) or self.state is not JobState.WAITING else _iso(self.due_s),
            "started": None if self.started_s is None else _iso(self.started_s),
            "failures_in_a_row": self.failures,
            "missed": self.missed,
            "red": self.is_red,
            "runs": [
                {
                    "started": _iso(run.started_s),
                    "ended": _iso(run.ended_s),
                    "took_s": round(run.ended_s - run.started_s, 3),
                    "outcome": run.outcome,
                    "exit_code": run.exit_code,
                    "sentences": list(run.sentences),
                }
                for run in self.runs
            ],
        }

    def _with_jitter(self, moment_s: float) -> float:
        return moment_s + self._chance.uniform(0.0, self._settings.jitter_s)


def _iso(at_s: float) -> str:
    return datetime.datetime.fromtimestamp(at_s, datetime.UTC).isoformat(timespec="seconds")
