"""Decides whether a produced batch may be appended, and re-makes it where its topic wants another form.

`validate_batch` runs on the event loop for every batch: header, CRC, and an uncompressed batch's records, in one
compiled call. What takes decompressing (`needs_opening`) goes to a worker as `open_batch`. The codes are those of
Kafka's LogValidator and UnifiedLog, with these differences, each stricter: offsets inside a batch must run from 0
without a gap, a producer may set neither LogAppendTime nor a delete horizon, and nothing may follow the batch.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from millstream.core._kernels.batch_validation import inspect_batch, walk_records
from millstream.core.records.builder import seal
from millstream.core.records.compression import compress, decompress
from millstream.core.records.errors import CorruptRecordError, DecompressedTooLargeError, InvalidBatchError
from millstream.core.records.header import (
    CODEC_MASK,
    HEADER_SIZE,
    MAGIC_POSITION,
    BatchHeader,
    Buffer,
    Compression,
    TimestampType,
    new_header,
    read_header,
)
from millstream.core.records.reader import DECOMPRESSED_BYTES_MAX
from millstream.core.wire import ErrorCode

INT64_MAX: Final = 2**63 - 1

# Records at fault that an answer names; a hostile batch could have a hundred thousand.
RECORD_ERRORS_MAX: Final = 1000

_REQUIRE_KEYS: Final = 1
_CHECK_TIMESTAMPS: Final = 2


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
    BAD_ATTRIBUTES = 16
    BAD_PRODUCER = 17
    BAD_MAX_TIMESTAMP = 18


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
    Fault.BAD_ATTRIBUTES: (ErrorCode.INVALID_RECORD, "the batch's attributes are not a producer's"),
    Fault.BAD_PRODUCER: (ErrorCode.INVALID_RECORD, "a producer id needs an epoch and a base sequence"),
    # The records would tell which; but decompressing is nothing for the event loop.
    Fault.BAD_MAX_TIMESTAMP: (ErrorCode.INVALID_TIMESTAMP, "the batch's greatest timestamp is out of bounds"),
}

_RECORD_FAULTS: Final = frozenset(
    {Fault.BAD_RECORD, Fault.BAD_RECORD_OFFSET, Fault.RECORDS_LEFT, Fault.NO_KEY, Fault.BAD_TIMESTAMP}
)


@dataclass(frozen=True, slots=True)
class AppendRules:
    """What a topic's configuration asks of produced batches.

    `compression` None is compression.type=producer: batches stay as they come. The timestamp bounds are
    message.timestamp.before.max.ms and .after.max.ms, not negative; they don't apply with log_append_time.
    `validate_compressed` is millstream.validate.compressed: open every compressed batch.
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
    # What the walk over records checks beyond their form, and whether a batch of each codec has to be opened: worked
    # out once, since every produced batch asks.
    walk_flags: int = field(init=False, repr=False, compare=False)
    opens: tuple[bool, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        assert self.timestamp_before_max_ms >= 0 <= self.timestamp_after_max_ms, self
        flags = (_REQUIRE_KEYS if self.compacted else 0) | (0 if self.log_append_time else _CHECK_TIMESTAMPS)
        object.__setattr__(self, "walk_flags", flags)
        inside = (
            self.compacted
            or self.validate_compressed
            or (self.timestamp_before_max_ms < INT64_MAX and not self.log_append_time)
        )
        opens = tuple(
            (self.compression is not None and self.compression != codec) or (inside and codec != Compression.NONE)
            for codec in Compression
        )
        object.__setattr__(self, "opens", opens)


def validate_batch(batch: Buffer, rules: AppendRules, now_ms: int) -> BatchHeader:
    """Check one produced batch; return its header, whose max_timestamp is what uncompressed records say.

    Transactional batches pass: the broker decides about those. Raises InvalidBatchError.
    """
    fields = inspect_batch(
        batch,
        rules.max_message_bytes,
        rules.walk_flags,
        now_ms,
        rules.timestamp_before_max_ms,
        rules.timestamp_after_max_ms,
    )
    if fields.__class__ is int:
        raise _fault_error(Fault(fields), batch, rules, now_ms)
    return new_header(BatchHeader, fields)


def needs_opening(header: BatchHeader, rules: AppendRules) -> bool:
    """Whether `open_batch` has to see the validated batch before it can be appended."""
    return rules.opens[header.attributes & CODEC_MASK]


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
    errors = array("q", bytes(2 * 8 * RECORD_ERRORS_MAX))
    fault, index, max_timestamp, count = walk_records(
        records,
        header.count,
        header.base_timestamp,
        rules.walk_flags,
        now_ms,
        rules.timestamp_before_max_ms,
        rules.timestamp_after_max_ms,
        errors,
    )
    if not fault:
        return max_timestamp
    record_errors = [(errors[2 * at], _record_message(Fault(errors[2 * at + 1]), rules, now_ms)) for at in range(count)]
    if not record_errors:
        code, sentence = _CODES[Fault(fault)]
        raise InvalidBatchError(code, f"{sentence} (record {index} of {header.count})")
    faults = set(errors[1 : 2 * count : 2])
    code, sentence = _CODES[Fault.BAD_TIMESTAMP if Fault.BAD_TIMESTAMP in faults else Fault.NO_KEY]
    raise InvalidBatchError(code, f"{sentence} ({count} records refused)", record_errors)


def _record_message(fault: Fault, rules: AppendRules, now_ms: int) -> str:
    if fault is Fault.BAD_TIMESTAMP:
        earliest, latest = now_ms - rules.timestamp_before_max_ms, now_ms + rules.timestamp_after_max_ms
        return f"the timestamp is not within [{earliest}, {latest}]"
    return _CODES[fault][1]


def _fault_error(fault: Fault, batch: Buffer, rules: AppendRules, now_ms: int) -> InvalidBatchError:
    code, sentence = _CODES[fault]
    if fault in _RECORD_FAULTS:
        try:
            _check_records(memoryview(batch)[HEADER_SIZE:], read_header(batch), rules, now_ms)
        except InvalidBatchError as error:
            return error
    elif fault is Fault.BAD_ATTRIBUTES:
        code, sentence = _attributes_fault(read_header(batch))
    elif fault is Fault.BAD_PRODUCER:
        header = read_header(batch)
        sentence = f"{sentence}: id {header.producer_id}, epoch {header.producer_epoch}, {header.base_sequence}"
    elif fault is Fault.TOO_LARGE:
        sentence = f"{sentence}: {len(batch)} bytes, {rules.max_message_bytes}"
    elif fault in {Fault.OLD_MAGIC, Fault.BAD_MAGIC}:
        sentence = f"{sentence}: {batch[MAGIC_POSITION]}"
    return InvalidBatchError(code, sentence)


def _attributes_fault(header: BatchHeader) -> tuple[ErrorCode, str]:
    if header.is_control:
        return ErrorCode.INVALID_RECORD, "clients may not write control records"
    if header.timestamp_type is TimestampType.LOG_APPEND_TIME:
        return ErrorCode.INVALID_TIMESTAMP, "a producer may not set the timestamp type to LogAppendTime"
    if header.has_delete_horizon:
        return ErrorCode.INVALID_RECORD, "a producer may not set a delete horizon"
    return ErrorCode.UNSUPPORTED_COMPRESSION_TYPE, f"no codec has the number {header.attributes & CODEC_MASK}"
