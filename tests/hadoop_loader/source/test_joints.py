"""Pieces of one partition that were read of two logs are noticed before they are committed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.inline_engine import InlineEngine
from tests.support.raw_topics import RawTopic

from millstream.hadoop_loader.driver import Outcome, run_load
from millstream.hadoop_loader.driver.surroundings import Surroundings
from millstream.hadoop_loader.engines import AttemptFinished, EngineEvent
from millstream.hadoop_loader.filesystem import FileSystem, open_filesystem
from millstream.hadoop_loader.job import LoadJob
from millstream.hadoop_loader.source import EpochEnd, joints, read_cut_topics
from millstream.hadoop_loader.source.leaders import Asked
from millstream.hadoop_loader.splits import RangeRead
from millstream.testing import TestBroker


@pytest.fixture(params=["millstream", pytest.param("kafka", marks=pytest.mark.java)])
def topic(request: pytest.FixtureRequest, tmp_path: Path) -> RawTopic:
    kind = "millstream_broker_session" if request.param == "millstream" else "apache_kafka"
    return RawTopic(request.getfixturevalue(kind).bootstrap_servers, tmp_path / "lake")


def pieces_of(topic: RawTopic, *ends: tuple[int, int]) -> list[RangeRead]:
    """Pieces of partition 0 that were read up to these offsets, with records of these leader epochs before them."""
    starts = [0, *(end for end, _ in ends)]
    return [
        RangeRead(topic.name, "id", 0, start, end, epoch, end - start, 0, 0, 0, end - start, -1)
        for start, (end, epoch) in zip(starts, ends, strict=False)
    ]


@pytest.mark.parametrize(
    ("ends", "is_cut"),
    [
        ([(4, 0), (10, 0)], False),
        # The first piece is of a log that had more of epoch 0 than the one that the second piece is of.
        ([(12, 0), (20, 1)], True),
        # The other way round: the first piece was read after the election, the second one before it.
        ([(4, 0), (12, 0)], True),
        # Of an epoch that the leader has never heard of.
        ([(4, 7), (10, 0)], True),
        # What is not known cannot be compared; a piece alone is compared by the next run.
        ([(4, -1), (12, -1)], False),
        ([(12, 0)], False),
    ],
)
def test_pieces_are_of_one_log(topic: RawTopic, ends: list[tuple[int, int]], is_cut: bool) -> None:
    topic.send(10)

    found = read_cut_topics(topic.job().source, pieces_of(topic, *ends))

    assert list(found) == ([topic.name] if is_cut else [])
    if is_cut:
        assert f"the log of {topic.name}-0 was cut while it was read" in found[topic.name]


def test_a_leader_that_cannot_be_asked_leaves_its_topic_out(
    millstream_broker_session: TestBroker, tmp_path: Path
) -> None:
    topic = RawTopic(millstream_broker_session.bootstrap_servers, tmp_path / "lake")
    away = replace(topic.job(timeout_s=1.0).source, bootstrap_servers="127.0.0.1:9")

    found = read_cut_topics(away, pieces_of(topic, (4, 0), (10, 0)))

    assert "could not be asked" in found[topic.name]
    assert read_cut_topics(away, pieces_of(topic, (4, 0))) == {}  # nobody is asked


def test_a_partition_that_a_broker_leaves_out_of_its_answer_leaves_its_topic_out(
    millstream_broker_session: TestBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = RawTopic(millstream_broker_session.bootstrap_servers, tmp_path / "lake")

    async def nothing(*_: object, **__: object) -> Asked[EpochEnd]:
        return Asked()

    monkeypatch.setattr(joints, "ask_epoch_ends", nothing)

    found = read_cut_topics(topic.job().source, pieces_of(topic, (4, 0), (10, 0)))

    assert "is not known: its leader left it out of what it answered" in found[topic.name]


class OfAnotherLog(InlineEngine):
    """Says of each split that it ended in an epoch that its leader does not know."""

    def events(self, timeout_s: float) -> list[EngineEvent]:
        return [self._changed(event) for event in super().events(timeout_s)]

    @staticmethod
    def _changed(event: EngineEvent) -> EngineEvent:
        if not isinstance(event, AttemptFinished):
            return event
        read = tuple(replace(one, leader_epoch=9) for one in event.result.read)
        return replace(event, result=replace(event.result, read=read))


def test_a_run_commits_nothing_of_a_topic_that_was_cut_while_it_was_read(
    millstream_broker_session: TestBroker, tmp_path: Path
) -> None:
    topic = RawTopic(millstream_broker_session.bootstrap_servers, tmp_path / "lake")
    topic.send(3_000, size=1_000)  # more than one split takes
    job = topic.job(changes={"split_bytes": 2**20})

    cut = run_load(job, surroundings=in_this_process(OfAnotherLog))

    assert (cut.outcome, cut.number, cut.splits) == (Outcome.FAILED, None, 3)
    assert "was cut while it was read" in cut.errors[0]
    whole = run_load(job, surroundings=in_this_process(InlineEngine))
    assert (whole.outcome, whole.rows, whole.errors) == (Outcome.LOADED, 3_000, [])


def in_this_process(kind: Callable[[LoadJob, FileSystem], InlineEngine]) -> Surroundings:
    opened: list[FileSystem] = []

    def open_one(job: LoadJob) -> FileSystem:
        opened.append(open_filesystem(job.destination.uri, job.destination.filesystem))
        return opened[-1]

    return Surroundings(open_filesystem=open_one, open_engine=lambda job: kind(job, opened[-1]))
