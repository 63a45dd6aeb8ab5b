"""Records one by one, out of fetched pieces."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from millstream.core._kernels.consumer_records import ConsumerRecord, build_records
from millstream.core.client.consumer.errors import CorruptBatchError
from millstream.core.client.consumer.fetched import FetchedRecords, LocatedRecords
from millstream.core.records import RecordColumns
from millstream.core.records.columns import COLUMN_NAMES

# Rows located at a time: a few hundred kB of columns, which stay in the processor's cache.
COLUMNS_ROWS: Final = 2_048


class RecordCursor:
    """Goes through one open piece and makes lists of its records."""

    def __init__(self, fetched: FetchedRecords, columns: RecordColumns) -> None:
        """Begin at the piece's `offset`; `columns` belongs to this cursor until it is done."""
        self._fetched = fetched
        self._columns = columns
        self._pieces: Iterator[LocatedRecords] = fetched.locate(columns)
        self._located: LocatedRecords | None = None
        self._at = 0
        self._error: CorruptBatchError | None = None
        self.is_done = False
        self._advance()

    def take(self, records_max: int) -> list[ConsumerRecord]:
        """Return the next records, some unless `is_done`. Raises CorruptBatchError behind the last good one."""
        if self._error is not None:
            raise self._error
        located = self._located
        if located is None:
            return []
        start, end = self._at, min(located.end, self._at + records_max)
        columns = self._columns
        records: list[ConsumerRecord] = build_records(
            located.buffer,
            self._fetched.topic,
            self._fetched.partition,
            start,
            end,
            *(getattr(columns, name) for name in COLUMN_NAMES),
        )
        self._at = end
        if end == located.end:
            self._advance()
        return records

    def _advance(self) -> None:
        try:
            self._located = next(self._pieces, None)
        except CorruptBatchError as error:
            self._located, self._error = None, error
            return
        if self._located is None:
            self.is_done = True
        else:
            self._at = self._located.start
