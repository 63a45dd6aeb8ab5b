"""What a fetch brought of one partition, as it came: the form that columns, loader, serdes and streams stand on.

`FetchedRecords` is a range of offsets over whole batches. Uncompressed ones stay where the network put them. Those
that are compressed have to be opened first (`opening.py`), which a consumer does on a worker thread before it hands
them over: the batches of one piece go into one buffer, each behind a copy of its header, so that what follows sees
whole uncompressed batches in both cases and needs one compiled call for many of them. A piece is opened up to a bound
and the rest stays as it is, so a partition of a megabyte that holds a gigabyte costs the bound.

`locate` gives columns of positions. Control batches and those of aborted transactions are not among `regions`; records
before `offset`, which share a batch with it, are left out by row.

Memory: `data` and opened buffers count in the consumer's bound until `release` is called, or until the objects named
here, and every buffer made of them, are gone.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from millstream.core.client.cluster import TopicPartition
from millstream.core.client.consumer.errors import CorruptBatchError
from millstream.core.client.consumer.memory import Lease
from millstream.core.client.consumer.opening import Opened, Region, open_batches
from millstream.core.net import BufferPool
from millstream.core.records import RecordColumns, StopReason, read_header

# Decompressed bytes of one opened piece, about: a piece holds one batch at least.
OPENED_BYTES_MAX: Final = 4 * 1024 * 1024

KIND_COMPRESSED: Final = 1
KIND_TRANSACTIONAL: Final = 2
KIND_CONTROL: Final = 4


class LocatedRecords(NamedTuple):
    """Rows start to end of `columns`, whose positions lie in `buffer`; valid until the next piece is taken."""

    buffer: memoryview
    columns: RecordColumns
    start: int
    end: int


class FetchedRecords:
    """Records of one partition from `offset` on, below `next_offset`: whole CRC-checked batches in `data`.

    States: closed (holds compressed batches not opened yet) -> open (`regions` is complete) -> released. Owned by
    whoever polled it; nothing in it changes but by `open`, `split` and `release`.
    """

    __slots__ = (
        "_data",
        "_lease",
        "_opened_lease",
        "_regions",
        "aborted",
        "high_watermark",
        "kinds",
        "last_stable_offset",
        "leader_epoch",
        "log_start_offset",
        "next_offset",
        "offset",
        "partition",
        "record_count",
        "topic",
    )

    def __init__(
        self,
        tp: TopicPartition,
        data: memoryview,
        *,
        offset: int,
        next_offset: int,
        leader_epoch: int = -1,
        kinds: int = 0,
        record_count: int = 0,
        high_watermark: int = -1,
        last_stable_offset: int = -1,
        log_start_offset: int = -1,
        aborted: Sequence[tuple[int, int]] = (),
        lease: Lease | None = None,
    ) -> None:
        """Take whole batches of `tp`. `aborted` is (first offset, producer id) of each aborted transaction, ascending.

        `leader_epoch` is that of the last batch. `kinds` says what the batches are (KIND_...), `record_count` what
        they hold, control batches aside.
        """
        self.topic, self.partition = tp
        self._data = data
        self.offset = offset
        self.next_offset = next_offset
        self.leader_epoch = leader_epoch
        self.kinds = kinds
        # Records in the batches, those that will be left out included: no more than this many come.
        self.record_count = record_count
        self.high_watermark = high_watermark
        self.last_stable_offset = last_stable_offset
        self.log_start_offset = log_start_offset
        self.aborted = tuple(aborted)
        self._lease = lease
        self._opened_lease: Lease | None = None
        self._regions: list[Region] | None = None
        if not kinds & KIND_COMPRESSED:
            if record_count == 0:
                self._regions = []
            elif kinds & KIND_TRANSACTIONAL and self.aborted:
                self._regions = self._opened(None).regions
            else:
                self._regions = [Region(data, 0, len(data))]

    @property
    def topic_partition(self) -> TopicPartition:
        """The partition they are of."""
        return TopicPartition(self.topic, self.partition)

    @property
    def data(self) -> memoryview:
        """The batches as the broker sent them, compressed where they were."""
        return self._data

    @property
    def is_open(self) -> bool:
        """Whether `regions` and `locate` can be used."""
        return self._regions is not None

    @property
    def regions(self) -> Sequence[Region]:
        """Where uncompressed batches with records for the application lie."""
        assert self._regions is not None, "compressed batches have to be opened first"
        return self._regions

    @property
    def size_bytes(self) -> int:
        """Bytes of `data`, and of what was decompressed of it."""
        return len(self._data) + (self._opened_lease.size_bytes if self._opened_lease is not None else 0)

    def open(self, size_bytes_max: int = OPENED_BYTES_MAX, pool: BufferPool | None = None) -> FetchedRecords | None:
        """Open batches from the first on until they take `size_bytes_max`; return the rest as an object of its own.

        For a worker thread: it takes as long as decompressing does. What is opened goes into buffers of `pool`, where
        one is given. Raises CorruptBatchError where the first batch cannot be opened; one further on begins the rest.
        """
        if self._regions is not None:
            return None
        regions, position, next_offset, aborted, opened_bytes, record_count = self._opened(size_bytes_max, pool)
        self._regions = regions
        if opened_bytes and self._lease is not None:
            self._opened_lease = self._lease.memory.lease(opened_bytes)
            for region in regions:
                if region.buffer.obj is not self._data.obj:
                    self._opened_lease.share(region.buffer)
        if position == len(self._data):
            return None
        # Both are shared before the view of all of it goes, or the lease would end.
        whole, self._data = self._data, self._data[:position]
        rest_data = whole[position:]
        if self._lease is not None:
            self._lease.share(self._data)
            self._lease.share(rest_data)
        rest = FetchedRecords(
            self.topic_partition,
            rest_data,
            offset=max(next_offset, self.offset),
            next_offset=self.next_offset,
            leader_epoch=self.leader_epoch,
            kinds=self.kinds,
            record_count=self.record_count - record_count,
            high_watermark=self.high_watermark,
            last_stable_offset=self.last_stable_offset,
            log_start_offset=self.log_start_offset,
            aborted=aborted,
            lease=self._lease,
        )
        self.next_offset = rest.offset
        self.record_count = record_count
        return rest

    def locate(self, columns: RecordColumns) -> Iterator[LocatedRecords]:
        """Fill `columns` again and again with the records, in order of their offsets, and yield each filling.

        `columns` grows where one batch has more records than it has rows. Raises CorruptBatchError for a batch whose
        CRC is right and whose records are none.
        """
        for region in self.regions:
            position = region.start
            while position < region.end:
                columns.clear()
                position, reason = columns.locate(region.buffer, position, region.end, check_crc=False)
                count = columns.count
                if count == 0:
                    if reason is StopReason.END:
                        break
                    if reason is not StopReason.ROWS_FULL:
                        raise self._damaged(region.buffer, position, reason.name.lower().replace("_", " "))
                    columns.grow(read_header(region.buffer, position).count)
                    continue
                offsets = columns.offsets
                start, end = 0, count
                if offsets[0] < self.offset:
                    start = bisect_left(offsets, self.offset, 0, count)
                if offsets[count - 1] >= self.next_offset:
                    end = bisect_left(offsets, self.next_offset, start, count)
                if start < end:
                    yield LocatedRecords(region.buffer, columns, start, end)

    def split(self, records_max: int, columns: RecordColumns) -> FetchedRecords | None:
        """Cut off what comes behind the first `records_max` records and return it; None where there is nothing.

        Both are open and share their memory. Damage among those records stays with them, for `locate` to find.
        `columns` is used and left in no particular state.
        """
        left = records_max
        cut: tuple[int, int, int] | None = None
        index = 0
        with contextlib.suppress(CorruptBatchError):
            for located in self.locate(columns):
                while self.regions[index].buffer is not located.buffer:
                    index += 1
                if left < located.end - located.start:
                    row = located.start + left
                    cut = index, columns.batch_positions[row], columns.offsets[row]
                    break
                left -= located.end - located.start
        if cut is None:
            return None
        index, position, offset = cut
        regions = list(self.regions)
        while not regions[index].start <= position < regions[index].end:
            index += 1
        region = regions[index]
        rest = FetchedRecords(
            self.topic_partition,
            self._data[:],
            offset=offset,
            next_offset=self.next_offset,
            leader_epoch=self.leader_epoch,
            kinds=self.kinds,
            record_count=max(self.record_count - records_max, 1),
            high_watermark=self.high_watermark,
            last_stable_offset=self.last_stable_offset,
            log_start_offset=self.log_start_offset,
            lease=self._lease,
        )
        rest._regions = [Region(region.buffer, position, region.end), *regions[index + 1 :]]
        rest._opened_lease = self._opened_lease
        for lease in (self._lease, self._opened_lease):
            if lease is not None:
                lease.share(rest._data)
        inside = columns.offsets[bisect_left(columns.batch_positions, position, 0, columns.count)] < offset
        end = position + read_header(region.buffer, position).size_bytes if inside else position
        self._regions = [*regions[:index], Region(region.buffer, region.start, end)]
        self.next_offset = offset
        self.record_count = min(self.record_count, records_max)
        return rest

    def release(self) -> None:
        """Give the memory back to the consumer's bound: nothing of it is used any more. May be called again."""
        if self._lease is not None:
            self._lease.drop(self._data)
            for region in self._regions or ():
                self._lease.drop(region.buffer)
        if self._opened_lease is not None:
            self._opened_lease.drop(self._data)
            for region in self._regions or ():
                self._opened_lease.drop(region.buffer)

    def __repr__(self) -> str:
        return (
            f"FetchedRecords({self.topic}-{self.partition} [{self.offset}, {self.next_offset}), {self.size_bytes:,} B)"
        )

    def _opened(self, size_bytes_max: int | None, pool: BufferPool | None = None) -> Opened:
        return open_batches(self.topic_partition, self._data, self.offset, self.aborted, size_bytes_max, pool)

    def _damaged(self, buffer: memoryview, position: int, reason: str) -> CorruptBatchError:
        header = read_header(buffer, position)
        offset = max(header.base_offset, self.offset)
        return CorruptBatchError(self.topic_partition, offset, header.last_offset + 1, f"its batch has a {reason}")
