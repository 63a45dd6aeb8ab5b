"""Which rows of a directory were replaced by later ones with the same key.

The latest offset wins. Offsets of different partitions cannot be compared, so rows are alike only within a partition:
a producer that partitions by key keeps all records of a key in one. A topic that was deleted and created anew has other
partitions, if with the same numbers. Rows that have null in all the columns that should identify them (tombstones have,
in those of the value) are identified by nothing, and like no other.

Only the key, the partition and the offset of each row are sorted, with its number in the directory; of rows alike all
but the first are dropped, and the numbers of those are sorted again, into the order in which rows are read. Both sorts
spill, so no bound of memory depends on how many rows there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import pyarrow as pa
import pyarrow.compute as pc

from millstream.hadoop_loader.commit.arrow_schemas import plain_schema
from millstream.hadoop_loader.compaction.outputs import SEVERAL_TOPICS, CompactionError
from millstream.hadoop_loader.compaction.row_order import Key
from millstream.hadoop_loader.compaction.sorting import ExternalSorter

if TYPE_CHECKING:
    from millstream.hadoop_loader.compaction.planning import DirectoryPlan
    from millstream.hadoop_loader.filesystem import FileSystem

PARTITION_COLUMN: Final = "_kafka_partition"
OFFSET_COLUMN: Final = "_kafka_offset"
_NUMBER: Final = "__row"
_INCARNATION: Final = "__incarnation"


class Replaced:
    """The numbers of rows that were replaced, in order; asked by one thread, from the first row to the last."""

    def __init__(self, numbers: Iterator[pa.Array], resources: ExitStack) -> None:
        self._numbers = numbers
        self._resources = resources
        self._at_hand = pa.array([], pa.int64())
        # Rows left out so far.
        self.count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resources.close()

    def left_out_of(self, table: pa.Table, start: int) -> pa.Table:
        """Return what is left of rows that begin with number `start`."""
        stop = start + table.num_rows
        found: list[pa.Array] = []
        while True:
            inside = pc.sum(pc.less(self._at_hand, stop).cast(pa.int64())).as_py() or 0
            if inside:
                found.append(self._at_hand.slice(0, inside))
            if inside < len(self._at_hand):
                self._at_hand = self._at_hand.slice(inside)
                break
            following = next(self._numbers, None)
            self._at_hand = pa.array([], pa.int64()) if following is None else following
            if following is None:
                break
        if not found:
            return table
        numbers = pa.concat_arrays(found)
        self.count += len(numbers)
        rows = pa.arange(start, stop)
        return table.filter(pc.invert(pc.is_in(rows, numbers)))


def find_replaced(
    filesystem: FileSystem,
    plan: DirectoryPlan,
    columns: Sequence[str],
    *,
    memory_bytes: int,
    check: Callable[[int], None],
) -> Replaced:
    """Return which rows of a Parquet directory others replaced. Raises CompactionError where a column is missing."""
    from millstream.hadoop_loader.compaction.parquet_rows import check_sortable, merged_schema, tables_of

    incarnations = _incarnations(plan)
    schema = plain_schema(merged_schema(filesystem, plan.files))
    for name in (PARTITION_COLUMN, OFFSET_COLUMN):
        if name not in schema.names:
            raise CompactionError(
                f"{plan.directory} has no column {name}, so nobody knows which of two rows is the later one; put"
                f" {name.removeprefix('_kafka_')!r} into metadata_columns, or set no deduplicate_by"
            )
    for name in columns:
        check_sortable(schema, name, plan.directory)
    wanted = [*columns, PARTITION_COLUMN, OFFSET_COLUMN]
    alike = [*columns, PARTITION_COLUMN, _INCARNATION]
    keys: list[Key] = [*((name, "ascending") for name in alike), (OFFSET_COLUMN, "descending")]
    start = 0
    with ExitStack() as resources:
        numbers = resources.enter_context(ExternalSorter([(_NUMBER, "ascending")], memory_bytes=memory_bytes // 4))
        with ExternalSorter(keys, memory_bytes=memory_bytes // 2) as sorter:
            for file in plan.files:
                for table in tables_of(filesystem, file, schema, memory_bytes, check, wanted):
                    rows = table.num_rows
                    incarnation = pa.repeat(pa.scalar(incarnations[file.topic_id], pa.int32()), rows)
                    numbered = table.append_column(_NUMBER, pa.arange(start, start + rows))
                    sorter.add(numbered.append_column(_INCARNATION, incarnation))
                    start += rows
            for dropped in _dropped(sorter.sorted(), columns, alike):
                numbers.add(dropped)
        # What is left open belongs to the caller now.
        kept = resources.pop_all()
    return Replaced((table.column(_NUMBER).combine_chunks() for table in numbers.sorted()), kept)


def _incarnations(plan: DirectoryPlan) -> dict[str, int]:
    """Number the topic's incarnations that the files are of. Raises CompactionError where one has rows of several."""
    ids = dict.fromkeys(file.topic_id for file in plan.files)
    if SEVERAL_TOPICS in ids:
        raise CompactionError(
            f"{plan.directory} has a file with rows of a topic before and after it was created anew, so nobody knows"
            " which of two rows is the later one; set no deduplicate_by for it"
        )
    return {topic_id: number for number, topic_id in enumerate(ids)}


def _dropped(tables: Iterator[pa.Table], columns: Sequence[str], alike: Sequence[str]) -> Iterator[pa.Table]:
    """Yield the numbers of rows that are like the row before them, and have a value in one of `columns`."""
    last: pa.Table | None = None
    for table in tables:
        before = table.slice(0, 1) if last is None else last
        shifted = pa.concat_tables([before, table.slice(0, table.num_rows - 1)])
        same = pc.is_valid(table.column(columns[0]))
        for name in columns[1:]:
            same = pc.or_(same, pc.is_valid(table.column(name)))
        for name in alike:
            same = pc.and_(same, _equal(table.column(name), shifted.column(name)))
        if last is None:
            # The very first row is like itself.
            same = pc.and_(same, pc.greater(pa.arange(0, table.num_rows), 0))
        yield table.select([_NUMBER]).filter(same)
        last = table.slice(table.num_rows - 1)


def _equal(left: pa.ChunkedArray, right: pa.ChunkedArray) -> pa.ChunkedArray:
    """Whether values are equal, two nulls among them."""
    nulls = pc.and_(pc.is_null(left), pc.is_null(right))
    return pc.or_(pc.fill_null(pc.equal(left, right), False), nulls)
