"""Rows sorted by some columns in bounded memory: runs sorted in memory and spilled, then merged.

A merge works on blocks of columns, not on rows. Each run has a block of some rows at hand; of the blocks' last rows the
least is the bound: no row that is not at hand yet can come before it. So all rows at hand up to the bound are sorted
together and handed on, which uses up one block at least. Blocks that begin behind the bound are not looked at.

Spilled runs are Arrow IPC streams, in which dictionaries may change, compressed by LZ4, in a temporary directory of
this machine that is gone when the sorter is closed. Nulls come last.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

import pyarrow as pa
import pyarrow.compute as pc

Key = tuple[str, Literal["ascending", "descending"]]

BLOCK_BYTES: Final = 4 << 20
"""About how much of each run is at hand in a merge."""

PIECE_BYTES: Final = 8 << 20
"""About how much is given back at a time where nothing was spilled."""

# Of the memory, what a run may be: for a moment it is there twice, as it comes and in one piece.
_RUN_SHARE: Final = 2
# Copies of a block that a merge holds at most: read, put together with others, sorted.
_BLOCK_COPIES: Final = 4
_BLOCK_ROWS_MIN: Final = 256


class ExternalSorter:
    """Takes tables of one schema in any order, and gives them back sorted; one thread at a time."""

    def __init__(self, keys: Sequence[Key], *, memory_bytes: int, directory: Path | None = None) -> None:
        """`directory`: where to spill, the system's temporary directory otherwise."""
        self._keys = list(keys)
        self._run_bytes = max(1, memory_bytes // _RUN_SHARE)
        self._runs_max = max(2, memory_bytes // (_BLOCK_COPIES * BLOCK_BYTES))
        self._parent = directory
        self._spilled: tempfile.TemporaryDirectory[str] | None = None
        self._tables: list[pa.Table] = []
        self._bytes = 0
        self._runs: list[Path] = []
        self._runs_made = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Delete what was spilled."""
        self._tables = []
        if self._spilled is not None:
            self._spilled.cleanup()
            self._spilled = None

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
        while len(self._runs) > self._runs_max:
            merged = self._runs[: self._runs_max]
            self._runs = [*self._runs[self._runs_max :], self._write(self._merge(merged))]
            for path in merged:
                path.unlink()
        yield from self._merge(self._runs)

    def _in_order(self, piece_bytes: int) -> Iterator[pa.Table]:
        """Yield the rows at hand in order, in pieces of about so many bytes; they are at hand no more."""
        table = pa.concat_tables(self._tables).combine_chunks()
        self._tables, self._bytes = [], 0
        order = self._sorted_rows(table)
        # Piece by piece: memory that was just given back is in the caches, and no second copy of all is made.
        rows = max(_BLOCK_ROWS_MIN, table.num_rows * piece_bytes // max(1, table.nbytes))
        for start in range(0, table.num_rows, rows):
            yield table.take(order.slice(start, rows))

    def _sorted_rows(self, table: pa.Table) -> pa.Array:
        """Return the numbers of a table's rows in order; equal ones keep theirs."""
        columns = [table.column(name) for name, _ in self._keys]
        # Arrow sorts by no dictionaries.
        plain = [one.cast(one.type.value_type) if pa.types.is_dictionary(one.type) else one for one in columns]
        return pc.sort_indices(pa.table(plain, names=[name for name, _ in self._keys]), sort_keys=self._keys)

    def _spill(self) -> None:
        self._runs.append(self._write(self._in_order(BLOCK_BYTES)))

    def _write(self, tables: Iterator[pa.Table]) -> Path:
        if self._spilled is None:
            self._spilled = tempfile.TemporaryDirectory(prefix="millstream-sort-", dir=self._parent)
        path = Path(self._spilled.name) / f"{self._runs_made}.arrow"
        self._runs_made += 1
        writer: pa.ipc.RecordBatchStreamWriter | None = None
        for table in tables:
            if writer is None:
                options = pa.ipc.IpcWriteOptions(compression="lz4")
                writer = pa.ipc.new_stream(path, table.schema, options=options)
            rows = max(_BLOCK_ROWS_MIN, table.num_rows * BLOCK_BYTES // max(1, table.nbytes))
            writer.write_table(table, max_chunksize=rows)
        assert writer is not None, path
        writer.close()
        return path

    def _merge(self, paths: list[Path]) -> Iterator[pa.Table]:
        blocks = [block for path in paths if (block := _Run(path)).is_there]
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
        """Return the runs that have rows up to the bound."""
        names = [name for name, _ in self._keys]
        ends = pa.concat_tables(
            [run.block.select(names).slice(at, 1) for run in runs for at in (0, run.block.num_rows - 1)]
        ).combine_chunks()
        # With equal keys the first row of a block comes before the last of another: stable, and firsts stand first.
        ends = ends.take(pa.array([*range(0, 2 * len(runs), 2), *range(1, 2 * len(runs), 2)], pa.int64()))
        order = self._sorted_rows(ends).to_pylist()
        count = len(runs)
        bound = next(at for at, number in enumerate(order) if number >= count)
        return [runs[number] for number in order[:bound]]

    def _order(self, pieces: pa.Table, lengths: list[int]) -> tuple[pa.Array, list[int]]:
        """Return which rows go on, in order, and how many those are of each block."""
        order = self._sorted_rows(pieces)
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

    def __init__(self, path: Path) -> None:
        self._batches = pa.ipc.open_stream(pa.OSFile(str(path)))
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
