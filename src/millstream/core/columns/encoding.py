"""Tables to encoded batches, partition by partition: the kernels of `record_encoding`, and what decides for them.

Rows with a key go where Java's producer would send them, those without stay with one partition for a batch and then
go on to the next. Batches are as large as `batch_size`, or 256 kB where that is smaller: who sends a table does not
wait for its batches to fill, and a hundred bytes a batch cost more than the records.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import pyarrow as pa

from millstream.core._kernels.record_encoding import (
    encode_batch,
    measure_batch,
    order_rows,
    partition_rows,
    stick_rows,
)
from millstream.core.client.cluster import TopicPartition
from millstream.core.columns.outgoing import Outgoing, refuse_row
from millstream.core.records import HEADER_SIZE
from millstream.core.wire import ErrorCode, KafkaError

ENCODED_BYTES_MIN: Final = 256 * 1024

Partitioner = Callable[[str, Any, Any, int], int | None]


class EncodedBatch(NamedTuple):
    """What `send_encoded` takes."""

    topic_partition: TopicPartition
    buffer: bytearray
    record_count: int
    base_timestamp: int
    max_timestamp: int


class Encoder:
    """Encodes for one topic, whose partitions are known."""

    def __init__(
        self,
        topic: str,
        partition_count: int,
        choose: Callable[[], int],
        *,
        batch_size: int,
        batch_size_max: int,
        ignore_keys: bool = False,
        partitioner: Partitioner | None = None,
    ) -> None:
        """`choose()` is the next partition of rows without a key, `batch_size_max` what one record may take at most."""
        self._topic = topic
        self._partition_count = partition_count
        self._choose = choose
        self._size = min(max(batch_size, ENCODED_BYTES_MIN), batch_size_max)
        self._size_max = batch_size_max
        self._ignore_keys = ignore_keys
        self._partitioner = partitioner

    def encode(self, outgoing: Outgoing) -> Iterator[EncodedBatch]:
        """Yield batches of these rows, in their order within each partition.

        Raises KafkaError for a partition that is not there and for a row that is too large; batches before it are out.
        """
        count = outgoing.batch.num_rows
        partitions = self._partitions(outgoing)
        if partitions is None or isinstance(partitions, int):
            yield from self._encode(outgoing, array("q"), 0, count, partitions)
            return
        starts = array("q", bytes(8 * (self._partition_count + 1)))
        order = array("q", bytes(8 * count))
        ordered = order_rows(partitions, count, starts, order)
        if ordered < count:
            raise self._no_partition(outgoing.first_row + ordered, partitions[ordered])
        for partition in range(self._partition_count):
            yield from self._encode(outgoing, order, starts[partition], starts[partition + 1], partition)

    def _partitions(self, outgoing: Outgoing) -> Any:
        """Return int32s, one number for all rows, or None where all are without a key."""
        given = outgoing.partitions
        count = outgoing.batch.num_rows
        if isinstance(given, int):
            if not 0 <= given < self._partition_count:
                raise self._no_partition(outgoing.first_row, given)
            return given
        if isinstance(given, pa.Array):
            whole = memoryview(given.buffers()[1]).cast("B").cast("i")
            return array("i", whole[given.offset : given.offset + count])
        partitions = array("i", bytes(4 * count))
        if self._partitioner is not None:
            self._ask_partitioner(outgoing, partitions)
        elif self._ignore_keys or partition_rows(outgoing.keys, self._partition_count, partitions) == count:
            return None
        row = 0
        while row < count:
            # A little less than a batch, so that they fit into one.
            row = stick_rows(outgoing.values, partitions, row, self._choose(), self._size - self._size // 8)
        return partitions

    def _ask_partitioner(self, outgoing: Outgoing, partitions: array[int]) -> None:
        assert self._partitioner is not None
        batch = outgoing.batch
        names = batch.schema.names
        nothing: list[None] = [None] * batch.num_rows
        keys = batch.column("key").to_pylist() if "key" in names else nothing
        values = batch.column("value").to_pylist() if "value" in names else nothing
        for row, (key, value) in enumerate(zip(keys, values, strict=True)):
            chosen = self._partitioner(self._topic, key, value, self._partition_count)
            partitions[row] = -1 if chosen is None else chosen

    def _encode(
        self, outgoing: Outgoing, order: array[int], first: int, end: int, partition: int | None
    ) -> Iterator[EncodedBatch]:
        rows = outgoing.rows
        while first < end:
            count, size, base_timestamp, max_timestamp = measure_batch(
                rows, order, first, end, self._size - HEADER_SIZE
            )
            if HEADER_SIZE + size > self._size_max:
                row = outgoing.first_row + (order[first] if order else first)
                raise refuse_row(row, HEADER_SIZE + size, self._size_max)
            buffer = bytearray(HEADER_SIZE + size)
            encode_batch(rows, order, first, first + count, buffer, HEADER_SIZE)
            to = self._choose() if partition is None else partition
            yield EncodedBatch(TopicPartition(self._topic, to), buffer, count, base_timestamp, max_timestamp)
            first += count

    def _no_partition(self, row: int, partition: int) -> KafkaError:
        return KafkaError(
            ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
            f"row {row}: topic {self._topic!r} has no partition {partition}, but {self._partition_count} from 0 on",
        )
