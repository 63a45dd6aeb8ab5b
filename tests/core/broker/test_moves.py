"""AlterReplicaLogDirs: a replica moves between directories while clients write and read it, and what is told of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.core.broker.admin_requests import move
from tests.support.broker_thread import BrokerThread

from millstream.core.records import BatchBuilder
from millstream.core.wire import ErrorCode
from millstream.core.wire.messages import describe_log_dirs, incremental_alter_configs
from millstream.testing.kafka import wait_until
from millstream.testing.raw import RawConnection

TOPIC = "moves"
RATE = "replica.alter.log.dirs.io.max.bytes.per.second"


def batch(number: int, size_bytes: int = 1000) -> bytes:
    builder = BatchBuilder()
    builder.append(1_700_000_000_000, None, b"%d " % number + b"x" * size_bytes)
    return bytes(builder.build())


@pytest.fixture
def served(tmp_path: Path) -> Iterator[BrokerThread]:
    settings = {"log.dirs": f"{tmp_path}/one,{tmp_path}/two", "log.retention.ms": "-1"}
    with BrokerThread(tmp_path / "one", settings) as broker:
        yield broker


def place(served: BrokerThread, topic: str = TOPIC, index: int = 0) -> Path:
    def find(broker: Any) -> Path:
        return Path(broker.partitions.get(topic, index).log.path)

    return served.call(find)


def describe(raw: RawConnection) -> dict[str, list[Any]]:
    """What is told of partition 0, by the names of directories."""
    topics = [describe_log_dirs.DescribableLogDirTopic(topic=TOPIC, partitions=[0])]
    answer = raw.call(describe_log_dirs.DescribeLogDirsRequest(topics=topics))
    return {
        Path(result.log_dir).name: [partition for topic in result.topics for partition in topic.partitions]
        for result in answer.results
    }


def set_rate(raw: RawConnection, rate: int) -> None:
    config = incremental_alter_configs.AlterableConfig(name=RATE, config_operation=0, value=str(rate))
    resource = incremental_alter_configs.AlterConfigsResource(resource_type=4, resource_name="1", configs=[config])
    answer = raw.call(incremental_alter_configs.IncrementalAlterConfigsRequest(resources=[resource]))
    assert answer.responses[0].error_code == 0, answer


def codes(answer: Any) -> list[int]:
    return [partition.error_code for topic in answer.results for partition in topic.partitions]


def test_under_load_nobody_notices(served: BrokerThread, tmp_path: Path) -> None:
    with RawConnection(served.bootstrap_servers) as raw:
        raw.create_topic(TOPIC, segment_bytes=1_048_576)
    home = place(served).parent
    away = next(path for path in (tmp_path / "one", tmp_path / "two") if path != home)
    stop, written = threading.Event(), threading.Event()
    sent: list[int] = []
    failures: list[BaseException] = []
    read: list[bytes] = []

    def write() -> None:
        try:
            with RawConnection(served.bootstrap_servers) as raw:
                while not stop.is_set():
                    answer = raw.produce(TOPIC, 0, batch(len(sent), 4000))
                    assert answer.error_code == 0
                    assert answer.base_offset == len(sent)
                    sent.append(answer.base_offset)
        except BaseException as error:
            failures.append(error)

    def consume() -> None:
        try:
            with RawConnection(served.bootstrap_servers) as raw:
                offset = 0
                while not written.is_set() or offset < len(sent):
                    answer = raw.fetch(TOPIC, 0, offset, wait_ms=50)
                    assert answer.error_code == 0
                    data = bytes(answer.records or b"")
                    read.append(data)
                    offset += data.count(b" xxxx")
        except BaseException as error:
            failures.append(error)

    def wait_for_more(count: int) -> None:
        wait_until(lambda: len(sent) > count or failures, 90, "records")

    def wait_for_arrival(target: Path) -> None:
        wait_until(lambda: place(served).parent == target or failures, 90, "the move")

    threads = [threading.Thread(target=write), threading.Thread(target=consume)]
    for thread in threads:
        thread.start()
    with RawConnection(served.bootstrap_servers) as raw:
        for target in (away, home, away):
            wait_for_more(len(sent) + 300)
            assert codes(raw.call(move((str(target), [(TOPIC, [0])])))) == [0]
            wait_for_arrival(target)
    stop.set()
    threads[0].join(90)
    written.set()  # only now is the last record known to whoever reads
    threads[1].join(90)
    assert failures == []
    assert place(served).parent == away
    # What consumers were given is what lies there now, byte for byte.
    served.stop()
    stored = b"".join(path.read_bytes() for path in sorted((away / f"{TOPIC}-0").glob("*.log")))
    assert b"".join(read) == stored
    assert not (home / f"{TOPIC}-0").exists()
    with served, RawConnection(served.bootstrap_servers) as raw:
        assert raw.offset(TOPIC, 0) == len(sent)


def test_a_move_is_told_and_throttled_and_turned_back(served: BrokerThread, tmp_path: Path) -> None:
    with RawConnection(served.bootstrap_servers) as raw:
        raw.create_topic(TOPIC, segment_bytes=1_048_576)
        for number in range(60):
            assert raw.produce(TOPIC, 0, batch(number, 100_000)).error_code == 0
        home = place(served).parent
        away = next(path for path in (tmp_path / "one", tmp_path / "two") if path != home)
        set_rate(raw, 1000)
        assert codes(raw.call(move((str(away), [(TOPIC, [0])])))) == [0]
        assert codes(raw.call(move((str(away), [(TOPIC, [0])])))) == [0]

        def under_way() -> bool:
            return bool(describe(raw)[away.name]) and describe(raw)[away.name][0].partition_size > 0

        wait_until(under_way, 90, "the copy")
        told = describe(raw)
        (current,), (future,) = told[home.name], told[away.name]
        assert (current.is_future_key, current.offset_lag) == (False, 0)
        assert future.is_future_key
        assert future.offset_lag > 40
        assert 0 < future.partition_size < current.partition_size
        # A restart goes on with it.
        served.stop()
    with served, RawConnection(served.bootstrap_servers) as raw:
        wait_until(lambda: bool(describe(raw)[away.name]), 90, "the move that goes on")
        assert describe(raw)[away.name][0].is_future_key
        assert codes(raw.call(move((str(home), [(TOPIC, [0])])))) == [0]  # back to where it is
        assert describe(raw)[away.name] == []
        set_rate(raw, 2**40)
        assert codes(raw.call(move((str(away), [(TOPIC, [0])])))) == [0]
        wait_until(lambda: place(served).parent == away, 90, "the move")
        (told_now,) = describe(raw)[away.name]
        assert not told_now.is_future_key
        assert raw.fetch(TOPIC, 0, 59).error_code == 0
        assert describe(raw)[home.name] == []


def test_what_cannot_be_moved(served: BrokerThread, tmp_path: Path) -> None:
    two = str(tmp_path / "two")
    with RawConnection(served.bootstrap_servers) as raw:
        raw.create_topic(TOPIC)
        answer = raw.call(move(("/nowhere", [(TOPIC, [0])]), (two, [("later", [0, 1, 2, 3, 4])])))
        assert {topic.topic_name: topic.partitions[0].error_code for topic in answer.results} == {
            TOPIC: ErrorCode.LOG_DIR_NOT_FOUND,
            "later": ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        }
        # Where it was named for them before they came.
        raw.create_topic("later", 5)
        assert {place(served, "later", index).parent for index in range(5)} == {tmp_path / "two"}

        def fail(broker: Any) -> None:
            next(each for each in broker.logs.directories if each.path == two).take_offline("for a test")

        served.call(fail)
        wait_until(lambda: codes(raw.call(move((two, [(TOPIC, [0])])))) == [ErrorCode.KAFKA_STORAGE_ERROR], 90, "that")
        one = str(tmp_path / "one")
        assert codes(raw.call(move((one, [("later", [0])])))) == [ErrorCode.KAFKA_STORAGE_ERROR]


def test_a_topic_deleted_on_its_way_leaves_nothing(served: BrokerThread, tmp_path: Path) -> None:
    from millstream.core.wire.messages import delete_topics

    with RawConnection(served.bootstrap_servers) as raw:
        raw.create_topic(TOPIC)
        for number in range(50):
            assert raw.produce(TOPIC, 0, batch(number, 100_000)).error_code == 0
        away = next(path for path in (tmp_path / "one", tmp_path / "two") if path != place(served).parent)
        set_rate(raw, 1000)
        assert codes(raw.call(move((str(away), [(TOPIC, [0])])))) == [0]
        wait_until(lambda: list(away.glob("*-future")), 90, "the copy")
        states = [delete_topics.DeleteTopicState(name=TOPIC)]
        assert (
            raw.call(delete_topics.DeleteTopicsRequest(topics=states, timeout_ms=30_000)).responses[0].error_code == 0
        )
        set_rate(raw, 2**40)
        raw.create_topic(TOPIC)
        assert raw.offset(TOPIC, 0) == 0
    served.stop()
    assert [path for path in away.glob("moves-0*") if path.name == "moves-0"] in ([], [away / "moves-0"])
    with served, RawConnection(served.bootstrap_servers) as raw:
        assert raw.offset(TOPIC, 0) == 0
