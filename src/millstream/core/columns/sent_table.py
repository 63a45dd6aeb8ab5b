"""The handle of a table that was sent: a future over all its batches."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from millstream.core.client.producer.handles import BatchHandle
from millstream.core.wire import KafkaError


@dataclass(frozen=True, slots=True)
class TableMetadata:
    """Where a table's rows are now: the offsets in each partition, as ranges in the order of its rows there.

    Where nobody knows offsets (acks=0) a partition has none; `num_records` counts all rows in any case.
    """

    topic: str
    num_records: int
    offsets: Mapping[int, tuple[range, ...]]


class TableHandle:
    """A table on its way. It always ends: in TableMetadata, or in the first error that any of its rows ended with."""

    __slots__ = ("_batches", "num_records", "topic")

    def __init__(self, topic: str, batches: Sequence[tuple[int, BatchHandle]]) -> None:
        """Take (partition, handle) of each batch, in the order they were sent."""
        self.topic = topic
        self._batches = tuple(batches)
        # How many rows were sent.
        self.num_records = sum(handle.count for _, handle in self._batches)

    def done(self) -> bool:
        """Whether every row has been acknowledged or has failed."""
        return all(handle.done() for _, handle in self._batches)

    def result(self, timeout: float | None = None) -> TableMetadata:
        """Return where the rows are; blocks for at most `timeout` seconds.

        Raises the KafkaError that a row ended with, TimeoutError, and RuntimeError on the thread of its own loop.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        for _, handle in self._batches:
            handle.exception(None if deadline is None else max(0.0, deadline - time.monotonic()))
        return self._outcome()

    def exception(self, timeout: float | None = None) -> KafkaError | None:
        """Return the first error, None where all rows were acknowledged; blocks as `result` does."""
        try:
            self.result(timeout)
        except KafkaError as error:
            return error
        return None

    def __await__(self) -> Generator[Any, None, TableMetadata]:
        for _, handle in self._batches:
            yield from handle.ended().__await__()
        return self._outcome()

    def __repr__(self) -> str:
        state = "done" if self.done() else "pending"
        return (
            f"<TableHandle of {self.num_records:,} records to {self.topic!r} in {len(self._batches)} batches, {state}>"
        )

    def _outcome(self) -> TableMetadata:
        offsets: dict[int, list[range]] = {}
        for partition, handle in self._batches:
            found = offsets.setdefault(partition, [])
            for first, count in handle.ranges():
                if first < 0:
                    continue
                if found and found[-1].stop == first:
                    found[-1] = range(found[-1].start, first + count)
                else:
                    found.append(range(first, first + count))
        return TableMetadata(self.topic, self.num_records, {at: tuple(ranges) for at, ranges in offsets.items()})
