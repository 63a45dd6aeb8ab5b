"""Rows sorted by some columns in bounded memory: runs sorted in memory and spilled, then merged.

Only the key of a run is sorted as a whole. Its rows are gathered in two steps, each within what a processor's caches
hold: every few megabytes of rows are put in order for themselves, and then the parts of all of these that follow each
other are put together. To gather rows from all over a run at once would be a miss of the caches for most of them, and
would need all in one piece first.

A merge works on blocks of columns, not on rows. Each run has a block of some rows at hand; of the blocks' last rows the
least is the bound: no row that is not at hand yet can come before it. So all rows at hand up to the bound are sorted
together and handed on, which uses up one block at least. Blocks that begin behind the bound are not looked at.

Spilled runs are Arrow IPC streams, in which dictionaries may change, compressed by LZ4, in files of this machine's
temporary directory that have no name: what a killed process spilled is gone with it. They are in the order in which
their rows came, and only neighbours are merged, so that rows with equal keys keep their order. As many as one merge
takes become one of the next level as soon as they are there, so that few files are open however many rows come. Nulls
come last.
"""

from __future__ import annotations

import tempfile
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from types import TracebackType
from typing import IO, Final, NamedTuple, Self

import pyarrow as pa
import pyarrow.compute as pc

from millstream.hadoop_loader.compaction.row_order import Key, sorted_rows

BLOCK_BYTES: Final = 4 << 20
"""About how much of each run is at hand in a merge, and put in order at a time where nothing was spilled."""

PIECE_BYTES: Final = 8 << 20
"""About how much is given back at a time where nothing was spilled."""

# Of the memory, what a run may be: beside its rows, what puts them in order takes up to as much again.
_RUN_SHARE: Final = 2
# Copies of a block that a merge holds at most: read, put together with others, sorted.
_BLOCK_COPIES: Final = 4
_BLOCK_ROWS_MIN: Final = 256


class _Spilled(NamedTuple):
    """A run in a file; of level 0 what was in memory at once, of a higher one what was merged of the level below."""

    level: int
    file: IO[bytes]


class ExternalSorter:
    """Takes tables of one schema in any order, and gives them back sorted; one thread at a time."""

    def __init__(self, keys: Sequence[Key], *, memory_bytes: int, directory: Path | None = None) -> None:
        """`directory`: where to spill, the system's temporary directory otherwise."""
        self._keys = list(keys)
        self._run_bytes = max(1, memory_bytes // _RUN_SHARE)
        self._runs_max = max(2, memory_bytes // (_BLOCK_COPIES * BLOCK_BYTES))
        self._directory = directory
        self._tables: list[pa.Table] = []
        self._bytes = 0
        # In the order in which their rows came. Invariant: levels never grow from one to the next.
        self._runs: list[_Spilled] = []
        self._runs_made = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give up what was spilled."""
        self._tables = []
        for run in self._runs:
            run.file.close()
        self._runs = []

    @property
    def runs(self) -> int:
        """How many runs were spilled so far."""
        return self._runs_made

    def add(self, table: pa.Table) -> None:
        """Take rows in."""
        if not table.num_rows:
            return
        self._tables.append(table)
        self._bytes += table.nbytes
        if self._bytes >= self._run_bytes:
            self._spill()

    def sorted(self) -> Iterator[pa.Table]:
        """Yield all rows in order, in tables of any length; once."""
        if not self._runs:
            if self._tables:
                yield from self._in_order(PIECE_BYTES)
            return
        if self._tables:
            self._spill()
        while (above := len(self._runs) - self._runs_max) > 0:
            self._merge_last(min(above + 1, self._runs_max))
        yield from self._merge(self._runs)

    def _in_order(self, piece_bytes: int) -> Iterator[pa.Table]:
        """Yield the rows at hand in order, in pieces of about so many bytes; they are at hand no more."""
        # Of several dictionaries each piece would have to make one.
        table = pa.concat_tables(self._tables).unify_dictionaries()
        self._tables, self._bytes = [], 0
        count, row_bytes = table.num_rows, max(1, table.nbytes // table.num_rows)
        order = sorted_rows(table, self._keys)
        block_rows = max(_BLOCK_ROWS_MIN, BLOCK_BYTES // row_bytes)
        blocks: list[pa.RecordBatch | None] = list(_blocks(table, block_rows))
        del table
        parts = list(_ordered_blocks(blocks, order))
        del order
        piece_rows = max(_BLOCK_ROWS_MIN, piece_bytes // row_bytes)
        for start in range(0, count, piece_rows):
            yield _piece(parts, start, min(start + piece_rows, count))

    def _spill(self) -> None:
        self._runs.append(_Spilled(0, self._write(self._in_order(BLOCK_BYTES))))
        while len(self._runs) >= self._runs_max and self._runs[-1].level == self._runs[-self._runs_max].level:
            self._merge_last(self._runs_max)

    def _merge_last(self, count: int) -> None:
        """Make one run of the last `count`."""
        merged = self._runs[-count:]
        made = _Spilled(merged[0].level + 1, self._write(self._merge(merged)))
        self._runs[-count:] = [made]
        for run in merged:
            run.file.close()

    def _write(self, tables: Iterator[pa.Table]) -> IO[bytes]:
        self._runs_made += 1
        # Without a name from the start; closed by `close`, or with the last reference to it.
        file: IO[bytes] = tempfile.TemporaryFile(prefix="millstream-sort-", dir=self._directory)  # noqa: SIM115
        writer: pa.ipc.RecordBatchStreamWriter | None = None
        for table in tables:
            if writer is None:
                options = pa.ipc.IpcWriteOptions(compression="lz4")
                writer = pa.ipc.new_stream(pa.PythonFile(file, mode="w"), table.schema, options=options)
            rows = max(_BLOCK_ROWS_MIN, table.num_rows * BLOCK_BYTES // max(1, table.nbytes))
            writer.write_table(table, max_chunksize=rows)
        assert writer is not None, "a run without rows"
        writer.close()
        file.flush()
        return file

    def _merge(self, runs: Sequence[_Spilled]) -> Iterator[pa.Table]:
        blocks = [block for run in runs if (block := _Run(run.file)).is_there]
        while len(blocks) > 1:
            chosen = self._up_to_bound(blocks)
            pieces = pa.concat_tables([run.block for run in chosen]).combine_chunks()
            order, used = self._order(pieces, [run.block.num_rows for run in chosen])
            yield pieces.take(order)
            for run, rows in zip(chosen, used, strict=True):
                run.drop(rows)
            blocks = [run for run in blocks if run.is_there]
        for run in blocks:
            while run.is_there:
                yield run.block
                run.drop(run.block.num_rows)

    def _up_to_bound(self, runs: list[_Run]) -> list[_Run]:
        """Return the runs that have rows up to the bound, in their order: rows with equal keys keep theirs."""
        names = [name for name, _ in self._keys]
        ends = pa.concat_tables(
            [run.block.select(names).slice(at, 1) for run in runs for at in (0, run.block.num_rows - 1)]
        ).combine_chunks()
        # With equal keys the first row of a block comes before the last of another: stable, and firsts stand first.
        ends = ends.take(pa.array([*range(0, 2 * len(runs), 2), *range(1, 2 * len(runs), 2)], pa.int64()))
        order = sorted_rows(ends, self._keys).to_pylist()
        count = len(runs)
        bound = next(at for at, number in enumerate(order) if number >= count)
        return [runs[number] for number in sorted(order[:bound])]

    def _order(self, pieces: pa.Table, lengths: list[int]) -> tuple[pa.Array, list[int]]:
        """Return which rows go on, in order, and how many those are of each block."""
        order = sorted_rows(pieces, self._keys)
        last_rows, total = [], 0
        for length in lengths:
            total += length
            last_rows.append(total - 1)
        bound = min(pc.index(order, pa.scalar(row, order.type)).as_py() for row in last_rows)
        order = order.slice(0, bound + 1)
        used, start = [], 0
        for length in lengths:
            inside = pc.and_(pc.greater_equal(order, start), pc.less(order, start + length))
            used.append(pc.sum(inside.cast(pa.int64())).as_py() or 0)
            start += length
        return order, used


class _Run:
    """A spilled run at some block; rows before it were handed on."""

    def __init__(self, file: IO[bytes]) -> None:
        file.seek(0)
        self._batches = pa.ipc.open_stream(pa.PythonFile(file, mode="r"))
        self.block: pa.Table = self._read()

    @property
    def is_there(self) -> bool:
        """Whether rows are left."""
        return bool(self.block.num_rows)

    def drop(self, rows: int) -> None:
        """Go on behind rows of the block at hand."""
        self.block = self.block.slice(rows)
        if not self.block.num_rows:
            self.block = self._read()

    def _read(self) -> pa.Table:
        try:
            return pa.Table.from_batches([self._batches.read_next_batch()])
        except StopIteration:
            return self._batches.schema.empty_table()


class _OrderedBlock(NamedTuple):
    """Some rows in order, and the place of each among all rows that are sorted, which grows."""

    rows: pa.RecordBatch
    places: pa.Array


def _blocks(table: pa.Table, rows: int) -> Iterator[pa.RecordBatch]:
    """Yield all rows as they come, at most so many at a time; what comes in smaller batches is put together."""
    small: list[pa.RecordBatch] = []
    for batch in table.to_batches():
        small_rows = sum(one.num_rows for one in small)
        if small and small_rows + batch.num_rows > rows:
            yield pa.concat_batches(small)
            small = []
        if 2 * batch.num_rows <= rows:
            small.append(batch)
        else:
            if small:
                yield pa.concat_batches(small)
                small = []
            yield from (batch.slice(start, rows) for start in range(0, batch.num_rows, rows))
    if small:
        yield pa.concat_batches(small)


def _ordered_blocks(blocks: list[pa.RecordBatch | None], order: pa.Array) -> Iterator[_OrderedBlock]:
    """Put each block in the order that `order` has its rows in; `blocks` is emptied, so that no row is held twice."""
    lengths = [block.num_rows for block in blocks if block is not None]
    numbers = [pa.repeat(pa.scalar(index, pa.uint32()), length) for index, length in enumerate(lengths)]
    # Places by block, and in their order within one: few distinct numbers are sorted by counting them.
    places = pc.array_sort_indices(pa.concat_arrays(numbers).take(order))
    del numbers
    for index, (start, stop) in enumerate(pairwise(accumulate(lengths, initial=0))):
        own = places.slice(start, stop - start)
        block = blocks[index]
        assert block is not None, index
        yield _OrderedBlock(block.take(pc.subtract(order.take(own), start)), own)
        blocks[index] = None


def _piece(blocks: Sequence[_OrderedBlock], start: int, stop: int) -> pa.Table:
    """Return the rows from place `start` up to `stop`."""
    rows: list[pa.RecordBatch] = []
    places: list[pa.Array] = []
    for block in blocks:
        first, end = (bisect_left(block.places, place, key=lambda one: one.as_py()) for place in (start, stop))
        if first < end:
            rows.append(block.rows.slice(first, end - first))
            places.append(block.places.slice(first, end - first))
    # `places` says where each row goes, and `take` wants to be told where each comes from.
    order = pc.inverse_permutation(pc.subtract(pa.concat_arrays(places), start).cast(pa.int64()))
    return pa.Table.from_batches(rows).combine_chunks().take(order)
