"""Which split runs next, how often it is tried, and which topics are given up; pure: events in, tasks out.

A split is PENDING -> RUNNING -> DONE. From RUNNING it goes back to PENDING, with the next attempt number, when its
attempt failed (up to `failures_max` times), or met schemas that nobody knew (which is no failure: the table's schema
has grown meanwhile); each attempt has a staging folder of its own, so that nothing is ever written over. What fails for
good gives up its topics, as does a topic with too many bad records: none of their files and positions are committed,
the other topics of the run are.

One topic must not stop those that happen to share its split. A failure that names a topic gives up that one, and the
rest of the split runs again. One that names none, as when a worker dies of a record, takes the split apart: each of its
topics becomes a split of its own that is tried once. Where one part after another fails, the fault is in what they all
need (the cluster, the destination), and the parts still waiting are given up untried. What another attempt would meet
as well (no access, no space) is the same for all topics, and gives them up at once.

What runs again, whole or in part, has an attempt number above 0: an engine that loses several splits at once, and says
so by `AttemptFailed.is_own`, runs those one by one. Such a loss does not count as a failure of the split.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from millstream.hadoop_loader.engines.engine import AttemptFailed
from millstream.hadoop_loader.splits import Gap, OffsetRange, RangeRead, Split, SplitResult, StagedFile, UnknownSchema
from millstream.hadoop_loader.tables.writers import writer_name

FAILURES_MAX: Final = 4  # attempts of one split that may fail
# Times one split may come back for schemas; each time brings a new one, so only a worker that errs comes near.
SCHEMA_ROUNDS_MAX: Final = 1_000
# Times a split may be lost together with others; an engine that runs it alone from then on loses it once or twice.
LOST_MAX: Final = 10
# Parts of splits that may fail one after the other, with none that came to its end between them. So many run at once:
# those that an engine has cannot be taken back.
PARTS_FAILED_MAX: Final = 8


class Attempt(NamedTuple):
    """A split that is to run, and its number among the split's attempts."""

    split: Split
    attempt: int


@dataclass(slots=True)
class _SplitState:
    split: Split
    # Of the attempt that runs, or runs next; moves up by one with each that is given out.
    attempt: int = 0
    failures: int = 0
    lost: int = 0
    schema_rounds: int = 0
    # Whether it is a part of a split that failed for good: one topic, tried once.
    is_part: bool = False
    # (topic, schema id) of those it came back for.
    schemas_met: set[tuple[str, int, str]] = field(default_factory=set)
    result: SplitResult | None = None


@dataclass(slots=True)
class Attempts:
    """The splits of one run; see the module for their states. Owned by the driver's thread."""

    failures_max: int = FAILURES_MAX
    # Of one topic, in the whole run; None: any number.
    bad_records_max: int | None = None
    # Topic -> why nothing of it is committed in this run. Grows only.
    given_up: dict[str, str] = field(default_factory=dict)
    failed_attempts: int = 0
    # Topic -> bad records in the results so far.
    _bad: dict[str, int] = field(default_factory=dict)
    _states: dict[int, _SplitState] = field(default_factory=dict)
    _pending: deque[int] = field(default_factory=deque)
    _running: set[int] = field(default_factory=set)
    # Parts that failed since one came to its end.
    _parts_failed: int = 0
    # Splits that the run began with.
    _planned: int = 0

    @classmethod
    def of(
        cls, splits: Iterable[Split], *, failures_max: int = FAILURES_MAX, bad_records_max: int | None = None
    ) -> Attempts:
        """Make the attempts of a run's splits, in the order in which they are to run."""
        attempts = cls(failures_max=failures_max, bad_records_max=bad_records_max)
        for split in splits:
            attempts._states[split.number] = _SplitState(split)
            attempts._pending.append(split.number)
        attempts._planned = len(attempts._states)
        return attempts

    @property
    def is_done(self) -> bool:
        """Whether nothing runs and nothing is left to run."""
        return not self._pending and not self._running

    def take(self) -> list[Attempt]:
        """Return what is to run now; each counts as running from here on."""
        taken = []
        waiting: deque[int] = deque()
        room_for_parts = PARTS_FAILED_MAX - sum(self._states[number].is_part for number in self._running)
        while self._pending:
            state = self._states[self._pending.popleft()]
            ranges = tuple(wanted for wanted in state.split.ranges if wanted.topic not in self.given_up)
            if not ranges:
                continue
            if state.is_part:
                if not room_for_parts:
                    waiting.append(state.split.number)
                    continue
                room_for_parts -= 1
            state.split = replace(state.split, ranges=ranges)
            self._running.add(state.split.number)
            taken.append(Attempt(state.split, state.attempt))
            state.attempt += 1
        self._pending = waiting
        return taken

    def shares(self, split: int, workers: int) -> int:
        """Return the part of the run's rates that a split has: one in so many, so that all at work are within them.

        The parts of a split that was taken apart, which may run on all workers at once, have that one's together.
        """
        at_once = min(workers, self._planned)
        return at_once * workers if self._states[split].is_part else at_once

    def handle_finished(self, result: SplitResult) -> Sequence[UnknownSchema]:
        """Take in an attempt that came to its end; return the schemas it met that nobody knew.

        With schemas returned the split waits to run again: the caller merges them before it takes the next attempts.
        """
        state = self._end(result.split, result.attempt)
        if state is None:
            return ()
        for topic, bad in result.refused_topics.items():
            self._refuse(topic, bad)
        if not result.unknown_schemas:
            state.result = result
            if state.is_part:
                self._parts_failed = 0
            for read in result.read:
                self._bad[read.topic] = bad = self._bad.get(read.topic, 0) + read.bad
                if self.bad_records_max is not None and bad > self.bad_records_max:
                    self._refuse(read.topic, bad)
            return ()
        self._pending.append(result.split)
        for found in result.unknown_schemas:
            # The attempt before came back for it too, so this one had it in its tables: no other will do better.
            met = found.topic, found.schema_id, found.field
            if met in state.schemas_met:
                self.give_up(
                    [found.topic],
                    f"schema {writer_name(found.schema_id)} is in the table, and its {found.field}s were not read"
                    " with it",
                )
            state.schemas_met.add(met)
        state.schema_rounds += 1
        if state.schema_rounds > SCHEMA_ROUNDS_MAX:
            topics = {found.topic for found in result.unknown_schemas}
            self.give_up(topics, f"a split met schemas that nobody knew {SCHEMA_ROUNDS_MAX} times")
        return [found for found in result.unknown_schemas if found.topic not in self.given_up]

    def handle_failed(self, failed: AttemptFailed) -> Sequence[Split]:
        """Take in an attempt that failed: the split runs again, or its topics are given up, or it is taken apart.

        Returns the parts of one that was taken apart: they take its place, by numbers of their own.
        """
        state = self._end(failed.split, failed.attempt)
        if state is None:
            return ()
        self.failed_attempts += 1
        # Where all of its topics are given up, `take` passes it over.
        self._pending.append(failed.split)
        if not failed.is_own and state.lost < LOST_MAX:
            state.lost += 1
            return ()
        state.failures += 1
        if failed.is_retriable and state.failures < self.failures_max and not state.is_part:
            return ()
        tries = f" (in each of {state.failures} attempts)" if state.failures > 1 else ""
        reason = f"{failed.error}{tries}"
        topics = {wanted.topic for wanted in state.split.ranges}
        if failed.topic in topics:
            self.give_up({failed.topic}, reason)
            state.failures = 0
            return ()
        if failed.is_retriable and len(topics - self.given_up.keys()) > 1:
            return self._take_apart(state)
        self.give_up(topics, reason)
        if state.is_part:
            self._parts_failed += 1
            if self._parts_failed >= PARTS_FAILED_MAX:
                self._give_up_parts(reason)
        return ()

    def give_up(self, topics: Iterable[str], reason: str) -> None:
        """Commit nothing of these topics in this run; the first reason stays."""
        for topic in topics:
            self.given_up.setdefault(topic, reason)

    def files(self) -> list[StagedFile]:
        """The staged files of all topics that are to be committed; called once the run is done."""
        return [
            file
            for state in self._states.values()
            if state.result is not None
            for file in state.result.files
            if file.topic not in self.given_up
        ]

    def reads(self) -> list[RangeRead]:
        """How far the ranges of all topics that are to be committed were read."""
        return [
            read
            for state in self._states.values()
            if state.result is not None
            for read in state.result.read
            if read.topic not in self.given_up
        ]

    def gaps(self) -> list[Gap]:
        """The gaps in the ranges of all topics that are to be committed."""
        kept = {read.topic_id for read in self.reads()}
        return [gap for result in self.results() for gap in result.gaps if gap.topic_id in kept]

    def ranges(self) -> list[OffsetRange]:
        """What was planned of all topics that are to be committed."""
        return [
            wanted
            for state in self._states.values()
            for wanted in state.split.ranges
            if wanted.topic not in self.given_up
        ]

    def results(self) -> list[SplitResult]:
        """Every result, also what it holds of topics given up."""
        return [state.result for state in self._states.values() if state.result is not None]

    def _take_apart(self, state: _SplitState) -> list[Split]:
        """Put a split of each of its topics in the place of a split."""
        by_topic: dict[str, list[OffsetRange]] = {}
        for wanted in state.split.ranges:
            if wanted.topic not in self.given_up:
                by_topic.setdefault(wanted.topic, []).append(wanted)
        parts = [Split(number, tuple(held)) for number, held in enumerate(by_topic.values(), max(self._states) + 1)]
        for part in parts:
            self._states[part.number] = _SplitState(part, attempt=state.attempt, is_part=True)
            self._pending.append(part.number)
        state.split = replace(state.split, ranges=())
        return parts

    def _give_up_parts(self, reason: str) -> None:
        waiting = (self._states[number] for number in self._pending)
        topics = {wanted.topic for state in waiting if state.is_part for wanted in state.split.ranges}
        self.give_up(topics, f"not tried on its own, as {PARTS_FAILED_MAX} others failed; the last: {reason}")

    def _refuse(self, topic: str, bad: int) -> None:
        self.give_up([topic], f"{bad:,} bad records or more, over bad_records.max_bad_records")

    def _end(self, split: int, attempt: int) -> _SplitState | None:
        """Return the state of a split whose attempt ended; None for one that ended before, and tells it late."""
        state = self._states[split]
        if split not in self._running or attempt != state.attempt - 1:
            return None
        self._running.discard(split)
        return state
