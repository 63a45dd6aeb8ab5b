"""Group coordinators on a real broker: restarts, disks that fail or are slow, loads, and the topic they live in."""

from __future__ import annotations

import asyncio
import errno
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.support.broker_thread import BrokerThread

from millstream.core.broker import Broker, shard_host
from millstream.core.broker.handlers.produce import INTERNAL_CLIENT_ID
from millstream.core.groups.partitioning import partition_for
from millstream.core.groups.records import OffsetCommitKey, OffsetCommitValue, encode_record
from millstream.core.groups.shard import GroupShard
from millstream.core.metrics import render_pieces
from millstream.core.records import BatchBuilder, Compression, read_header, read_payload
from millstream.core.wire import ApiKey, ErrorCode, decode, encode_request, error_code, parse_response_header
from millstream.core.wire.messages.delete_topics import DeleteTopicsRequest, DeleteTopicState
from millstream.core.wire.messages.find_coordinator import FindCoordinatorRequest
from millstream.core.wire.messages.list_groups import ListGroupsRequest
from millstream.core.wire.messages.metadata import MetadataRequest, MetadataRequestTopic
from millstream.core.wire.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from millstream.core.wire.messages.offset_fetch import OffsetFetchRequest, OffsetFetchRequestGroup
from millstream.core.wire.messages.produce import (
    PartitionProduceData,
    ProduceRequest,
    ProduceResponse,
    TopicProduceData,
)
from millstream.testing.faulty_disk import FaultyDisk
from millstream.testing.raw import RawConnection, frame_of

DEADLINE_S = 90.0
OFFSETS = "__consumer_offsets"
SETTLING = (ErrorCode.NOT_COORDINATOR, ErrorCode.COORDINATOR_LOAD_IN_PROGRESS)
PARTITIONS = 4
SETTINGS = {"offsets.topic.num.partitions": str(PARTITIONS)}


def commit_request(group: str, offset: int, partition: int = 0) -> Any:
    data = OffsetCommitRequestPartition(partition_index=partition, committed_offset=offset, committed_metadata="text")
    return OffsetCommitRequest(group_id=group, topics=[OffsetCommitRequestTopic(name="t", partitions=[data])])


def commit(raw: RawConnection, group: str, offset: int) -> int:
    response = raw.call(commit_request(group, offset))
    code: int = response.topics[0].partitions[0].error_code
    return code


def committed(raw: RawConnection, group: str) -> Any:
    request = OffsetFetchRequest(groups=[OffsetFetchRequestGroup(group_id=group, topics=None)])
    (answer,) = raw.call(request).groups
    if answer.error_code:
        return error_code(answer.error_code)
    return {p.partition_index: p.committed_offset for topic in answer.topics for p in topic.partitions}


def settled(ask: Callable[[], Any]) -> Any:
    """Ask until the coordinator serves."""
    deadline = time.monotonic() + DEADLINE_S
    while (answer := ask()) in SETTLING:
        assert time.monotonic() < deadline, f"still {answer!r}"
        time.sleep(0.01)
    return answer


def create(raw: RawConnection) -> None:
    raw.create_topic("t", 2)
    find(raw)


def find(raw: RawConnection) -> None:
    (found,) = raw.call(FindCoordinatorRequest(coordinator_keys=["g"])).coordinators
    assert found.error_code == ErrorCode.NONE, found


@pytest.fixture
def disk() -> FaultyDisk:
    return FaultyDisk()


@pytest.fixture
def served(tmp_path: Path, disk: FaultyDisk) -> Iterator[BrokerThread]:
    with BrokerThread(tmp_path / "data", SETTINGS, disk) as broker:
        with RawConnection(broker.bootstrap_servers) as raw:
            create(raw)
        yield broker
        disk.heal()


@pytest.fixture
def raw(served: BrokerThread) -> Iterator[RawConnection]:
    with RawConnection(served.bootstrap_servers) as connection:
        yield connection


def test_there_is_no_coordinator_before_somebody_asks_for_one(tmp_path: Path) -> None:
    with BrokerThread(tmp_path / "data", SETTINGS) as broker, RawConnection(broker.bootstrap_servers) as raw:
        raw.create_topic("t", 1)
        assert commit(raw, "g", 1) == ErrorCode.NOT_COORDINATOR
        assert broker.call(lambda broker: OFFSETS not in broker.metadata.image.topics)
        for version in range(7):
            answer = raw.call(FindCoordinatorRequest(key="g", coordinator_keys=["g"]), version)
            found = answer.coordinators[0] if version >= 4 else answer
            assert (found.error_code, f"{found.host}:{found.port}") == (ErrorCode.NONE, broker.bootstrap_servers)
        assert commit(raw, "g", 1) == ErrorCode.NONE
        topic = broker.call(lambda broker: broker.metadata.image.topics[OFFSETS])
        assert len(topic.partitions) == PARTITIONS
        assert topic.configs == {
            "cleanup.policy": "compact",
            "compression.type": "producer",
            "segment.bytes": "104857600",
        }


def test_a_client_that_asks_for_the_topic_gets_it_as_the_coordinator_makes_it(tmp_path: Path) -> None:
    with BrokerThread(tmp_path / "data", SETTINGS) as broker, RawConnection(broker.bootstrap_servers) as raw:
        (topic,) = raw.call(MetadataRequest(topics=[MetadataRequestTopic(name=OFFSETS)])).topics
        assert (len(topic.partitions), topic.is_internal) == (PARTITIONS, True)


@pytest.mark.parametrize("clean", [True, False])
def test_a_restart_keeps_offsets(tmp_path: Path, clean: bool) -> None:
    groups = {f"group-{number}": number for number in range(40)}
    disk = FaultyDisk()
    with BrokerThread(tmp_path / "data", SETTINGS, disk) as broker, RawConnection(broker.bootstrap_servers) as raw:
        create(raw)
        for group, offset in groups.items():
            assert commit(raw, group, offset) == ErrorCode.NONE
    if not clean:
        (tmp_path / "data" / ".kafka_cleanshutdown").unlink()
    with BrokerThread(tmp_path / "data", SETTINGS) as broker, RawConnection(broker.bootstrap_servers) as raw:
        for group, offset in groups.items():
            assert settled(partial(committed, raw, group)) == {0: offset}
        listed = raw.call(ListGroupsRequest())
        assert (listed.error_code, {each.group_id for each in listed.groups}) == (ErrorCode.NONE, set(groups))


def test_a_write_that_fails_is_refused_and_never_seen(
    served: BrokerThread, raw: RawConnection, disk: FaultyDisk
) -> None:
    assert commit(raw, "g", 1) == ErrorCode.NONE
    disk.fail("pwritev", errno.ENOSPC, path=OFFSETS)
    assert commit(raw, "g", 2) == ErrorCode.NOT_COORDINATOR
    assert settled(lambda: committed(raw, "g")) == {0: 1}
    assert settled(lambda: commit(raw, "g", 3)) == ErrorCode.NONE
    assert committed(raw, "g") == {0: 3}


def test_everybody_who_waits_on_a_failed_write_is_refused(
    served: BrokerThread, raw: RawConnection, disk: FaultyDisk
) -> None:
    assert commit(raw, "g", 1) == ErrorCode.NONE
    disk.fail("pwritev", errno.ENOSPC, path=OFFSETS)
    with RawConnection(served.bootstrap_servers) as other:
        # One frame behind the other: both are taken before the pass in which they are written ends.
        other.send(other.encode(commit_request("g", 2)))
        raw.send(raw.encode(commit_request("g", 3)))
        for each in (other, raw):
            each.receive()
    assert settled(lambda: committed(raw, "g"))[0] in {1, 2, 3}


def test_a_coordinator_that_fails_again_and_again_comes_back(
    served: BrokerThread, raw: RawConnection, disk: FaultyDisk
) -> None:
    assert commit(raw, "g", 1) == ErrorCode.NONE
    for offset in range(2, 5):
        disk.fail("pwritev", errno.ENOSPC, path=OFFSETS)
        assert settled(partial(commit, raw, "g", offset)) in {ErrorCode.NOT_COORDINATOR, ErrorCode.NONE}
    disk.heal()
    assert settled(lambda: commit(raw, "g", 9)) == ErrorCode.NONE


def test_a_disk_that_is_gone_takes_its_coordinators_along(
    served: BrokerThread, raw: RawConnection, disk: FaultyDisk
) -> None:
    assert commit(raw, "g", 1) == ErrorCode.NONE
    disk.fail("pwritev", errno.EIO, path=OFFSETS)
    assert commit(raw, "g", 2) == ErrorCode.NOT_COORDINATOR
    deadline = time.monotonic() + DEADLINE_S
    while (code := commit(raw, "g", 3)) != ErrorCode.NOT_COORDINATOR:
        assert code == ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
        assert time.monotonic() < deadline, "it is tried again for ever"


def test_the_topic_may_be_deleted_and_comes_back_empty(raw: RawConnection) -> None:
    assert commit(raw, "g", 1) == ErrorCode.NONE
    deletion = raw.call(DeleteTopicsRequest(topics=[DeleteTopicState(name=OFFSETS)], timeout_ms=30_000))
    assert deletion.responses[0].error_code == ErrorCode.NONE
    assert commit(raw, "g", 2) == ErrorCode.NOT_COORDINATOR
    find(raw)
    assert committed(raw, "g") == {}
    assert commit(raw, "g", 3) == ErrorCode.NONE


def test_clients_do_not_write_to_the_topic_unless_they_say_that_they_know(raw: RawConnection) -> None:
    data = PartitionProduceData(index=0, records=batch([("g", 0, 1)]))
    request = ProduceRequest(acks=-1, topic_data=[TopicProduceData(name=OFFSETS, partition_data=[data])])
    for _ in range(3):  # the fast path may have learned the form
        (topic,) = raw.call(request, 9).responses
        assert topic.partition_responses[0].error_code == ErrorCode.INVALID_TOPIC_EXCEPTION


def produce_as_operator(raw: RawConnection, codec: Compression) -> int:
    data = PartitionProduceData(index=0, records=batch([("g", 0, 1)], codec))
    request = ProduceRequest(acks=-1, topic_data=[TopicProduceData(name=OFFSETS, partition_data=[data])])
    raw.send(frame_of(encode_request(request, 9, 1, INTERNAL_CLIENT_ID)))
    answer = raw.receive()
    _, position = parse_response_header(ApiKey.PRODUCE, 9, answer)
    response: ProduceResponse = decode(ProduceResponse, 9, answer, position)[0]
    code: int = response.responses[0].partition_responses[0].error_code
    return code


@pytest.mark.parametrize(
    ("codec", "broken"),
    [
        (Compression.NONE, "validate_batch"),
        (Compression.NONE, "Partition._reserve"),
        (Compression.GZIP, "open_batch"),
        (Compression.GZIP, "Partition._reserve"),
    ],
)
def test_a_mistake_of_ours_is_answered_to_the_operator(
    raw: RawConnection, monkeypatch: pytest.MonkeyPatch, codec: Compression, broken: str
) -> None:
    """Who writes to the topic by the client id that may do so hears of it, wherever in the produce it happens."""

    def fail(*_given: object, **_named: object) -> None:
        raise RuntimeError("a mistake")

    assert produce_as_operator(raw, codec) == ErrorCode.NONE
    with monkeypatch.context() as patched:
        patched.setattr(f"millstream.core.broker.partition.{broken}", fail)
        assert produce_as_operator(raw, codec) == ErrorCode.UNKNOWN_SERVER_ERROR
    assert produce_as_operator(raw, codec) == ErrorCode.NONE


def batch(offsets: list[tuple[str, int, int]], codec: Compression = Compression.NONE) -> bytes:
    builder = BatchBuilder(compression=codec)
    for group, partition, offset in offsets:
        key = OffsetCommitKey(group=group, topic="t", partition=partition)
        builder.append(1, *encode_record(key, OffsetCommitValue(offset=offset)))
    return bytes(builder.build())


@pytest.mark.parametrize("codec", list(Compression))
def test_a_large_log_is_loaded_without_keeping_the_loop(
    served: BrokerThread, codec: Compression, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches of every codec, in many pieces, with one of nonsense: the loop is never kept for long."""
    count = 20_000
    index = partition_for("g", PARTITIONS)
    batches = [
        batch([("g", number % 2, number) for number in range(start, start + 1000)], codec)
        for start in range(0, count, 1000)
    ]
    nonsense = BatchBuilder()
    nonsense.append(1, b"\x00", b"")
    nonsense.append(1, b"\x00\x01\x00", b"\x00\x63")
    batches.insert(1, bytes(nonsense.build()))

    def write(broker: Broker) -> None:
        partition = broker.partitions.leader(OFFSETS, index)
        for data in batches:
            partition.append(data, -1, 1)
        broker.appends.submit()

    served.call(write)
    # Batches that have to be opened are appended from threads, after the call.
    deadline = time.monotonic() + DEADLINE_S
    while (end := served.call(lambda broker: broker.partitions.leader(OFFSETS, index).log_end_offset)) < count + 2:
        assert time.monotonic() < deadline, f"the log ends at {end}"
        time.sleep(0.01)
    steps = Steps(monkeypatch)
    served.settings["offsets.load.buffer.size"] = "65536"
    served.stop()
    served.start()
    with RawConnection(served.bootstrap_servers) as raw:
        assert settled(partial(committed, raw, "g")) == {0: count - 2, 1: count - 1}
    assert steps.total == count + 2, "each record once"
    assert 0 < steps.greatest <= shard_host.RECORDS_PER_LOOK
    loop_thread = served.call(lambda _broker: threading.get_ident())
    assert codec is Compression.NONE or (steps.opened_by and loop_thread not in steps.opened_by)


class Steps:
    """What loads do in one pass of the loop, where a slice has no time at all: then the passes can be counted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.total = 0
        self.greatest = 0
        # Threads that compressed batches were opened by.
        self.opened_by: set[int] = set()
        self._in_this_pass = 0
        replay = GroupShard.replay

        def counted(shard: GroupShard, key: bytes | None, value: bytes | None, **fields: Any) -> None:
            if not self._in_this_pass:
                asyncio.get_running_loop().call_soon(self._end_pass)
            self._in_this_pass += 1
            self.total += 1
            self.greatest = max(self.greatest, self._in_this_pass)
            replay(shard, key, value, **fields)

        def noted(batch: memoryview) -> Any:
            if read_header(batch).compression is not Compression.NONE:
                self.opened_by.add(threading.get_ident())
            return read_payload(batch)

        monkeypatch.setattr(shard_host, "SLICE_S", 0.0)
        monkeypatch.setattr(shard_host, "read_payload", noted)
        monkeypatch.setattr(GroupShard, "replay", counted)

    def _end_pass(self) -> None:
        self._in_this_pass = 0


def test_expired_offsets_go_by_themselves(tmp_path: Path) -> None:
    settings = {**SETTINGS, "offsets.retention.check.interval.ms": "50"}
    with BrokerThread(tmp_path / "data", settings) as broker, RawConnection(broker.bootstrap_servers) as raw:
        create(raw)
        request = commit_request("g", 1)
        request.retention_time_ms = 1
        raw.call(request, 4)
        deadline = time.monotonic() + DEADLINE_S
        while raw.call(ListGroupsRequest()).groups:
            assert time.monotonic() < deadline, "the offset does not expire"
            time.sleep(0.01)


def test_groups_and_offsets_are_counted(served: BrokerThread, raw: RawConnection) -> None:
    for group in ("g", "h"):
        assert commit(raw, group, 1) == ErrorCode.NONE
    registry = served.broker.metrics.registry
    text = served.call(lambda _broker: "".join(render_pieces(registry, 0)))
    assert 'kafka_server_group_coordinator_metrics_group_count{protocol="classic",state="Empty"} 2' in text
    assert "kafka_coordinator_group_groupmetadatamanager_numoffsets 2" in text
    assert f'kafka_server_group_coordinator_metrics_num_partitions{{state="active"}} {PARTITIONS}' in text


def test_nothing_is_asked_of_a_coordinator_whose_sessions_have_not_begun(
    served: BrokerThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be told of new topics and have to write meanwhile; all of it counts once it serves."""
    resume, may_end = GroupShard.resume, threading.Event()

    def held(shard: GroupShard, now_ms: int) -> Iterator[None]:
        while shard.groups and not may_end.is_set():
            yield
        yield from resume(shard, now_ms)

    with RawConnection(served.bootstrap_servers) as raw:
        assert settled(lambda: commit(raw, "g", 1)) == ErrorCode.NONE
    served.stop()
    monkeypatch.setattr(GroupShard, "resume", held)
    monkeypatch.setattr("millstream.core.broker.shard_host.SLICE_S", 0.0)
    served.start()
    with RawConnection(served.bootstrap_servers) as raw:
        raw.create_topic("later", 1)
        assert commit(raw, "g", 2) == ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
        may_end.set()
        assert settled(lambda: commit(raw, "g", 3)) == ErrorCode.NONE
        assert committed(raw, "g") == {0: 3}
        images = served.call(lambda broker: {"later" in shard.image.topics for shard in broker.coordinators.shards()})
        assert images == {True}
