"""Two log directories, of which one fails: what lies on the other is served on, under load and over a restart."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.broker_thread import BrokerThread

from millstream.core.broker import Broker
from millstream.core.records import BatchBuilder
from millstream.core.wire import ErrorCode
from millstream.core.wire.messages.metadata import MetadataRequest, MetadataRequestTopic
from millstream.testing.faulty_disk import FaultyDisk
from millstream.testing.raw import RawConnection

PARTITIONS = 8
TOPIC = "spread"


def batch(value: bytes) -> bytes:
    builder = BatchBuilder()
    builder.append(1_700_000_000_000, None, value)
    return bytes(builder.build())


@pytest.fixture
def disk() -> FaultyDisk:
    return FaultyDisk()


@pytest.fixture
def spread(tmp_path: Path, disk: FaultyDisk) -> Iterator[BrokerThread]:
    """A broker on two directories, with a topic on both."""
    settings = {"log.dirs": f"{tmp_path}/one,{tmp_path}/two", "log.retention.ms": "-1"}
    broker = BrokerThread(tmp_path / "one", settings, disk)
    with broker:
        with RawConnection(broker.bootstrap_servers) as raw:
            raw.create_topic(TOPIC, PARTITIONS)
        yield broker
        disk.heal()


def placed(broker: Broker) -> dict[str, list[int]]:
    """The topic's partitions by the name of their directory."""
    found: dict[str, list[int]] = {}
    for partition in broker.partitions.of_topic(TOPIC):
        if partition.log is not None:
            found.setdefault(Path(partition.log.directory.path).name, []).append(partition.index)
    return found


def test_a_directory_that_fails_under_load_takes_only_its_own_partitions(
    spread: BrokerThread, disk: FaultyDisk, tmp_path: Path
) -> None:
    places = spread.call(placed)
    assert sorted(map(len, places.values())) == [PARTITIONS // 2] * 2
    acknowledged: dict[int, int] = dict.fromkeys(range(PARTITIONS), 0)
    codes: dict[int, int] = {}
    all_run, failing = threading.Barrier(PARTITIONS + 1), threading.Event()

    def write(index: int) -> None:
        with RawConnection(spread.bootstrap_servers) as raw:
            for number in range(200):
                if number == 50:
                    all_run.wait(90)
                    assert failing.wait(90)
                answer = raw.produce(TOPIC, index, batch(b"%d" % number))
                if answer.error_code:
                    codes[index] = answer.error_code
                    return
                acknowledged[index] += 1

    threads = [threading.Thread(target=write, args=(index,)) for index in range(PARTITIONS)]
    for thread in threads:
        thread.start()
    all_run.wait(90)
    disk.fail("pwritev", errno.EIO, path="/two/", times=1000)
    failing.set()
    for thread in threads:
        thread.join(90)
    assert {index: acknowledged[index] for index in places["one"]} == dict.fromkeys(places["one"], 200)
    assert codes == dict.fromkeys(places["two"], ErrorCode.KAFKA_STORAGE_ERROR)
    with RawConnection(spread.bootstrap_servers) as raw:
        offsets = raw.offsets({TOPIC: range(PARTITIONS)})[TOPIC]
        for index in places["one"]:
            assert offsets[index] == 200
            assert raw.fetch(TOPIC, index, 199).error_code == 0
        for index in places["two"]:
            assert offsets[index] == -ErrorCode.KAFKA_STORAGE_ERROR - 1
            assert raw.fetch(TOPIC, index, 0).error_code == ErrorCode.KAFKA_STORAGE_ERROR
        (told,) = raw.call(MetadataRequest(topics=[MetadataRequestTopic(name=TOPIC)])).topics
        offline = {partition.partition_index for partition in told.partitions if partition.offline_replicas}
        assert offline == set(places["two"])
        # What is new goes to the directory that is left.
        raw.create_topic("later", 2)
        assert raw.produce("later", 1, batch(b"x")).error_code == 0

    spread.stop()
    disk.heal()
    with spread, RawConnection(spread.bootstrap_servers) as raw:
        for index in range(PARTITIONS):
            assert raw.offset(TOPIC, index) == acknowledged[index]
            assert raw.produce(TOPIC, index, batch(b"on")).base_offset == acknowledged[index]


def test_a_start_with_one_broken_directory(spread: BrokerThread, tmp_path: Path) -> None:
    places = spread.call(placed)
    with RawConnection(spread.bootstrap_servers) as raw:
        for index in range(PARTITIONS):
            assert raw.produce(TOPIC, index, batch(b"x")).error_code == 0
    spread.stop()
    (tmp_path / "two").rename(tmp_path / "away")
    (tmp_path / "two").write_bytes(b"no directory")
    with spread, RawConnection(spread.bootstrap_servers) as raw:
        for index in places["one"]:
            assert raw.produce(TOPIC, index, batch(b"y")).base_offset == 1
        for index in places["two"]:
            assert raw.produce(TOPIC, index, batch(b"y")).error_code == ErrorCode.KAFKA_STORAGE_ERROR
        raw.create_topic("meanwhile", 2)
        assert raw.produce("meanwhile", 0, batch(b"z")).error_code == 0
    (tmp_path / "two").unlink()
    (tmp_path / "away").rename(tmp_path / "two")
    with spread, RawConnection(spread.bootstrap_servers) as raw:
        assert [raw.offset(TOPIC, index) for index in range(PARTITIONS)] == [
            2 if index in places["one"] else 1 for index in range(PARTITIONS)
        ]
        assert raw.offset("meanwhile", 0) == 1
