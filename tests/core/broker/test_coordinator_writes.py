"""How a group coordinator writes: compressed where that is asked for, and nobody waits for it for long."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path

import pytest
from tests.core.broker.test_coordinators import SETTINGS, commit, committed, create, settled
from tests.support.broker_thread import BrokerThread

from millstream.core.broker import Broker
from millstream.core.groups.partitioning import GROUP_TOPIC, partition_for
from millstream.core.records import Compression, iter_batches
from millstream.core.wire import ErrorCode
from millstream.testing.faulty_disk import FaultyDisk
from millstream.testing.kafka import wait_until
from millstream.testing.raw import RawConnection


class HeldDisk(FaultyDisk):
    """One whose syncs wait while it is held."""

    def __init__(self) -> None:
        super().__init__()
        self.released = threading.Event()
        self.released.set()

    def fsync(self, fd: int) -> None:
        assert self.released.wait(90)
        super().fsync(fd)

    def fdatasync(self, fd: int) -> None:
        assert self.released.wait(90)
        super().fdatasync(fd)


def codecs(broker: Broker) -> set[int]:
    """How the batches of the group's partition are compressed."""
    partition = broker.partitions.get(GROUP_TOPIC, partition_for("g", int(SETTINGS["offsets.topic.num.partitions"])))
    assert partition is not None
    assert partition.log is not None
    read = partition.log.read(0, 1 << 20, end_offset=partition.high_watermark)
    return {header.compression for header, _ in iter_batches(read.data)}


@pytest.mark.parametrize("codec", [codec for codec in Compression if codec is not Compression.NONE])
def test_batches_are_compressed_as_the_operator_says(tmp_path: Path, codec: Compression) -> None:
    settings = {**SETTINGS, "offsets.topic.compression.codec": str(int(codec))}
    with BrokerThread(tmp_path / "data", settings) as broker, RawConnection(broker.bootstrap_servers) as raw:
        create(raw)
        for offset in range(5):
            assert commit(raw, "g", offset) == ErrorCode.NONE
        assert broker.call(codecs) == {codec}
    with BrokerThread(tmp_path / "data", settings) as broker, RawConnection(broker.bootstrap_servers) as raw:
        assert settled(partial(committed, raw, "g")) == {0: 4}


def test_nobody_waits_longer_for_a_write_than_the_operator_says(tmp_path: Path) -> None:
    settings = {**SETTINGS, "offsets.commit.timeout.ms": "200", "log.flush.interval.messages": "1"}
    disk = HeldDisk()
    with BrokerThread(tmp_path / "data", settings, disk) as broker, RawConnection(broker.bootstrap_servers) as raw:

        def is_committed(offset: int) -> bool:
            code = commit(raw, "g", offset)
            assert code in {ErrorCode.NONE, ErrorCode.COORDINATOR_NOT_AVAILABLE}  # a busy machine's disk is slow, too
            return code == ErrorCode.NONE

        create(raw)
        wait_until(lambda: is_committed(1), 90, "a first commit")
        disk.released.clear()
        try:
            assert commit(raw, "g", 2) == ErrorCode.COORDINATOR_NOT_AVAILABLE
        finally:
            disk.released.set()
        # It was written all the same: the client's next attempt finds it, or goes behind it.
        wait_until(lambda: is_committed(3), 90, "the next commit")
        assert committed(raw, "g") == {0: 3}
