"""How a broker comes to its storage: what it finds again, adopts, sets aside, and refuses."""

import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.broker_thread import BrokerThread

from millstream.core.broker import startup
from millstream.core.cluster.adoption import FOLDER_NAME
from millstream.core.cluster.embedded_store import FILE_NAME
from millstream.core.config import BrokerConfig, ConfigError
from millstream.core.log import InconsistentDirectoryError, LogLockedError, LogManager, TopicPartition
from millstream.core.records import BatchBuilder
from millstream.core.wire import ErrorCode
from millstream.core.wire.messages.delete_topics import DeleteTopicsRequest, DeleteTopicState
from millstream.core.wire.messages.describe_configs import DescribeConfigsRequest, DescribeConfigsResource
from millstream.core.wire.messages.metadata import MetadataRequest, MetadataRequestTopic
from millstream.testing.kafka import wait_until
from millstream.testing.raw import RawConnection


def batch(value: bytes = b"v") -> bytes:
    builder = BatchBuilder()
    builder.append(1_700_000_000_000, None, value)
    return bytes(builder.build())


def remove_store(directory: Path) -> None:
    for path in directory.glob(f"{FILE_NAME}*"):
        path.unlink()


def test_partitions_without_metadata_are_taken_over_and_nothing_is_deleted(tmp_path: Path) -> None:
    with BrokerThread(tmp_path) as served, RawConnection(served.bootstrap_servers) as raw:
        raw.create_topic("kept", 3, retention_ms=1000)
        for partition in range(3):
            raw.produce("kept", partition, batch())
        before = served.call(lambda broker: broker.metadata.image.topics["kept"])
        cluster_id = served.call(lambda broker: broker.metadata.image.cluster_id)
    remove_store(tmp_path)
    with BrokerThread(tmp_path) as served, RawConnection(served.bootstrap_servers) as raw:
        assert served.call(lambda broker: broker.metadata.image.cluster_id) == cluster_id
        after = served.call(lambda broker: broker.metadata.image.topics["kept"])
        assert (after.topic_id, len(after.partitions)) == (before.topic_id, 3)
        resource = DescribeConfigsResource(resource_type=2, resource_name="kept", configuration_keys=None)
        result = raw.call(DescribeConfigsRequest(resources=[resource])).results[0]
        configs = {config.name: config.value for config in result.configs}
        assert (configs["retention.ms"], configs["retention.bytes"]) == ("-1", "-1")
        for partition in range(3):
            assert raw.offset("kept", partition) == 1
            assert raw.produce("kept", partition, batch()).base_offset == 1


def test_a_crash_while_partitions_are_taken_over_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with BrokerThread(tmp_path) as served, RawConnection(served.bootstrap_servers) as raw:
        raw.create_topic("kept", 2)
        raw.produce("kept", 1, batch())
    remove_store(tmp_path)

    def crash(*_arguments: object) -> None:
        raise RuntimeError("the machine lost power")

    with monkeypatch.context() as patch:
        patch.setattr(startup, "_found_topics", crash)
        with pytest.raises(RuntimeError, match="lost power"):
            BrokerThread(tmp_path).start()
    with BrokerThread(tmp_path) as served, RawConnection(served.bootstrap_servers) as raw:
        assert raw.offset("kept", 1) == 1
    assert not list(tmp_path.glob("*-stray"))


def test_partitions_are_not_taken_over_while_a_directory_is_away(tmp_path: Path) -> None:
    directories = [tmp_path / "one", tmp_path / "two"]
    settings = {"log.dirs": ",".join(map(str, directories)), "metadata.log.dir": str(tmp_path / "metadata")}
    with BrokerThread(tmp_path, settings) as served, RawConnection(served.bootstrap_servers) as raw:
        raw.create_topic("spread", 4)
        for partition in range(4):
            raw.produce("spread", partition, batch())
    remove_store(tmp_path / "metadata")
    directories[1].rename(tmp_path / "elsewhere")
    directories[1].write_text("no folder")
    with pytest.raises(ConfigError, match=r"two is offline .* bring it back, or take it out of log\.dirs"):
        BrokerThread(tmp_path, settings).start()
    directories[1].unlink()
    (tmp_path / "elsewhere").rename(directories[1])
    with BrokerThread(tmp_path, settings) as served, RawConnection(served.bootstrap_servers) as raw:
        assert [raw.offset("spread", partition) for partition in range(4)] == [1, 1, 1, 1]


def test_of_two_topics_of_one_name_the_larger_is_taken_over_and_the_other_kept(tmp_path: Path) -> None:
    with BrokerThread(tmp_path) as served, RawConnection(served.bootstrap_servers) as raw:
        raw.create_topic("twice", 3)
        raw.create_topic("other")
        for partition in range(3):
            raw.produce("twice", partition, batch())
        topic_id = served.call(lambda broker: broker.metadata.image.topics["twice"].topic_id)
    remove_store(tmp_path)
    shutil.copy(tmp_path / "other-0" / "partition.metadata", tmp_path / "twice-1" / "partition.metadata")
    with BrokerThread(tmp_path) as served, RawConnection(served.bootstrap_servers) as raw:
        assert served.call(lambda broker: broker.metadata.image.topics["twice"].topic_id) == topic_id
        assert [raw.offset("twice", partition) for partition in range(3)] == [1, 0, 1]
    (stray,) = tmp_path.glob("twice-1*-stray")
    assert (stray / f"{0:020}.log").stat().st_size > 0


def test_a_partition_whose_topic_id_was_lost_is_served(tmp_path: Path) -> None:
    with BrokerThread(tmp_path) as served, RawConnection(served.bootstrap_servers) as raw:
        raw.create_topic("known")
        raw.produce("known", 0, batch())
    (tmp_path / "known-0" / "partition.metadata").unlink()
    with BrokerThread(tmp_path) as served, RawConnection(served.bootstrap_servers) as raw:
        assert raw.offset("known", 0) == 1
        assert raw.produce("known", 0, batch()).base_offset == 1
        assert (tmp_path / "known-0" / "partition.metadata").is_file()


def test_metadata_of_kafka_is_looked_for_where_its_own_directory_is(tmp_path: Path) -> None:
    folder = tmp_path / "metadata" / FOLDER_NAME
    folder.mkdir(parents=True)
    (folder / f"{0:020}.log").write_bytes(b"no batch, and longer than the header of one would be" * 3)
    settings = {"metadata.log.dir": str(tmp_path / "metadata")}
    with pytest.raises(ConfigError, match=f"{folder} cannot be adopted"):
        BrokerThread(tmp_path / "data", settings).start()


def test_a_listener_may_be_a_name(tmp_path: Path) -> None:
    settings = {"listeners": "PLAINTEXT://localhost:0"}
    with BrokerThread(tmp_path, settings) as served, RawConnection(served.bootstrap_servers) as raw:
        assert raw.topics() == {}
    with pytest.raises(OSError, match=r"PLAINTEXT://no-such-host\.invalid:0 cannot be bound: "):
        BrokerThread(tmp_path, {"listeners": "PLAINTEXT://no-such-host.invalid:0"}).start()


# What an operator of Apache Kafka has: KRaft's own sample, with a few settings changed.
SERVER_PROPERTIES = """
process.roles=broker,controller
node.id=7
controller.quorum.bootstrap.servers=localhost:9093
listeners=PLAINTEXT://127.0.0.1:0,CONTROLLER://:9093
inter.broker.listener.name=PLAINTEXT
advertised.listeners=PLAINTEXT://127.0.0.1:0,CONTROLLER://localhost:9093
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT
num.network.threads=3
num.io.threads=8
socket.send.buffer.bytes=102400
socket.receive.buffer.bytes=102400
socket.request.max.bytes=104857600
log.dirs={directory}/a,{directory}/b
num.partitions=3
num.recovery.threads.per.data.dir=2
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
log.retention.hours=72
log.segment.bytes=1073741824
log.retention.check.interval.ms=300000
log.cleanup.policy=compact,delete
delete.topic.enable=false
auto.create.topics.enable=false
"""


def test_the_file_of_an_operator_of_kafka_is_obeyed(tmp_path: Path) -> None:
    file = tmp_path / "server.properties"
    file.write_text(SERVER_PROPERTIES.format(directory=tmp_path))
    config = BrokerConfig.load(file)
    assert not any("no config that is known" in warning for warning in config.warnings), config.warnings
    with BrokerThread(tmp_path, config.texts) as served, RawConnection(served.bootstrap_servers) as raw:
        unknown = MetadataRequest(topics=[MetadataRequestTopic(name="unheard-of")], allow_auto_topic_creation=True)
        answer = raw.call(unknown)
        assert answer.topics[0].error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        assert [member.node_id for member in answer.brokers] == [7]

        raw.create_topic("events", -1)
        assert raw.topics() == {"events": 3}
        log_config = served.call(lambda broker: broker.logs.logs[TopicPartition("events", 0)].config)
        assert log_config.retention_ms == 72 * 3_600_000
        assert log_config.cleanup_policy == frozenset({"compact", "delete"})
        assert raw.produce("events", 0, batch()).error_code == ErrorCode.INVALID_RECORD, "compacted, and no key"

        request = DeleteTopicsRequest(topics=[DeleteTopicState(name="events")], timeout_ms=1000)
        assert raw.call(request).responses[0].error_code == ErrorCode.TOPIC_DELETION_DISABLED
        assert raw.topics() == {"events": 3}


def test_an_unknown_folder_is_set_aside_and_kept(tmp_path: Path) -> None:
    with BrokerThread(tmp_path) as served, RawConnection(served.bootstrap_servers) as raw:
        raw.create_topic("known")
        raw.produce("known", 0, batch())
    shutil.copytree(tmp_path / "known-0", tmp_path / "unknown-0")
    with BrokerThread(tmp_path) as served, RawConnection(served.bootstrap_servers) as raw:
        names = [topic.name for topic in raw.call(MetadataRequest(topics=None)).topics]
        assert names == ["known"]
        (stray,) = tmp_path.glob("unknown-0*-stray")
        assert (stray / f"{0:020}.log").read_bytes() == (tmp_path / "known-0" / f"{0:020}.log").read_bytes()


def test_a_deletion_that_a_crash_cut_short_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The deletion is committed and the folder still has its name, as a kill in between leaves it."""
    monkeypatch.setattr(LogManager, "delete_log", lambda _self, _tp: None)
    with BrokerThread(tmp_path) as running, RawConnection(running.bootstrap_servers) as raw:
        raw.create_topic("gone", 2)
        raw.create_topic("kept")
        deleted = raw.call(DeleteTopicsRequest(topics=[DeleteTopicState(name="gone")], timeout_ms=30_000))
        assert [each.error_code for each in deleted.responses] == [0]
    monkeypatch.undo()
    assert (tmp_path / "gone-1").is_dir()
    with BrokerThread(tmp_path) as running, RawConnection(running.bootstrap_servers) as raw:
        assert raw.topics() == {"kept": 1}
        wait_until(lambda: not list(tmp_path.glob("gone*")), 90, "the folders to go")
        assert not list(tmp_path.glob("*-stray"))


def test_a_failed_directory_takes_only_its_partitions_away(tmp_path: Path) -> None:
    directories = [tmp_path / "one", tmp_path / "two"]
    settings = {"log.dirs": ",".join(map(str, directories))}
    with BrokerThread(tmp_path, settings) as served, RawConnection(served.bootstrap_servers) as raw:
        raw.create_topic("spread", 4)
        for partition in range(4):
            assert raw.produce("spread", partition, batch()).error_code == 0
        placed = {p: next(d for d in directories if (d / f"spread-{p}").exists()) for p in range(4)}
        assert set(placed.values()) == set(directories)
        failing = next(d for d in served.broker.logs.directories if d.path == str(directories[1]))
        failing.take_offline("the test pulled the disk")
        for partition in range(4):
            expected = ErrorCode.KAFKA_STORAGE_ERROR if placed[partition] == directories[1] else ErrorCode.NONE

            def answers(partition: int = partition, expected: ErrorCode = expected) -> bool:
                return bool(raw.produce("spread", partition, batch()).error_code == expected)

            wait_until(answers, 90, "what the partition answers now")
            assert raw.fetch("spread", partition, 0).error_code == expected
        (topic,) = raw.call(MetadataRequest(topics=None)).topics
        offline = {p.partition_index for p in topic.partitions if p.offline_replicas}
        assert offline == {p for p in placed if placed[p] == directories[1]}


def test_a_directory_serves_one_broker_at_a_time(tmp_path: Path) -> None:
    # The lock is one of processes, as Kafka's is, so another process has to hold it.
    hold = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print('locked'); input()"
    command = [sys.executable, "-u", "-c", hold, str(tmp_path / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(LogLockedError):
            BrokerThread(tmp_path).start()
        holder.kill()
    with BrokerThread(tmp_path):
        pass


def test_a_directory_of_another_node_is_refused(tmp_path: Path) -> None:
    with BrokerThread(tmp_path, {"node.id": "5"}):
        pass
    with pytest.raises(InconsistentDirectoryError, match=r"node\.id"):
        BrokerThread(tmp_path, {"node.id": "6"}).start()
    with BrokerThread(tmp_path, {"node.id": "5"}):
        pass


def test_directories_of_two_clusters_are_refused(tmp_path: Path) -> None:
    for name in ("one", "two"):
        with BrokerThread(tmp_path / name):
            pass
    both = {"log.dirs": f"{tmp_path / 'one'},{tmp_path / 'two'}"}
    with pytest.raises((InconsistentDirectoryError, ConfigError), match="cluster"):
        BrokerThread(tmp_path, both).start()


def test_a_port_in_use_stops_the_start_and_leaves_nothing_locked(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = {"listeners": f"PLAINTEXT://127.0.0.1:{taken.getsockname()[1]}"}
        with pytest.raises(OSError, match="cannot be bound"):
            BrokerThread(tmp_path, settings).start()
    with BrokerThread(tmp_path):
        pass


def test_a_stop_answers_what_is_in_flight(tmp_path: Path) -> None:
    served = BrokerThread(tmp_path).start()
    with RawConnection(served.bootstrap_servers) as raw:
        raw.create_topic("last")
        assert raw.produce("last", 0, batch()).error_code == 0
        served.stop()
    with BrokerThread(tmp_path) as again, RawConnection(again.bootstrap_servers) as raw:
        assert raw.offset("last", 0) == 1
