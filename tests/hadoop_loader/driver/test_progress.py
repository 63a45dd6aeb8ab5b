"""Progress never passes what there is, whatever attempts come to."""

from __future__ import annotations

from millstream.hadoop_loader.driver.progress import RunProgress
from millstream.hadoop_loader.engines import AttemptFailed, AttemptFinished, AttemptProgressed
from millstream.hadoop_loader.splits import OffsetRange, Progress, Split, SplitResult, UnknownSchema


def progress_of_two_splits() -> RunProgress:
    now = [0.0]
    progress = RunProgress(monotonic=lambda: now[0])
    progress.handle_planned(
        [
            Split(0, (OffsetRange("t", "id", 0, -1, 100, 200),)),
            Split(1, (OffsetRange("t", "id", 0, -1, 200, 300), OffsetRange("t", "id", 1, -1, 0, 100))),
        ],
        2,
    )
    now[0] = 10.0
    return progress


def told(split: int, partition: int, next_offset: int, rows: int) -> AttemptProgressed:
    return AttemptProgressed(split, 0, (Progress("t", partition, next_offset, rows, rows * 10),))


def test_rows_and_offsets_add_up_per_partition() -> None:
    progress = progress_of_two_splits()

    progress.handle_progressed(told(0, 0, 150, 40))
    progress.handle_progressed(told(1, 0, 210, 10))
    progress.handle_progressed(told(0, 0, 175, 20))

    assert progress.offsets == 300
    assert progress.offsets_read == 85
    assert (progress.rows, progress.bytes) == (70, 700)
    assert progress.partitions["t", 0].offsets_read == 85
    assert progress.remaining_s == 10.0 * 215 / 85


def test_an_attempt_that_came_to_nothing_is_taken_back() -> None:
    progress = progress_of_two_splits()
    progress.handle_progressed(told(0, 0, 200, 100))
    progress.handle_progressed(told(1, 1, 50, 50))

    progress.handle_failed(AttemptFailed(0, 0, "it broke", "OSError", True))
    met = UnknownSchema("t", 1, "{}")
    progress.handle_finished(AttemptFinished(SplitResult(1, 0, (), (), unknown_schemas=(met,))))

    assert (progress.offsets_read, progress.rows, progress.bytes) == (0, 0, 0)
    assert progress.splits_done == 0


def test_a_split_that_is_divided_goes_on_in_its_parts() -> None:
    progress = progress_of_two_splits()
    topics = (OffsetRange("t", "id", 2, -1, 0, 100), OffsetRange("u", "id of u", 0, -1, 0, 50))
    progress.handle_planned([Split(2, topics)], 2)
    progress.handle_failed(AttemptFailed(2, 0, "it broke", "OSError", True))

    progress.handle_divided(2, [Split(3, topics[:1]), Split(4, topics[1:])])
    progress.handle_progressed(AttemptProgressed(4, 1, (Progress("u", 0, 30, 30, 300),)))

    assert progress.offsets == 450
    assert progress.offsets_read == progress.partitions["u", 0].offsets_read == 30
    assert progress.splits == 2
