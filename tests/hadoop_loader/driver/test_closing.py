"""Watermarks and the directories they close, as operators are promised them."""

from __future__ import annotations

from millstream.hadoop_loader.driver.closing import directories_to_close, watermarks_after
from millstream.hadoop_loader.job import LateSettings
from millstream.hadoop_loader.splits import RangeRead, TopicPartitionId

HOUR_MS = 3_600_000


def read(partition: int, max_timestamp_ms: int) -> RangeRead:
    return RangeRead("t", "id", partition, 0, 1, 0, 1, 0, 0, 0, 1, max_timestamp_ms)


def test_the_slowest_partition_holds_its_topic_back() -> None:
    closing = watermarks_after({}, [read(0, 500), read(1, 300), read(0, 700)], (), LateSettings())

    assert closing.watermarks == {"id": {0: 700, 1: 300}}
    assert closing.topics == {"id": 300}


def test_time_never_goes_back() -> None:
    closing = watermarks_after({"id": {0: 900}}, [read(0, 500)], (), LateSettings())

    assert closing.watermarks == {"id": {0: 900}}
    assert closing.topics == {"id": 900}


def test_an_idle_partition_holds_nothing_back() -> None:
    before = {"id": {0: 100, 1: 200}}

    assert watermarks_after(before, [read(1, 800)], (), LateSettings()).topics == {"id": 800}
    waiting = LateSettings(idle_partitions="wait")
    assert watermarks_after(before, [read(1, 800)], (), waiting).topics == {"id": 100}


def test_a_partition_with_a_lag_is_not_idle() -> None:
    before = {"id": {0: 100, 1: 200}}
    lagging = {TopicPartitionId("id", 0)}

    assert watermarks_after(before, [read(1, 800)], lagging, LateSettings()).topics == {"id": 100}


def test_records_without_a_time_move_nothing() -> None:
    closing = watermarks_after({}, [read(0, -1)], (), LateSettings())

    assert closing.watermarks == {}
    assert closing.topics == {}


def test_a_directory_closes_once_time_is_past_its_end_by_so_much() -> None:
    settings = LateSettings(close_after_s=3600)
    ends = {"h=0": HOUR_MS, "h=1": 2 * HOUR_MS, "h=2": 3 * HOUR_MS, "__HIVE_DEFAULT_PARTITION__": None}

    def closed(now_ms: int) -> list[tuple[str, str]]:
        return directories_to_close({"t": ends, "u": ends}, {"t": now_ms}, settings, ends.get)

    assert closed(2 * HOUR_MS - 1) == []
    assert closed(2 * HOUR_MS) == [("t", "h=0")]
    assert closed(3 * HOUR_MS) == [("t", "h=0"), ("t", "h=1")]


def test_a_partition_with_a_lag_of_which_nothing_was_loaded_holds_its_topic_back() -> None:
    lagging = {TopicPartitionId("id", 0), TopicPartitionId("other", 5)}

    closing = watermarks_after({"id": {2: 100}}, [read(1, 800)], lagging, LateSettings())

    assert closing.watermarks == {"id": {1: 800}}
    assert closing.topics == {}
