"""The header of a record batch, and the few of its fields that a broker writes itself.

Layout of a batch of magic 2 (KIP-98), big-endian; `batch_length` counts what follows it, the CRC-32C covers everything
from `attributes` on:

     0  base_offset              int64     27  base_timestamp     int64
     8  batch_length             int32     35  max_timestamp      int64
    12  partition_leader_epoch   int32     43  producer_id        int64
    16  magic                    int8      51  producer_epoch     int16
    17  crc                      uint32    53  base_sequence      int32
    21  attributes               int16     57  count              int32
    23  last_offset_delta        int32     61  records, compressed or not

Base offset and leader epoch lie outside the checksum on purpose: a broker assigns them in place. Attributes: bits 0-2
codec, 3 timestamp type, 4 transactional, 5 control, 6 delete horizon (base_timestamp says when tombstones may go,
KIP-534).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from enum import IntEnum
from typing import Any, Final, NamedTuple, TypeAlias

from millstream.core.records.errors import CorruptRecordError

Buffer: TypeAlias = bytes | bytearray | memoryview

HEADER_LAYOUT: Final = struct.Struct(">qiibIhiqqqhii")
HEADER_SIZE: Final = HEADER_LAYOUT.size
LENGTH_END: Final = 12
MAGIC: Final = 2
MAGIC_POSITION: Final = 16
CRC_POSITION: Final = 17
ATTRIBUTES_POSITION: Final = 21
MAX_TIMESTAMP_POSITION: Final = 35
BATCH_LENGTH_MIN: Final = HEADER_SIZE - LENGTH_END

NO_TIMESTAMP: Final = -1
NO_PRODUCER_ID: Final = -1
NO_PRODUCER_EPOCH: Final = -1
NO_SEQUENCE: Final = -1
NO_LEADER_EPOCH: Final = -1

CODEC_MASK: Final = 0x07
LOG_APPEND_TIME_BIT: Final = 0x08
TRANSACTIONAL_BIT: Final = 0x10
CONTROL_BIT: Final = 0x20
DELETE_HORIZON_BIT: Final = 0x40

assert HEADER_SIZE == 61, HEADER_SIZE
assert struct.calcsize(">qi") == LENGTH_END
assert struct.calcsize(">qii") == MAGIC_POSITION
assert struct.calcsize(">qiib") == CRC_POSITION
assert struct.calcsize(">qiibI") == ATTRIBUTES_POSITION
assert struct.calcsize(">qiibIhiq") == MAX_TIMESTAMP_POSITION


class Compression(IntEnum):
    """The codec in a batch's attributes, by Kafka's numbers."""

    NONE = 0
    GZIP = 1
    SNAPPY = 2
    LZ4 = 3
    ZSTD = 4


class TimestampType(IntEnum):
    """Who set a batch's timestamps: the producer, or the broker as it appended."""

    CREATE_TIME = 0
    LOG_APPEND_TIME = 1


class BatchHeader(NamedTuple):
    """The 13 fields of a batch before its records, in their order on the wire; `crc` is unsigned."""

    base_offset: int
    batch_length: int
    partition_leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    base_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    count: int  # type: ignore[assignment]  # hides tuple.count; Kafka's name is the better one

    @property
    def compression(self) -> Compression:
        """The codec; raises ValueError for a number that is none."""
        return Compression(self.attributes & CODEC_MASK)

    @property
    def timestamp_type(self) -> TimestampType:
        """Who set the timestamps."""
        return TimestampType.LOG_APPEND_TIME if self.attributes & LOG_APPEND_TIME_BIT else TimestampType.CREATE_TIME

    @property
    def is_transactional(self) -> bool:
        """Whether the batch belongs to a transaction."""
        return bool(self.attributes & TRANSACTIONAL_BIT)

    @property
    def is_control(self) -> bool:
        """Whether the batch ends a transaction instead of carrying records."""
        return bool(self.attributes & CONTROL_BIT)

    @property
    def has_delete_horizon(self) -> bool:
        """Whether base_timestamp is the time from which the cleaner may drop tombstones."""
        return bool(self.attributes & DELETE_HORIZON_BIT)

    @property
    def last_offset(self) -> int:
        """The offset of the last record, or of the last one there was before cleaning."""
        return self.base_offset + self.last_offset_delta

    @property
    def last_sequence(self) -> int:
        """The sequence of the last record, wrapped around at 2**31 as Kafka's; NO_SEQUENCE without one."""
        if self.base_sequence < 0:
            return NO_SEQUENCE
        return (self.base_sequence + self.last_offset_delta) & 0x7FFFFFFF

    @property
    def size_bytes(self) -> int:
        """The size of the whole batch."""
        return LENGTH_END + self.batch_length

    def pack(self) -> bytes:
        """Return the 61 bytes."""
        return HEADER_LAYOUT.pack(*self)


# A header of its 13 fields in their order: `_make` without its check, on the broker's hottest path.
new_header: Final[Callable[[Any, Any], BatchHeader]] = tuple.__new__


def read_header(data: Buffer, position: int = 0) -> BatchHeader:
    """Read the header at `position`; nothing is checked but that it is there and of magic 2.

    Raises CorruptRecordError.
    """
    try:
        header = new_header(BatchHeader, HEADER_LAYOUT.unpack_from(data, position))
    except struct.error as error:
        raise CorruptRecordError(
            f"{max(len(data) - position, 0)} bytes at {position} are no batch header of {HEADER_SIZE}", position
        ) from error
    if header.magic != MAGIC:
        raise CorruptRecordError(f"the batch at {position} has magic {header.magic}, not {MAGIC}", position)
    return header
