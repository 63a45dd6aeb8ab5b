"""What a produced batch is refused for, with which code, and what a topic makes of the others."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.batches import RawRecord, numbered, raw_batch, raw_record

from millstream.core.records import (
    HEADER_SIZE,
    AppendRules,
    BatchBuilder,
    Compression,
    InvalidBatchError,
    TimestampType,
    compress,
    iter_records,
    needs_opening,
    open_batch,
    read_header,
    set_log_fields,
    validate_batch,
)
from millstream.core.records.validation import INT64_MAX, RECORD_ERRORS_MAX
from millstream.core.wire import ErrorCode

NOW = 1_700_000_000_000
HOUR = 3_600_000
CODECS = [codec for codec in Compression if codec is not Compression.NONE]
RULES = AppendRules()


def built(
    count: int = 3,
    codec: Compression = Compression.NONE,
    *,
    key: bytes | None = b"key",
    timestamps: list[int] | None = None,
    **how: Any,
) -> bytes:
    builder = BatchBuilder(compression=codec, **how)
    for index in range(count):
        builder.append(timestamps[index] if timestamps else NOW + index, key, b"value" * 20)
    return builder.build()


def refusal(batch: bytes, rules: AppendRules = RULES) -> InvalidBatchError:
    """Return why the batch is refused, by the loop or by the worker."""
    try:
        header = validate_batch(batch, rules, NOW)
        if needs_opening(header, rules):
            open_batch(batch, rules, NOW)
    except InvalidBatchError as error:
        return error
    pytest.fail("the batch is not refused")


@pytest.mark.parametrize("codec", Compression)
def test_a_good_batch_passes_with_its_header(codec: Compression) -> None:
    batch = built(codec=codec, producer_id=4, producer_epoch=0, base_sequence=0, transactional=True)
    header = validate_batch(memoryview(bytearray(b"in a frame" + batch))[10:], RULES, NOW)

    assert header == read_header(batch)
    assert header.is_transactional
    assert not needs_opening(header, RULES)


@pytest.mark.parametrize(
    ("batch", "code"),
    [
        (b"", ErrorCode.INVALID_RECORD),
        (built()[:-1], ErrorCode.INVALID_RECORD),
        (built() + built(), ErrorCode.INVALID_RECORD),
        (built()[:-1] + b"x", ErrorCode.CORRUPT_MESSAGE),
        (raw_batch(numbered(1), batch_length=-5), ErrorCode.CORRUPT_MESSAGE),
        (raw_batch(numbered(1), magic=0), ErrorCode.INVALID_RECORD),
        (raw_batch(numbered(1), magic=1), ErrorCode.INVALID_RECORD),
        (raw_batch(numbered(1), magic=9), ErrorCode.CORRUPT_MESSAGE),
        (built(20_000), ErrorCode.MESSAGE_TOO_LARGE),
        (built(base_offset=1), ErrorCode.INVALID_RECORD),
        (raw_batch(numbered(2), count=1), ErrorCode.INVALID_RECORD),
        (raw_batch(numbered(2), count=3, last_offset_delta=2), ErrorCode.INVALID_RECORD),
        (raw_batch([RawRecord(1, 0, None, None)], last_offset_delta=0), ErrorCode.INVALID_RECORD),
        (built(control=True), ErrorCode.INVALID_RECORD),
        (built(timestamp_type=TimestampType.LOG_APPEND_TIME), ErrorCode.INVALID_TIMESTAMP),
        (raw_batch(numbered(1), attributes=0x40), ErrorCode.INVALID_RECORD),
        (raw_batch(numbered(1), attributes=6), ErrorCode.UNSUPPORTED_COMPRESSION_TYPE),
        (built(producer_id=3, producer_epoch=0), ErrorCode.INVALID_RECORD),
        (built(timestamps=[NOW, NOW + HOUR + 1, NOW]), ErrorCode.INVALID_TIMESTAMP),
        (built(codec=Compression.LZ4, timestamps=[NOW, NOW + HOUR + 1, NOW]), ErrorCode.INVALID_TIMESTAMP),
    ],
)
def test_codes(batch: bytes, code: ErrorCode) -> None:
    error = refusal(batch)
    assert error.code is code
    assert len(error.message) > 10


def test_the_message_says_how_large_and_which() -> None:
    assert (
        "max.message.bytes: 300 bytes, 299"
        in refusal(raw_batch(b"x" * 239), AppendRules(max_message_bytes=299)).message
    )
    assert refusal(raw_batch(numbered(1), magic=1)).message.endswith(": 1")
    assert "control" in refusal(built(control=True)).message
    assert "delete horizon" in refusal(raw_batch(numbered(1), attributes=0x40)).message
    assert "number 6" in refusal(raw_batch(numbered(1), attributes=6)).message
    assert "id 3, epoch 0, -1" in refusal(built(producer_id=3, producer_epoch=0)).message


@pytest.mark.parametrize("codec", Compression)
def test_records_without_a_key_on_a_compacted_topic_are_named(codec: Compression) -> None:
    builder = BatchBuilder(compression=codec)
    for index in range(6):
        builder.append(NOW, None if index in {1, 4} else b"", b"v")
    rules = AppendRules(compacted=True)

    error = refusal(builder.build(), rules)

    assert error.code is ErrorCode.INVALID_RECORD
    assert [index for index, _ in error.record_errors] == [1, 4]
    assert all("without a key" in message for _, message in error.record_errors)
    good = built(codec=codec, key=b"")
    assert needs_opening(validate_batch(good, rules, NOW), rules) is (codec is not Compression.NONE)
    assert open_batch(good, rules, NOW) is good


@pytest.mark.parametrize("codec", Compression)
def test_timestamps_out_of_bounds_are_named(codec: Compression) -> None:
    rules = AppendRules(timestamp_before_max_ms=1000, timestamp_after_max_ms=500)
    batch = built(6, codec, timestamps=[NOW, NOW - 1000, NOW - 1001, -1, NOW + 500, NOW - 5000])

    error = refusal(batch, rules)

    assert error.code is ErrorCode.INVALID_TIMESTAMP
    assert error.record_errors == [
        (2, f"the timestamp is not within [{NOW - 1000}, {NOW + 500}]"),
        (5, f"the timestamp is not within [{NOW - 1000}, {NOW + 500}]"),
    ]
    # LogAppendTime replaces them, so they may be anything.
    assert validate_batch(batch, AppendRules(log_append_time=True, timestamp_before_max_ms=1000), NOW).count == 6


def test_a_timestamp_among_keyless_records_decides_the_code() -> None:
    batch = BatchBuilder()
    batch.append(NOW, None, b"v")
    batch.append(NOW + 2 * HOUR, b"k", b"v")
    error = refusal(batch.build(), AppendRules(compacted=True))
    assert error.code is ErrorCode.INVALID_TIMESTAMP
    assert [index for index, _ in error.record_errors] == [0, 1]


def test_record_errors_are_bounded() -> None:
    error = refusal(built(5000, key=None), AppendRules(compacted=True))
    assert len(error.record_errors) == RECORD_ERRORS_MAX


def test_a_wrong_greatest_timestamp_is_put_right() -> None:
    """As Kafka does; an index would lead lookups astray otherwise."""
    batch = raw_batch(numbered(5), base_timestamp=NOW, max_timestamp=5)
    header = validate_batch(batch, RULES, NOW)
    assert header.max_timestamp == NOW + 4
    buffer = bytearray(batch)

    set_log_fields(buffer, 0, -1, max_timestamp=header.max_timestamp)

    assert buffer == raw_batch(numbered(5), base_timestamp=NOW, max_timestamp=NOW + 4)
    packed = raw_batch(
        compress(Compression.GZIP, batch[HEADER_SIZE:]),
        attributes=1,
        base_timestamp=NOW,
        max_timestamp=5,
        count=5,
        last_offset_delta=4,
    )
    opened = open_batch(packed, AppendRules(validate_compressed=True), NOW)
    assert validate_batch(opened, RULES, NOW).max_timestamp == NOW + 4


@pytest.mark.parametrize("source", Compression)
@pytest.mark.parametrize("target", Compression)
def test_a_topics_compression(source: Compression, target: Compression) -> None:
    rules = AppendRules(compression=target)
    batch = built(50, source, producer_id=6, producer_epoch=1, base_sequence=8)
    header = validate_batch(batch, rules, NOW)

    assert needs_opening(header, rules) is (source is not target)
    opened = open_batch(batch, rules, NOW)

    assert list(iter_records(opened)) == list(iter_records(batch))
    assert validate_batch(opened, rules, NOW) == read_header(opened)
    assert read_header(opened).compression is target
    changed = {"batch_length", "crc", "attributes"}
    for name in header._fields:
        assert name in changed or getattr(read_header(opened), name) == getattr(header, name), name


@pytest.mark.parametrize(
    ("rules", "opens"),
    [
        (AppendRules(), False),
        (AppendRules(compacted=True), True),
        (AppendRules(validate_compressed=True), True),
        (AppendRules(timestamp_before_max_ms=10**9), True),
        (AppendRules(timestamp_before_max_ms=10**9, log_append_time=True), False),
        (AppendRules(timestamp_before_max_ms=INT64_MAX, timestamp_after_max_ms=5), False),
        (AppendRules(compression=Compression.ZSTD), False),
        (AppendRules(compression=Compression.NONE), True),
    ],
)
def test_when_a_compressed_batch_is_opened(rules: AppendRules, opens: bool) -> None:
    assert needs_opening(read_header(built(codec=Compression.ZSTD)), rules) is opens
    if rules.compression is None:
        assert not needs_opening(read_header(built()), rules)


@pytest.mark.parametrize("codec", CODECS)
def test_what_is_wrong_inside_a_compressed_batch(codec: Compression) -> None:
    rules = AppendRules(validate_compressed=True, decompressed_bytes_max=100_000)

    def packed(payload: bytes, **fields: int) -> bytes:
        return raw_batch(compress(codec, payload), attributes=int(codec), max_timestamp=NOW, **fields)

    good = b"".join(map(raw_record, numbered(3)))
    three = {"count": 3, "last_offset_delta": 2}
    assert open_batch(packed(good, **three, base_timestamp=NOW - 2), rules, NOW)
    assert refusal(raw_batch(b"not compressed at all", attributes=int(codec)), rules).code is ErrorCode.CORRUPT_MESSAGE
    assert refusal(packed(bytes(100_001)), rules).code is ErrorCode.MESSAGE_TOO_LARGE
    assert refusal(packed(good + b"x", **three), rules).code is ErrorCode.INVALID_RECORD
    assert refusal(packed(good[:-1], **three), rules).code is ErrorCode.INVALID_RECORD
    assert refusal(packed(good, count=2, last_offset_delta=1), rules).code is ErrorCode.INVALID_RECORD
    gap = raw_record(RawRecord(0, 0, b"k", b"v")) + raw_record(RawRecord(2, 0, b"k", b"v"))
    assert refusal(packed(gap, count=2, last_offset_delta=1), rules).code is ErrorCode.INVALID_RECORD


def test_a_batch_that_grows_above_the_limit_is_refused() -> None:
    batch = built(1000, Compression.ZSTD)
    rules = AppendRules(compression=Compression.NONE, max_message_bytes=10_000)
    error = refusal(batch, rules)
    assert error.code is ErrorCode.MESSAGE_TOO_LARGE
    assert "with none" in error.message
