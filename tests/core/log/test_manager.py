"""The life of logs in a manager: found, created, expired, deleted, set aside."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.core.log.conftest import OpenManager
from tests.support.logs import NOW_MS, TOPIC_ID, append, read_all

from millstream.core.log import LogConfig, LogDirectory, LogManager, TopicPartition, Unowned
from millstream.core.log.checkpoints import (
    decode_clean_shutdown,
    decode_leader_epochs,
    decode_offsets,
    decode_partition_metadata,
    encode_offsets,
    encode_partition_metadata,
)
from millstream.core.log.errors import CorruptCheckpointError, LogDirectoryError
from millstream.core.records import BatchBuilder, read_header

TP = TopicPartition("flights-to-rome", 12)
CONFIG = LogConfig(segment_bytes=300)


def test_folder_names() -> None:
    assert TopicPartition.from_folder("flights-to-rome-12") == TP
    assert str(TP) == "flights-to-rome-12"
    for name in ("flights", "-1", "flights-", "flights-x", "flights-01", "flights--", "flights-99999999999"):
        assert TopicPartition.from_folder(name) is None or name == "-1"
    long = TopicPartition("t" * 249, 7).folder_with_suffix("-delete")
    assert len(long) <= 255
    assert long.endswith("-delete")


def test_retention_by_size_drops_whole_segments_from_the_front(open_manager: OpenManager, tmp_path: Path) -> None:
    manager = open_manager()
    config = LogConfig(segment_bytes=300, retention_bytes=700, retention_ms=-1, file_delete_delay_ms=1000)
    log = manager.create_log(TP, TOPIC_ID, config)
    for index in range(30):
        append(log, b"%04d" % index)
    before = read_all(log)
    assert manager.delete_old_segments(NOW_MS, {TP: 0}) == 0  # nothing is below the high watermark
    assert manager.delete_old_segments(NOW_MS, {TP: 30}) > 0
    assert 700 <= log.size_bytes <= 1000
    assert log.log_start_offset == log.segments.first.base_offset > 0
    assert read_all(log) == before[log.log_start_offset :]
    assert log.leader_epochs.entries == ((0, log.log_start_offset),)
    folder = tmp_path / "data" / str(TP)
    assert len(list(folder.glob("*.deleted"))) > 3
    assert manager.unlink_doomed(NOW_MS + 999) == 0
    manager.unlink_doomed(NOW_MS + 1000)
    assert list(folder.glob("*.deleted")) == []


def test_retention_by_time_counts_from_the_newest_record(open_manager: OpenManager) -> None:
    manager = open_manager()
    log = manager.create_log(TP, TOPIC_ID, LogConfig(segment_bytes=300, retention_ms=1000))
    for index in range(12):
        append(log, b"%04d" % index, timestamp=NOW_MS + 100 * index)
    bases = [segment.base_offset for segment in log.segments]
    per_segment = bases[1]
    oldest = NOW_MS + 100 * (per_segment - 1)  # the newest of the first segment
    assert manager.delete_old_segments(oldest + 1000, {TP: 12}) == 0
    assert manager.delete_old_segments(oldest + 1001, {TP: 12}) > 0
    assert log.log_start_offset == bases[1]
    manager.delete_old_segments(NOW_MS + 10**6, {TP: 12})
    assert (log.log_start_offset, log.log_end_offset, log.size_bytes) == (12, 12, 0)  # all of it, and a new segment
    assert append(log, b"next").first_offset == 12


def test_compacted_logs_keep_everything_but_what_was_deleted(open_manager: OpenManager) -> None:
    manager = open_manager()
    config = LogConfig(segment_bytes=300, retention_ms=1, retention_bytes=1, cleanup_policy=frozenset({"compact"}))
    log = manager.create_log(TP, TOPIC_ID, config)
    for index in range(12):
        append(log, b"%04d" % index)
    assert manager.delete_old_segments(NOW_MS + 10**9, {TP: 12}) == 0
    log.move_log_start(9)
    assert manager.delete_old_segments(NOW_MS + 10**9, {TP: 12}) > 0
    assert log.segments.first.base_offset <= log.log_start_offset == 9


def test_a_deleted_partition_is_gone_at_once_and_its_disk_later(open_manager: OpenManager, tmp_path: Path) -> None:
    manager = open_manager()
    log = manager.create_log(TP, TOPIC_ID, CONFIG)
    append(log, b"x")
    manager.delete_log(TP)
    assert TP not in manager.logs
    (folder,) = (tmp_path / "data").glob("*-delete")
    assert manager.create_log(TP, bytes(16), CONFIG).log_end_offset == 0
    manager.unlink_doomed(10**15)
    assert not folder.exists()
    manager.delete_log(TP)
    manager.close()
    manager = open_manager()  # what was left goes with the next start
    manager.unlink_doomed()
    assert list((tmp_path / "data").glob("*-delete")) == []


def test_who_still_works_on_a_deleted_partition_does_not_cost_the_directory(
    open_manager: OpenManager, tmp_path: Path
) -> None:
    """Requests, flushes and retention may hold a log that is deleted, and its folder may be gone already."""
    manager = open_manager()
    log = manager.create_log(TP, TOPIC_ID, LogConfig(segment_bytes=300, file_delete_delay_ms=0))
    for index in range(10):
        append(log, b"%04d" % index)
    builder = BatchBuilder()
    builder.append(NOW_MS, None, b"late")
    batch = builder.build()
    log.reserve(batch, read_header(batch), leader_epoch=0, now_ms=NOW_MS)
    manager.delete_log(TP)
    manager.unlink_doomed(2**62)
    assert list((tmp_path / "data").glob(f"{TP.topic[:10]}*")) == []
    works: list[Callable[[], object]] = [
        log.write,
        log.flush,
        lambda: log.read(0, 1000, end_offset=10, wait=True),
        lambda: log.move_log_start(5),
        lambda: log.delete_old_segments(NOW_MS, 10),
        lambda: log.offset_for_timestamp(NOW_MS),
    ]
    for work in works:
        with pytest.raises(LogDirectoryError, match="the partition is deleted"):
            work()
    log.store_index_tails()
    assert manager.directories[0].offline_reason is None
    again = manager.create_log(TP, TOPIC_ID[::-1], CONFIG)
    append(again, b"first")
    assert again.log_end_offset == 1


def test_a_folder_that_no_metadata_knows_is_set_aside(tmp_path: Path) -> None:
    manager = LogManager([LogDirectory(tmp_path)])
    manager.load(CONFIG, cluster_id="a cluster")
    append(manager.create_log(TP, TOPIC_ID, CONFIG), b"precious")
    manager.close()
    asked = []

    def owner_of(topic_partition: TopicPartition, topic_id: bytes | None) -> Unowned:
        asked.append((topic_partition, topic_id))
        return Unowned.STRAY

    manager = LogManager([LogDirectory(tmp_path)])
    assert manager.load(owner_of, cluster_id="a cluster") == {}
    manager.close()
    assert asked == [(TP, TOPIC_ID)]
    (stray,) = tmp_path.glob("*-stray")
    assert b"precious" in (stray / f"{0:020d}.log").read_bytes()


def test_a_second_copy_of_a_partition_is_set_aside(tmp_path: Path) -> None:
    for name in ("one", "two"):
        manager = LogManager([LogDirectory(tmp_path / name)])
        manager.load(CONFIG, cluster_id="a cluster")
        append(manager.create_log(TP, TOPIC_ID, CONFIG), name.encode())
        manager.close()
    manager = LogManager([LogDirectory(tmp_path / name) for name in ("one", "two")])
    manager.load(CONFIG, cluster_id="a cluster")
    assert list(manager.logs) == [TP]
    manager.close()
    assert len(list(tmp_path.glob("*/*-stray"))) == 1


def test_new_partitions_go_where_fewest_are(tmp_path: Path) -> None:
    manager = LogManager([LogDirectory(tmp_path / name) for name in ("one", "two")])
    manager.load(CONFIG, cluster_id="a cluster")
    for partition in range(6):
        manager.create_log(TopicPartition("t", partition), TOPIC_ID, CONFIG)
    assert [len(list((tmp_path / name).glob("t-*"))) for name in ("one", "two")] == [3, 3]
    manager.directories[0].read_only_reason = "its disk is nearly full"
    assert manager.create_log(TopicPartition("t", 9), TOPIC_ID, CONFIG).directory is manager.directories[1]
    manager.close()


def test_high_watermarks_and_starts_are_checkpointed(open_manager: OpenManager) -> None:
    manager = open_manager()
    log = manager.create_log(TP, TOPIC_ID, CONFIG)
    append(log, b"a", b"b", b"c")
    log.move_log_start(1)
    manager.close(broker_epoch=44, high_watermarks={TP: 2})
    manager = open_manager()
    assert manager.directories[0].high_watermarks == {TP: 2}
    assert manager.directories[0].broker_epoch == 44
    assert manager.logs[TP].log_start_offset == 1
    assert manager.logs[TP].flushed_offset == 3


def test_progress_is_told(open_manager: OpenManager, tmp_path: Path) -> None:
    manager = open_manager()
    for partition in range(5):
        manager.create_log(TopicPartition("t", partition), TOPIC_ID, CONFIG)
    manager.close()
    told: list[tuple[int, int]] = []
    manager = LogManager([LogDirectory(tmp_path / "data")])
    manager.load(CONFIG, cluster_id="a cluster", on_progress=lambda done, total: told.append((done, total)))
    assert sorted(told) == [(done, 5) for done in range(1, 6)]
    manager.release()


def test_checkpoint_texts_are_kafkas() -> None:
    assert encode_offsets({TopicPartition("a", 0): 5, TopicPartition("b", 2): 7}) == b"0\n2\na 0 5\nb 2 7\n"
    assert encode_partition_metadata(TOPIC_ID) == b"version: 0\ntopic_id: AAECAwQFBgcICQoLDA0ODw"
    assert decode_partition_metadata(b"version: 0\ntopic_id: AAECAwQFBgcICQoLDA0ODw\n") == TOPIC_ID
    assert decode_clean_shutdown(b'{"version":0,"brokerEpoch":12}') == 12
    assert decode_clean_shutdown(b"") == -1
    for data in (b"", b"1\n0\n", b"0", b"0\nx\n", b"0\n1\na 0\n", b"0\n2\na 0 1\n", b"\xff"):
        with pytest.raises(CorruptCheckpointError):
            decode_offsets(data)
    for data in (b"", b"0\n1\n1\n", b"0\n1\nx 1\n"):
        with pytest.raises(CorruptCheckpointError):
            decode_leader_epochs(data)
    for data in (b"", b"version: 1\ntopic_id: x", b"version: 0", b"\xff"):
        with pytest.raises(CorruptCheckpointError):
            decode_partition_metadata(data)


def test_a_topic_made_again_owes_nothing_to_the_one_before(open_manager: OpenManager) -> None:
    manager = open_manager(CONFIG)
    log = manager.create_log(TP, TOPIC_ID, CONFIG)
    for _ in range(20):
        append(log, b"old")
    log.flush()
    log.move_log_start(15)
    manager.checkpoint()
    manager.delete_log(TP)

    append(manager.create_log(TP, bytes(16), CONFIG), b"new")
    manager.release()  # as kill -9 would

    log = open_manager(CONFIG).logs[TP]
    assert [stored.value for stored in read_all(log, 0)] == [b"new"]


def test_snapshots_of_earlier_stops_do_not_pile_up(open_manager: OpenManager, tmp_path: Path) -> None:
    for start in range(5):
        manager = open_manager(LogConfig())
        log = manager.logs.get(TP) or manager.create_log(TP, TOPIC_ID, LogConfig())
        assert len(log.producers) == min(start, 1)
        append(log, b"x", producer_id=7, producer_epoch=0, base_sequence=start)
        manager.close()
    open_manager(LogConfig())
    assert [path.name for path in (tmp_path / "data" / str(TP)).glob("*.snapshot")] == [f"{5:020d}.snapshot"]


def test_a_folder_that_no_topic_owns_is_kept_apart_from_the_new_one(open_manager: OpenManager, tmp_path: Path) -> None:
    manager = open_manager()
    log = manager.create_log(TP, TOPIC_ID, CONFIG)
    for index in range(30):
        append(log, b"%04d" % index)
    folder = tmp_path / "data" / str(TP)
    manager.delete_log(TP)
    (deleted,) = folder.parent.glob("*-delete")
    deleted.rename(folder)  # as when a full disk refused the new name

    again = manager.create_log(TP, bytes(16), CONFIG)

    assert (again.log_start_offset, again.log_end_offset) == (0, 0)
    assert len(list(folder.glob("*.log"))) == 1
    (stray,) = folder.parent.glob("*-stray")
    assert len(list(stray.glob("*.log"))) > 1
