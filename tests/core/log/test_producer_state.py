"""Idempotent producers: repeats, gaps, fencing, wrap-around, expiry, the bound, and snapshots."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.core.log.conftest import OpenManager
from tests.support.logs import NOW_MS, TOPIC_ID, append, read_all

from millstream.core.log import Log, LogConfig, ProducerEntry, TopicPartition
from millstream.core.log.producer_state import (
    SEQUENCE_MAX,
    CorruptSnapshotError,
    ProducerBatch,
    decode_snapshot,
    encode_snapshot,
    sequence_after,
)
from millstream.core.wire import ErrorCode, KafkaError

TP = TopicPartition("orders", 0)
CONFIG = LogConfig()


@pytest.fixture
def log(open_manager: OpenManager) -> Log:
    return open_manager(producer_count_max=3).create_log(TP, TOPIC_ID, CONFIG)


def send(
    log: Log, sequence: int, *, count: int = 1, producer_id: int = 1, epoch: int = 0, write: bool = True
) -> tuple[int, bool]:
    values = [b"%d" % (sequence + index) for index in range(count)]
    sent = append(log, *values, producer_id=producer_id, producer_epoch=epoch, base_sequence=sequence, write=write)
    return sent.first_offset, sent.duplicate


def refused(log: Log, sequence: int, **options: Any) -> ErrorCode:
    before = (log.reserved_end_offset, log.active_producers())
    with pytest.raises(KafkaError) as error:
        send(log, sequence, **options)
    assert (log.reserved_end_offset, log.active_producers()) == before
    return error.value.code


@pytest.mark.parametrize("write", [True, False])
def test_a_repeated_batch_gets_its_original_offset(log: Log, write: bool) -> None:
    for index in range(7):
        assert send(log, index * 2, count=2, write=write) == (index * 2, False)
    for index in range(2, 7):
        assert send(log, index * 2, count=2, write=write) == (index * 2, True)
    # Older than the five that are kept: it cannot be told from a gap.
    assert refused(log, 0, count=2) == ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    log.write()
    assert [record.value for record in read_all(log)] == [b"%d" % index for index in range(14)]


@pytest.mark.parametrize("write", [True, False])
def test_gaps_and_old_epochs_are_refused(log: Log, write: bool) -> None:
    send(log, 5, write=write)  # an unknown producer may begin anywhere
    assert refused(log, 7) == ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert refused(log, 4) == ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert refused(log, 6, epoch=1) == ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER  # a new epoch begins at 0
    assert send(log, 0, epoch=1, write=write) == (1, False)
    assert refused(log, 6, epoch=0) == ErrorCode.INVALID_PRODUCER_EPOCH
    assert send(log, 1, epoch=1, write=write) == (2, False)


def test_sequences_wrap(log: Log) -> None:
    assert send(log, SEQUENCE_MAX - 1, count=3) == (0, False)
    assert send(log, SEQUENCE_MAX - 1, count=3) == (0, True)
    assert send(log, 1) == (3, False)
    assert sequence_after(SEQUENCE_MAX, 1) == 0


def test_dropped_reservations_leave_no_trace(log: Log) -> None:
    send(log, 0)
    send(log, 1, write=False)
    send(log, 2, write=False)
    send(log, 0, producer_id=2, write=False)
    log.forget_reserved()
    assert log.reserved_end_offset == 1
    assert send(log, 1) == (1, False)
    assert send(log, 5, producer_id=2) == (2, False)


def test_producers_are_bounded_and_the_least_recently_used_goes(log: Log) -> None:
    for producer_id in (1, 2, 3):
        send(log, 0, producer_id=producer_id)
    send(log, 1, producer_id=1)
    send(log, 0, producer_id=4)
    assert {each.producer_id for each in log.active_producers()} == {1, 3, 4}


def test_idle_producers_expire(open_manager: OpenManager) -> None:
    manager = open_manager(producer_expiration_ms=1000)
    log = manager.create_log(TP, TOPIC_ID, CONFIG)
    append(log, b"a", producer_id=1, producer_epoch=0, base_sequence=0, now_ms=NOW_MS)
    append(log, b"a", producer_id=2, producer_epoch=0, base_sequence=0, now_ms=NOW_MS + 900)
    append(log, b"a", producer_id=3, producer_epoch=0, base_sequence=0, now_ms=NOW_MS, transactional=True)
    assert manager.expire_producers(NOW_MS + 1000) == 1
    assert {each.producer_id for each in log.active_producers()} == {2, 3}  # an open transaction is never forgotten
    assert log.first_unstable_offset == 2


def test_a_snapshot_taken_at_a_roll_holds_what_lies_before_it(open_manager: OpenManager) -> None:
    config = LogConfig(segment_bytes=200)
    manager = open_manager(config)
    log = manager.create_log(TP, TOPIC_ID, config)
    for sequence in range(9):
        send(log, sequence, write=False)
    log.write()  # all of it at once, through several rolls
    for segment in list(log.segments)[1:]:
        data = log.cache.files.read_bytes(segment.stem + ".snapshot")
        (entry,) = decode_snapshot(data, 0)
        assert entry.last_sequence == segment.base_offset - 1


def test_a_plain_batch_inside_a_transaction_is_refused(log: Log) -> None:
    append(log, b"a", producer_id=1, producer_epoch=0, base_sequence=0, transactional=True)
    assert refused(log, 1) == ErrorCode.INVALID_TXN_STATE
    with pytest.raises(KafkaError) as error:
        log.abort_open_transaction(2, 0, 0, leader_epoch=0, now_ms=NOW_MS)
    assert error.value.code == ErrorCode.INVALID_TXN_STATE


int16, int32, int64 = st.integers(0, 2**15 - 1), st.integers(0, 2**31 - 1), st.integers(0, 2**62)


@st.composite
def entries(draw: st.DrawFn) -> ProducerEntry:
    batches: tuple[ProducerBatch, ...] = ()
    timestamp = draw(int64)
    if draw(st.booleans()):
        first, delta, offset = draw(int32), draw(st.integers(0, 1000)), draw(int64)
        batches = (ProducerBatch(first, sequence_after(first, delta), offset, offset + delta, timestamp),)
    return ProducerEntry(draw(int64), draw(int16), draw(int32), timestamp, draw(st.integers(-1, 2**62)), batches, 77)


@given(st.lists(entries(), max_size=5), st.data())
def test_snapshots_come_back_and_damage_is_seen(written: list[ProducerEntry], data: st.DataObject) -> None:
    snapshot = encode_snapshot(written)
    assert decode_snapshot(snapshot, 77) == written
    damaged = bytearray(snapshot)
    damaged[data.draw(st.integers(0, len(snapshot) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(CorruptSnapshotError):
        decode_snapshot(bytes(damaged), 77)
    with pytest.raises(CorruptSnapshotError):
        decode_snapshot(snapshot[: data.draw(st.integers(0, len(snapshot) - 1))], 77)


@pytest.mark.parametrize("reopen", [True, False])
def test_a_duplicate_is_answered_the_time_of_its_append(open_manager: OpenManager, reopen: bool) -> None:
    config = LogConfig(message_timestamp_type="LogAppendTime")
    manager = open_manager(config)
    log = manager.create_log(TP, TOPIC_ID, config)
    sequenced: dict[str, Any] = {"producer_id": 1, "producer_epoch": 0, "base_sequence": 0, "timestamp": 5}
    first = append(log, b"x", now_ms=NOW_MS + 100, **sequenced)
    if reopen:
        manager.close()
        log = open_manager(config).logs[TP]
    again = append(log, b"x", now_ms=NOW_MS + 900, **sequenced)
    assert again.duplicate
    assert again.log_append_time_ms == first.log_append_time_ms == NOW_MS + 100
