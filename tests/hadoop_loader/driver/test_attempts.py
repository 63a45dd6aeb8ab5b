"""Attempts: every split ends done or with its topics given up, however attempts end, and nothing else is committed."""

from __future__ import annotations

import random
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.hadoop_loader.driver.attempts import LOST_MAX, PARTS_FAILED_MAX, Attempts
from millstream.hadoop_loader.engines import AttemptFailed
from millstream.hadoop_loader.splits import OffsetRange, RangeRead, Split, SplitResult, StagedFile, UnknownSchema


def range_of(topic: str, partition: int = 0) -> OffsetRange:
    return OffsetRange(topic, f"id of {topic}", partition, -1, 0, 10)


def read_of(wanted: OffsetRange, *, bad: int = 0) -> RangeRead:
    size = wanted.end_offset - wanted.start_offset
    return RangeRead(
        wanted.topic,
        wanted.topic_id,
        wanted.partition,
        wanted.start_offset,
        wanted.end_offset,
        0,
        size - bad,
        bad,
        0,
        0,
        size,
        -1,
    )


def file_of(wanted: OffsetRange, attempt: int) -> StagedFile:
    return StagedFile(
        f"staging/{attempt}/{wanted.topic}-{wanted.partition}",
        wanted.topic,
        "",
        "avro",
        wanted.topic,
        wanted.topic_id,
        wanted.partition,
        0,
        9,
        10,
        1,
        "crc32c:00000000",
        -1,
        -1,
    )


def result_of(split: Split, attempt: int, **changes: Any) -> SplitResult:
    reads = tuple(read_of(wanted) for wanted in split.ranges)
    files = tuple(file_of(wanted, attempt) for wanted in split.ranges)
    return SplitResult(split.number, attempt, files, reads, **changes)


def failed(
    split: Split, attempt: int, *, is_retriable: bool = True, topic: str | None = None, is_own: bool = True
) -> AttemptFailed:
    return AttemptFailed(split.number, attempt, "it broke", "OSError", is_retriable, topic=topic, is_own=is_own)


def test_a_failed_split_runs_again_in_another_folder() -> None:
    split = Split(0, (range_of("a"),))
    attempts = Attempts.of([split])
    assert attempts.take() == [(split, 0)]

    attempts.handle_failed(failed(split, 0))

    assert attempts.take() == [(split, 1)]
    attempts.handle_finished(result_of(split, 1))
    assert attempts.is_done
    assert [file.path for file in attempts.files()] == ["staging/1/a-0"]


def test_what_fails_too_often_gives_up_its_topic_only() -> None:
    bad, good = Split(0, (range_of("a"), range_of("a", 1))), Split(1, (range_of("c"),))
    attempts = Attempts.of([bad, good], failures_max=2)
    attempts.take()
    attempts.handle_finished(result_of(good, 0))

    for attempt in range(2):
        attempts.handle_failed(failed(bad, attempt))
        attempts.take()

    assert attempts.is_done
    assert set(attempts.given_up) == {"a"}
    assert "2 attempts" in attempts.given_up["a"]
    assert {file.topic for file in attempts.files()} == {"c"}


def test_a_failure_of_one_topic_leaves_the_others_of_its_split() -> None:
    split = Split(0, (range_of("a"), range_of("b")))
    attempts = Attempts.of([split])
    attempts.take()

    attempts.handle_failed(failed(split, 0, is_retriable=False, topic="a"))

    [(again, attempt)] = attempts.take()
    assert [wanted.topic for wanted in again.ranges] == ["b"]
    attempts.handle_finished(result_of(again, attempt))
    assert attempts.is_done
    assert {read.topic for read in attempts.reads()} == {"b"}


def fail_for_good(attempts: Attempts, failures: int) -> list[Split]:
    """Have every attempt of the only split fail without a topic; return what it was taken apart into."""
    parts: list[Split] = []
    for _ in range(failures):
        [(taken, attempt)] = attempts.take()
        parts += attempts.handle_failed(failed(taken, attempt))
    return parts


def test_what_fails_for_good_without_a_topic_is_tried_topic_by_topic() -> None:
    split = Split(0, (range_of("a"), range_of("b"), range_of("b", 1), range_of("c")))
    attempts = Attempts.of([split], failures_max=3)

    parts = fail_for_good(attempts, failures=3)

    assert [part.ranges for part in parts] == [split.ranges[:1], split.ranges[1:3], split.ranges[3:]]
    assert attempts.given_up == {}
    assert attempts.take() == [(part, 3) for part in parts]
    # It is a's record that the worker dies of: its neighbours are loaded.
    attempts.handle_failed(failed(parts[0], 3))
    for part in parts[1:]:
        attempts.handle_finished(result_of(part, 3))
    assert attempts.take() == []
    assert attempts.is_done
    assert attempts.given_up == {"a": "it broke"}
    assert [(one.topic, one.partition) for one in attempts.ranges()] == [("b", 0), ("b", 1), ("c", 0)]
    assert {file.topic for file in attempts.files()} == {"b", "c"}


def test_rates_are_shared_by_the_splits_that_run_at_once() -> None:
    split = Split(0, (range_of("a"), range_of("b"), range_of("c")))
    attempts = Attempts.of([split, Split(1, (range_of("d"),))], failures_max=1)
    assert [attempts.shares(1, workers) for workers in (1, 2, 8)] == [1, 2, 2]

    taken = attempts.take()
    parts = attempts.handle_failed(failed(*taken[0]))
    assert len(parts) == 3
    for workers in (1, 2, 3, 8):
        at_work = [Fraction(1, attempts.shares(split.number, workers)) for split in (taken[1].split, *parts)]
        assert sum(at_work[:workers]) <= 1


def test_what_every_topic_would_meet_gives_them_up_at_once() -> None:
    split = Split(0, (range_of("a"), range_of("b")))
    attempts = Attempts.of([split], failures_max=3)
    attempts.take()

    assert not attempts.handle_failed(failed(split, 0, is_retriable=False))

    assert set(attempts.given_up) == {"a", "b"}
    attempts.take()
    assert attempts.is_done


def test_where_one_part_after_another_fails_those_that_wait_are_not_tried() -> None:
    topics = [f"t{number:02}" for number in range(3 * PARTS_FAILED_MAX)]
    attempts = Attempts.of([Split(0, tuple(range_of(topic) for topic in topics))], failures_max=1)
    parts = fail_for_good(attempts, failures=1)
    running: list[Split] = []
    tried: list[str] = []
    while not attempts.is_done:
        running += [one.split for one in attempts.take()]
        assert len(running) <= PARTS_FAILED_MAX  # what an engine has it runs
        if not running:
            break
        part = running.pop(0)
        tried.append(part.ranges[0].topic)
        # One that is loaded between them shows that it is not the cluster.
        if part == parts[5]:
            attempts.handle_finished(result_of(part, 1))
        else:
            attempts.handle_failed(failed(part, 1))

    assert attempts.is_done
    assert tried == topics[: 6 + 2 * PARTS_FAILED_MAX - 1]
    assert set(attempts.given_up) == set(topics) - {"t05"}
    assert "not tried on its own" in attempts.given_up[topics[-1]]
    assert {read.topic for read in attempts.reads()} == {"t05"}


def test_what_is_lost_together_with_others_is_no_failure_of_its_own() -> None:
    split = Split(0, (range_of("a"),))
    attempts = Attempts.of([split], failures_max=1)
    for attempt in range(LOST_MAX):
        assert attempts.take() == [(split, attempt)]
        attempts.handle_failed(failed(split, attempt, is_own=False))
    assert attempts.given_up == {}
    attempts.take()

    attempts.handle_failed(failed(split, LOST_MAX, is_own=False))

    assert set(attempts.given_up) == {"a"}


def test_unknown_schemas_are_no_failure() -> None:
    split = Split(0, (range_of("a"),))
    attempts = Attempts.of([split], failures_max=1)
    attempts.take()

    for round_ in range(5):
        met = UnknownSchema("a", round_, "{}")
        assert attempts.handle_finished(SplitResult(0, round_, (), (), unknown_schemas=(met,))) == [met]
        assert attempts.take() == [(split, round_ + 1)]

    attempts.handle_finished(result_of(split, 5))
    assert attempts.is_done
    assert attempts.failed_attempts == 0
    assert len(attempts.files()) == 1


def test_a_schema_that_a_split_meets_again_gives_its_topic_up() -> None:
    split = Split(0, (range_of("a"), range_of("b")))
    attempts = Attempts.of([split])
    attempts.take()
    met, new = UnknownSchema("a", 1, "{}"), UnknownSchema("b", 1, "{}")
    assert attempts.handle_finished(SplitResult(0, 0, (), (), unknown_schemas=(met,))) == [met]
    attempts.take()

    assert attempts.handle_finished(SplitResult(0, 1, (), (), unknown_schemas=(met, new))) == [new]

    assert attempts.given_up == {"a": "schema 1 is in the table, and its values were not read with it"}
    assert attempts.take() == [(Split(0, (range_of("b"),)), 2)]


def test_bad_records_are_counted_over_all_splits_of_a_topic() -> None:
    splits = [Split(number, (range_of("a", number), range_of("b", number))) for number in range(3)]
    attempts = Attempts.of(splits, bad_records_max=5)
    attempts.take()

    for split in splits:
        reads = (read_of(split.ranges[0], bad=2), read_of(split.ranges[1], bad=1))
        attempts.handle_finished(SplitResult(split.number, 0, (), reads))

    assert set(attempts.given_up) == {"a"}
    assert {read.topic for read in attempts.reads()} == {"b"}


def test_an_attempt_that_ends_twice_counts_once() -> None:
    split = Split(0, (range_of("a"),))
    attempts = Attempts.of([split])
    attempts.take()
    attempts.handle_finished(result_of(split, 0))

    attempts.handle_failed(failed(split, 0))
    attempts.handle_finished(result_of(split, 0))

    assert attempts.is_done
    assert not attempts.failed_attempts
    assert len(attempts.files()) == 1


@given(seed=st.integers(0, 2**32), splits=st.integers(1, 8), topics=st.integers(1, 4))
def test_any_order_of_ends_comes_to_an_end(seed: int, splits: int, topics: int) -> None:
    chance = random.Random(seed)
    made = [
        Split(number, tuple(range_of(f"t{topic}", number) for topic in range(topics) if chance.random() < 0.7))
        for number in range(splits)
    ]
    attempts = Attempts.of(made, failures_max=3)
    running: list[tuple[Split, int]] = []
    for _ in range(1000):
        running += [(one.split, one.attempt) for one in attempts.take()]
        if attempts.is_done:
            break
        split, attempt = running.pop(chance.randrange(len(running)))
        match chance.randrange(6):
            case 0:
                attempts.handle_failed(failed(split, attempt, is_own=chance.random() < 0.7))
            case 1:
                attempts.handle_failed(failed(split, attempt, is_retriable=False, topic=split.ranges[0].topic))
            case 2:
                met = UnknownSchema(split.ranges[0].topic, chance.randrange(100), "{}")
                attempts.handle_finished(SplitResult(split.number, attempt, (), (), unknown_schemas=(met,)))
            case 3:
                attempts.handle_finished(result_of(split, attempt, refused_topics={split.ranges[-1].topic: 9}))
            case _:
                attempts.handle_finished(result_of(split, attempt))
    else:
        pytest.fail("it does not end")

    expected = {
        (wanted.topic, wanted.partition)
        for split in made
        for wanted in split.ranges
        if wanted.topic not in attempts.given_up
    }
    assert {(read.topic, read.partition) for read in attempts.reads()} == expected
    assert {(file.topic, file.partition) for file in attempts.files()} == expected
    assert len(attempts.files()) == len(expected)
    assert {(one.topic, one.partition) for one in attempts.ranges()} == expected
