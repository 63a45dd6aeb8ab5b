"""A whole broker's background work: what a config, a full disk, a failed disk, retention and a restart do to it."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.support.broker_thread import BrokerThread
from tests.support.prometheus import parse

from millstream.core.broker.disk_space import DiskSpace
from millstream.core.config import BROKER_CONFIGS, TOPIC_CONFIGS
from millstream.core.log import Log, LogManager, TopicPartition
from millstream.core.records import BatchBuilder
from millstream.core.wire import ErrorCode, KafkaError
from millstream.core.wire.messages.create_topics import CreatableTopic, CreateTopicsRequest
from millstream.core.wire.messages.delete_records import (
    DeleteRecordsPartition,
    DeleteRecordsRequest,
    DeleteRecordsTopic,
)
from millstream.core.wire.messages.delete_topics import DeleteTopicsRequest, DeleteTopicState
from millstream.core.wire.messages.incremental_alter_configs import (
    AlterableConfig,
    AlterConfigsResource,
    IncrementalAlterConfigsRequest,
)
from millstream.testing.kafka import wait_until
from millstream.testing.raw import EARLIEST, ClosedError, RawConnection

TOPIC, BROKER = 2, 4


def batch(size_bytes: int = 100, count: int = 1, timestamp: int = 1_700_000_000_000) -> bytes:
    builder = BatchBuilder()
    for _ in range(count):
        builder.append(timestamp, None, b"x" * size_bytes)
    return builder.build()


def set_config(raw: RawConnection, kind: int, resource: str, name: str, value: str | None) -> None:
    config = AlterableConfig(name=name, config_operation=0 if value is not None else 1, value=value)
    request = IncrementalAlterConfigsRequest(
        resources=[AlterConfigsResource(resource_type=kind, resource_name=resource, configs=[config])]
    )
    (answer,) = raw.call(request).responses
    assert answer.error_code == 0, answer.error_message


def delete_topic(raw: RawConnection, name: str) -> None:
    (answer,) = raw.call(DeleteTopicsRequest(topics=[DeleteTopicState(name=name)], timeout_ms=30_000)).responses
    assert answer.error_code == 0, answer.error_message


def create(raw: RawConnection, name: str, timeout_ms: int = 30_000) -> int:
    """Create a topic of one partition, whether or not it is served then; return the error."""
    topic = CreatableTopic(name=name, num_partitions=1, replication_factor=1)
    return int(raw.call(CreateTopicsRequest(topics=[topic], timeout_ms=timeout_ms)).topics[0].error_code)


def test_a_topic_config_takes_effect_at_once(
    served: BrokerThread, raw: RawConnection, new_name: Callable[[], str]
) -> None:
    name = new_name()
    raw.create_topic(name)
    assert raw.produce(name, 0, batch(2000)).error_code == 0

    set_config(raw, TOPIC, name, "max.message.bytes", "1000")

    assert raw.produce(name, 0, batch(2000)).error_code == ErrorCode.MESSAGE_TOO_LARGE
    set_config(raw, BROKER, "", "log.segment.bytes", "2097152")
    assert served.call(lambda broker: broker.logs.logs[TopicPartition(name, 0)].config.segment_bytes) == 2097152


def test_every_default_of_topics_that_may_change_changes(tmp_path: Path) -> None:
    """Each dynamic broker config that stands in for a topic config reaches the logs at once, and leaves them so."""
    name = "takes-defaults"
    with BrokerThread(tmp_path) as served, RawConnection(served.bootstrap_servers) as raw:
        raw.create_topic(name)
        tp = TopicPartition(name, 0)
        before = served.call(lambda broker: broker.logs.logs[tp].config)
        others = {"compression.type": "zstd", "message.timestamp.type": "LogAppendTime", "cleanup.policy": "compact"}
        numbers = {"segment.bytes": "1234567", "min.insync.replicas": "2", "min.cleanable.dirty.ratio": "0.25"}
        changed = set()
        for key in TOPIC_CONFIGS.values():
            field = key.name.removeprefix("millstream.").replace(".", "_")
            synonym = next((BROKER_CONFIGS[s.name] for s in key.synonyms if BROKER_CONFIGS[s.name].is_dynamic), None)
            if synonym is None or not hasattr(before, field):
                continue
            value = (
                others.get(key.name) or numbers.get(key.name) or ("true" if isinstance(key.default, bool) else "7654")
            )
            set_config(raw, BROKER, "", synonym.name, value)
            after = served.call(lambda broker: broker.logs.logs[tp].config)
            assert getattr(after, field) != getattr(before, field), synonym.name
            set_config(raw, BROKER, "", synonym.name, None)
            assert served.call(lambda broker: broker.logs.logs[tp].config) == before, synonym.name
            changed.add(field)
        assert len(changed) >= 18, changed


def test_connection_limits_change_while_connections_come(tmp_path: Path) -> None:
    with BrokerThread(tmp_path) as served, RawConnection(served.bootstrap_servers) as raw:

        def comes_in() -> bool:
            try:
                with RawConnection(served.bootstrap_servers) as another:
                    another.topics()
            except (ClosedError, ConnectionError):
                return False
            return True

        assert comes_in()
        for name, tight, loose in (
            ("max.connections", "1", "100"),
            ("max.connections.per.ip", "1", "100"),
            ("max.connections.per.ip.overrides", "127.0.0.1:1", "127.0.0.1:100"),
        ):
            set_config(raw, BROKER, "", name, tight)
            assert not comes_in(), name
            assert raw.topics() == {}, "a connection that is open stays"
            set_config(raw, BROKER, "", name, loose)
            assert comes_in(), name
        config = AlterableConfig(name="max.connections.per.ip.overrides", config_operation=0, value="somewhere:1")
        resource = AlterConfigsResource(resource_type=BROKER, resource_name="", configs=[config])
        (answer,) = raw.call(IncrementalAlterConfigsRequest(resources=[resource])).responses
        assert answer.error_code == ErrorCode.INVALID_REQUEST
        assert "somewhere is no address" in (answer.error_message or "")


def test_retention_and_deletion_free_the_disk(tmp_path: Path) -> None:
    with BrokerThread(tmp_path / "data") as served, RawConnection(served.bootstrap_servers) as raw:
        raw.create_topic("old", segment_bytes=1 << 20, retention_bytes=1, retention_ms=-1, file_delete_delay_ms=0)
        for _ in range(5):
            assert raw.produce("old", 0, batch(600_000)).error_code == 0
        folder = tmp_path / "data" / "old-0"
        assert len(list(folder.glob("*.log"))) == 5

        served.wait(lambda broker: broker.control.tasks.run_retention())
        served.wait(lambda broker: broker.control.tasks.run_unlinks())

        assert raw.offset("old", 0, EARLIEST) == 4
        assert len(list(folder.glob("*.log"))) == 1
        assert not list(folder.glob("*.deleted"))

        delete_topic(raw, "old")
        assert not folder.exists()
        served.wait(lambda broker: broker.control.tasks.run_unlinks())
        assert not list((tmp_path / "data").glob("old*"))
        assert raw.topics() == {}


def test_a_topic_made_again_starts_empty(served: BrokerThread, raw: RawConnection, new_name: Callable[[], str]) -> None:
    name = new_name()
    for _ in range(3):
        raw.create_topic(name)
        assert raw.produce(name, 0, batch(count=7)).error_code == 0
        assert raw.offset(name, 0) == 7
        delete_topic(raw, name)


def test_topics_configs_and_log_starts_outlive_a_restart(tmp_path: Path) -> None:
    served = BrokerThread(tmp_path / "data")
    with served, RawConnection(served.bootstrap_servers) as raw:
        raw.create_topic("kept", 3, retention_ms=12345)
        raw.create_topic("gone")
        raw.produce("kept", 1, batch(count=10))
        delete_topic(raw, "gone")
        set_config(raw, BROKER, "1", "log.retention.ms", "777")
    with served, RawConnection(served.bootstrap_servers) as raw:
        assert raw.topics() == {"kept": 3}
        assert raw.offset("kept", 1) == 10
        configs = served.call(
            lambda broker: (
                broker.logs.logs[TopicPartition("kept", 0)].config.retention_ms,
                broker.control.config.integer("log.retention.ms"),
            )
        )
        assert configs == (12345, 777)


def test_a_nearly_full_disk_refuses_records_and_recovers(
    served: BrokerThread, raw: RawConnection, new_name: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = new_name()
    raw.create_topic(name)
    assert raw.produce(name, 0, batch()).error_code == 0
    disks = served.broker.control.disks
    monkeypatch.setattr(disks, "_measure", lambda path: DiskSpace(10_000, 1))

    served.wait(lambda broker: broker.control.disks.check())
    refused = raw.produce(name, 0, batch())
    assert refused.error_code == ErrorCode.KAFKA_STORAGE_ERROR
    assert raw.fetch(name, 0, 0).error_code == 0, "what is there is served on"
    assert "read-only" in served.call(lambda broker: broker.control.health.problems())[0]

    monkeypatch.setattr(disks, "_measure", lambda path: DiskSpace(10_000, 9_000))
    served.wait(lambda broker: broker.control.disks.check())
    assert raw.produce(name, 0, batch()).error_code == 0
    assert served.call(lambda broker: broker.control.health.problems()) == []


def test_a_failed_directory_takes_its_partitions_off_and_no_others(tmp_path: Path) -> None:
    directories = f"{tmp_path / 'one'},{tmp_path / 'two'}"
    with (
        BrokerThread(tmp_path / "one", {"log.dirs": directories}) as served,
        RawConnection(served.bootstrap_servers) as raw,
    ):
        raw.create_topic("spread", 8)
        placed = served.call(
            lambda broker: {tp.partition: str(log.directory.path) for tp, log in broker.logs.logs.items()}
        )
        assert set(placed.values()) == {str(tmp_path / "one"), str(tmp_path / "two")}

        served.call(lambda broker: broker.logs.directories[1].take_offline("the disk fell out"))

        failed = str(tmp_path / "two")

        def offline() -> bool:
            answers = {index: raw.produce("spread", index, batch()).error_code for index in placed}
            return all((code != 0) == (placed[index] == failed) for index, code in answers.items())

        wait_until(offline, 90, "exactly the partitions of the failed directory are refused")
        problems = served.call(lambda broker: broker.control.health.problems())
        assert "the disk fell out" in problems[0]


def test_a_log_that_cannot_be_created_is_tried_again(
    served: BrokerThread, raw: RawConnection, new_name: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = new_name()

    def full(*arguments: object) -> None:
        raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, "no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(LogManager, "create_log", full)
        assert create(raw, name) == 0, "the topic exists, its partition is offline"
    assert raw.produce(name, 0, batch()).error_code == ErrorCode.KAFKA_STORAGE_ERROR
    assert "1 partitions are offline" in served.call(lambda broker: broker.control.health.problems())[0]

    served.wait(lambda broker: broker.control.applier.retry())

    assert raw.produce(name, 0, batch()).error_code == 0


def test_another_try_never_brings_a_deleted_topic_back(
    served: BrokerThread, raw: RawConnection, new_name: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = new_name()
    tp = TopicPartition(name, 0)
    create_log = LogManager.create_log
    entered, deleted = threading.Event(), threading.Event()

    def full(*arguments: object) -> None:
        raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, "no space left on device")

    def slow(manager: LogManager, *arguments: Any) -> Log:
        entered.set()
        assert deleted.wait(90)
        return create_log(manager, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(LogManager, "create_log", full)
        assert create(raw, name) == 0
        patch.setattr(LogManager, "create_log", slow)
        with ThreadPoolExecutor(1) as pool:
            retry = pool.submit(served.wait, lambda broker: broker.control.applier.retry())
            assert entered.wait(90)
            request = DeleteTopicsRequest(topics=[DeleteTopicState(name=name)], timeout_ms=0)
            (answer,) = raw.call(request).responses
            assert answer.error_code == ErrorCode.REQUEST_TIMED_OUT, "not applied yet, and maybe not committed"
            wait_until(lambda: name not in served.call(lambda broker: broker.metadata.image.topics), 90, "committed")
            deleted.set()
            retry.result(90)
    version = served.call(lambda broker: broker.metadata.image.version)
    served.wait(lambda broker: broker.partitions.applied(version))
    assert served.call(lambda broker: broker.partitions.get(name, 0)) is None
    assert served.call(lambda broker: tp in broker.logs.logs) is False
    assert served.call(lambda broker: broker.control.applier.problem()) is None


def test_topics_come_and_go_under_load(tmp_path: Path) -> None:
    """Deleted at once, made again under the same name, while others write, read, trim and retain: all stays online."""
    settings = {"log.segment.delete.delay.ms": "0", "log.retention.check.interval.ms": "50", "log.retention.bytes": "9"}
    rounds, stop = 12, threading.Event()
    expected = {
        ErrorCode.NONE,
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode.OFFSET_OUT_OF_RANGE,
        ErrorCode.KAFKA_STORAGE_ERROR,  # a write that was under way when the partition went
    }
    with BrokerThread(tmp_path, settings) as served, RawConnection(served.bootstrap_servers) as raw:

        def load(ask: Callable[[RawConnection], int]) -> set[int]:
            codes = set()
            with RawConnection(served.bootstrap_servers) as own:
                while not stop.is_set():
                    codes.add(ask(own))
            return codes

        record = batch(50_000)
        partition = DeleteRecordsPartition(partition_index=0, offset=-1)
        trim = DeleteRecordsRequest(topics=[DeleteRecordsTopic(name="t", partitions=[partition])], timeout_ms=30_000)
        asks: list[Callable[[RawConnection], int]] = [
            lambda own: own.produce("t", 0, record, acks=1).error_code,
            lambda own: own.produce("t", 1, record).error_code,
            lambda own: int(own.fetch("t", 0, 0).error_code),
            lambda own: int(own.call(trim).topics[0].partitions[0].error_code),
        ]
        with ThreadPoolExecutor(len(asks)) as pool:
            loads = [pool.submit(load, ask) for ask in asks]
            try:
                for _ in range(rounds):
                    raw.create_topic("t", 2)
                    wait_until(lambda: raw.offset("t", 1) > 3, 90, "records arrive")
                    delete_topic(raw, "t")
            finally:
                stop.set()
            for each in loads:
                codes = each.result(90)
                assert ErrorCode.NONE in codes
                assert codes <= expected
        assert served.call(lambda broker: [d.offline_reason for d in broker.logs.directories]) == [None]
        assert served.call(lambda broker: broker.control.applier.problem()) is None
        assert served.call(lambda broker: len(broker.partitions)) == 0
        assert served.call(lambda broker: broker.purgatory.waiters_count) == 0


def test_a_partition_that_lands_on_a_failing_directory_is_not_led(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directories = [tmp_path / "one", tmp_path / "two"]
    settings = {"log.dirs": ",".join(map(str, directories)), "metadata.log.dir": str(tmp_path / "metadata")}
    with BrokerThread(tmp_path, settings) as served, RawConnection(served.bootstrap_servers) as raw:
        create_log = LogManager.create_log

        def create_and_fail(manager: LogManager, *arguments: Any) -> Log:
            log = create_log(manager, *arguments)
            log.directory.take_offline("the disk fell out")
            return log

        with monkeypatch.context() as patch:
            patch.setattr(LogManager, "create_log", create_and_fail)
            assert create(raw, "unlucky") == 0
        assert raw.produce("unlucky", 0, batch()).error_code == ErrorCode.KAFKA_STORAGE_ERROR
        assert served.call(lambda broker: [partition.is_leader for partition in broker.partitions]) == [False]
        raw.create_topic("lucky")
        assert raw.produce("lucky", 0, batch()).error_code == 0


def test_an_image_that_could_not_be_applied_is_tried_again(
    served: BrokerThread, raw: RawConnection, new_name: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = new_name()

    def broken(*arguments: object) -> None:
        raise ValueError("this is a bug")

    with monkeypatch.context() as patch:
        patch.setattr(LogManager, "create_log", broken)
        assert create(raw, name, timeout_ms=200) == ErrorCode.REQUEST_TIMED_OUT
        # The time may be over before the image is applied for the first time.
        problems = wait_until(lambda: served.call(lambda broker: broker.control.health.problems()), 90, "the failure")
    assert "this is a bug" in problems[0]

    served.wait(lambda broker: broker.control.applier.retry())
    version = served.call(lambda broker: broker.metadata.image.version)
    served.wait(lambda broker: broker.partitions.applied(version))

    assert raw.produce(name, 0, batch()).error_code == 0


def test_metrics_and_health_over_http(tmp_path: Path) -> None:
    settings = {"millstream.http.listener": "127.0.0.1:0"}
    with BrokerThread(tmp_path / "data", settings) as served, RawConnection(served.bootstrap_servers) as raw:
        raw.create_topic("flights", 2)
        raw.produce("flights", 0, batch(count=10))
        raw.fetch("flights", 0, 0)
        address = f"http://127.0.0.1:{served.broker.control.http_port}"

        with urllib.request.urlopen(f"{address}/metrics", timeout=30) as answer:
            families = parse(answer.read().decode())
        with urllib.request.urlopen(f"{address}/healthz", timeout=30) as answer:
            assert answer.read() == b"ok\n"

        def value(name: str, **labels: str) -> float:
            return families[name].samples[name, tuple(labels.items())]

        assert value("kafka_server_brokertopicmetrics_messagesin_total", topic="flights") == 10
        assert value("kafka_server_brokertopicmetrics_messagesin_total") == 10
        assert value("kafka_server_brokertopicmetrics_bytesout_total", topic="flights") > 1000
        assert value("kafka_server_replicamanager_partitioncount") == 2
        assert value("kafka_server_replicamanager_underreplicatedpartitions") == 0
        assert value("kafka_log_log_logendoffset", topic="flights", partition="0") == 10
        assert value("kafka_log_log_size", topic="flights", partition="0") > 1000
        assert value("kafka_controller_kafkacontroller_activecontrollercount") == 1
        assert value("kafka_network_requestmetrics_requests_total", request="Produce", version="11") == 1
        assert value("kafka_server_socketservermetrics_connection_count") == 1
        assert value("millstream_memory_pool_used_bytes", pool="requests") == 0
        assert value("kafka_log_logmanager_offlinelogdirectorycount") == 0
        assert families["kafka_network_requestmetrics_totaltimems"].kind == "summary"

        served.call(lambda broker: broker.logs.directories[0].take_offline("the disk fell out"))
        with pytest.raises(urllib.error.HTTPError) as unwell:
            urllib.request.urlopen(f"{address}/healthz", timeout=30)
        assert unwell.value.code == 503
        assert b"the disk fell out" in unwell.value.read()
        unwell.value.close()


def test_flush_ms_makes_records_durable(tmp_path: Path) -> None:
    with BrokerThread(tmp_path / "data") as served, RawConnection(served.bootstrap_servers) as raw:

        def flushed(topic: str) -> int:
            return served.call(lambda broker: broker.logs.logs[TopicPartition(topic, 0)].flushed_offset)

        raw.create_topic("synced", flush_ms=1)
        raw.create_topic("lazy")
        raw.produce("synced", 0, batch())
        raw.produce("lazy", 0, batch())

        wait_until(lambda: flushed("synced") == 1, 90, "the record is flushed")
        assert flushed("lazy") == 0

        # What is flushed is not looked at any more, until it is written again or its topic gets flush.ms.
        wait_until(lambda: not served.call(lambda broker: len(broker.appends.unflushed)), 90, "nothing is left to do")
        set_config(raw, TOPIC, "lazy", "flush.ms", "1")
        raw.produce("synced", 0, batch())
        wait_until(lambda: (flushed("synced"), flushed("lazy")) == (2, 1), 90, "both are flushed")


def test_idle_producers_are_forgotten(tmp_path: Path) -> None:
    settings = {"producer.id.expiration.ms": "1", "producer.id.expiration.check.interval.ms": "1"}
    with BrokerThread(tmp_path / "data", settings) as served, RawConnection(served.bootstrap_servers) as raw:
        raw.create_topic("written")
        builder = BatchBuilder(producer_id=raw.new_producer_id(), producer_epoch=0, base_sequence=0)
        builder.append(1_700_000_000_000, None, b"x")
        assert raw.produce("written", 0, builder.build()).error_code == 0

        wait_until(
            lambda: served.call(lambda broker: len(broker.logs.logs[TopicPartition("written", 0)].producers)) == 0,
            90,
            "the producer is forgotten",
        )


def test_a_compacted_topic_takes_only_keyed_records(tmp_path: Path) -> None:
    with BrokerThread(tmp_path / "data") as served, RawConnection(served.bootstrap_servers) as raw:
        raw.create_topic("keyed", cleanup_policy="compact")
        assert raw.produce("keyed", 0, batch()).error_code == ErrorCode.INVALID_RECORD
