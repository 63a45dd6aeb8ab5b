"""How a broker comes to its storage: what it finds again, adopts, sets aside, and refuses."""

import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.broker_thread import BrokerThread

from millstream.core.cluster.embedded_store import FILE_NAME
from millstream.core.config import ConfigError
from millstream.core.log import InconsistentDirectoryError, LogLockedError
from millstream.core.records import BatchBuilder
from millstream.core.wire import ErrorCode
from millstream.core.wire.messages.describe_configs import DescribeConfigsRequest, DescribeConfigsResource
from millstream.core.wire.messages.metadata import MetadataRequest
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
        served.call(lambda broker: None)
        for partition in range(4):
            expected = ErrorCode.KAFKA_STORAGE_ERROR if placed[partition] == directories[1] else ErrorCode.NONE
            assert raw.produce("spread", partition, batch()).error_code == expected
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
