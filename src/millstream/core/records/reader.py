"""Batches and records one at a time, for tools, tests and what is rare; columns are in `columns`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from millstream.core.records.compression import decompress
from millstream.core.records.errors import CorruptRecordError
from millstream.core.records.header import (
    BATCH_LENGTH_MIN,
    HEADER_SIZE,
    BatchHeader,
    Buffer,
    Compression,
    TimestampType,
    read_header,
)

# What one batch may hold decompressed, where nobody says otherwise.
DECOMPRESSED_BYTES_MAX: Final = 64 * 1024 * 1024

_VARINT_BITS_MAX: Final = 63


class Record(NamedTuple):
    """One record; `key`, `value` and a header's value are None where they are null."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()


def iter_batches(data: Buffer) -> Iterator[tuple[BatchHeader, memoryview]]:
    """Yield header and whole bytes of each batch, back to back; the CRC isn't checked.

    A last batch that isn't whole ends the iteration, as the end of a fetch does. Raises CorruptRecordError.
    """
    view = memoryview(data)
    position = 0
    while len(view) - position >= HEADER_SIZE:
        header = read_header(view, position)
        if header.batch_length < BATCH_LENGTH_MIN:
            raise CorruptRecordError(f"the batch at {position} claims {header.batch_length} bytes", position)
        if header.size_bytes > len(view) - position:
            return
        yield header, view[position : position + header.size_bytes]
        position += header.size_bytes


def iter_records(batch: Buffer, *, decompressed_bytes_max: int = DECOMPRESSED_BYTES_MAX) -> Iterator[Record]:
    """Yield the records of one whole batch, with their own offsets and timestamps.

    Raises CorruptRecordError, and its kind DecompressedTooLargeError for a batch that holds too much.
    """
    payload = read_payload(batch, decompressed_bytes_max=decompressed_bytes_max)
    yield from iter_payload(read_header(batch), payload)


def read_payload(batch: Buffer, *, decompressed_bytes_max: int = DECOMPRESSED_BYTES_MAX) -> Buffer:
    """Return what stands behind the header of one whole batch, decompressed; raises as `iter_records`."""
    header = read_header(batch)
    payload = memoryview(batch)[HEADER_SIZE : header.size_bytes]
    try:
        codec = header.compression
    except ValueError as error:
        raise CorruptRecordError(f"no codec has the number {header.attributes & 7}") from error
    if codec is Compression.NONE:
        return payload
    return decompress(codec, payload, size_bytes_max=decompressed_bytes_max)


def iter_payload(header: BatchHeader, payload: Buffer) -> Iterator[Record]:
    """Yield the records of a batch that `read_payload` has opened; raises CorruptRecordError."""
    payload = memoryview(payload)
    position = 0
    for _ in range(header.count):
        length, start = read_varint(payload, position)
        end = start + length
        if length < 0 or end > len(payload):
            raise CorruptRecordError(f"a record of {length} bytes in {len(payload) - start}", position)
        yield _read_record(header, payload[start:end])
        position = end
    if position != len(payload):
        raise CorruptRecordError(f"{len(payload) - position} bytes behind the last of {header.count} records", position)


def read_varint(data: Buffer, position: int) -> tuple[int, int]:
    """Return the zigzag varint at `position` and the position behind it; raises CorruptRecordError."""
    raw, shift = 0, 0
    while position < len(data) and shift <= _VARINT_BITS_MAX:
        byte = data[position]
        position += 1
        raw |= (byte & 0x7F) << shift
        if byte < 0x80:
            raw &= 0xFFFFFFFFFFFFFFFF
            return (raw >> 1) ^ -(raw & 1), position
        shift += 7
    raise CorruptRecordError("a varint doesn't end", position)


def _read_record(header: BatchHeader, data: memoryview) -> Record:
    timestamp_delta, position = read_varint(data, 1)
    offset_delta, position = read_varint(data, position)
    key, position = _read_sized(data, position)
    value, position = _read_sized(data, position)
    header_count, position = read_varint(data, position)
    if not 0 <= header_count <= len(data) - position:
        raise CorruptRecordError(f"{header_count} headers in {len(data) - position} bytes", position)
    headers = []
    for _ in range(header_count):
        name, position = _read_sized(data, position)
        content, position = _read_sized(data, position)
        if name is None:
            raise CorruptRecordError("a header's key is null", position)
        headers.append((name.decode(errors="surrogateescape"), content))
    if position != len(data):
        raise CorruptRecordError(f"a record of {len(data)} bytes ends at {position}", position)
    if header.timestamp_type is TimestampType.LOG_APPEND_TIME:
        timestamp = header.max_timestamp
    else:
        timestamp = header.base_timestamp + timestamp_delta
    return Record(header.base_offset + offset_delta, timestamp, key, value, tuple(headers))


def _read_sized(data: memoryview, position: int) -> tuple[bytes | None, int]:
    size, position = read_varint(data, position)
    if size == -1:
        return None, position
    if not 0 <= size <= len(data) - position:
        raise CorruptRecordError(f"{size} bytes in {len(data) - position}", position)
    return bytes(data[position : position + size]), position + size
