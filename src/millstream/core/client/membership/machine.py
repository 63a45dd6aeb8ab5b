"""What the machines of both protocols have in common: effects out, one call at a time, the poll interval, pauses.

Sans-I/O: events and the time come in as calls, effects are taken out by `take_effects` after each. Owned by whoever
feeds it, in one thread.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from millstream.core.client.backoff import Backoff
from millstream.core.client.membership.effects import Call, CallKind, Effect, MembershipState, Send
from millstream.core.client.membership.errors import CommitFailedError
from millstream.core.wire import ErrorCode, KafkaError

NO_GENERATION: Final = -1
# The coordinator is looked up again.
COORDINATOR_GONE: Final = frozenset({ErrorCode.NOT_COORDINATOR, ErrorCode.COORDINATOR_NOT_AVAILABLE})


@dataclass(frozen=True, slots=True)
class MemberConfig:
    """What a member is told by its configuration; times in milliseconds."""

    group_id: str
    instance_id: str | None = None
    rack: str | None = None
    session_timeout_ms: int = 45_000
    # How long a member may take in a rebalance, and between polls.
    max_poll_interval_ms: int = 300_000
    heartbeat_interval_ms: int = 3_000
    request_timeout_ms: int = 30_000
    retry_backoff_ms: int = 100
    retry_backoff_max_ms: int = 1_000
    server_assignor: str | None = None


class Identity(NamedTuple):
    """As whom a member commits; generation is the member epoch in the consumer protocol."""

    generation: int = NO_GENERATION
    member_id: str = ""
    instance_id: str | None = None


class MemberMachine(ABC):
    """One member of one group."""

    def __init__(self, config: MemberConfig, random_source: random.Random) -> None:
        self.config = config
        self.member_id = ""
        self._backoff = Backoff(
            config.retry_backoff_ms / 1000, config.retry_backoff_max_ms / 1000, generator=random_source
        )
        # Attempts that failed in a row.
        self._failures = 0
        # What the owner was told and has not said to be done with; nothing else goes on meanwhile but heartbeats.
        self.calling: Call | None = None
        # When the application has been away for too long; None while it polls.
        self.poll_deadline_ms: int | None = None
        self.failure: Exception | None = None
        self._effects: list[Effect] = []
        self._numbers = 0

    def take_effects(self) -> list[Effect]:
        """Return what is to be done, in order, once."""
        effects, self._effects = self._effects, []
        return effects

    # What the owner sees.

    @property
    @abstractmethod
    def state(self) -> MembershipState:
        """Where it stands."""

    @property
    @abstractmethod
    def generation(self) -> int:
        """The generation or member epoch it is in; -1 or 0 outside of the group."""

    @property
    @abstractmethod
    def commits_as(self) -> Identity | KafkaError:
        """As whom offsets are committed now, or why none can be."""

    def not_a_member(self) -> CommitFailedError:
        """Return the error of a commit by one who is out of the group."""
        return CommitFailedError(
            ErrorCode.UNKNOWN_MEMBER_ID,
            f"offsets were not committed: this member is not in group {self.config.group_id!r} any more, and others "
            "may have its partitions. Between two polls went more than max.poll.interval.ms, or the coordinator heard "
            "nothing of it for the session timeout",
        )

    @property
    @abstractmethod
    def next_deadline_ms(self) -> int | None:
        """When handle_time has something to do."""

    # Events.

    @abstractmethod
    def start(self, now_ms: int) -> None:
        """Enter the group, or do so again after leaving it or a failure."""

    @abstractmethod
    def leave(self, now_ms: int, *, for_good: bool | None = None) -> None:
        """Give everything up and leave. By default a static member stays listed, since it will come back."""

    @abstractmethod
    def rejoin(self, reason: str, now_ms: int) -> None:
        """Have the group share anew."""

    @abstractmethod
    def handle_answer(self, number: int, response: Any, now_ms: int) -> None:
        """A request was answered."""

    @abstractmethod
    def handle_failure(self, number: int, error: KafkaError, now_ms: int) -> None:
        """A request was not sent, or not answered; of what it did nothing is known."""

    @abstractmethod
    def handle_time(self, now_ms: int) -> None:
        """Do what is due."""

    @abstractmethod
    def handle_commit_error(self, code: ErrorCode, sent_as: Identity, now_ms: int) -> None:
        """A commit was refused in a way that says something of this member."""

    def handle_called(self, now_ms: int) -> None:
        """The owner is done with what it was told."""
        call, self.calling = self.calling, None
        assert call is not None, "nothing was told that could be done with"
        self._called(call)
        self._advance(now_ms)

    def begin_poll(self, now_ms: int) -> None:
        """The application is here; a member that left because it was not comes back."""
        self.poll_deadline_ms = None
        self._advance(now_ms)

    def end_poll(self, now_ms: int) -> None:
        """The application has gone to work on what it was given."""
        self.poll_deadline_ms = now_ms + self.config.max_poll_interval_ms

    # For the machines.

    @abstractmethod
    def _called(self, call: Call) -> None:
        """Note that the owner is done with a call."""

    @abstractmethod
    def _advance(self, now_ms: int) -> None:
        """Take the next step, unless a call or an answer is waited for."""

    def _emit(self, effect: Effect) -> None:
        self._effects.append(effect)

    def _send(self, message: Any, timeout_ms: int) -> int:
        self._numbers += 1
        self._emit(Send(self._numbers, message, timeout_ms))
        return self._numbers

    def _pause_ms(self) -> int:
        """Something failed: return how long to wait before it is tried again."""
        self._failures += 1
        return round(self._backoff.pause_s(self._failures) * 1000)

    def _call(self, kind: CallKind, what: Any) -> None:
        assert self.calling is None, f"{self.calling} is not done with"
        self.calling = Call(kind, what)
        self._emit(self.calling)


def earliest(*deadlines: int | None) -> int | None:
    """Return the first of those that are set."""
    return min((one for one in deadlines if one is not None), default=None)
