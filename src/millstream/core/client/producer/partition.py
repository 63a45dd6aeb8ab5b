"""One partition as the sender sees it: what waits, what is in flight, and the sequences that keep it in order.

`window` holds every batch that was sent and has not ended, in the order of first sending. The rules, for an idempotent
producer (KIP-98, KIP-360):

- A batch gets its sequence when it is sent first, and keeps it with every retry: a broker that has it says so.
- A broker knows the last five again. So nothing is sent that is more than four behind the oldest of the window.
- Until the first of an epoch is acknowledged only that one is in flight: a broker takes any sequence from a producer it
  does not know, so that a second one could overtake a first that failed.
- All of a window goes over one connection. Where one of it has to be sent again, or the leader moved, nothing goes out
  before what is in flight is answered; then everything is sent again in its old order.
- A batch that ends unacknowledged after it was sent may have left a hole. What is in the window is tried on, nothing
  new is sent; when the window is empty, or its first is refused as out of order, the partition begins at sequence 0
  under a higher epoch. (A first one out of order without a hole means that the broker lost what it knew: the same way
  out.)

Without idempotence a retry may overtake, unless only one request may be in flight, as in Kafka.
"""

from __future__ import annotations

from collections import deque

from millstream.core._kernels.record_accumulator import PartitionQueue
from millstream.core.client.cluster import NO_NODE, TopicPartition
from millstream.core.client.producer.batch import Batch, BatchState
from millstream.core.client.producer.settings import IDEMPOTENT_IN_FLIGHT_MAX
from millstream.core.records.header import NO_PRODUCER_EPOCH, NO_PRODUCER_ID


class SendingPartition:
    """See the module. Owned by the loop."""

    __slots__ = (
        "_in_flight_max",
        "_is_idempotent",
        "_next_number",
        "acked_sequence",
        "has_hole",
        "is_known",
        "leader",
        "leader_epoch",
        "needs_epoch",
        "next_sequence",
        "producer_epoch",
        "producer_id",
        "queue",
        "queued",
        "topic_partition",
        "window",
    )

    def __init__(self, queue: PartitionQueue, *, is_idempotent: bool, in_flight_max: int) -> None:
        self.queue = queue
        self.topic_partition = TopicPartition(queue.topic, queue.partition)
        self._is_idempotent = is_idempotent
        self._in_flight_max = in_flight_max
        # Never sent yet, oldest first.
        self.queued: deque[Batch] = deque()
        # Invariant: by increasing sequence; of an idempotent producer at most IDEMPOTENT_IN_FLIGHT_MAX are SENT.
        self.window: deque[Batch] = deque()
        self.leader = NO_NODE
        self.leader_epoch = -1
        self.producer_id = NO_PRODUCER_ID
        self.producer_epoch = NO_PRODUCER_EPOCH
        self.next_sequence = 0
        # How many batches were sent so far: a batch's place among them all.
        self._next_number = 0
        # The sequence behind the last acknowledged batch.
        self.acked_sequence = 0
        # Whether a broker has acknowledged anything under this id and epoch.
        self.is_known = False
        # Whether a batch ended unacknowledged after it was sent; and whether only a new epoch helps.
        self.has_hole = False
        self.needs_epoch = False

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing here to send or to wait for."""
        return not self.queued and not self.window and self.queue.open is None

    def candidate(self, now_ms: float, connection: tuple[int, int]) -> Batch | None:
        """Return the batch that may go out over `connection` now, if one may."""
        in_flight = 0
        for batch in self.window:
            if batch.state is BatchState.SENT:
                in_flight += 1
                if batch.sent_on != connection and (self._is_idempotent or self._in_flight_max == 1):
                    return None
                continue
            if batch.state is not BatchState.RETRY:
                return None
            if batch.retry_at_ms > now_ms or self.needs_epoch:
                return None
            if self._is_idempotent and (
                not self._is_within(batch.number_sent, in_flight) or self._has_sent_behind(batch)
            ):
                return None
            return batch
        if not self.queued or self.queued[0].state is not BatchState.READY:
            return None
        if self._in_flight_max == 1 and in_flight:
            return None
        if self._is_idempotent and (
            not self._is_within(self._next_number, in_flight) or self.has_hole or self.needs_epoch
        ):
            return None
        return self.queued[0]

    def _is_within(self, number: int, in_flight: int) -> bool:
        """Whether a broker that has appended all up to batch `number` still knows the oldest one of the window again.

        Acknowledged ones count as well: a first one that has to be sent again may have been overtaken by others.
        """
        if not self.is_known:
            return not in_flight
        return not self.window or number - self.window[0].number_sent < IDEMPOTENT_IN_FLIGHT_MAX

    def _has_sent_behind(self, batch: Batch) -> bool:
        behind = False
        for other in self.window:
            if other is batch:
                behind = True
            elif behind and other.state is BatchState.SENT:
                return True
        return False

    @property
    def in_flight(self) -> int:
        """Batches in requests that are not answered."""
        return sum(batch.state is BatchState.SENT for batch in self.window)

    def note_sent(self, batch: Batch) -> None:
        """Move a batch that goes out: a new one gets its sequence."""
        if self.queued and self.queued[0] is batch:
            self.queued.popleft()
            self.window.append(batch)
            batch.number_sent = self._next_number
            self._next_number += 1
            if self._is_idempotent:
                batch.number(self.producer_id, self.producer_epoch, self.next_sequence)
                self.next_sequence = batch.next_sequence
        batch.state = BatchState.SENT

    def note_acknowledged(self, batch: Batch) -> None:
        """Take an acknowledged batch out."""
        self._remove(batch)
        self._move_acknowledged(batch)
        self._look_at_hole()

    def note_late_answer(self, batch: Batch) -> None:
        """A batch that had been given up was appended after all: where nothing else is missing, there is no hole."""
        self._move_acknowledged(batch)
        self._look_at_hole()

    def note_lost(self, batch: Batch) -> None:
        """Take a batch out that has ended unacknowledged."""
        if batch not in self.window:
            self.queued.remove(batch)
            return
        self._remove(batch)
        if not self._is_idempotent or self.needs_epoch:
            return
        if not batch.is_ambiguous and not self.window and not self.has_hole:
            # No broker has seen a later sequence: this one is free again.
            self.next_sequence = batch.base_sequence
        else:
            self.has_hole = True
            self._look_at_hole()

    def note_out_of_order(self, batch: Batch) -> None:
        """A batch, back in RETRY, was refused as out of order, or by a broker that does not know this producer."""
        if self.window and self.window[0] is batch and batch.producer_epoch == self.producer_epoch:
            self.needs_epoch = True

    def begin_epoch(self, producer_id: int, producer_epoch: int) -> None:
        """Number the window anew, from 0 under a new id or epoch; nothing of it is in flight."""
        assert not self.in_flight, f"{self.topic_partition}: {self.in_flight} batches in flight in a new epoch"
        self.producer_id, self.producer_epoch = producer_id, producer_epoch
        self.next_sequence = self.acked_sequence = 0
        self.has_hole = self.needs_epoch = self.is_known = False
        for batch in self.window:
            batch.number(producer_id, producer_epoch, self.next_sequence)
            self.next_sequence = batch.next_sequence

    def replace(self, batch: Batch, parts: list[Batch]) -> None:
        """Put the parts of a batch that was too large where it was."""
        at = self.window.index(batch)
        del self.window[at]
        sequence = batch.base_sequence
        for index, part in enumerate(parts):
            if self._is_idempotent:
                part.number(batch.producer_id, batch.producer_epoch, sequence)
                sequence = part.next_sequence
            part.state = BatchState.RETRY
            part.attempts = batch.attempts
            self.window.insert(at + index, part)
        # Nothing behind it can have been appended, so that the places can be given anew.
        number = batch.number_sent
        for index in range(at, len(self.window)):
            self.window[index].number_sent = number
            number += 1
        self._next_number = number

    def _remove(self, batch: Batch) -> None:
        if self.window and self.window[0] is batch:
            self.window.popleft()
        else:
            self.window.remove(batch)

    def _move_acknowledged(self, batch: Batch) -> None:
        if batch.producer_epoch == self.producer_epoch and batch.producer_id == self.producer_id:
            # Acknowledgements come in order within a window, so the last one heard of is the highest.
            self.acked_sequence = batch.next_sequence
            self.is_known = True

    def _look_at_hole(self) -> None:
        if self.has_hole and not self.window:
            if self.acked_sequence == self.next_sequence:
                self.has_hole = False
            else:
                self.needs_epoch = True
