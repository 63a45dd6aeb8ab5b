"""The handle of a whole batch that its caller had encoded."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from millstream.core.client.producer.batch import Batch, RecordMetadata
from millstream.core.wire import KafkaError


class BatchHandle:
    """One encoded batch on its way: a future of its first record's RecordMetadata. It always ends."""

    __slots__ = ("_batch", "_timestamp", "count")

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._timestamp = batch.base_timestamp
        # How many records it holds; their offsets follow each other.
        self.count = batch.count

    def done(self) -> bool:
        """Whether it has ended: in metadata or in an error."""
        return self._batch.done

    def result(self, timeout: float | None = None) -> RecordMetadata:
        """Return the first record's metadata; blocks for at most `timeout` seconds.

        Raises the KafkaError it ended with, TimeoutError, and RuntimeError on the thread of its own loop.
        """
        self._batch.wait(timeout)
        return self._batch.outcome(0, self._timestamp)

    def ranges(self) -> list[tuple[int, int]]:
        """Return (first offset, count) of each stretch of its records, once it has ended: several where it was split.

        The offset is -1 where nobody knows it. Raises the KafkaError that any of them ended with.
        """
        return self._batch.ranges()

    def exception(self, timeout: float | None = None) -> KafkaError | None:
        """Return the first record's error, None where it was acknowledged; blocks as `result` does."""
        self._batch.wait(timeout)
        return self._batch.error_of(0)

    async def ended(self) -> None:
        """Wait until it has ended, well or not; on any loop."""
        if not self._batch.done:
            await _Ended(self._batch)

    def add_done_callback(self, callback: Callable[[BatchHandle], object]) -> None:
        """Have `callback(handle)` called when it has ended: on the producer's loop, or now where it has."""
        self._batch.add_callback(callback, self)

    def __await__(self) -> Generator[Any, None, RecordMetadata]:
        if not self._batch.done:
            yield from self._batch.ended_on_this_loop()
        return self._batch.outcome(0, self._timestamp)

    def __repr__(self) -> str:
        return f"<BatchHandle of {self.count} records, {self._batch.describe(0, self._timestamp)}>"


class _Ended:
    """Makes a batch's end awaitable in a coroutine."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch

    def __await__(self) -> Generator[Any, None, None]:
        yield from self._batch.ended_on_this_loop()
