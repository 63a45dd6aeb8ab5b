"""The produce path's kernels: compiled against interpreted against a dumb reader."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.batches import (
    INT64,
    RawRecord,
    damaged,
    dumb_records,
    numbered,
    raw_batch,
    raw_record,
    record_lists,
    varint,
    wrapped,
)
from tests.support.kernels import HOWS, load_kernel

from millstream.core.records import read_header
from millstream.core.records.validation import Fault

KERNELS = {how: load_kernel("batch_validation", how) for how in HOWS}
each_kernel = pytest.mark.parametrize("how", HOWS)
REQUIRE_KEYS, CHECK_TIMESTAMPS = 1, 2
INT64_MAX = 2**63 - 1
Limits = tuple[int, int, int]

limits = st.tuples(st.integers(0, 10) | st.integers(0, INT64_MAX), st.integers(0, INT64_MAX), st.integers(0, INT64_MAX))


def dumb_walk(payload: bytes, count: int, base: int, flags: int, limits: Limits) -> tuple[int, int, list[int]]:
    """Return fault, greatest timestamp, and record errors as pairs in one list."""
    now, before, after = limits
    if count <= 0:
        return Fault.BAD_COUNT, -1, []
    records, how = dumb_records(payload, count)
    errors: list[int] = []
    greatest = -(2**63)
    for index, record in enumerate(records):
        if record.offset_delta != index:
            return Fault.BAD_RECORD_OFFSET, greatest, errors
        timestamp = wrapped(base + record.timestamp_delta)
        greatest = max(greatest, timestamp)
        if flags & REQUIRE_KEYS and record.key[1] < 0:
            errors += [index, Fault.NO_KEY]
        elif flags & CHECK_TIMESTAMPS and timestamp != -1 and not now - before <= timestamp <= now + after:
            errors += [index, Fault.BAD_TIMESTAMP]
    if how == "broken":
        return Fault.BAD_RECORD, greatest, errors
    if errors:
        return errors[1], greatest, errors
    return Fault.RECORDS_LEFT if how == "left" else 0, greatest, []


payloads = damaged(record_lists(gaps=False).map(lambda records: b"".join(map(raw_record, records))))


@given(
    payload=payloads | st.binary(max_size=200),
    count=st.integers(0, 13),
    base=INT64,
    flags=st.integers(0, 3),
    limits=limits,
)
def test_walk_records_agrees_with_a_dumb_walk(
    payload: bytes, count: int, base: int, flags: int, limits: Limits
) -> None:
    fault, greatest, errors = dumb_walk(payload, count, base, flags, limits)
    for how, kernel in KERNELS.items():
        found = array("q", [0] * 40)
        got_fault, _, got_greatest, error_count = kernel.walk_records(payload, count, base, flags, *limits, found)
        assert (got_fault, list(found[: 2 * error_count])) == (fault, errors), how
        if not fault:
            assert got_greatest == greatest, how


@given(
    records=record_lists(gaps=False),
    base=INT64 | st.integers(0, 100),
    flags=st.integers(0, 3),
    limits=limits,
    fields=st.fixed_dictionaries(
        {},
        optional={
            "attributes": st.sampled_from([0, 1, 2, 3, 4, 5, 7, 8, 0x10, 0x20, 0x40, 0x80]),
            "base_offset": st.integers(-1, 1),
            "count": st.integers(-1, 14),
            "producer_id": st.integers(-1, 1),
            "producer_epoch": st.integers(-1, 1),
            "base_sequence": st.integers(-1, 1),
            "max_timestamp": INT64,
            "magic": st.integers(0, 3),
            "crc": st.just(1),
            "batch_length": st.integers(47, 120),
        },
    ),
    size_max=st.sampled_from([100, 10**6]),
)
def test_inspect_batch_is_the_same_compiled_and_interpreted(
    records: list[RawRecord], base: int, flags: int, limits: Limits, fields: dict[str, int], size_max: int
) -> None:
    batch = raw_batch(records, **{"base_timestamp": base, **fields})

    results = [kernel.inspect_batch(batch, size_max, flags, *limits) for kernel in KERNELS.values()]

    assert results[0] == results[1] == results[2]
    if isinstance(results[0], tuple):
        header = read_header(batch)
        greatest = header.max_timestamp
        if not header.attributes & 7:
            fault, greatest, _ = dumb_walk(batch[61:], header.count, base, flags, limits)
            assert fault == 0
        assert results[0] == header._replace(max_timestamp=greatest)
    elif not fields and len(batch) <= size_max:
        assert results[0] == dumb_walk(batch[61:], len(records), base, flags, limits)[0]


@given(data=damaged(record_lists(gaps=False).map(raw_batch)))
def test_damage_never_passes(data: bytes) -> None:
    results = [kernel.inspect_batch(data, 10**6, 0, 0, 0, 0) for kernel in KERNELS.values()]

    assert results[0] == results[1] == results[2]
    if isinstance(results[0], tuple):
        # Only what the CRC doesn't cover, and the header doesn't use, may have changed: the leader epoch.
        repaired = data[:12] + b"\xff" * 4 + data[16:]
        assert raw_batch(data[61:], **read_header(repaired)._asdict() | {"leader_epoch": -1}) == repaired


@each_kernel
@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda _: b"", Fault.EMPTY),
        (lambda batch: batch[:11], Fault.EMPTY),
        (lambda batch: batch[:16], Fault.TRUNCATED),
        (lambda batch: batch[:-1], Fault.TRUNCATED),
        (lambda batch: batch + b"x", Fault.TRAILING_BYTES),
        (lambda batch: batch + batch, Fault.TRAILING_BYTES),
        (lambda batch: batch[:11] + bytes([batch[11] - 1]) + batch[12:], Fault.BAD_CRC),
        (lambda batch: batch[:-1] + b"x", Fault.BAD_CRC),
        (lambda _: raw_batch(numbered(2), batch_length=48), Fault.BAD_LENGTH),
        (lambda _: raw_batch(numbered(2), batch_length=-1), Fault.BAD_LENGTH),
        (lambda _: raw_batch(numbered(2), batch_length=2**31 - 1), Fault.TRUNCATED),
        (lambda _: raw_batch(numbered(2), magic=1), Fault.OLD_MAGIC),
        (lambda _: raw_batch(numbered(2), magic=3), Fault.BAD_MAGIC),
        (lambda _: raw_batch(numbered(2), base_offset=1), Fault.BAD_BASE_OFFSET),
        (lambda _: raw_batch(numbered(2), count=3), Fault.BAD_COUNT),
        (lambda _: raw_batch(numbered(2), count=3, last_offset_delta=2), Fault.BAD_RECORD),
        (lambda _: raw_batch(numbered(2), count=1, last_offset_delta=0), Fault.RECORDS_LEFT),
        (lambda _: raw_batch(numbered(2), count=2**31 - 1, last_offset_delta=2**31 - 2), Fault.BAD_RECORD),
        (lambda _: raw_batch([], count=0, last_offset_delta=-1), Fault.BAD_COUNT),
        (lambda _: raw_batch([RawRecord(1, 0, None, None)], last_offset_delta=0), Fault.BAD_RECORD_OFFSET),
        (lambda _: raw_batch(numbered(2), attributes=5), Fault.BAD_ATTRIBUTES),
        (lambda _: raw_batch(numbered(2), attributes=8), Fault.BAD_ATTRIBUTES),
        (lambda _: raw_batch(numbered(2), attributes=0x20), Fault.BAD_ATTRIBUTES),
        (lambda _: raw_batch(numbered(2), attributes=0x40), Fault.BAD_ATTRIBUTES),
        (lambda _: raw_batch(numbered(2), producer_id=1, producer_epoch=0), Fault.BAD_PRODUCER),
        (lambda _: raw_batch(numbered(2), producer_id=1, base_sequence=0), Fault.BAD_PRODUCER),
        (lambda _: raw_batch(numbered(20), base_timestamp=95), Fault.BAD_TIMESTAMP),
        (lambda _: raw_batch(b"zip", attributes=1, max_timestamp=101), Fault.BAD_MAX_TIMESTAMP),
        (lambda _: raw_batch(numbered(9000, value=bytes(200))), Fault.TOO_LARGE),
        (lambda _: raw_batch(numbered(2, key=None)), Fault.NO_KEY),
    ],
)
def test_each_fault(how: str, damage: object, fault: Fault) -> None:
    assert callable(damage)
    good = raw_batch(numbered(2))

    assert KERNELS[how].inspect_batch(damage(good), 10**6, REQUIRE_KEYS | CHECK_TIMESTAMPS, 50, 50, 50) == fault
    assert KERNELS[how].inspect_batch(good, 10**6, REQUIRE_KEYS | CHECK_TIMESTAMPS, 50, 50, 50) == read_header(
        good
    )._replace(max_timestamp=1)


@each_kernel
def test_varints_at_their_limits(how: str) -> None:
    walk, errors = KERNELS[how].walk_records, array("q")
    endless = b"\x80" * 9

    for delta in (0, -1, 63, 64, 8191, 8192, 2**20 - 1, 2**20, 2**31 - 1, INT64_MAX, -(2**63)):
        for padding in (b"", bytes(100)):
            payload = raw_record(RawRecord(0, delta, None, padding))
            assert walk(payload, 1, 0, 0, 0, 0, 0, errors)[:3] == (0, 1, delta)
    # Longer than need be is fine, as in Kafka; without an end it is not, nor beyond 10 bytes.
    body = b"\0" + b"\x80\x00" + b"\x80\x80\x00" + varint(-1) + varint(-1) + b"\x00"
    assert walk(varint(len(body)) + body, 1, 7, 0, 0, 0, 0, errors)[:3] == (0, 1, 7)
    for tail in (endless, endless + b"\x80\x00", endless * 20):
        assert walk(tail, 1, 0, 0, 0, 0, 0, errors)[0] == Fault.BAD_RECORD
        body = b"\0" + tail
        assert walk(varint(len(body)) + body + bytes(100), 1, 0, 0, 0, 0, 0, errors)[0] == Fault.BAD_RECORD
    # Sizes that lie: beyond the record, beyond the data, at the limits of their type.
    for size in (1, 5, 100, 2**31 - 1, 2**31, INT64_MAX, -2, -(2**63)):
        for body in (b"\0\0\0" + varint(size), b"\0\0\0\x01" + varint(size), b"\0\0\0\x01\x01" + varint(size)):
            for behind in (b"", bytes(100)):
                payload = varint(len(body)) + body + behind
                assert walk(payload, 1, 0, 0, 0, 0, 0, errors)[0] == Fault.BAD_RECORD
        assert walk(varint(size), 1, 0, 0, 0, 0, 0, errors)[0] == Fault.BAD_RECORD


@each_kernel
def test_timestamp_bounds_at_their_limits(how: str) -> None:
    walk, errors = KERNELS[how].walk_records, array("q", [0, 0])
    lowest, highest = (raw_record(RawRecord(0, delta, None, None)) for delta in (-(2**63), INT64_MAX))

    assert walk(highest, 1, 0, CHECK_TIMESTAMPS, 1000, INT64_MAX, INT64_MAX, errors)[0] == 0
    assert walk(highest, 1, 0, CHECK_TIMESTAMPS, 0, INT64_MAX, INT64_MAX - 1, errors)[0] == Fault.BAD_TIMESTAMP
    assert walk(lowest, 1, 1, CHECK_TIMESTAMPS, 0, INT64_MAX, 0, errors)[0] == 0
    assert walk(lowest, 1, 0, CHECK_TIMESTAMPS, 0, INT64_MAX, 0, errors)[0] == Fault.BAD_TIMESTAMP
    # -1 is no timestamp at all, and passes any bounds.
    assert walk(lowest, 1, INT64_MAX, CHECK_TIMESTAMPS, 10**6, 0, 0, errors)[0] == 0


@each_kernel
def test_errors_stop_at_their_room(how: str) -> None:
    payload = b"".join(map(raw_record, numbered(10, key=None)))
    errors = array("q", [0] * 6)

    assert KERNELS[how].walk_records(payload, 10, 0, REQUIRE_KEYS, 0, 0, 0, errors)[::3] == (Fault.NO_KEY, 3)
    assert list(errors) == [0, Fault.NO_KEY, 1, Fault.NO_KEY, 2, Fault.NO_KEY]
