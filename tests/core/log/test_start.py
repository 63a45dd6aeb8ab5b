"""What a start does with what a crash, a full disk or a deletion that was cut short has left in a log directory."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from tests.core.log.conftest import OpenManager
from tests.support.logs import NOW_MS, TOPIC_ID, append, read_all

from millstream.core.log import (
    FileSystem,
    Log,
    LogConfig,
    LogDirectory,
    LogDirectoryError,
    LogManager,
    Owner,
    OwnerOf,
    TopicPartition,
    Unowned,
)
from millstream.core.log.checkpoints import (
    LOG_START_OFFSET,
    PARTITION_METADATA,
    RECOVERY_POINT,
    decode_offsets,
    decode_partition_metadata,
)
from millstream.core.log.files import Buffer
from millstream.core.log.log_appends import INDEX_RETRY_MS
from millstream.testing.faulty_disk import FaultyDisk

TP = TopicPartition("flights", 0)
CONFIG = LogConfig(segment_bytes=1000, index_interval_bytes=150, file_delete_delay_ms=0)
COUNT = 40


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data" / "flights-0"


def write(log: Log, count: int = COUNT) -> None:
    for index in range(log.log_end_offset, log.log_end_offset + count):
        append(log, b"value %d" % index, leader_epoch=index // 15)


def values(log: Log) -> list[bytes | None]:
    return [record.value for record in read_all(log)]


def owned(topic_id: bytes | None, asked: list[bytes | None] | None = None) -> OwnerOf:
    def owner_of(topic_partition: TopicPartition, found: bytes | None) -> Owner:
        assert topic_partition == TP
        if asked is not None:
            asked.append(found)
        return Owner(topic_id, CONFIG)

    return owner_of


def load(path: Path, owner_of: OwnerOf, disk: FaultyDisk | None = None) -> LogManager:
    manager = LogManager([LogDirectory(path, disk)], now_ms=lambda: NOW_MS)
    manager.load(owner_of, cluster_id="a cluster")
    return manager


def test_a_folder_of_a_deleted_topic_is_deleted(open_manager: OpenManager, folder: Path) -> None:
    manager = open_manager(CONFIG)
    write(manager.create_log(TP, TOPIC_ID, CONFIG))
    manager.release()

    manager = load(folder.parent, lambda _tp, topic_id: Unowned.DELETED if topic_id == TOPIC_ID else Unowned.STRAY)

    assert manager.logs == {}
    assert [path.name[-7:] for path in folder.parent.glob("flights*")] == ["-delete"]
    manager.unlink_doomed(NOW_MS)
    assert not list(folder.parent.glob("flights*"))
    manager.release()


@pytest.mark.parametrize("content", [None, b"", b"version: 0\ntopic_id: nonsen", b"\x00" * 43])
def test_a_lost_topic_id_is_written_again(open_manager: OpenManager, folder: Path, content: bytes | None) -> None:
    manager = open_manager(CONFIG)
    write(manager.create_log(TP, TOPIC_ID, CONFIG))
    manager.close()
    path = folder / PARTITION_METADATA
    path.unlink() if content is None else path.write_bytes(content)

    asked: list[bytes | None] = []
    manager = load(folder.parent, owned(TOPIC_ID, asked))

    assert asked == [None]
    assert manager.logs[TP].topic_id == TOPIC_ID
    assert decode_partition_metadata(path.read_bytes()) == TOPIC_ID
    manager.release()


def test_who_creates_a_log_that_lost_its_topic_id_gives_it_one(open_manager: OpenManager, folder: Path) -> None:
    manager = open_manager(CONFIG)
    log = manager.create_log(TP, TOPIC_ID, CONFIG)
    write(log)
    manager.close()
    (folder / PARTITION_METADATA).unlink()
    manager = open_manager(CONFIG)
    assert manager.logs[TP].topic_id is None
    assert manager.create_log(TP, TOPIC_ID, CONFIG) is manager.logs[TP]
    assert decode_partition_metadata((folder / PARTITION_METADATA).read_bytes()) == TOPIC_ID
    assert len(values(manager.logs[TP])) == COUNT


def test_high_watermarks_lie_within_their_logs(open_manager: OpenManager, folder: Path) -> None:
    manager = open_manager(CONFIG)
    for index in range(3):
        write(manager.create_log(TopicPartition("flights", index), TOPIC_ID, CONFIG))
    manager.logs[TopicPartition("flights", 1)].move_log_start(9)
    manager.close(high_watermarks={TopicPartition("flights", index): [70, 3, 20][index] for index in range(3)})
    manager = open_manager(CONFIG)
    directory = manager.directories[0]
    assert directory.high_watermarks == {TopicPartition("flights", index): [40, 9, 20][index] for index in range(3)}
    manager.delete_log(TP)
    manager.create_log(TP, TOPIC_ID[::-1], CONFIG)
    assert TP not in directory.high_watermarks


class WatchedDisk(FileSystem):
    """The real file system; notes what an offset checkpoint says whenever batches are written."""

    def __init__(self, checkpoint: Path) -> None:
        self._checkpoint = checkpoint
        self.seen: list[dict[TopicPartition, int]] = []

    def pwritev(self, fd: int, buffers: Sequence[Buffer], position: int) -> int:
        self.seen.append(decode_offsets(self._checkpoint.read_bytes()) if self._checkpoint.exists() else {})
        return super().pwritev(fd, buffers, position)


@pytest.mark.parametrize("how", ["truncate_to", "truncate_fully_at"])
def test_the_recovery_point_on_disk_follows_a_truncation_before_the_next_append(
    open_manager: OpenManager, folder: Path, how: str
) -> None:
    disk = WatchedDisk(folder.parent / RECOVERY_POINT)
    manager = open_manager(CONFIG, disk)
    logs = [manager.create_log(TopicPartition("flights", index), TOPIC_ID, CONFIG) for index in range(2)]
    for log in logs:
        write(log)
        log.flush()
    manager.checkpoint()
    cut = getattr(logs[0], how)
    cut(10)
    disk.seen.clear()
    write(logs[0], 3)
    assert disk.seen[0] == {logs[0].topic_partition: 10, logs[1].topic_partition: COUNT}
    assert values(logs[0])[-3:] == [b"value 10", b"value 11", b"value 12"]


def _nothing_written(disk: FaultyDisk) -> None:
    for operation in ("pwrite", "pwritev"):
        disk.fail(operation, errno.ENOSPC, times=10**9)


def _nothing_created(disk: FaultyDisk) -> None:
    _nothing_written(disk)
    disk.fail("open", errno.ENOSPC, path=".tmp", times=10**9)
    disk.fail("open", errno.ENOSPC, path="index", times=10**9)


@pytest.mark.parametrize("fill", [_nothing_written, _nothing_created])
def test_a_log_on_a_full_disk_is_read_and_takes_records_once_there_is_room(
    open_manager: OpenManager, folder: Path, fill: Callable[[FaultyDisk], None]
) -> None:
    manager = open_manager(CONFIG)
    write(manager.create_log(TP, TOPIC_ID, CONFIG))
    manager.release()
    (folder / "leader-epoch-checkpoint").unlink()
    for path in folder.glob("*.timeindex"):
        path.write_bytes(b"x")
    disk = FaultyDisk()
    fill(disk)

    manager = load(folder.parent, owned(TOPIC_ID), disk)

    log, directory = manager.logs[TP], manager.directories[0]
    assert values(log) == [b"value %d" % index for index in range(COUNT)]
    found = log.offset_for_timestamp(NOW_MS)
    assert found is not None
    assert found.offset == 0
    with pytest.raises(LogDirectoryError, match=r"No space left|no room") as refused:
        write(log, 1)
    assert refused.value.shortage
    assert directory.offline_reason is None
    disk.heal()
    append(log, b"value 40", leader_epoch=2, now_ms=NOW_MS + INDEX_RETRY_MS)
    log.store_index_tails()
    log.flush()
    assert len(values(log)) == COUNT + 1
    assert not any(segment.index_is_lost for segment in log.segments)
    assert log.leader_epochs.entries == ((0, 0), (1, 15), (2, 30))
    manager.close()
    assert directory.offline_reason is None
    again = open_manager(CONFIG).logs[TP]
    assert again.directory.was_clean
    assert len(values(again)) == COUNT + 1


def test_a_log_that_a_shortage_keeps_closed_is_opened_later_and_loses_nothing(
    open_manager: OpenManager, folder: Path
) -> None:
    manager = open_manager(CONFIG)
    write(manager.create_log(TP, TOPIC_ID, CONFIG))
    manager.logs[TP].move_log_start(7)
    manager.close()
    disk = FaultyDisk()
    disk.fail("list_sizes", errno.EMFILE, times=2)

    manager = load(folder.parent, owned(TOPIC_ID), disk)

    assert manager.logs == {}
    assert manager.directories[0].offline_reason is None
    with pytest.raises(LogDirectoryError) as refused:
        manager.create_log(TP, TOPIC_ID, CONFIG)
    assert refused.value.shortage
    manager.create_log(TopicPartition("other", 0), TOPIC_ID, CONFIG)
    manager.checkpoint()
    starts = decode_offsets((folder.parent / LOG_START_OFFSET).read_bytes())
    assert starts == {TP: 7}  # of the one that is not open

    log = manager.create_log(TP, TOPIC_ID, CONFIG)

    assert (log.log_start_offset, log.log_end_offset) == (7, COUNT)
    assert values(log) == [b"value %d" % index for index in range(7, COUNT)]
    assert [path.name for path in folder.parent.glob("flights*")] == ["flights-0"]
    manager.close()


def test_a_closed_log_of_a_topic_that_is_no_more_is_set_aside(open_manager: OpenManager, folder: Path) -> None:
    manager = open_manager(CONFIG)
    write(manager.create_log(TP, TOPIC_ID, CONFIG))
    manager.close()
    disk = FaultyDisk()
    disk.fail("list_sizes", errno.EMFILE)
    manager = load(folder.parent, owned(TOPIC_ID), disk)
    log = manager.create_log(TP, TOPIC_ID[::-1], CONFIG)
    assert log.log_end_offset == 0
    assert len(list(folder.parent.glob("*-stray"))) == 1
    manager.close()
