"""Files of a partition that hold a record both, as their names and rows prove it, and those that may."""

from __future__ import annotations

import pytest

from millstream.hadoop_loader.commit import Position, TableFile, TableState
from millstream.hadoop_loader.driver.sharing import CUTS, NO_CUT, cut_documents, cut_offset, files_sharing_offsets
from millstream.hadoop_loader.splits import TopicPartitionId

File = tuple[int, int, int]  # first and last offset, rows


def file_of(first: int, last: int, rows: int, entry: int = 2) -> TableFile:
    name = f"t+0+{first}+{last}+{entry}.avro"
    return TableFile("t/avro", name, "t", "id", 0, first, last, rows, 1, "crc32c:00000000", -1, -1)


@pytest.mark.parametrize(
    "files",
    [
        ((0, 10, 10), (5, 5, 1)),  # one offset is left for the second
        ((0, 100, 3), (2, 50, 2), (3, 60, 4)),
        ((0, 4, 5), (5, 9, 5)),
    ],
)
def test_files_that_may_interleave_are_sound(files: tuple[File, ...]) -> None:
    assert list(files_sharing_offsets([file_of(*one) for one in files])) == []


@pytest.mark.parametrize(
    "files",
    [
        ((0, 10, 11), (5, 5, 1)),  # the first has them all
        ((0, 7, 2), (0, 10, 2)),  # what a file is named after is in it
        ((0, 10, 2), (5, 10, 2)),
        ((0, 10, 2), (10, 20, 2)),
        ((0, 99, 90), (50, 149, 90)),  # 180 rows at 150 offsets
        ((0, 100, 2), (95, 105, 11)),
    ],
)
@pytest.mark.parametrize("between", [(), ((1, 97, 3),)])
def test_files_that_must_share_offsets_are_found(files: tuple[File, ...], between: tuple[File, ...]) -> None:
    found = list(files_sharing_offsets([file_of(*one) for one in (*files[1:], *between, *files[:1])]))

    assert (file_of(*files[0]), file_of(*files[1])) in found


@pytest.mark.parametrize(
    ("before", "after", "cut", "are_sound"),
    [
        ((0, 9, 10), (6, 13, 8), 6, True),  # 6 to 9 are of both histories
        ((0, 9, 10), (6, 13, 8), 7, False),  # 6 is of one
        ((0, 9, 10), (6, 13, 8), NO_CUT, False),
        ((0, 9, 8), (2, 9, 4), 6, True),  # letters 2 and 4 of the first history, replayed with two of the second
        ((0, 9, 10), (0, 9, 10), 6, False),
        ((0, 9, 7), (1, 8, 6), 7, False),  # 13 rows at 10 offsets, of which 7 and 8 may hold two
        ((0, 9, 7), (1, 8, 6), 6, True),
        ((0, 9, 2), (5, 9, 2), 6, True),  # 9 is in both
        ((0, 9, 2), (5, 9, 2), 10, False),
    ],
)
def test_from_a_cut_on_files_of_two_entries_may_hold_two_histories(
    before: File, after: File, cut: int, are_sound: bool
) -> None:
    files = [file_of(*before, entry=2), file_of(*after, entry=5)]
    assert (list(files_sharing_offsets(files, cut)) == []) is are_sound
    # One entry is of one history.
    same = list(files_sharing_offsets([file_of(*before), file_of(*after)], cut))
    assert same == list(files_sharing_offsets([file_of(*before), file_of(*after)]))


def test_the_least_cut_of_each_partition_is_kept() -> None:
    state = TableState(topics={"a": "t", "b": "t", "c": "u"})
    state.positions = {"a": {0: Position(20), 1: Position(20), 2: Position(20)}, "b": {0: Position(5)}}

    def move(*moved: tuple[str, int, int]) -> None:
        positions = {TopicPartitionId(one, partition): Position(offset) for one, partition, offset in moved}
        state.schemas |= cut_documents(state, positions, state.topics)

    move(("a", 0, 20), ("a", 1, 30), ("b", 1, 0), ("c", 0, 7))
    assert state.schemas == {}  # positions that stay, go on behind a gap, or begin
    move(("a", 0, 12), ("a", 1, 15), ("b", 0, 4))
    move(("a", 0, 17), ("a", 1, 9))

    held = {(one, number): cut_offset(state, "t", one, number) for one in ("a", "b") for number in range(3)}
    assert {key: cut for key, cut in held.items() if cut != NO_CUT} == {("a", 0): 12, ("a", 1): 9, ("b", 0): 4}
    assert list(state.schemas) == [f"{CUTS}t"]
