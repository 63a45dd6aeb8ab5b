"""Fetch sessions (KIP-227): a broker remembers what a consumer wants, and requests say only what has changed.

    session id 0, epoch 0    asks for a session, with every partition
    session id N, epoch 0    the same, and closes session N
    session id N, epoch M    the M-th request of session N: partitions that are new or changed, and those forgotten
    session id N, epoch -1   closes it

One object for each broker. Sans-I/O: `plan` gives the next request's part, `handle_response` or `handle_failure` follow
before the next plan. A broker that has no room answers session id 0, and every request is a full one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from millstream.core.client.cluster import TopicPartition
from millstream.core.wire import ZERO_UUID, ErrorCode

NO_SESSION: Final = 0
INITIAL_EPOCH: Final = 0
FINAL_EPOCH: Final = -1
_EPOCH_MAX: Final = 2**31 - 1


class WantedPartition(NamedTuple):
    """What a session knows of a partition."""

    offset: int
    leader_epoch: int
    size_bytes_max: int
    topic_id: bytes = ZERO_UUID


class SessionPlan(NamedTuple):
    """The part of a Fetch that the session decides. `sent` and `forgotten` keep the order given."""

    session_id: int
    epoch: int
    sent: Mapping[TopicPartition, WantedPartition]
    forgotten: list[tuple[TopicPartition, bytes]]

    @property
    def is_full(self) -> bool:
        """Whether the broker is told of every partition, and answers about every one."""
        return self.epoch in (INITIAL_EPOCH, FINAL_EPOCH)


class FetchSession:
    """This consumer's session with one broker.

    States: none (id 0) -> open (the broker gave an id) -> none (it forgot it) | closing (an error: the next request
    closes it and asks for another).
    """

    def __init__(self) -> None:
        self.session_id = NO_SESSION
        self.epoch = INITIAL_EPOCH
        # What the broker knows, with an open session; what the last full request said, without.
        self._known: dict[TopicPartition, WantedPartition] = {}

    def plan(self, wanted: Mapping[TopicPartition, WantedPartition]) -> SessionPlan:
        """Return how to ask for `wanted`, and take it as asked for."""
        if self.epoch == INITIAL_EPOCH:
            self._known = dict(wanted)
            return SessionPlan(self.session_id, INITIAL_EPOCH, wanted, [])
        sent: dict[TopicPartition, WantedPartition] = {}
        forgotten = [(tp, known.topic_id) for tp, known in self._known.items() if tp not in wanted]
        for tp, want in wanted.items():
            known = self._known.get(tp)
            if known != want:
                sent[tp] = want
                if known is not None and known.topic_id != want.topic_id:
                    # A topic deleted and made again: for the broker these are two.
                    forgotten.append((tp, known.topic_id))
        self._known = dict(wanted)
        return SessionPlan(self.session_id, self.epoch, sent, forgotten)

    def handle_response(
        self, error: ErrorCode, session_id: int, answered: set[TopicPartition], plan: SessionPlan
    ) -> bool:
        """Take an answer's session part; returns whether its partitions may be used."""
        if error is not ErrorCode.NONE:
            if error is ErrorCode.FETCH_SESSION_ID_NOT_FOUND:
                self.session_id = NO_SESSION
            self.epoch = INITIAL_EPOCH
            return False
        if plan.is_full:
            is_right = session_id == NO_SESSION or answered == set(plan.sent)
            if not is_right or (session_id == NO_SESSION and not answered <= set(plan.sent)):
                self._close_existing()
                return False
            self.session_id = session_id
            self.epoch = INITIAL_EPOCH if session_id == NO_SESSION else 1
            return True
        if not answered <= set(self._known):
            self._close_existing()
            return False
        if session_id == NO_SESSION:
            # It was evicted; this answer still counts.
            self.session_id, self.epoch = NO_SESSION, INITIAL_EPOCH
        else:
            self.epoch = self.epoch + 1 if self.epoch < _EPOCH_MAX else 1
        return True

    def handle_failure(self) -> None:
        """No answer came: whether the broker has taken the request is not known, so begin a new session."""
        self._close_existing()

    def final(self) -> SessionPlan | None:
        """Return the request that closes the session, None where there is none."""
        if self.session_id == NO_SESSION:
            return None
        plan = SessionPlan(self.session_id, FINAL_EPOCH, {}, [])
        self.session_id, self.epoch, self._known = NO_SESSION, INITIAL_EPOCH, {}
        return plan

    def _close_existing(self) -> None:
        self.epoch = INITIAL_EPOCH
