"""The consumer's machines one by one: sessions, partition states, pieces, memory, settings, errors."""

from __future__ import annotations

import gc
import pickle
from array import array
from typing import Any

import pytest
from tests.support.batches import RawRecord, raw_batch

from millstream.core._kernels.consumer_records import survey_batches
from millstream.core.client.cluster import BrokerNode, Cluster, TopicPartition
from millstream.core.client.consumer.errors import (
    CorruptBatchError,
    LogTruncationError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    PinnedMemoryError,
)
from millstream.core.client.consumer.fetch_buffer import FetchBuffer
from millstream.core.client.consumer.fetch_session import FetchSession, WantedPartition
from millstream.core.client.consumer.fetched import FetchedRecords
from millstream.core.client.consumer.fetching import Fetching, FetchPlan
from millstream.core.client.consumer.memory import FetchMemory
from millstream.core.client.consumer.offset_lookups import OffsetLookups
from millstream.core.client.consumer.partition_state import AssignedPartition, FetchState, Position
from millstream.core.client.consumer.settings import (
    EARLIEST_RESET,
    LATEST_RESET,
    ConsumerSettings,
    OffsetReset,
    ResetKind,
    parse_reset,
)
from millstream.core.client.consumer.subscription import SubscriptionState
from millstream.core.config.client_config import ClientConfig
from millstream.core.config.client_configs import CONSUMER_CONFIGS
from millstream.core.config.definition import ConfigError
from millstream.core.net import Address
from millstream.core.records import BatchBuilder, Compression, RecordColumns, read_header
from millstream.core.wire import ErrorCode, KafkaError
from millstream.core.wire.messages.fetch import FetchableTopicResponse, FetchResponse, PartitionData
from millstream.core.wire.messages.list_offsets import (
    ListOffsetsPartitionResponse,
    ListOffsetsResponse,
    ListOffsetsTopicResponse,
)

TP = TopicPartition("t", 0)
OTHER = TopicPartition("t", 1)
NONE_RESET = OffsetReset(ResetKind.NONE)


# Settings.


@pytest.mark.parametrize(
    ("text", "duration_ms"),
    [
        ("by_duration:PT1H", 3_600_000),
        ("by_duration:P1DT2H3M4.5S", 93_784_500),
        ("by_duration:P2D", 172_800_000),
        ("by_duration:PT0.001S", 1),
        ("by_duration:pt90m", 5_400_000),
    ],
)
def test_durations_are_read_as_java_reads_them(text: str, duration_ms: int) -> None:
    assert parse_reset(text) == OffsetReset(ResetKind.BY_DURATION, duration_ms)


@pytest.mark.parametrize(
    "text", ["by_duration:P", "by_duration:PT", "by_duration:P1Y", "by_duration:1H", "by_duration:"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"auto.offset.reset"):
        parse_reset(text)


def test_settings_are_those_of_the_configuration() -> None:
    config = ClientConfig.load(
        CONSUMER_CONFIGS,
        {"bootstrap.servers": "a:1", "isolation.level": "read_committed", "buffer.memory": 1000},
        {"group_id": "g", "auto_offset_reset": "earliest", "enable_auto_commit": False},
    )
    settings = ConsumerSettings.from_config(config)
    assert settings.read_committed
    assert settings.memory_bytes_max == 1000
    assert (settings.group_id, settings.reset, settings.auto_commit) == ("g", EARLIEST_RESET, False)
    # Every default here is the table's.
    assert ConsumerSettings.from_config(ClientConfig.load(CONSUMER_CONFIGS, "a:1")) == ConsumerSettings(
        auto_commit=False
    )


@pytest.mark.parametrize(
    ("configs", "name"),
    [
        ({"group_protocol": "consumer", "session_timeout_ms": 10_000}, "session.timeout.ms"),
        ({"group_protocol": "CONSUMER", "heartbeat_interval_ms": 1_000}, "heartbeat.interval.ms"),
        ({"group_protocol": "consumer", "partition_assignment_strategy": "range"}, "partition.assignment.strategy"),
        ({"group_remote_assignor": "uniform"}, "group.remote.assignor"),
        ({"session_timeout_ms": 3_000, "heartbeat_interval_ms": 3_000}, "heartbeat.interval.ms"),
        ({"group_id": " "}, "group.id"),
        ({"group_id": None, "enable_auto_commit": True}, "enable.auto.commit"),
    ],
)
def test_configs_that_kafka_refuses_together_are_refused(configs: dict[str, Any], name: str) -> None:
    with pytest.raises(ConfigError, match=name.replace(".", r"\.")) as raised:
        ConsumerSettings.from_config(ClientConfig.load(CONSUMER_CONFIGS, "a:1", {"group_id": "g", **configs}))
    assert raised.value.name == name


def test_what_no_request_can_carry_is_not_assigned() -> None:
    subscription = SubscriptionState()
    for topic, refusal in (("\ud800", KafkaError), (5, TypeError)):
        with pytest.raises(refusal):
            subscription.assign_by_hand([TopicPartition(topic, 0)])  # type: ignore[arg-type]
        with pytest.raises(refusal):
            subscription.subscribe_topics([topic])  # type: ignore[list-item]
    for partition in (-1, 2**31):
        with pytest.raises(ValueError, match="no partition's number"):
            subscription.assign_by_hand([TopicPartition("t", partition)])
    assert not subscription.assigned
    subscription.assign_by_hand([TP])


@pytest.mark.parametrize(
    "error",
    [
        CorruptBatchError(TP, 5, 7, "reason"),
        OffsetOutOfRangeError(TP, 5),
        NoOffsetForPartitionError(TP),
        LogTruncationError(TP, 9, 4, 2),
        PinnedMemoryError(10, 5),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_pass_between_processes(error: KafkaError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert copy.__dict__ == error.__dict__


# Sessions.


def want(offset: int, epoch: int = 0, topic_id: bytes = bytes(16)) -> WantedPartition:
    return WantedPartition(offset, epoch, 100, topic_id)


def opened_session() -> FetchSession:
    session = FetchSession()
    plan = session.plan({TP: want(0), OTHER: want(0)})
    assert (plan.session_id, plan.epoch) == (0, 0)
    assert session.handle_response(ErrorCode.NONE, 77, {TP, OTHER}, plan)
    return session


def test_a_session_tells_what_has_changed() -> None:
    session = opened_session()
    third = TopicPartition("u", 0)
    plan = session.plan({OTHER: want(5), TP: want(0), third: want(1)})
    assert (plan.session_id, plan.epoch, plan.is_full) == (77, 1, False)
    assert list(plan.sent) == [OTHER, third]
    assert plan.forgotten == []
    assert session.handle_response(ErrorCode.NONE, 77, {third}, plan)
    plan = session.plan({third: want(1)})
    assert (plan.epoch, list(plan.sent)) == (2, [])
    assert [tp for tp, _ in plan.forgotten] == [OTHER, TP]


def test_a_topic_made_again_leaves_the_session_and_comes_back() -> None:
    session = opened_session()
    plan = session.plan({TP: want(0, topic_id=b"n" * 16), OTHER: want(0)})
    assert plan.forgotten == [(TP, bytes(16))]
    assert list(plan.sent) == [TP]


@pytest.mark.parametrize(
    ("code", "session_id"),
    [(ErrorCode.FETCH_SESSION_ID_NOT_FOUND, 0), (ErrorCode.INVALID_FETCH_SESSION_EPOCH, 77)],
)
def test_an_error_begins_a_new_session_and_closes_what_may_be_left(code: ErrorCode, session_id: int) -> None:
    session = opened_session()
    plan = session.plan({TP: want(1), OTHER: want(0)})
    assert not session.handle_response(code, 0, set(), plan)
    plan = session.plan({TP: want(1), OTHER: want(0)})
    assert (plan.session_id, plan.epoch, len(plan.sent)) == (session_id, 0, 2)


def test_an_answer_about_others_than_asked_is_not_used() -> None:
    session = FetchSession()
    plan = session.plan({TP: want(0), OTHER: want(0)})
    assert not session.handle_response(ErrorCode.NONE, 77, {TP}, plan)
    session = opened_session()
    plan = session.plan({TP: want(1), OTHER: want(0)})
    assert not session.handle_response(ErrorCode.NONE, 77, {TopicPartition("u", 3)}, plan)
    assert session.plan({TP: want(1)}).epoch == 0


def test_a_broker_without_room_for_sessions_gets_full_requests() -> None:
    session = FetchSession()
    for offset in range(3):
        plan = session.plan({TP: want(offset)})
        assert (plan.session_id, plan.epoch, len(plan.sent)) == (0, 0, 1)
        assert session.handle_response(ErrorCode.NONE, 0, {TP}, plan)
    assert session.final() is None


def test_an_evicted_session_still_answers_once_and_a_failure_closes_it() -> None:
    session = opened_session()
    plan = session.plan({TP: want(1), OTHER: want(0)})
    assert session.handle_response(ErrorCode.NONE, 0, {TP}, plan)
    assert session.plan({TP: want(2)}).session_id == 0
    session = opened_session()
    session.plan({TP: want(1), OTHER: want(0)})
    session.handle_failure()
    plan = session.plan({TP: want(1), OTHER: want(0)})
    assert (plan.session_id, plan.epoch) == (77, 0)
    final = opened_session().final()
    assert final is not None
    assert (final.session_id, final.epoch) == (77, -1)


# One partition.


def is_in(state: AssignedPartition, wanted: FetchState) -> bool:
    """Whether it is in a state; asked here, so that the type checker takes no earlier answer for the later one."""
    return state.state is wanted


def fetching_at(offset: int, epoch: int = 3, *, leader_epoch: int = 3) -> AssignedPartition:
    state = AssignedPartition(TP)
    state.handle_leader(1, leader_epoch)
    state.seek(Position(offset, epoch))
    state.skip_validation()
    return state


def test_a_new_leader_epoch_asks_for_validation_where_there_is_something_to_validate() -> None:
    state = fetching_at(10)
    version = state.version
    state.handle_leader(2, 4)
    assert is_in(state, FetchState.AWAIT_VALIDATION)
    assert state.version > version
    assert not state.is_fetchable(0)
    assert not state.handle_epoch_end(state.version, 3, 10, EARLIEST_RESET)
    assert state.is_fetchable(0)
    # Nothing older than what is known is believed.
    state.handle_leader(1, 3)
    assert (state.leader, state.leader_epoch) == (2, 4)
    unknown = fetching_at(10, -1)
    unknown.handle_leader(2, 4)
    assert is_in(unknown, FetchState.FETCHING)


def test_what_was_cut_is_gone_back_over_or_said() -> None:
    state = fetching_at(10)
    state.handle_leader(2, 4)
    assert state.handle_epoch_end(state.version, 2, 6, EARLIEST_RESET)
    assert (state.position, state.state) == (Position(6, 2), FetchState.FETCHING)
    state = fetching_at(10)
    state.handle_leader(2, 4)
    state.handle_epoch_end(state.version, 2, 6, NONE_RESET)
    assert is_in(state, FetchState.FAILED)
    assert isinstance(state.error, LogTruncationError)
    assert (state.error.offset, state.error.divergent_offset, state.error.divergent_epoch) == (10, 6, 2)
    state = fetching_at(10)
    state.handle_leader(2, 4)
    state.handle_epoch_end(state.version, -1, -1, LATEST_RESET)
    assert (state.state, state.reset) == (FetchState.AWAIT_RESET, LATEST_RESET)


def test_a_cut_of_what_nobody_has_seen_is_fetched_again() -> None:
    state = fetching_at(10)
    state.handle_fetched(Position(30, 3))
    state.handle_leader(2, 4)
    assert state.handle_epoch_end(state.version, 3, 20, NONE_RESET)
    assert state.fetch_position == state.position == Position(10, 3)
    assert is_in(state, FetchState.AWAIT_VALIDATION)
    assert not state.handle_epoch_end(state.version, 3, 20, NONE_RESET)
    assert is_in(state, FetchState.FETCHING)


def test_an_answer_for_an_earlier_state_changes_nothing() -> None:
    state = fetching_at(10)
    state.request_reset(EARLIEST_RESET)
    version = state.version
    state.seek(Position(5))
    assert not state.handle_reset_offset(version, Position(0))
    state.handle_leader(2, 4)
    assert not state.handle_divergence(version, 1, 2, EARLIEST_RESET)
    assert state.position == Position(5)


def test_out_of_range_waits_until_what_is_buffered_has_been_handed_over() -> None:
    state = fetching_at(10)
    state.handle_fetched(Position(20, 3))
    state.handle_out_of_range(OffsetOutOfRangeError(TP, 20), EARLIEST_RESET)
    assert not state.is_fetchable(0)
    assert state.position == Position(10, 3)
    state.handle_taken(Position(20, 3))
    state.handle_drained(EARLIEST_RESET)
    assert is_in(state, FetchState.AWAIT_RESET)
    strict = fetching_at(10)
    strict.handle_out_of_range(OffsetOutOfRangeError(TP, 10), NONE_RESET)
    strict.handle_drained(NONE_RESET)
    assert isinstance(strict.error, OffsetOutOfRangeError)
    strict.seek(Position(3))
    assert is_in(strict, FetchState.FETCHING)


def test_a_preferred_replica_is_read_until_its_time_is_over() -> None:
    state = fetching_at(10)
    state.prefer(7, 100)
    assert state.read_replica(99) == 7
    assert state.read_replica(100) == 1
    state.prefer(7, 200)
    state.handle_leader(2, 4)
    assert state.read_replica(150) == 2


def test_a_time_that_no_record_is_as_young_as_means_the_end() -> None:
    subscription = SubscriptionState()
    subscription.assign_by_hand([TP])
    (state,) = subscription
    state.handle_leader(1, 0)
    state.request_reset(OffsetReset(ResetKind.BY_DURATION, 1_000))
    lookups = OffsetLookups(ConsumerSettings(), subscription, FetchBuffer())
    cluster = Cluster(brokers={1: BrokerNode(1, Address("a", 1))})
    asked = []
    for offset in (-1, 55):
        (plan,) = lookups.plan(cluster, 0, 5_000)
        assert lookups.plan(cluster, 0, 5_000) == []
        asked.append(plan.request.topics[0].partitions[0].timestamp)  # type: ignore[union-attr]
        answer = ListOffsetsPartitionResponse(partition_index=0, offset=offset)
        lookups.handle_response(
            plan, ListOffsetsResponse(topics=[ListOffsetsTopicResponse(name="t", partitions=[answer])]), 0
        )
    assert asked == [4_000, -1]
    assert state.position == Position(55, -1)


# Pieces.


def batch(base: int, count: int, codec: Compression = Compression.NONE, **fields: Any) -> bytes:
    builder = BatchBuilder(compression=codec, base_offset=base, leader_epoch=4, **fields)
    for index in range(count):
        builder.append(index, None, b"%d" % (base + index))
    return builder.build()


def marker(offset: int, producer_id: int, *, is_commit: bool) -> bytes:
    builder = BatchBuilder(
        base_offset=offset, producer_id=producer_id, producer_epoch=0, transactional=True, control=True
    )
    builder.append(0, b"\x00\x00\x00\x01" if is_commit else b"\x00\x00\x00\x00", b"\x00\x00\x00\x00\x00\x00")
    return builder.build()


def piece(data: bytes, offset: int = 0, memory: FetchMemory | None = None, **fields: Any) -> FetchedRecords:
    start, end, next_offset, epoch, count, kinds, corrupt, _ = survey_batches(data, offset, True)
    assert corrupt == -1
    view = memoryview(data)[start:end]
    lease = None
    if memory is not None:
        lease = memory.lease(len(data))
        lease.share(view)
    return FetchedRecords(
        TP,
        view,
        offset=offset,
        next_offset=next_offset,
        leader_epoch=epoch,
        record_count=count,
        kinds=kinds,
        lease=lease,
        **fields,
    )


def values(fetched: FetchedRecords, rows: int = 3) -> list[bytes]:
    """The values of an open piece; each is its offset."""
    columns = RecordColumns(rows)
    found = []
    for buffer, located, start, end in fetched.locate(columns):
        for row in range(start, end):
            at = located.value_positions[row]
            found.append(bytes(buffer[at : at + located.value_sizes[row]]))
            assert found[-1] == b"%d" % located.offsets[row]
            # The batch's header is in the same buffer.
            assert int.from_bytes(buffer[located.batch_positions[row] + 12 :][:4], "big", signed=True) in (4, -1)
    return found


def numbers(*parts: range) -> list[bytes]:
    return [b"%d" % number for part in parts for number in part]


@pytest.mark.parametrize("offset", [0, 4, 10, 17])
def test_a_piece_gives_what_was_wanted_of_mixed_batches(offset: int) -> None:
    data = batch(0, 10) + batch(10, 5, Compression.LZ4) + batch(15, 5, Compression.GZIP) + batch(20, 3)
    fetched = piece(data, offset)
    opened = [fetched]
    while (rest := opened[-1].open(1)) is not None:
        assert opened[-1].next_offset == rest.offset
        opened.append(rest)
    assert [value for one in opened for value in values(one)] == numbers(range(offset, 23))
    assert opened[-1].next_offset == 23
    assert sum(one.record_count for one in opened) >= 23 - offset


def test_a_piece_is_opened_up_to_a_bound() -> None:
    data = b"".join(batch(100 * index, 100, Compression.ZSTD) for index in range(20))
    memory = FetchMemory(1)
    fetched = piece(data, memory=memory)
    rest = fetched.open(3_000)
    assert rest is not None
    assert not rest.is_open
    assert fetched.size_bytes < 3_000 + 2_000
    assert values(fetched) == numbers(range(rest.offset))
    assert memory.held_bytes == len(data) + fetched.size_bytes - len(fetched.data)
    assert rest.open(10**6) is None
    assert values(rest) == numbers(range(rest.offset, 2_000))
    fetched.release()
    assert memory.held_bytes > len(data)
    rest.release()
    assert memory.held_bytes == 0
    rest.release()
    assert memory.held_bytes == 0


@pytest.mark.parametrize("codec", [Compression.NONE, Compression.SNAPPY])
@pytest.mark.parametrize("bound", [1, 10**6])
def test_aborted_transactions_are_left_out(codec: Compression, bound: int) -> None:
    """Producer 1 aborts, then commits; producer 2 commits; what stands between them belongs to nobody's transaction."""
    one = {"producer_id": 1, "producer_epoch": 0, "base_sequence": 0, "transactional": True}
    two = {**one, "producer_id": 2}
    data = b"".join(
        [
            batch(0, 2, codec, **one),
            batch(2, 2, codec, **two),
            batch(4, 2, codec),
            batch(6, 2, codec, **one),
            marker(8, 1, is_commit=False),
            batch(9, 2, codec, **one),
            marker(11, 2, is_commit=True),
            marker(12, 1, is_commit=True),
            batch(13, 1, codec),
        ]
    )
    fetched = piece(data, aborted=[(0, 1)])
    found = []
    following: FetchedRecords | None = fetched
    while following is not None:
        current, following = following, following.open(bound)
        found += values(current)
    assert found == numbers(range(2, 6), range(9, 11), range(13, 14))
    # A reader that sees everything is told of no aborted ones.
    everything = piece(data)
    everything.open()
    assert values(everything) == numbers(range(8), range(9, 11), range(13, 14))


def test_control_batches_alone_move_the_position_and_hold_nothing() -> None:
    fetched = piece(marker(5, 1, is_commit=True), 5)
    assert fetched.is_open
    assert list(fetched.regions) == []
    assert fetched.next_offset == 6


@pytest.mark.parametrize("codec", [Compression.NONE, Compression.LZ4])
@pytest.mark.parametrize("count", [1, 3, 9, 10, 11, 25, 29])
def test_a_piece_is_split_at_a_record(codec: Compression, count: int) -> None:
    memory = FetchMemory(1)
    data = b"".join(batch(10 * index, 10, codec) for index in range(3))
    fetched = piece(data, memory=memory)
    fetched.open()
    rest = fetched.split(count, RecordColumns(4))
    assert rest is not None
    assert values(fetched) == numbers(range(count))
    assert values(rest) == numbers(range(count, 30))
    assert (fetched.next_offset, rest.offset, rest.next_offset) == (count, count, 30)
    again = rest.split(1, RecordColumns(4)) if count < 29 else None
    fetched.release()
    assert memory.held_bytes > 0
    if again is not None:
        assert values(rest) == numbers(range(count, count + 1))
        rest.release()
        assert values(again) == numbers(range(count + 1, 30))
        again.release()
    rest.release()
    assert memory.held_bytes == 0
    assert fetched.split(count, RecordColumns(4)) is None


# Fetching up to a stop.

CLUSTER = Cluster(brokers={1: BrokerNode(1, Address("a", 1)), 2: BrokerNode(2, Address("b", 1))})


def fetching_until(stop: int | None, memory: FetchMemory | None = None) -> tuple[Fetching, AssignedPartition]:
    subscription = SubscriptionState()
    subscription.assign_by_hand([TP])
    (state,) = subscription
    state.handle_leader(1, 4)
    state.stop_offset = stop
    state.seek(Position(0))
    return Fetching(ConsumerSettings(), subscription, memory or FetchMemory(1 << 20)), state


def answer(fetching: Fetching, plan: FetchPlan, data: bytes) -> None:
    """Answer with whole batches from the one on that holds the offset asked for, as a broker does."""
    offset = plan.asked[TP].offset
    position = 0
    while read_header(data, position).last_offset < offset:
        position += read_header(data, position).size_bytes
    partition = PartitionData(partition_index=0, high_watermark=100, records=memoryview(data)[position:])
    topic = FetchableTopicResponse(topic="t", partitions=[partition])
    fetching.handle_response(plan, FetchResponse(responses=[topic]), 0)


def fetch(fetching: Fetching, data: bytes) -> FetchedRecords:
    """Have it fetch from a log of `data`, and take what is buffered of it."""
    (plan,) = fetching.plan(CLUSTER, 0)
    answer(fetching, plan, data)
    while (closed := fetching.buffer.next_to_open()) is not None:
        fetching.buffer.handle_opened(closed, closed.open())
    fetched = fetching.buffer.take(lambda _: True)
    assert fetched is not None
    return fetched


@pytest.mark.parametrize(
    ("stop", "reached"),
    # From 20 to 29 there is nothing: without the batch behind, the gap would be asked for again and again.
    [(1, 10), (10, 10), (11, 20), (20, 20), (21, 40), (30, 40), (40, 40), (41, 41), (42, 42), (43, 50), (60, 50)],
)
@pytest.mark.parametrize("codec", [Compression.NONE, Compression.LZ4])
def test_of_an_answer_nothing_is_kept_behind_the_batch_that_reaches_the_stop(
    stop: int, reached: int, codec: Compression
) -> None:
    log = batch(0, 10, codec) + batch(10, 10, codec) + batch(30, 10, codec)
    log += marker(40, 7, is_commit=True) + marker(41, 7, is_commit=True) + batch(42, 8, codec)
    expected = [offset for offset in [*range(20), *range(30, 40), *range(42, 50)] if offset < reached]
    fetching, state = fetching_until(stop)
    fetched = fetch(fetching, log)
    assert (fetched.offset, fetched.next_offset, fetched.record_count) == (0, reached, len(expected))
    assert values(fetched) == [b"%d" % offset for offset in expected]
    assert state.fetch_position == Position(reached, fetched.leader_epoch)
    assert bool(fetching.plan(CLUSTER, 0)) is (stop > reached)


def test_a_stop_in_a_gap_that_two_answers_lie_around() -> None:
    fetching, state = fetching_until(15)
    assert values(fetch(fetching, batch(0, 10))) == numbers(range(10))
    assert not state.is_at_stop
    assert values(fetch(fetching, batch(20, 10) + batch(30, 10))) == numbers(range(20, 30))
    assert fetching.plan(CLUSTER, 0) == []


def test_what_was_fetched_up_to_the_stop_and_then_cut_is_fetched_again() -> None:
    log = batch(0, 10) + batch(10, 10) + batch(20, 10)
    fetching, state = fetching_until(15)
    fetch(fetching, log)
    state.handle_leader(2, 5)
    assert state.handle_epoch_end(state.version, 4, 10, EARLIEST_RESET)
    assert not state.is_at_stop
    assert values(fetch(fetching, log)) == numbers(range(20))
    assert fetching.plan(CLUSTER, 0) == []


def test_nothing_is_fetched_where_stepping_over_damage_passed_the_stop() -> None:
    damaged = batch(0, 10)[:-1] + b"\xff"
    fetching, state = fetching_until(5)
    for now_ms in (0, 10_000):
        (plan,) = fetching.plan(CLUSTER, now_ms)
        answer(fetching, plan, damaged + batch(10, 10))
    assert is_in(state, FetchState.FAILED)
    assert fetching.step_over(TP) == 10
    assert is_in(state, FetchState.FETCHING)
    assert fetching.plan(CLUSTER, 20_000) == []


def test_an_answer_asked_for_under_another_stop_is_not_used() -> None:
    log = batch(0, 10) + batch(10, 10)
    fetching, state = fetching_until(None)
    (plan,) = fetching.plan(CLUSTER, 0)
    state.stop_offset = 5
    state.seek(Position(0))
    answer(fetching, plan, log)
    assert len(fetching.buffer) == 0
    assert values(fetch(fetching, log)) == numbers(range(10))
    assert fetching.plan(CLUSTER, 0) == []
    state.stop_offset = None
    state.seek(Position(10))
    assert values(fetch(fetching, log)) == numbers(range(10, 20))


def test_held_memory_keeps_nothing_back_where_nothing_is_wanted() -> None:
    memory = FetchMemory(1_000)
    fetching, state = fetching_until(10, memory)
    held = memory.lease(1_000)
    assert fetching.is_starved(0)
    state.is_paused = True
    assert not fetching.is_starved(0)
    state.is_paused = False
    state.handle_fetched(Position(10))
    assert not fetching.is_starved(0)
    held.release()


def test_a_batch_of_more_records_than_there_are_rows_grows_the_columns() -> None:
    fetched = piece(batch(0, 500))
    assert values(fetched, rows=2) == numbers(range(500))


def test_offsets_missing_in_a_compacted_batch_are_passed_over() -> None:
    records = [RawRecord(delta, 0, None, b"%d" % (100 + delta)) for delta in (2, 5, 7)]
    fetched = piece(raw_batch(records, base_offset=100, last_offset_delta=9), 103)
    assert values(fetched) == [b"105", b"107"]
    assert fetched.next_offset == 110


def test_memory_is_given_back_when_nothing_holds_the_buffers() -> None:
    memory = FetchMemory(1)
    room: list[int] = []
    memory.on_room = lambda: room.append(1)
    fetched = piece(batch(0, 10, Compression.GZIP), memory=memory)
    fetched.open()
    (region,) = fetched.regions
    kept = region.buffer
    del fetched, region
    gc.collect()
    # The compressed bytes are gone, the opened ones are held by who keeps them.
    assert memory.held_bytes == len(kept)
    del kept
    gc.collect()
    assert memory.held_bytes == 0
    assert len(room) == 2


# The buffer.


def test_partitions_take_turns_and_keep_their_order() -> None:
    buffer = FetchBuffer()
    for base in (0, 10, 20):
        buffer.add(piece(batch(base, 10), base))
    second = piece(batch(0, 10))
    second.partition = 1
    buffer.add(second)
    taken = [buffer.take(lambda tp: True) for _ in range(5)]
    assert [(one.partition, one.offset) for one in taken if one] == [(0, 0), (1, 0), (0, 10), (0, 20)]
    assert taken[-1] is None
    assert not buffer.has(TP)


def test_what_is_not_open_waits_and_what_is_paused_is_passed_over() -> None:
    buffer = FetchBuffer(ready_bytes_max=1)
    closed = piece(batch(0, 10, Compression.LZ4) + batch(10, 10, Compression.LZ4))
    buffer.add(closed)
    assert buffer.take(lambda tp: True) is None
    assert buffer.next_to_open() is closed
    assert buffer.next_to_open() is None
    rest = closed.open(1)
    assert buffer.take(lambda tp: True) is None
    assert buffer.handle_opened(closed, rest)
    assert buffer.take(lambda tp: False) is None
    assert buffer.take(lambda tp: True) is closed
    assert rest is not None
    assert buffer.next_to_open() is rest
    buffer.drop(TP)
    assert not buffer.handle_opened(rest, None)
    assert not buffer.handle_unopened(rest)
    assert buffer.drops_of(TP) == 1


def test_a_piece_that_cannot_be_opened_takes_what_is_behind_it_along() -> None:
    buffer = FetchBuffer()
    buffer.add(piece(batch(0, 10)))
    bad = piece(raw_batch(b"nonsense", base_offset=10, attributes=3, last_offset_delta=9, count=10), 10)
    buffer.add(bad)
    buffer.add(piece(batch(20, 10), 20))
    first = buffer.take(lambda tp: True)
    assert first is not None
    assert buffer.next_to_open() is bad
    with pytest.raises(CorruptBatchError) as raised:
        bad.open()
    assert (raised.value.offset, raised.value.next_offset) == (10, 20)
    buffer.put_back(first)
    assert buffer.handle_unopened(bad)
    assert buffer.take(lambda tp: True) is first
    assert not buffer.has(TP)


def test_columns_hold_eight_bytes_a_value() -> None:
    """What `locate` fills is what kernels and Arrow take as it is."""
    columns = RecordColumns(1)
    columns.grow(10)
    assert columns.capacity == 10
    assert isinstance(columns.offsets, array)
    assert columns.offsets.itemsize == 8
    columns.grow(5)
    assert columns.capacity == 10


def test_a_count_below_zero_takes_nothing_from_the_records_of_others() -> None:
    good, damaged = (BatchBuilder(compression=Compression.LZ4, base_offset=offset) for offset in (0, 3))
    for number in range(3):
        good.append(number, None, b"v")
    damaged.append(0, None, b"v")
    bad = bytearray(damaged.build())
    bad[57:61] = (-2).to_bytes(4, "big", signed=True)
    data = memoryview(good.build() + bytes(bad))
    start, end, next_offset, _, records, kinds, _, _ = survey_batches(data, 0, False)
    fetched = FetchedRecords(TP, data[start:end], offset=0, next_offset=next_offset, kinds=kinds, record_count=records)
    assert fetched.open() is None
    assert fetched.record_count == 3
    pieces = fetched.locate(RecordColumns(8))
    located = next(pieces)
    assert list(located.columns.offsets[located.start : located.end]) == [0, 1, 2]
    with pytest.raises(CorruptBatchError):
        next(pieces)
