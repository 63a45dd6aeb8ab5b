"""A log's two-step append, its reads, rolls, truncation and reopening."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.core.log.conftest import OpenManager
from tests.support.logs import NOW_MS, TOPIC_ID, append, batch, read_all

from millstream.core.log import Log, LogConfig, LogManager, OffsetOutOfRangeError, TopicPartition
from millstream.core.log.file_region import READ_BUFFER_SIZE_BYTES_MAX, ReadBuffer
from millstream.core.records import iter_batches, read_header
from millstream.core.wire import ErrorCode, KafkaError

TP = TopicPartition("flights", 3)


def new_log(manager: LogManager, **config: Any) -> Log:
    return manager.create_log(TP, TOPIC_ID, LogConfig(**config))


def test_reserved_offsets_become_readable_when_written_and_durable_when_flushed(open_manager: OpenManager) -> None:
    log = new_log(open_manager())
    first = append(log, b"a", b"b", write=False)
    second = append(log, b"c", write=False)

    assert (first.first_offset, first.last_offset) == (0, 1)
    assert (second.first_offset, second.last_offset) == (2, 2)
    assert (log.log_end_offset, log.reserved_end_offset) == (0, 3)
    assert log.read(0, 1000).data.nbytes == 0

    assert log.write() == 3
    assert [record.value for record in read_all(log)] == [b"a", b"b", b"c"]
    assert log.flushed_offset == 0
    assert log.flush() == log.flushed_offset == 3


def test_a_batch_gets_its_offset_and_epoch_and_nothing_else(open_manager: OpenManager) -> None:
    log = new_log(open_manager())
    append(log, b"x", b"y")
    original = batch(b"1", b"2", b"3")
    log.reserve(original, read_header(original), leader_epoch=7, now_ms=NOW_MS)
    log.write()

    stored = bytes(log.read(2, 1000).data)
    assert stored[16:] == original[16:]
    header = read_header(stored)
    assert (header.base_offset, header.partition_leader_epoch) == (2, 7)
    assert log.leader_epochs.entries == ((0, 0), (7, 2))


def test_without_a_copy_the_callers_buffer_is_patched_and_written(open_manager: OpenManager) -> None:
    log = new_log(open_manager())
    append(log, b"x")
    data = bytearray(batch(b"large"))
    log.reserve(memoryview(data), read_header(data), leader_epoch=1, now_ms=NOW_MS, copy=False)
    assert read_header(data).base_offset == 1
    log.write()
    assert [record.value for record in read_all(log)] == [b"x", b"large"]


def test_log_append_time_stamps_the_batch(open_manager: OpenManager) -> None:
    log = new_log(open_manager(), message_timestamp_type="LogAppendTime")
    assert append(log, b"a", timestamp=5, now_ms=NOW_MS + 9).log_append_time_ms == NOW_MS + 9
    assert [record.timestamp for record in read_all(log)] == [NOW_MS + 9]


def test_a_batch_larger_than_a_segment_is_refused(open_manager: OpenManager) -> None:
    log = new_log(open_manager(), segment_bytes=500)
    with pytest.raises(KafkaError, match=r"segment\.bytes") as refused:
        append(log, b"v" * 600)
    assert refused.value.code == ErrorCode.RECORD_LIST_TOO_LARGE
    assert append(log, b"fits").first_offset == 0


@pytest.mark.parametrize("size_bytes", [1, 200, 5000])
def test_a_read_begins_with_the_batch_that_holds_the_offset(open_manager: OpenManager, size_bytes: int) -> None:
    log = new_log(open_manager(), index_interval_bytes=200)
    for index in range(50):
        append(log, *(b"%d-%d" % (index, each) for each in range(3)))
    for offset in range(150):
        read = log.read(offset, size_bytes, end_offset=120)
        if offset >= 120:
            assert (read.first_offset, read.next_offset, read.data.nbytes) == (offset, offset, 0)
            continue
        headers = [header for header, _ in iter_batches(read.data)]
        assert read.first_offset == headers[0].base_offset == offset - offset % 3
        assert headers[-1].last_offset + 1 == read.next_offset <= 120
        assert read.data.nbytes <= max(size_bytes, headers[0].size_bytes)


def test_a_first_batch_that_is_too_large_is_given_only_where_one_is_wanted(open_manager: OpenManager) -> None:
    log = new_log(open_manager())
    append(log, b"v" * 1000)
    append(log, b"w")
    assert log.read(0, 100).next_offset == 1
    assert log.read(0, 100, at_least_one=False).data.nbytes == 0
    assert log.read(1, 100, at_least_one=False).next_offset == 2


@pytest.mark.parametrize("wait", [False, True])
def test_who_asks_for_no_bytes_gets_one_batch_or_none(open_manager: OpenManager, wait: bool) -> None:
    """From where an earlier read ended nothing else had to be read, and nothing read was taken for a file cut short."""
    log = new_log(open_manager())
    append(log, b"first")
    append(log, b"second")
    assert log.read(0, 1).next_offset == 1

    assert log.read(1, 0, wait=wait).next_offset == 2
    assert log.read(1, 0, at_least_one=False, wait=wait).data.nbytes == 0
    assert log.directory.offline_reason is None


def test_reading_into_the_callers_buffer(open_manager: OpenManager) -> None:
    log = new_log(open_manager())
    append(log, b"abc")
    append(log, b"d" * 4000)
    append(log, b"e" * 100_000)
    append(log, b"f" * READ_BUFFER_SIZE_BYTES_MAX)
    buffer = ReadBuffer()
    read = log.read(0, 1000, buffer=buffer)
    assert read.next_offset == 1
    assert read.region is None, "too little to be sent from the file"
    assert read.data.obj is log.read(0, 1000, buffer=buffer).data.obj
    assert log.read(1, 1000, buffer=buffer).next_offset == 2  # the buffer grows
    read = log.read(2, 1000, buffer=buffer)
    assert read.region is not None
    assert len(read.region) == len(read.data)
    assert read.region.read() == read.data
    assert read.region.read(70_000) == read.data[70_000:]
    kept = buffer.view(1).obj
    read = log.read(3, 1000, buffer=buffer)  # too large to keep memory for
    assert read.next_offset == 4
    assert read.data.obj is not kept
    assert buffer.view(1).obj is kept


@pytest.mark.parametrize("offset", [-1, 4])
def test_offsets_outside_are_refused(open_manager: OpenManager, offset: int) -> None:
    log = new_log(open_manager())
    append(log, b"a", b"b", b"c")
    with pytest.raises(OffsetOutOfRangeError, match=r"outside 0\.\.3"):
        log.read(offset, 100)


def test_a_closed_segment_is_not_opened_on_the_loop(open_manager: OpenManager) -> None:
    log = new_log(open_manager())
    append(log, b"a")
    log.release()
    with pytest.raises(BlockingIOError):
        log.read(0, 100, wait=False)
    assert log.read(0, 100).next_offset == 1
    assert log.read(0, 100, wait=False).next_offset == 1
    assert log.can_write_inline


def test_segments_roll_by_size(open_manager: OpenManager, tmp_path: Path) -> None:
    log = new_log(open_manager(), segment_bytes=300)
    for index in range(20):
        append(log, b"%04d" % index, write=index % 5 == 4)
    assert len(log.segments) > 3
    assert all(segment.size_bytes <= 300 for segment in log.segments)
    assert [record.value for record in read_all(log)] == [b"%04d" % index for index in range(20)]
    folder = tmp_path / "data" / "flights-3"
    for segment in log.segments:
        for suffix in ("log", "index", "timeindex"):
            assert (folder / f"{segment.base_offset:020d}.{suffix}").exists()
        assert segment.base_offset == 0 or (folder / f"{segment.base_offset:020d}.snapshot").exists()


def test_segments_roll_by_time_and_full_index(open_manager: OpenManager) -> None:
    log = new_log(open_manager(), segment_ms=1000)
    for timestamp in (NOW_MS, NOW_MS + 999, NOW_MS + 1001, NOW_MS + 2001, NOW_MS + 2003):
        append(log, b"x", timestamp=timestamp)
    assert [segment.base_offset for segment in log.segments] == [0, 2, 4]

    other = open_manager(path=Path(log.directory.path).parent / "other").create_log(
        TP, TOPIC_ID, LogConfig(index_interval_bytes=1, segment_index_bytes=60)
    )
    for index in range(12):
        append(other, b"x", timestamp=NOW_MS + index)
    assert [segment.base_offset for segment in other.segments] == [0, 5, 10]


def test_a_roll_is_never_done_inline(open_manager: OpenManager) -> None:
    log = new_log(open_manager(), segment_bytes=320)
    append(log, b"x" * 100)
    append(log, b"y" * 10, write=False)
    assert log.can_write_inline
    append(log, b"z" * 100, write=False)
    assert not log.can_write_inline
    log.write()
    append(log, b"a", write=False, leader_epoch=1)
    assert not log.can_write_inline  # a new leader epoch is written to its checkpoint
    log.write()
    append(log, b"a", write=False, leader_epoch=1)
    assert log.can_write_inline


@pytest.mark.parametrize("clean", [True, False])
def test_reopened_it_is_what_it_was(open_manager: OpenManager, clean: bool) -> None:
    config = LogConfig(segment_bytes=400, index_interval_bytes=100)
    manager = open_manager(config)
    log = manager.create_log(TP, TOPIC_ID, config)
    for index in range(30):
        append(log, b"%d" % index, leader_epoch=index // 10, producer_id=5, producer_epoch=0, base_sequence=index)
    before = read_all(log)
    epochs, producers = log.leader_epochs.entries, log.active_producers()
    segments = [(each.base_offset, each.size_bytes, each.max_timestamp) for each in log.segments]
    if clean:
        manager.close()
    else:
        manager.release()

    log = open_manager(config).logs[TP]

    assert read_all(log) == before
    assert log.topic_id == TOPIC_ID
    assert log.leader_epochs.entries == epochs
    assert [(each[0], each.epoch, each.batches[-1:]) for each in log.active_producers()] == [
        (each[0], each.epoch, each.batches[-1:]) for each in producers
    ]
    for segment in log.segments:
        log.load_max_timestamp(segment)
    assert [(each.base_offset, each.size_bytes, each.max_timestamp) for each in log.segments] == segments
    assert log.flushed_offset == (30 if clean else 0)
    assert append(log, b"next", leader_epoch=2).first_offset == 30


@pytest.mark.parametrize("offset", [0, 1, 7, 15, 29, 30, 31])
def test_truncate_drops_batches_from_the_offset_on(open_manager: OpenManager, offset: int) -> None:
    log = new_log(open_manager(), segment_bytes=400, index_interval_bytes=100)
    for index in range(15):
        append(
            log, b"%d" % index, b"+", leader_epoch=index // 5, producer_id=5, producer_epoch=0, base_sequence=2 * index
        )
    before = read_all(log)

    log.truncate_to(offset)

    end = min(offset - offset % 2, 30)
    assert log.log_end_offset == log.reserved_end_offset == end
    assert read_all(log) == before[:end]
    assert log.leader_epochs.latest_epoch == ((end - 1) // 10 if end else -1)
    following: dict[str, Any] = {} if end == 0 else {"producer_id": 5, "producer_epoch": 0, "base_sequence": end}
    assert append(log, b"n", b"m", **following).first_offset == end
    assert len(read_all(log)) == end + 2


def test_truncate_fully_starts_anew(open_manager: OpenManager) -> None:
    manager = open_manager()
    log = new_log(manager)
    append(log, b"a", b"b")
    log.truncate_fully_at(100)
    assert (log.log_start_offset, log.log_end_offset, log.leader_epochs.entries) == (100, 100, ())
    assert append(log, b"c").first_offset == 100
    manager.release()
    assert [record.offset for record in read_all(open_manager().logs[TP])] == [100]


def test_timestamps_find_the_first_record_at_or_after(open_manager: OpenManager) -> None:
    log = new_log(open_manager(), segment_bytes=400, index_interval_bytes=100)
    timestamps = [NOW_MS + (37 * index) % 100 * 10 for index in range(60)]
    for timestamp in timestamps:
        append(log, b"v", timestamp=timestamp)
    for probe in range(NOW_MS - 5, NOW_MS + 1000, 7):
        expected = next((offset for offset, each in enumerate(timestamps) if each >= probe), None)
        found = log.offset_for_timestamp(probe)
        assert (found and found.offset) == expected, probe
    largest = log.max_timestamp_offset()
    assert largest is not None
    assert (largest.offset, largest.timestamp) == (timestamps.index(max(timestamps)), max(timestamps))
    assert new_log_of_other(open_manager, log).max_timestamp_offset() is None


def new_log_of_other(open_manager: OpenManager, log: Log) -> Log:
    return open_manager(path=Path(log.directory.path).parent / "empty").create_log(TP, TOPIC_ID, LogConfig())


def test_the_log_start_moves_up_only_and_survives_a_restart(open_manager: OpenManager) -> None:
    manager = open_manager()
    log = new_log(manager)
    append(log, b"a", b"b", b"c")
    assert log.move_log_start(2)
    assert not log.move_log_start(1)
    with pytest.raises(OffsetOutOfRangeError):
        log.move_log_start(4)
    with pytest.raises(OffsetOutOfRangeError):
        log.read(1, 100)
    assert log.read(2, 100).first_offset == 0  # the whole batch
    manager.close()
    assert open_manager().logs[TP].log_start_offset == 2


def test_after_a_clean_stop_nothing_of_a_log_file_is_read(open_manager: OpenManager) -> None:
    from millstream.testing.faulty_disk import FaultyDisk

    manager = open_manager()
    log = new_log(manager)
    append(log, b"a", producer_id=1, producer_epoch=0, base_sequence=0)
    manager.close()
    disk = FaultyDisk()
    disk.fail("preadv", path=".log", times=100)
    disk.fail("pread", path=".log", times=100)
    log = open_manager(files=disk).logs[TP]
    assert (log.log_end_offset, len(log.producers)) == (1, 1)
    assert all(segment.opened is None for segment in log.segments)


@pytest.mark.parametrize("clean", [True, False])
def test_the_newest_timestamp_survives_stops_whatever_is_open(open_manager: OpenManager, clean: bool) -> None:
    config = LogConfig(index_interval_bytes=200)
    manager = open_manager(config)
    log = manager.create_log(TP, TOPIC_ID, config)
    for index in range(50):
        append(log, b"x", timestamp=NOW_MS + index)
    if clean:
        while manager.cache.close_half():  # others needed their place
            continue
        manager.close()
    else:
        manager.release()
        open_manager(config).close()
    log = open_manager(config).logs[TP]
    newest = log.max_timestamp_offset()
    assert newest is not None
    assert newest[:2] == (NOW_MS + 49, 49)
    assert log.offset_for_timestamp(NOW_MS + 49) == newest


def test_a_jitter_never_exceeds_the_segments_time(open_manager: OpenManager) -> None:
    log = new_log(open_manager(), segment_ms=1000, segment_jitter_ms=10**9)
    for _ in range(10):
        append(log, b"x", timestamp=NOW_MS)
    assert len(log.segments) == 1
