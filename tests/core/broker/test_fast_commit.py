"""The fast path of OffsetCommit against the handler: the same bytes in, the same bytes out, the same offsets."""

from __future__ import annotations

import errno
import random
import struct
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.core.broker.test_authorization import DenyAll
from tests.core.broker.test_coordinator_writes import HeldDisk
from tests.core.broker.test_coordinators import OFFSETS, SETTINGS, committed, settled
from tests.support.broker_thread import BrokerThread

from millstream.core.broker import Broker, fast_commit
from millstream.core.broker.fast_commit import PLANS_COUNT_MAX, FastCommit
from millstream.core.groups.records import OffsetCommitKey, OffsetCommitValue, decode_record
from millstream.core.records import iter_batches, iter_payload, read_payload
from millstream.core.wire import APIS, ApiKey, ErrorCode, encode_request
from millstream.core.wire.messages.consumer_group_heartbeat import ConsumerGroupHeartbeatRequest
from millstream.core.wire.messages.delete_topics import DeleteTopicsRequest, DeleteTopicState
from millstream.core.wire.messages.find_coordinator import FindCoordinatorRequest
from millstream.core.wire.messages.join_group import JoinGroupRequest, JoinGroupRequestProtocol
from millstream.core.wire.messages.leave_group import LeaveGroupRequest, MemberIdentity
from millstream.core.wire.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from millstream.core.wire.messages.sync_group import SyncGroupRequest, SyncGroupRequestAssignment
from millstream.testing.faulty_disk import FaultyDisk
from millstream.testing.kafka import wait_until
from millstream.testing.raw import RawConnection, frame_of

TOPICS = {"a": 130, "a-longer-name": 3, "n" * 126: 2, "n" * 130: 2}
CLIENT_IDS = ("c", "client-" * 10, "x" * 140, "y" * 1100, None, "")
VERSIONS = APIS[ApiKey.OFFSET_COMMIT].versions
GROUPS = ("g", "h" * 200, "classic", "static", "new", "nobody's")
INSTANCE = "instance"
DEADLINE_S = 90.0


class _Counting(FastCommit):
    accepted_count = 0

    def accept(self, *arguments: Any, **named: Any) -> Any:
        answer = super().accept(*arguments, **named)
        type(self).accepted_count += answer is not None
        return answer


class _NeverLearns(FastCommit):
    def learn(self, *_: object) -> None:
        """Every request goes to the handler."""


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> type[_Counting]:
    """The fast path, and how often it was taken."""
    _Counting.accepted_count = 0
    monkeypatch.setattr(fast_commit, "FastCommit", _Counting)
    return _Counting


@pytest.fixture
def disk() -> FaultyDisk:
    return FaultyDisk()


@pytest.fixture
def served(tmp_path: Path, disk: FaultyDisk, counting: type[_Counting]) -> Iterator[BrokerThread]:
    with BrokerThread(tmp_path / "data", {**SETTINGS, "group.initial.rebalance.delay.ms": "0"}, disk) as broker:
        prepare(broker)
        yield broker
        disk.heal()


@pytest.fixture
def raw(served: BrokerThread) -> Iterator[RawConnection]:
    with RawConnection(served.bootstrap_servers) as connection:
        yield connection


def prepare(served: BrokerThread) -> None:
    with RawConnection(served.bootstrap_servers) as raw:
        for topic, count in TOPICS.items():
            raw.create_topic(topic, count)
        (found,) = raw.call(FindCoordinatorRequest(coordinator_keys=["g"])).coordinators
        assert found.error_code == ErrorCode.NONE, found


def join(raw: RawConnection, group: str, instance_id: str | None = None) -> tuple[str, int]:
    """Become the only member of a group of the classic protocol; returns member id and generation."""
    request = JoinGroupRequest(
        group_id=group,
        session_timeout_ms=45_000,
        rebalance_timeout_ms=60_000,
        group_instance_id=instance_id,
        protocol_type="consumer",
        protocols=[JoinGroupRequestProtocol(name="range", metadata=b"\0\0\0\0\0\0\xff\xff\xff\xff")],
    )
    answer = raw.call(request)
    if answer.error_code == ErrorCode.MEMBER_ID_REQUIRED:
        request.member_id = answer.member_id
        answer = raw.call(request)
    assert answer.error_code == ErrorCode.NONE, answer
    sync = SyncGroupRequest(
        group_id=group,
        generation_id=answer.generation_id,
        member_id=answer.member_id,
        group_instance_id=instance_id,
        protocol_type="consumer",
        protocol_name="range",
        assignments=[SyncGroupRequestAssignment(member_id=answer.member_id, assignment=b"x")],
    )
    assert raw.call(sync).error_code == ErrorCode.NONE
    return answer.member_id, answer.generation_id


def commit_request(
    group: str, offset: int, *, member_id: str = "", generation: int = -1, topic: str = "a", index: int = 0
) -> OffsetCommitRequest:
    data = OffsetCommitRequestPartition(partition_index=index, committed_offset=offset)
    return OffsetCommitRequest(
        group_id=group,
        generation_id_or_member_epoch=generation,
        member_id=member_id,
        topics=[OffsetCommitRequestTopic(name=topic, partitions=[data])],
    )


def code_of(raw: RawConnection, request: OffsetCommitRequest, version: int | None = None) -> int:
    code: int = raw.call(request, version).topics[0].partitions[0].error_code
    return code


class _Members:
    """The groups that both brokers have, and who is in them: member ids differ from broker to broker."""

    def __init__(self, served: BrokerThread) -> None:
        with RawConnection(served.bootstrap_servers) as raw:
            self.ids = {"classic": join(raw, "classic"), "static": join(raw, "static", INSTANCE)}
            heartbeat = ConsumerGroupHeartbeatRequest(
                group_id="new",
                member_id="m" * 22,
                member_epoch=0,
                rebalance_timeout_ms=60_000,
                subscribed_topic_names=["a-longer-name"],
                topic_partitions=[],
            )
            answer = raw.call(heartbeat)
            assert answer.error_code == ErrorCode.NONE, answer
            self.ids["new"] = (answer.member_id, answer.member_epoch)


def _partition(source: random.Random, count: int) -> OffsetCommitRequestPartition:
    return OffsetCommitRequestPartition(
        partition_index=source.randrange(count) if source.random() < 0.95 else source.choice((-1, count, 1 << 30)),
        committed_offset=source.choice((0, 1, 2**31, 2**63 - 1, -1, source.randrange(2**40))),
        committed_leader_epoch=source.choice((-1, 0, 5)),
        committed_metadata=source.choice(("", "", "", None, "text", "x" * 5000)) if source.random() < 0.2 else "",
    )


def _request(source: random.Random, version: int, groups: list[str], members: _Members) -> bytes:
    group = source.choice(groups)
    member_id, generation = members.ids.get(group, ("", -1))
    if source.random() < 0.1:
        generation += source.choice((-1, 1))
    if source.random() < 0.05:
        member_id = source.choice(("", "a stranger"))
    names = source.sample(list(TOPICS) if source.random() < 0.4 else ["a"], 1)
    if source.random() < 0.05:
        names = source.sample([*TOPICS, "missing"], 2)
    topics = []
    for name in names:
        count = TOPICS.get(name, 1)
        rows = 1 if source.random() < 0.7 else source.choice((0, 2, 3, 126, 127, 128, 200))
        topics.append(OffsetCommitRequestTopic(name=name, partitions=[_partition(source, count) for _ in range(rows)]))
    request = OffsetCommitRequest(
        group_id=group,
        generation_id_or_member_epoch=generation,
        member_id=member_id,
        group_instance_id=INSTANCE if group == "static" and version >= 7 else None,
        retention_time_ms=source.choice((-1, 3_600_000)) if version <= 4 and source.random() < 0.2 else -1,
        topics=topics,
    )
    client_id = source.choice(CLIENT_IDS) if source.random() < 0.2 else "c"
    data = bytearray(encode_request(request, version, source.randrange(2**31), client_id))
    if version >= 8 and source.random() < 0.1:
        # A tagged field that nobody knows, at the request's end.
        data[-1:] = b"\x01\x63\x02hi"
    return bytes(data)


def _answers(served: BrokerThread, stream: list[bytes], chunk_size: int) -> list[bytes]:
    with RawConnection(served.bootstrap_servers) as raw:
        data = b"".join(map(frame_of, stream))
        for position in range(0, len(data), chunk_size):
            raw.send(data[position : position + chunk_size])
        return [raw.receive() for _ in stream]


def _records(broker: Broker) -> list[list[tuple[int, Any, Any]]]:
    """The commits in the log by partition, without their times."""
    found = []
    for partition in sorted(broker.partitions.of_topic(OFFSETS), key=lambda partition: partition.index):
        log = partition.log
        assert log is not None
        records = []
        offset = log.log_start_offset
        while offset < partition.high_watermark:
            read = log.read(offset, 1 << 20, end_offset=partition.high_watermark)
            offset = read.next_offset
            for header, batch in iter_batches(read.data):
                for record in iter_payload(header, read_payload(batch)):
                    decoded = decode_record(record.key or b"", record.value)
                    if decoded is not None and type(decoded[0]) is OffsetCommitKey:
                        value = decoded[1]
                        assert isinstance(value, OffsetCommitValue)
                        value.commit_timestamp = 0
                        value.expire_timestamp = min(value.expire_timestamp, 0)
                        records.append((record.offset, *decoded))
        found.append(records)
    return found


def _counted(broker: Broker) -> list[float]:
    metrics = broker.metrics.request(ApiKey.OFFSET_COMMIT)
    return [*(metrics.version(version).value for version in VERSIONS), metrics.error(ErrorCode.NONE).value]


@pytest.mark.parametrize("seed", range(3))
def test_both_paths_answer_and_store_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    source = random.Random(seed)
    settings = {**SETTINGS, "group.initial.rebalance.delay.ms": "0", "socket.request.max.bytes": "1000000"}
    with BrokerThread(tmp_path / "fast", settings) as fast, BrokerThread(tmp_path / "slow", settings) as slow:
        for served in (fast, slow):
            prepare(served)
        members = {served: _Members(served) for served in (fast, slow)}
        for version in VERSIONS:
            _Counting.accepted_count = 0
            for _ in range(4):
                groups = source.sample(GROUPS, 2)
                state = source.getstate()
                answers = []
                for served, path in ((fast, _Counting), (slow, _NeverLearns)):
                    source.setstate(state)
                    stream = [_request(source, version, groups, members[served]) for _ in range(60)]
                    monkeypatch.setattr(fast_commit, "FastCommit", path)
                    answers.append(_answers(served, stream, source.choice((1 << 20, 70_001, 5003))))
                assert answers[0] == answers[1], f"seed {seed}, version {version}, {groups}"
            assert _Counting.accepted_count > 30, f"the fast path took {_Counting.accepted_count}"
        assert fast.call(_records) == slow.call(_records), f"seed {seed}"
        assert fast.call(_counted) == slow.call(_counted), f"seed {seed}"
        with RawConnection(fast.bootstrap_servers) as one, RawConnection(slow.bootstrap_servers) as other:
            for group in GROUPS:
                assert committed(one, group) == committed(other, group), f"seed {seed}, group {group}"


def test_a_member_that_left_commits_no_more(raw: RawConnection, counting: type[_Counting]) -> None:
    member_id, generation = join(raw, "g")
    ask = partial(commit_request, "g", member_id=member_id, generation=generation)
    assert [code_of(raw, ask(offset)) for offset in (1, 2, 3)] == [ErrorCode.NONE] * 3
    assert counting.accepted_count == 2
    assert code_of(raw, commit_request("g", 4)) == ErrorCode.UNKNOWN_MEMBER_ID
    leave = LeaveGroupRequest(group_id="g", members=[MemberIdentity(member_id=member_id)])
    assert raw.call(leave).error_code == ErrorCode.NONE
    assert code_of(raw, ask(5)) == ErrorCode.UNKNOWN_MEMBER_ID
    joined, generation = join(raw, "g")
    assert code_of(raw, ask(6)) == ErrorCode.UNKNOWN_MEMBER_ID
    ask = partial(commit_request, "g", member_id=joined, generation=generation)
    assert code_of(raw, ask(7)) == ErrorCode.NONE
    assert code_of(raw, commit_request("g", 8, member_id=joined, generation=generation - 1)) == (
        ErrorCode.ILLEGAL_GENERATION
    )
    assert committed(raw, "g") == {0: 7}


def test_a_commit_is_a_sign_of_life(served: BrokerThread, raw: RawConnection, counting: type[_Counting]) -> None:
    member_id, generation = join(raw, "g")

    def deadline(broker: Broker) -> int:
        group: Any = broker.coordinators.shard_of("g").groups["g"]
        ends: int = group.members[member_id].session.deadline_ms
        return ends

    before = served.call(deadline)
    ask = partial(commit_request, "g", member_id=member_id, generation=generation)
    wait_until(
        lambda: code_of(raw, ask(1)) == ErrorCode.NONE and served.call(deadline) > before and counting.accepted_count,
        DEADLINE_S,
        "a session that a commit made longer",
    )


def test_a_deleted_topic_is_noticed(raw: RawConnection, counting: type[_Counting]) -> None:
    assert [code_of(raw, commit_request("g", offset)) for offset in (1, 2)] == [ErrorCode.NONE] * 2
    assert counting.accepted_count == 1
    answer = raw.call(DeleteTopicsRequest(topics=[DeleteTopicState(name="a")], timeout_ms=10_000))
    assert answer.responses[0].error_code == ErrorCode.NONE
    assert code_of(raw, commit_request("g", 3)) == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    raw.create_topic("a", 1)
    assert [code_of(raw, commit_request("g", offset)) for offset in (4, 5)] == [ErrorCode.NONE] * 2
    assert code_of(raw, commit_request("g", 6, index=1)) == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert committed(raw, "g") == {0: 5}


def test_who_may_no_more_is_refused(served: BrokerThread, raw: RawConnection, counting: type[_Counting]) -> None:
    assert [code_of(raw, commit_request("g", offset)) for offset in (1, 2)] == [ErrorCode.NONE] * 2
    allowed = served.call(lambda broker: broker.authorizer)
    served.call(lambda broker: setattr(broker, "authorizer", DenyAll()))
    assert code_of(raw, commit_request("g", 3)) == ErrorCode.GROUP_AUTHORIZATION_FAILED
    served.call(lambda broker: setattr(broker, "authorizer", allowed))
    assert committed(raw, "g") == {0: 2}
    assert counting.accepted_count == 1


def test_a_write_that_fails_is_refused_and_never_seen(
    raw: RawConnection, disk: FaultyDisk, counting: type[_Counting]
) -> None:
    for version in (VERSIONS.start, VERSIONS.stop - 1):
        assert settled(partial(code_of, raw, commit_request("g", 1), version)) == ErrorCode.NONE
        counting.accepted_count = 0
        disk.fail("pwritev", errno.ENOSPC, path=OFFSETS)
        assert code_of(raw, commit_request("g", 2), version) == ErrorCode.NOT_COORDINATOR
        assert counting.accepted_count == 1
        assert settled(lambda: committed(raw, "g")) == {0: 1}
        assert [code_of(raw, commit_request("g", offset), version) for offset in (3, 4)] == [ErrorCode.NONE] * 2
        assert counting.accepted_count == 3, "what was learned counts for the new shard"
        assert committed(raw, "g") == {0: 4}


def test_a_mistake_of_ours_is_answered_and_leaves_the_connection_alone(
    raw: RawConnection, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from millstream.core.groups.offsets import Offsets

    assert code_of(raw, commit_request("g", 1)) == ErrorCode.NONE
    with monkeypatch.context() as patched:

        def broken(*_: object) -> None:
            raise RuntimeError("ours")

        patched.setattr(Offsets, "put", broken)
        assert code_of(raw, commit_request("g", 2)) == ErrorCode.UNKNOWN_SERVER_ERROR
    assert "ours" in caplog.text
    assert code_of(raw, commit_request("g", 3)) == ErrorCode.NONE
    assert committed(raw, "g") == {0: 3}


def test_nobody_waits_longer_than_the_operator_says_and_who_hangs_up_leaves_nothing_behind(
    tmp_path: Path, counting: type[_Counting]
) -> None:
    disk = HeldDisk()
    settings = {**SETTINGS, "offsets.commit.timeout.ms": "200", "log.flush.interval.messages": "1"}
    with BrokerThread(tmp_path / "data", settings, disk) as served:
        prepare(served)
        with RawConnection(served.bootstrap_servers) as raw, RawConnection(served.bootstrap_servers) as other:
            for connection in (raw, other):
                assert code_of(connection, commit_request("g", 1)) == ErrorCode.NONE
            disk.released.clear()
            try:
                other.send(other.encode(commit_request("g", 2)))
                wait_until(lambda: counting.accepted_count == 1, DEADLINE_S, "the commit of the other one")
                other.socket.close()

                def unanswered(broker: Broker) -> int:
                    return len(broker.coordinators.host_of("g")._unanswered)

                wait_until(lambda: not served.call(unanswered), DEADLINE_S, "an answer nobody wants to be forgotten")
                assert code_of(raw, commit_request("g", 3)) == ErrorCode.COORDINATOR_NOT_AVAILABLE
                assert counting.accepted_count == 2
            finally:
                disk.released.set()
            # Both were written all the same, in their order.
            assert code_of(raw, commit_request("g", 4, index=1)) == ErrorCode.NONE
            assert committed(raw, "g") == {0: 3, 1: 4}


def test_what_is_remembered_is_bounded(served: BrokerThread, raw: RawConnection, counting: type[_Counting]) -> None:
    for number in range(2 * PLANS_COUNT_MAX):
        group = f"group-{number}"
        assert [code_of(raw, commit_request(group, offset)) for offset in (1, 2)] == [ErrorCode.NONE] * 2
    assert counting.accepted_count == 2 * PLANS_COUNT_MAX

    def plans(broker: Broker) -> int:
        connections: Any = broker.connections
        return max(len(each._fast_commit._plans) for each in connections if each._fast_commit is not None)

    assert 0 < served.call(plans) <= PLANS_COUNT_MAX


def test_many_partitions_take_either_path(raw: RawConnection, counting: type[_Counting]) -> None:
    for version in VERSIONS:
        counting.accepted_count = 0
        for count in (1, 2, 126, 127, 130):
            rows = [OffsetCommitRequestPartition(partition_index=i, committed_offset=count + i) for i in range(count)]
            request = OffsetCommitRequest(group_id="g", topics=[OffsetCommitRequestTopic(name="a", partitions=rows)])
            answer = raw.call(request, version)
            (topic,) = answer.topics
            assert [(one.partition_index, one.error_code) for one in topic.partitions] == [(i, 0) for i in range(count)]
            assert committed(raw, "g").items() >= {i: count + i for i in range(count)}.items()
        # The first is learned. In the compact form a count of more than 126 takes two bytes.
        assert counting.accepted_count == (2 if version >= 8 else 4), version


def test_a_request_that_ends_early_is_refused(raw: RawConnection) -> None:
    whole = raw.encode(commit_request("g", 1))
    raw.send(whole)
    raw.receive()
    cut = frame_of(whole[4:-1])
    assert struct.unpack_from(">i", cut)[0] == len(whole) - 5
    raw.send(cut)
    with pytest.raises(Exception, match="closed"):
        raw.receive()
