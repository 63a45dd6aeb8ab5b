"""Positions against topics: whatever happened to a topic, it is loaded or told, and never silently skipped."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.core.wire import ErrorCode
from millstream.hadoop_loader.commit.entries import Position
from millstream.hadoop_loader.job import SourceSettings
from millstream.hadoop_loader.source import (
    EpochEnd,
    FindingKind,
    MissingTopic,
    PartitionNow,
    Reconciled,
    Severity,
    SourceSnapshot,
    TopicNow,
    reconcile,
)
from millstream.hadoop_loader.source.snapshot import NO_TOPIC_ID
from millstream.hadoop_loader.splits import GapReason

ID, OLD_ID = "flights-id-000000000000", "flights-id-older-000000"


def now(partition: int = 0, begin: int = 0, end: int = 100, **fields: Any) -> PartitionNow:
    known = {
        "begin_offset": begin,
        "end_offset": end,
        "high_watermark": end,
        "start_offset": begin,
        "stop_offset": end,
    }
    return PartitionNow(partition, 5, **(known | fields))


def held(
    *partitions: PartitionNow,
    positions: dict[int, Position] | None = None,
    topic_id: str = ID,
    of_id: str = ID,
    cluster_id: str = "cluster-1",
    missing: MissingTopic | None = None,
    **settings: Any,
) -> Reconciled:
    """Reconcile one topic `flights`; positions are those of the topic with the id `of_id`."""
    source = SourceSettings(**{"bootstrap_servers": "127.0.0.1:9092", "topics": ("flights",)} | settings)
    topics = {} if missing else {"flights": TopicNow("flights", topic_id, partitions)}
    lacking = {"flights": missing} if missing else {}
    return reconcile(
        SourceSnapshot("cluster-1", topics, lacking, {of_id: positions} if positions else {}),
        source,
        cluster_id=cluster_id,
        topics={of_id: "flights"} if positions else {},
        positions={of_id: positions} if positions else {},
    )


def ranges(result: Reconciled) -> dict[int, tuple[int, int]]:
    return {each.partition: (each.start_offset, each.end_offset) for each in result.ranges}


def kinds(result: Reconciled) -> dict[FindingKind, Severity]:
    return {finding.kind: finding.severity for finding in result.findings}


def test_a_partition_goes_on_where_it_is() -> None:
    result = held(now(0), now(1), positions={0: Position(40, 5), 1: Position(100, 5)})
    assert ranges(result) == {0: (40, 100)}
    assert result.ranges[0].leader_epoch == 5
    assert result.findings == []
    assert result.moved == {}


def test_a_new_topic_starts_where_the_job_says_and_keeps_that() -> None:
    result = held(now(0, start_offset=100), now(1, end=0, start_offset=0), start="latest")
    assert ranges(result) == {}
    # Or the next run would start at the end again, over what came in between.
    assert result.moved == {ID: {0: Position(100), 1: Position(0)}}
    assert kinds(result) == {FindingKind.NEW_TOPIC: Severity.NOTE}


@pytest.mark.parametrize("start", ["latest", 1_790_000_000_000])
def test_a_topic_that_starts_late_waits_for_all_of_its_partitions(start: str | int) -> None:
    away = PartitionNow(1, error="it has no leader now")

    first = held(now(0, start_offset=90), away, start=start)

    assert (ranges(first), first.moved, first.ends) == ({}, {}, {})
    assert kinds(first) == {FindingKind.NEW_TOPIC: Severity.NOTE, FindingKind.UNAVAILABLE: Severity.SKIPPED}
    assert "before all say where they start" in str(first.findings[-1])
    # So the next run, with what the first one moved, loads nothing of before the start.
    second = held(now(0, start_offset=90), now(1, start_offset=95), start=start, positions=first.moved.get(ID))
    assert ranges(second) == {0: (90, 100), 1: (95, 100)}


def test_a_topic_that_starts_at_its_beginning_waits_for_nobody() -> None:
    result = held(now(0), PartitionNow(1, error="it has no leader now"))
    assert ranges(result) == {0: (0, 100)}
    assert ranges(held(now(0), now(1), positions={0: Position(100)})) == {1: (0, 100)}


def test_a_new_topic_starts_where_another_loader_left_it() -> None:
    open_end = now(3, left_offset=80, end=70, high_watermark=80)
    left = (now(0, left_offset=40), now(1, left_offset=100), now(2, start_offset=90), open_end)
    offsets = {"flights": {0: 40, 1: 100, 3: 80}}

    result = held(*left, start="latest", start_offsets=offsets)

    # The last one ends in a transaction that the other loader had read.
    assert ranges(result) == {0: (40, 100), 2: (90, 100)}
    assert result.moved == {ID: {0: Position(40), 1: Position(100), 2: Position(90), 3: Position(80)}}
    (note,) = result.findings
    assert "offsets of another loader (partitions 0, 1, 3), the others at latest (partitions 2 at 90)" in note.sentence
    # From there on the positions count, and an added partition is no part of what was left.
    later = held(now(0), now(1), positions={0: Position(60)}, start_offsets=offsets)
    assert ranges(later) == {0: (60, 100), 1: (0, 100)}


@pytest.mark.parametrize("start", ["earliest", "latest"])
def test_records_of_which_the_group_knows_nothing_are_not_guessed_about(start: str) -> None:
    # Of the third one there is a record that is not to be read yet.
    partitions = [now(0, left_offset=40), now(1, begin=7), now(2, end=0, high_watermark=1), now(3, begin=9, end=9)]

    refused = held(*partitions, start=start, start_group="connect")

    (finding,) = refused.findings
    assert (finding.kind, finding.severity) == (FindingKind.START_REFUSED, Severity.TOPIC_STOPPED)
    assert "group connect has committed nothing of topic flights, partitions 1, 2: they have records" in str(finding)
    assert "name them in source.start_offsets" in str(finding)
    assert "the log of partition 1 begins at 7" in str(finding)
    assert (ranges(refused), refused.moved) == ({}, {})
    # They begin as they are named; the one without records begins where those that come will be.
    named = [
        partitions[0],
        replace(partitions[1], left_offset=50),
        replace(partitions[2], left_offset=0),
        partitions[3],
    ]
    result = held(*named, start=start, start_group="connect", start_offsets={"flights": {1: 50, 2: 0}})
    assert ranges(result) == {0: (40, 100), 1: (50, 100)}
    assert result.moved == {ID: {0: Position(40), 1: Position(50), 2: Position(0), 3: Position(9)}}
    assert "(partitions 3 at 9)" in result.findings[0].sentence


def test_a_topic_that_the_group_never_had_is_named_alone() -> None:
    (finding,) = held(now(begin=3), start_group="connect").findings
    assert finding.kind is FindingKind.START_REFUSED
    assert finding.remedy.startswith("name them in source.start_offsets, for this topic alone")
    # Without records there is nothing that could be loaded twice, or be left out.
    assert held(now(end=0), start_group="connect").moved == {ID: {0: Position(0)}}


def test_a_group_that_cannot_be_asked_stops_topics_that_are_new() -> None:
    source = SourceSettings(bootstrap_servers="127.0.0.1:9092", topics=("flights", "ships"), start_group="connect")
    topics = {
        "flights": TopicNow("flights", ID, (now(),)),
        "ships": TopicNow("ships", "ships-id", (now(),), left_error="the group may not be read"),
    }
    positions = {ID: {0: Position(40)}}

    snapshot = SourceSnapshot("cluster-1", topics, {}, positions)
    result = reconcile(snapshot, source, cluster_id="cluster-1", topics={ID: "flights"}, positions=positions)

    assert ranges(result) == {0: (40, 100)}
    assert result.stopped_topics == {"ships"}
    (finding,) = result.findings
    assert finding.kind is FindingKind.START_REFUSED
    assert "what group connect left is not known: the group may not be read" in finding.sentence


def test_a_log_that_was_cut_and_grew_behind_another_loader_is_another() -> None:
    partition = now(left_offset=40, left_epoch=3)
    same = held(replace(partition, epoch_end=EpochEnd(3, 60)), start_group="connect")
    assert (ranges(same), same.moved) == ({0: (40, 100)}, {ID: {0: Position(40, 3)}})

    cut = held(replace(partition, epoch_end=EpochEnd(3, 30)), start_group="connect")
    assert kinds(cut)[FindingKind.LOG_TRUNCATED] is Severity.TOPIC_STOPPED
    assert (ranges(cut), cut.moved) == ({}, {})


def test_what_was_deleted_behind_another_loader_is_a_gap() -> None:
    partitions = (now(0, begin=60, left_offset=40), now(1, left_offset=7))
    stopped = held(*partitions, start_offsets={"flights": {0: 40, 1: 7}})
    assert FindingKind.RECORDS_LOST in kinds(stopped)
    assert (ranges(stopped), stopped.moved, stopped.stopped_topics) == ({}, {}, {"flights"})

    gone_on = held(*partitions, start_offsets={"flights": {0: 40, 1: 7}}, gaps="continue")
    assert ranges(gone_on) == {0: (60, 100), 1: (7, 100)}
    assert [(gap.first, gap.last) for gap in gone_on.gaps] == [(40, 59)]


@pytest.mark.parametrize(
    ("partition", "settings", "sentence"),
    [
        (
            now(left_offset=101),
            {"start_offsets": {"flights": {0: 101}}},
            "start_offsets is 101, and its log ends at 100",
        ),
        (now(left_offset=101), {"start_group": "connect"}, "group connect committed is 101, and its log ends at 100"),
        (now(left_offset=5), {"start_offsets": {"flights": {0: 5, 4: 9}}}, "partitions that it lacks: 4"),
        (now(), {"start_group": "connect"}, "group connect has committed nothing of topic flights"),
    ],
)
def test_a_start_that_cannot_be_refuses_the_topic(
    partition: PartitionNow, settings: dict[str, Any], sentence: str
) -> None:
    result = held(partition, **settings)

    assert kinds(result)[FindingKind.START_REFUSED] is Severity.TOPIC_STOPPED
    assert sentence in result.findings[-1].sentence
    assert (ranges(result), result.moved, result.stopped_topics) == ({}, {}, {"flights"})
    # Once it was loaded it goes on where it is; what was made anew has a beginning of its own.
    assert ranges(held(replace(partition, left_offset=None), positions={0: Position(40)}, **settings)) == {0: (40, 100)}
    anew = held(partition, positions={0: Position(4)}, of_id=OLD_ID, recreated="continue", **settings)
    assert ranges(anew) == {0: (0, 100)}


@pytest.mark.parametrize("settings", [{"start_group": "connect"}, {"start_offsets": {"flights": {0: 40}}}])
def test_a_topic_that_another_loader_left_waits_for_all_of_its_partitions(settings: dict[str, Any]) -> None:
    result = held(now(0, left_offset=40), PartitionNow(1, error="it has no leader now"), **settings)
    assert (ranges(result), result.moved) == ({}, {})
    assert FindingKind.UNAVAILABLE in kinds(result)


def test_a_partition_that_stop_offsets_hold_is_not_idle() -> None:
    partitions = (now(0, stop_offset=40), now(1), now(2, stop_offset=100))
    positions = {0: Position(40), 1: Position(60), 2: Position(100)}
    stops = {"flights": {0: 40, 2: 200}}

    assert held(*partitions, positions=positions, stop_offsets=stops).withheld == {ID: {0}}
    # At a time it is: what comes after it is of a later time.
    assert held(*partitions, positions=positions, stop=1).withheld == {}


def test_an_added_partition_is_loaded_from_its_beginning_whatever_the_job_says() -> None:
    result = held(now(0), now(1, begin=3, start_offset=100), positions={0: Position(100)}, start="latest")
    assert ranges(result) == {1: (3, 100)}
    assert kinds(result) == {FindingKind.PARTITIONS_ADDED: Severity.NOTE}


def test_records_lost_to_retention() -> None:
    partitions = (now(0, begin=60), now(1))
    positions = {0: Position(40, 5), 1: Position(7, 5)}

    stopped = held(*partitions, positions=positions)
    assert stopped.ranges == []
    assert stopped.moved == {}
    assert stopped.gaps == []
    assert stopped.stopped_topics == {"flights"}
    (finding,) = stopped.findings
    assert finding.severity is Severity.TOPIC_STOPPED
    assert "20 offsets were deleted before they were loaded" in finding.sentence
    assert "source.gaps" in finding.remedy

    gone_on = held(*partitions, positions=positions, gaps="continue")
    assert ranges(gone_on) == {0: (60, 100), 1: (7, 100)}
    assert gone_on.moved == {ID: {0: Position(60)}}
    (gap,) = gone_on.gaps
    assert (gap.first, gap.last, gap.offsets, gap.reason) == (40, 59, 20, GapReason.RETENTION)
    assert kinds(gone_on) == {FindingKind.RECORDS_LOST: Severity.NOTE}


def test_a_gap_up_to_the_end_moves_the_position() -> None:
    result = held(now(begin=100), positions={0: Position(40)}, gaps="continue")
    assert result.ranges == []
    assert result.moved == {ID: {0: Position(100)}}


@pytest.mark.parametrize(
    ("partition", "position", "diverged"),
    [
        # The epoch of the last record loaded ended below it: an unclean leader had less.
        (now(epoch_end=EpochEnd(4, 30)), Position(40, 4), 30),
        # Its log was rewritten, and is longer than the position by now.
        (now(end=500, epoch_end=EpochEnd(3, 35)), Position(40, 4), 35),
        # The leader knows no such epoch: its log is an older one.
        (now(end=20, epoch_end=EpochEnd(-1, -1)), Position(40, 9), 20),
        # No epoch to compare: the log is shorter than what was loaded.
        (now(end=20), Position(40), 20),
    ],
)
def test_a_truncated_log(partition: PartitionNow, position: Position, diverged: int) -> None:
    stopped = held(partition, positions={0: position})
    assert kinds(stopped) == {FindingKind.LOG_TRUNCATED: Severity.TOPIC_STOPPED}
    assert stopped.ranges == []
    assert f"from {diverged} on" in stopped.findings[0].sentence

    gone_on = held(partition, positions={0: position}, truncated="continue")
    assert ranges(gone_on) == ({0: (diverged, partition.end_offset)} if diverged < partition.end_offset else {})
    assert gone_on.moved == {ID: {0: Position(diverged)}}


def test_the_same_log_is_no_truncated_one() -> None:
    # Its epoch goes on past the position; or ended exactly there.
    for end in (40, 100):
        assert held(now(epoch_end=EpochEnd(4, end)), positions={0: Position(40, 4)}).findings == []


def test_a_position_past_the_last_stable_offset_waits() -> None:
    result = held(now(end=30, high_watermark=80), positions={0: Position(40, 4)})
    assert result.findings == []
    assert result.ranges == []


def test_a_recreated_topic() -> None:
    positions = {0: Position(40, 5)}
    stopped = held(now(begin=2), positions=positions, of_id=OLD_ID)
    assert kinds(stopped) == {FindingKind.TOPIC_RECREATED: Severity.TOPIC_STOPPED}
    assert OLD_ID in stopped.findings[0].sentence
    assert "a table of its own by `millstream load anew`" in str(stopped.findings[0])

    gone_on = held(
        now(begin=2, start_offset=100), positions=positions, of_id=OLD_ID, recreated="continue", start="latest"
    )
    assert ranges(gone_on) == {0: (2, 100)}
    assert gone_on.moved == {ID: {0: Position(2)}}
    assert kinds(gone_on) == {FindingKind.TOPIC_RECREATED: Severity.NOTE}


GONE = MissingTopic(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "there is no topic 'flights'")


def test_a_topic_that_is_gone() -> None:
    assert kinds(held(missing=GONE, positions={0: Position(4)})) == {FindingKind.TOPIC_DELETED: Severity.NOTE}
    failing = held(missing=GONE, positions={0: Position(4)}, deleted="fail")
    assert failing.stopped_topics == {"flights"}
    assert kinds(held(missing=GONE)) == {FindingKind.TOPIC_MISSING: Severity.TOPIC_STOPPED}


@pytest.mark.parametrize("code", [ErrorCode.TOPIC_AUTHORIZATION_FAILED, ErrorCode.LEADER_NOT_AVAILABLE])
def test_a_topic_that_is_not_shown_is_no_deleted_one(code: ErrorCode) -> None:
    loaded = held(missing=MissingTopic(code, "not now"), positions={0: Position(4)})
    assert kinds(loaded) == {FindingKind.UNAVAILABLE: Severity.SKIPPED}
    assert loaded.stopped_topics == set()
    never = held(missing=MissingTopic(code, "not now"))
    assert kinds(never) == {FindingKind.TOPIC_MISSING: Severity.TOPIC_STOPPED}
    for result in (loaded, never):
        assert "not now" in result.findings[0].sentence
        assert ("rights" in result.findings[0].remedy) == (code is ErrorCode.TOPIC_AUTHORIZATION_FAILED)


def test_another_cluster_stops_the_run() -> None:
    result = held(now(), positions={0: Position(4)}, cluster_id="cluster-2")
    assert result.is_stopped
    assert result.ranges == []
    assert "cluster-2" in result.findings[0].sentence


def test_topics_without_ids_stop_the_run() -> None:
    assert held(now(), topic_id=NO_TOPIC_ID).is_stopped


def test_a_partition_without_a_leader_is_left_for_the_next_run() -> None:
    result = held(now(0), PartitionNow(1, error="it has no leader now"), positions={0: Position(0), 1: Position(7)})
    assert ranges(result) == {0: (0, 100)}
    assert kinds(result) == {FindingKind.UNAVAILABLE: Severity.SKIPPED}
    assert result.unavailable == {ID: {1}}


def test_bytes_are_estimated_by_the_log_or_by_earlier_runs() -> None:
    by_log = held(now(begin=0, end=100, size_bytes=1000), positions={0: Position(75)})
    assert by_log.ranges[0].estimated_bytes == 250
    source = SourceSettings(bootstrap_servers="127.0.0.1:9092", topics=("flights",))
    snapshot = SourceSnapshot("c", {"flights": TopicNow("flights", ID, (now(),))})
    by_runs = reconcile(snapshot, source, cluster_id="", topics={}, positions={}, record_bytes={ID: 12.5})
    assert by_runs.ranges[0].estimated_bytes == 1250


def test_positions_that_moved_on_need_a_new_snapshot() -> None:
    source = SourceSettings(bootstrap_servers="127.0.0.1:9092", topics=("flights",))
    snapshot = SourceSnapshot(
        "c", {"flights": TopicNow("flights", ID, (now(epoch_end=EpochEnd(5, 100)),))}, {}, {ID: {0: Position(90, 5)}}
    )
    with pytest.raises(AssertionError, match="the snapshot was read for"):
        # Another driver loaded up to 120 meanwhile: that is no truncated log.
        reconcile(snapshot, source, cluster_id="c", topics={ID: "flights"}, positions={ID: {0: Position(120, 5)}})


@given(
    begin=st.integers(0, 50),
    length=st.integers(0, 50),
    unstable=st.integers(0, 20),
    position=st.none() | st.tuples(st.integers(0, 120), st.integers(-1, 6)),
    epoch_end=st.none() | st.tuples(st.integers(-1, 6), st.integers(-1, 120)),
    gaps=st.sampled_from(["fail", "continue"]),
    truncated=st.sampled_from(["fail", "continue"]),
)
def test_every_offset_is_loaded_or_told(
    begin: int,
    length: int,
    unstable: int,
    position: tuple[int, int] | None,
    epoch_end: tuple[int, int] | None,
    gaps: str,
    truncated: str,
) -> None:
    end = begin + length
    one = now(begin=begin, end=end, high_watermark=end + unstable)
    if position is not None and position[1] >= 0 and epoch_end is not None:
        one = replace(one, epoch_end=EpochEnd(*epoch_end))
    at = None if position is None else Position(*position)
    result = held(one, positions=None if at is None else {0: at}, gaps=gaps, truncated=truncated)

    start = begin if at is None else at.offset
    told = kinds(result)
    if result.stopped_topics:
        assert result.ranges == []
        assert result.moved == {}
        assert Severity.TOPIC_STOPPED in told.values()
        return
    moved = result.moved.get(ID, {}).get(0, at)
    assert moved is not None
    if moved.offset > start:
        # Offsets are only passed over as a gap.
        (gap,) = result.gaps
        assert (gap.first, gap.last + 1) == (start, moved.offset)
        assert told[FindingKind.RECORDS_LOST] is Severity.NOTE
    if moved.offset < start:
        assert told[FindingKind.LOG_TRUNCATED] is Severity.NOTE
    # The range goes on from there, within the log, up to the end.
    assert ranges(result) == ({0: (moved.offset, end)} if moved.offset < end else {})
    assert moved.offset >= begin
