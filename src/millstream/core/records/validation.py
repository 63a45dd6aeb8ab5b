"""Decides whether a produced batch may be appended, and re-makes it where its topic wants another form.

`validate_batch` runs on the event loop for every batch: header, CRC, and an uncompressed batch's records, in one
compiled call. What takes decompressing (`needs_opening`) goes to a worker as `open_batch`. The codes are those of
Kafka's LogValidator and UnifiedLog, with these differences, each stricter: offsets inside a batch must run from 0
without a gap, a producer may set neither LogAppendTime nor a delete horizon, and nothing may follow the batch.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from millstream.core._kernels.batch_validation import inspect_batch, walk_records
from millstream.core.records.builder import seal
from millstream.core.records.compression import compress, decompress
from millstream.core.records.errors import CorruptRecordError, DecompressedTooLargeError, InvalidBatchError
from millstream.core.records.header import (
    CODEC_MASK,
    CONTROL_BIT,
    DELETE_HORIZON_BIT,
    HEADER_SIZE,
    LOG_APPEND_TIME_BIT,
    MAGIC_POSITION,
    BatchHeader,
    Buffer,
    Compression,
    read_header,
)
from millstream.core.records.reader import DECOMPRESSED_BYTES_MAX
from millstream.core.wire import ErrorCode

INT64_MAX: Final = 2**63 - 1

# Records at fault that an answer names; a hostile batch could have a hundred thousand.
RECORD_ERRORS_MAX: Final = 1000

_REQUIRE_KEYS: Final = 1
_CHECK_TIMESTAMPS: Final = 2

_CODEC_MAX: Final = max(Compression)
_REFUSED_BITS: Final = LOG_APPEND_TIME_BIT | CONTROL_BIT | DELETE_HORIZON_BIT


class Fault(IntEnum):
    """What the kernels find wrong with a batch; the numbers are theirs."""

    EMPTY = 1
    TRUNCATED = 2
    TRAILING_BYTES = 3
    BAD_LENGTH = 4
    OLD_MAGIC = 5
    BAD_MAGIC = 6
    TOO_LARGE = 7
    BAD_CRC = 8
    BAD_BASE_OFFSET = 9
    BAD_COUNT = 10
    BAD_RECORD = 11
    BAD_RECORD_OFFSET = 12
    RECORDS_LEFT = 13
    NO_KEY = 14
    BAD_TIMESTAMP = 15


_CODES: Final = {
    Fault.EMPTY: (ErrorCode.INVALID_RECORD, "there is no batch"),
    Fault.TRUNCATED: (ErrorCode.INVALID_RECORD, "the batch is cut off"),
    Fault.TRAILING_BYTES: (ErrorCode.INVALID_RECORD, "something follows the batch; a partition takes one at a time"),
    Fault.BAD_LENGTH: (ErrorCode.CORRUPT_MESSAGE, "the batch's length is below that of its header"),
    Fault.OLD_MAGIC: (ErrorCode.INVALID_RECORD, "only batches of magic 2 are taken; produce with Kafka 0.11 or later"),
    Fault.BAD_MAGIC: (ErrorCode.CORRUPT_MESSAGE, "the batch has an unknown magic"),
    Fault.TOO_LARGE: (ErrorCode.MESSAGE_TOO_LARGE, "the batch is larger than max.message.bytes"),
    Fault.BAD_CRC: (ErrorCode.CORRUPT_MESSAGE, "the batch's CRC doesn't match its bytes"),
    Fault.BAD_BASE_OFFSET: (ErrorCode.INVALID_RECORD, "the batch's base offset isn't 0"),
    Fault.BAD_COUNT: (ErrorCode.INVALID_RECORD, "the batch's record count doesn't match its offsets"),
    Fault.BAD_RECORD: (ErrorCode.INVALID_RECORD, "a record's lengths don't add up"),
    Fault.BAD_RECORD_OFFSET: (ErrorCode.INVALID_RECORD, "a record's offset isn't its place in the batch"),
    Fault.RECORDS_LEFT: (ErrorCode.INVALID_RECORD, "bytes are left behind the batch's last record"),
    Fault.NO_KEY: (ErrorCode.INVALID_RECORD, "a compacted topic takes no record without a key"),
    Fault.BAD_TIMESTAMP: (ErrorCode.INVALID_TIMESTAMP, "a record's timestamp is out of bounds"),
}


@dataclass(frozen=True, slots=True)
class AppendRules:
    """What a topic's configuration asks of produced batches.

    `compression` None is compression.type=producer: batches stay as they come. The timestamp bounds are
    message.timestamp.before.max.ms and .after.max.ms; they don't apply with log_append_time. `validate_compressed` is
    millstream.validate.compressed: open every compressed batch.
    """

    max_message_bytes: int = 1_048_588
    compacted: bool = False
    compression: Compression | None = None
    compression_level: int | None = None
    log_append_time: bool = False
    timestamp_before_max_ms: int = INT64_MAX
    timestamp_after_max_ms: int = 3_600_000
    validate_compressed: bool = False
    decompressed_bytes_max: int = DECOMPRESSED_BYTES_MAX

    @property
    def walk_flags(self) -> int:
        """What the walk over records has to check beyond their form."""
        return (_REQUIRE_KEYS if self.compacted else 0) | (0 if self.log_append_time else _CHECK_TIMESTAMPS)

    def timestamp_bounds(self, now_ms: int) -> tuple[int, int]:
        """Return the least and the greatest timestamp that are taken now."""
        return max(now_ms - self.timestamp_before_max_ms, -INT64_MAX), min(
            now_ms + self.timestamp_after_max_ms, INT64_MAX
        )


def validate_batch(batch: Buffer, rules: AppendRules, now_ms: int) -> BatchHeader:
    """Check one produced batch; return its header, whose max_timestamp is what uncompressed records say.

    Transactional batches pass: the broker decides about those. Raises InvalidBatchError.
    """
    timestamp_min, timestamp_max = rules.timestamp_bounds(now_ms)
    fields = inspect_batch(batch, rules.max_message_bytes, rules.walk_flags, timestamp_min, timestamp_max)
    if isinstance(fields, int):
        raise _fault_error(Fault(fields), batch, rules, now_ms)
    header = BatchHeader._make(fields)
    attributes = header.attributes
    if attributes & _REFUSED_BITS or attributes & CODEC_MASK > _CODEC_MAX:
        raise _attributes_error(header)
    if header.producer_id >= 0 and (header.base_sequence < 0 or header.producer_epoch < 0):
        raise InvalidBatchError(
            ErrorCode.INVALID_RECORD,
            f"producer {header.producer_id} sends epoch {header.producer_epoch}, sequence {header.base_sequence}",
        )
    if attributes & CODEC_MASK and not rules.log_append_time and header.max_timestamp > timestamp_max:
        # The records would tell more, but decompressing is nothing for the loop.
        raise InvalidBatchError(
            ErrorCode.INVALID_TIMESTAMP,
            f"the batch's greatest timestamp {header.max_timestamp} is later than {timestamp_max}",
        )
    return header


def needs_opening(header: BatchHeader, rules: AppendRules) -> bool:
    """Whether `open_batch` has to see the batch before it can be appended."""
    codec = header.attributes & CODEC_MASK
    if rules.compression is not None and rules.compression != codec:
        return True
    return codec != Compression.NONE and (
        rules.compacted
        or rules.validate_compressed
        or (rules.timestamp_before_max_ms < INT64_MAX and not rules.log_append_time)
    )


def open_batch(batch: Buffer, rules: AppendRules, now_ms: int) -> Buffer:
    """Check a validated batch's records inside and return the batch to append, in the topic's compression.

    It is `batch` itself where nothing had to change. For a worker thread. Raises InvalidBatchError.
    """
    header = read_header(batch)
    codec = header.compression
    payload = memoryview(batch)[HEADER_SIZE : header.size_bytes]
    try:
        records = decompress(codec, payload, size_bytes_max=max(rules.decompressed_bytes_max, len(payload)))
    except DecompressedTooLargeError as error:
        raise InvalidBatchError(ErrorCode.MESSAGE_TOO_LARGE, str(error)) from error
    except CorruptRecordError as error:
        raise InvalidBatchError(ErrorCode.CORRUPT_MESSAGE, str(error)) from error
    max_timestamp = _check_records(records, header, rules, now_ms)
    wanted = codec if rules.compression is None else rules.compression
    if wanted is codec and max_timestamp == header.max_timestamp:
        return batch
    if wanted is not codec:
        payload = memoryview(compress(wanted, records, rules.compression_level))
    attributes = header.attributes & ~CODEC_MASK | wanted
    opened = seal(header._replace(attributes=attributes, max_timestamp=max_timestamp), payload)
    if len(opened) > rules.max_message_bytes:
        raise InvalidBatchError(
            ErrorCode.MESSAGE_TOO_LARGE,
            f"the batch takes {len(opened)} bytes with {wanted.name.lower()}, above max.message.bytes "
            f"{rules.max_message_bytes}",
        )
    return opened


def _check_records(records: memoryview, header: BatchHeader, rules: AppendRules, now_ms: int) -> int:
    """Return the greatest timestamp of a batch's records; raises InvalidBatchError naming those at fault."""
    timestamp_min, timestamp_max = rules.timestamp_bounds(now_ms)
    errors = array("q", bytes(2 * 8 * RECORD_ERRORS_MAX))
    fault, index, max_timestamp, count = walk_records(
        records, header.count, header.base_timestamp, rules.walk_flags, timestamp_min, timestamp_max, errors
    )
    if not fault:
        return max_timestamp
    record_errors = [
        (errors[2 * at], _record_message(Fault(errors[2 * at + 1]), timestamp_min, timestamp_max))
        for at in range(count)
    ]
    if not record_errors:
        code, sentence = _CODES[Fault(fault)]
        raise InvalidBatchError(code, f"{sentence} (record {index} of {header.count})")
    faults = set(errors[1 : 2 * count : 2])
    code, sentence = _CODES[Fault.BAD_TIMESTAMP if Fault.BAD_TIMESTAMP in faults else Fault.NO_KEY]
    raise InvalidBatchError(code, f"{sentence} ({count} records refused)", record_errors)


def _record_message(fault: Fault, timestamp_min: int, timestamp_max: int) -> str:
    if fault is Fault.BAD_TIMESTAMP:
        return f"the timestamp is not within [{timestamp_min}, {timestamp_max}]"
    return _CODES[fault][1]


def _fault_error(fault: Fault, batch: Buffer, rules: AppendRules, now_ms: int) -> InvalidBatchError:
    code, sentence = _CODES[fault]
    if fault >= Fault.BAD_RECORD:
        header = read_header(batch)
        try:
            _check_records(memoryview(batch)[HEADER_SIZE:], header, rules, now_ms)
        except InvalidBatchError as error:
            return error
    if fault is Fault.TOO_LARGE:
        sentence = f"the batch of {len(batch)} bytes is larger than max.message.bytes {rules.max_message_bytes}"
    elif fault in {Fault.OLD_MAGIC, Fault.BAD_MAGIC}:
        sentence = f"{sentence} (it has {batch[MAGIC_POSITION]})"
    return InvalidBatchError(code, sentence)


def _attributes_error(header: BatchHeader) -> InvalidBatchError:
    if header.is_control:
        return InvalidBatchError(ErrorCode.INVALID_RECORD, "clients may not write control records")
    if header.attributes & LOG_APPEND_TIME_BIT:
        return InvalidBatchError(
            ErrorCode.INVALID_TIMESTAMP, "a producer may not set the timestamp type to LogAppendTime"
        )
    if header.has_delete_horizon:
        return InvalidBatchError(ErrorCode.INVALID_RECORD, "a producer may not set a delete horizon")
    return InvalidBatchError(
        ErrorCode.UNSUPPORTED_COMPRESSION_TYPE, f"no codec has the number {header.attributes & CODEC_MASK}"
    )
