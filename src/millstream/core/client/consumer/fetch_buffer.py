"""Fetched pieces that wait for the application: a queue for each partition, and turns among partitions.

A partition is taken from in the order of its offsets, and partitions take turns piece by piece, so none starves. A
piece with compressed batches has to be opened before it can be taken; `next_to_open` says which comes next, and not
more than a bound of opened bytes waits, so that memory does not follow the compression ratio. Sans-I/O; owned by the
loop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from millstream.core.client.cluster import TopicPartition
from millstream.core.client.consumer.fetched import OPENED_BYTES_MAX, FetchedRecords

# Decompressed bytes that may wait before the next piece is opened; one piece may always.
READY_BYTES_MAX: Final = 16 * 1024 * 1024


class FetchBuffer:
    """Pieces by partition; `bytes_of` and the others count `data`, not what was decompressed of it."""

    def __init__(self, *, ready_bytes_max: int = READY_BYTES_MAX) -> None:
        self._ready_bytes_max = ready_bytes_max
        # What one piece is opened to, about.
        self.opened_bytes_max = min(OPENED_BYTES_MAX, ready_bytes_max)
        # Whether any piece had to be opened so far.
        self._is_compressed = False
        self._queues: dict[TopicPartition, deque[FetchedRecords]] = {}
        # Partitions with something queued, in the order of their turns. Invariant: the keys of _queues, each once.
        self._turns: deque[TopicPartition] = deque()
        self._bytes: dict[TopicPartition, int] = {}
        # The piece that a worker opens now, by partition: it is the first of its queue.
        self._opening: dict[TopicPartition, FetchedRecords] = {}
        self._opened_bytes = 0
        # The partition of a piece that was taken and is being gone through: more of it may be put back.
        self.in_hand: TopicPartition | None = None
        # How often each partition's pieces were thrown away: what was taken before that is not to be used any more.
        self._drops: dict[TopicPartition, int] = {}

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def bytes_of(self, tp: TopicPartition) -> int:
        """Fetched bytes of one partition that wait."""
        return self._bytes.get(tp, 0)

    def add(self, fetched: FetchedRecords) -> None:
        """Queue a piece behind those of its partition."""
        tp = fetched.topic_partition
        queue = self._queues.get(tp)
        if queue is None:
            queue = self._queues[tp] = deque()
            self._turns.append(tp)
        queue.append(fetched)
        self._bytes[tp] = self._bytes.get(tp, 0) + len(fetched.data)
        self._is_compressed = self._is_compressed or not fetched.is_open

    @property
    def opening_bytes(self) -> int:
        """Room to be left for what will be opened, where what comes is compressed."""
        return max(self._ready_bytes_max - self._opened_bytes, 0) if self._is_compressed else 0

    def next_to_open(self) -> FetchedRecords | None:
        """Return the piece that a worker is to open now, in the order of turns, and take it as being opened."""
        if self._opened_bytes + len(self._opening) * self.opened_bytes_max >= self._ready_bytes_max:
            return None
        for tp in self._turns:
            first = self._queues[tp][0]
            if not first.is_open and tp not in self._opening:
                self._opening[tp] = first
                return first
        return None

    def handle_opened(self, fetched: FetchedRecords, rest: FetchedRecords | None) -> bool:
        """Take a piece that was opened, and the rest of it that was not. Returns whether it was still wanted."""
        tp = fetched.topic_partition
        if self._opening.get(tp) is not fetched:
            return False
        del self._opening[tp]
        self._opened_bytes += fetched.size_bytes - len(fetched.data)
        if rest is not None:
            queue = self._queues[tp]
            queue.insert(queue.index(fetched) + 1, rest)
        return True

    def handle_unopened(self, fetched: FetchedRecords) -> bool:
        """Throw a piece that could not be opened away, with all behind it. Returns whether it was still wanted."""
        tp = fetched.topic_partition
        if self._opening.get(tp) is not fetched:
            return False
        del self._opening[tp]
        queue = self._queues[tp]
        while queue and queue[-1] is not fetched:
            self._forget(queue.pop())
        self._forget(queue.pop())
        if not queue:
            del self._queues[tp], self._bytes[tp]
            self._turns.remove(tp)
        return True

    def take(self, allowed: Callable[[TopicPartition], bool]) -> FetchedRecords | None:
        """Return the next piece of the partition whose turn it is, among those that are allowed; None without one."""
        for _ in range(len(self._turns)):
            tp = self._turns[0]
            queue = self._queues[tp]
            # One that a worker has not handed back yet may look open already.
            if self._opening.get(tp) is queue[0] or not queue[0].is_open or not allowed(tp):
                self._turns.rotate(-1)
                continue
            fetched = queue.popleft()
            self._bytes[tp] -= len(fetched.data)
            self._opened_bytes -= fetched.size_bytes - len(fetched.data)
            self._turns.popleft()
            if queue:
                self._turns.append(tp)
            else:
                del self._queues[tp], self._bytes[tp]
            return fetched
        return None

    def put_back(self, fetched: FetchedRecords) -> None:
        """Queue an open piece before all others of its partition, to be the next one taken."""
        assert fetched.is_open, fetched
        tp = fetched.topic_partition
        queue = self._queues.get(tp)
        if queue is None:
            queue = self._queues[tp] = deque()
        else:
            self._turns.remove(tp)
        self._turns.appendleft(tp)
        queue.appendleft(fetched)
        self._bytes[tp] = self._bytes.get(tp, 0) + len(fetched.data)
        self._opened_bytes += fetched.size_bytes - len(fetched.data)

    def drops_of(self, tp: TopicPartition) -> int:
        """How often what was fetched of a partition became worthless."""
        return self._drops.get(tp, 0)

    def has(self, tp: TopicPartition) -> bool:
        """Whether anything of a partition waits, or is in hand."""
        return tp in self._queues or tp == self.in_hand

    def drop(self, tp: TopicPartition) -> None:
        """Throw away what waits of a partition, and give its memory back."""
        self._drops[tp] = self._drops.get(tp, 0) + 1
        if self.in_hand == tp:
            self.in_hand = None
        queue = self._queues.pop(tp, None)
        if queue is None:
            return
        self._turns.remove(tp)
        del self._bytes[tp]
        for fetched in queue:
            if self._opening.get(tp) is not fetched:
                self._opened_bytes -= fetched.size_bytes - len(fetched.data)
            fetched.release()
        self._opening.pop(tp, None)

    def _forget(self, fetched: FetchedRecords) -> None:
        self._bytes[fetched.topic_partition] -= len(fetched.data)
        self._opened_bytes -= fetched.size_bytes - len(fetched.data)
        fetched.release()

    def clear(self) -> None:
        """Throw everything away."""
        for tp in list(self._queues):
            self.drop(tp)

    def __iter__(self) -> Iterator[FetchedRecords]:
        for queue in self._queues.values():
            yield from queue
