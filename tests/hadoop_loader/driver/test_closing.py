"""Watermarks and the directories they close, as operators are promised them."""

from __future__ import annotations

import json

from millstream.hadoop_loader.commit import Position
from millstream.hadoop_loader.commit.state import TableState
from millstream.hadoop_loader.driver.closing import directories_to_close, watermarks_after
from millstream.hadoop_loader.driver.draft import draft_of
from millstream.hadoop_loader.job import (
    DestinationSettings,
    LateSettings,
    LoadJob,
    Partitioning,
    SourceSettings,
    ValueSettings,
)
from millstream.hadoop_loader.splits import RangeRead, TopicPartitionId
from millstream.hadoop_loader.tables import merge

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


def test_partitions_of_a_topic_that_is_loaded_anew_are_as_if_nothing_of_them_had_been() -> None:
    before = {"id": {0: -1, 1: -1, 2: -1}}
    waiting = LateSettings(idle_partitions="wait")

    assert watermarks_after(before, [read(1, 800)], (), waiting).topics == {"id": 800}
    assert watermarks_after(before, [read(1, 800)], {TopicPartitionId("id", 0)}, LateSettings()).topics == {}


def test_directories_of_a_table_that_takes_no_values_any_more_close_too() -> None:
    def schema(type_: str) -> str:
        return json.dumps({"type": "record", "name": "R", "fields": [{"name": "a", "type": type_}]})

    before = merge(None, {1: schema("int")}, topic="t").document
    merged = merge(before, {2: schema("long")}, topic="t")
    assert [table.name for table in merged.version.tables()] == ["t.v2"]
    job = LoadJob(
        name="j",
        source=SourceSettings(bootstrap_servers="127.0.0.1:9092", topics=("t",)),
        value=ValueSettings(format="raw"),
        destination=DestinationSettings(uri="file:///lake", formats=frozenset({"parquet"})),
        partitioning=Partitioning(kind="time", pattern="h=%Y-%m-%d-%H"),
    )
    first = "h=1970-01-01-00"
    state = TableState(number=5)
    state.topics, state.positions, state.watermarks = {"id": "t"}, {"id": {0: Position(0)}}, {"id": {0: 0}}
    state.open = {"t/parquet": {first}, "t.v2/parquet": {first}, "u/parquet": {first}}

    for changed, known in (({"t": merged.document}, before), ({}, merged.document)):
        state.schemas = {"t": known}
        drafted = draft_of(
            job,
            state,
            cluster_id="c",
            reads=[read(0, 40 * HOUR_MS)],
            files=[],
            tables={"t": merged.version},
            schemas=changed,
            moved={},
            topics={"id": "t"},
            lagging=frozenset(),
            report={},
        )
        assert drafted.closed == (f"t/parquet/{first}", f"t.v2/parquet/{first}")
