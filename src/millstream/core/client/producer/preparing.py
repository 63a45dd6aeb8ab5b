"""What is done to batches on worker threads: compressing them, and splitting those that a topic finds too large."""

from __future__ import annotations

from collections.abc import Sequence

from millstream.core.client.producer.batch import Batch
from millstream.core.records import HEADER_SIZE, BatchBuilder, Compression, Record, compress, iter_records


def compressed(batch: Batch, compression: Compression, level: int | None) -> bytes:
    """Return the records of a batch compressed."""
    assert batch.buffer is not None, batch.state
    return compress(compression, memoryview(batch.buffer)[HEADER_SIZE : batch.size], level)


def split(data: memoryview, level: int | None) -> list[tuple[bytes, Sequence[Record]]]:
    """Return two batches of half the bytes each, in order, with their records, compressed as `data` is."""
    records = list(iter_records(data))
    half = sum(map(_size, records)) / 2
    taken, count = 0, 0
    while count < len(records) - 1 and (taken < half or not count):
        taken += _size(records[count])
        count += 1
    compression = Compression(data[22] & 0x07)
    return [(_built(part, compression, level), part) for part in (records[:count], records[count:])]


def _size(record: Record) -> int:
    return len(record.key or b"") + len(record.value or b"") + 16


def _built(records: Sequence[Record], compression: Compression, level: int | None) -> bytes:
    builder = BatchBuilder(compression=compression, compression_level=level)
    for record in records:
        builder.append(record.timestamp, record.key, record.value, record.headers)
    return builder.build()
