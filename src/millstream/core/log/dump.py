"""What is in a log's files, fact by fact, as Kafka's DumpLogSegments tells it: for `millstream dump-log`.

Nothing here changes a file or trusts one: damage is told and stepped over. The kind of a file follows from its suffix.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TypeAlias

from millstream.core.log import offset_index, time_index, transaction_index
from millstream.core.log.damage import announced_size
from millstream.core.log.producer_rebuild import read_marker
from millstream.core.log.producer_state import ProducerEntry, decode_snapshot
from millstream.core.log.segment import (
    INDEX_SUFFIX,
    LOG_SUFFIX,
    SNAPSHOT_SUFFIX,
    TIME_INDEX_SUFFIX,
    TRANSACTION_INDEX_SUFFIX,
)
from millstream.core.log.transaction_index import AbortedTransaction
from millstream.core.records import (
    HEADER_SIZE,
    BatchHeader,
    CorruptRecordError,
    Record,
    check_batches,
    find_batch,
    iter_records,
    new_rows,
    read_header,
)


class DumpedBatch(NamedTuple):
    """One batch of a `.log` file. `records` is None where they cannot be read, `marker` is set for a control batch."""

    position: int
    size_bytes: int
    header: BatchHeader
    is_valid: bool  # its checksum matches
    records: list[Record] | None
    marker: tuple[bool, int] | None  # (commits, coordinator epoch)


class DumpedDamage(NamedTuple):
    """Bytes of a `.log` file that are no batch, up to the next valid one or the end."""

    position: int
    size_bytes: int


class DumpedOffset(NamedTuple):
    """One entry of a `.index` file."""

    offset: int
    position: int


class DumpedTimestamp(NamedTuple):
    """One entry of a `.timeindex` file."""

    timestamp: int
    offset: int


Dumped: TypeAlias = DumpedBatch | DumpedDamage | DumpedOffset | DumpedTimestamp | AbortedTransaction | ProducerEntry


def dump_file(path: Path, *, with_records: bool = False) -> Iterator[Dumped]:
    """Yield what is in one file of a partition's folder.

    Raises ValueError for a file of another kind, CorruptSnapshotError and CorruptTransactionIndexError as they say.
    """
    base_offset = _base_offset(path)
    if path.suffix == LOG_SUFFIX:
        yield from _dump_log(path, with_records=with_records)
    elif path.suffix == INDEX_SUFFIX:
        data = path.read_bytes()
        for relative, position in offset_index.ENTRY.iter_unpack(
            data[: len(data) - len(data) % offset_index.ENTRY_SIZE]
        ):
            yield DumpedOffset(base_offset + relative, position)
    elif path.suffix == TIME_INDEX_SUFFIX:
        data = path.read_bytes()
        for timestamp, relative in time_index.ENTRY.iter_unpack(data[: len(data) - len(data) % time_index.ENTRY_SIZE]):
            yield DumpedTimestamp(timestamp, base_offset + relative)
    elif path.suffix == TRANSACTION_INDEX_SUFFIX:
        yield from transaction_index.read_entries(path.read_bytes(), base_offset)
    elif path.suffix == SNAPSHOT_SUFFIX:
        yield from decode_snapshot(path.read_bytes(), 0)
    else:
        raise ValueError(f"{path} is none of .log, .index, .timeindex, .txnindex, .snapshot")


def index_mismatches(path: Path) -> list[str]:
    """Hold a `.index` or `.timeindex` file against the `.log` beside it; return what does not fit, a sentence each."""
    log = path.with_suffix(LOG_SUFFIX)
    if not log.exists():
        return [f"{log} is missing"]
    batches = [batch for batch in _dump_log(log, with_records=False) if isinstance(batch, DumpedBatch)]
    by_position = {batch.position: batch for batch in batches}
    wrong = []
    previous: Dumped | None = None
    for entry in dump_file(path):
        if isinstance(entry, DumpedOffset):
            batch = by_position.get(entry.position)
            if batch is None:
                wrong.append(f"offset {entry.offset} points to byte {entry.position}, where no batch begins")
            elif not batch.header.base_offset <= entry.offset:
                wrong.append(f"offset {entry.offset} points to a batch that begins with {batch.header.base_offset}")
        if isinstance(entry, DumpedTimestamp):
            behind = [batch for batch in batches if batch.header.last_offset <= entry.offset]
            if max((batch.header.max_timestamp for batch in behind), default=-1) != entry.timestamp:
                wrong.append(f"timestamp {entry.timestamp} is not the largest up to offset {entry.offset}")
        if previous is not None and not tuple(previous) < tuple(entry):
            wrong.append(f"{entry} does not follow {previous}")
        previous = entry
    return wrong


def _dump_log(path: Path, *, with_records: bool) -> Iterator[DumpedBatch | DumpedDamage]:
    data = memoryview(path.read_bytes())
    rows = new_rows(1)
    position = 0
    while position < len(data):
        size = announced_size(data[position:])
        whole = position + size <= len(data)
        is_valid = whole and check_batches(data[: position + size], position, position + size, 0, rows, True)[0] == 1
        if is_valid or (whole and data[position + 16] == 2 and size > HEADER_SIZE):
            batch = data[position : position + size]
            yield _dump_batch(batch, position, is_valid=is_valid, with_records=with_records)
            position += size
            continue
        found = find_batch(data, position + 1, len(data), 0, 2**62)
        end = len(data) if found < 0 else found
        yield DumpedDamage(position, end - position)
        position = end


def _dump_batch(batch: memoryview, position: int, *, is_valid: bool, with_records: bool) -> DumpedBatch:
    header = read_header(batch)
    records = marker = None
    if is_valid and header.is_control:
        marker = read_marker(batch)
    if is_valid and with_records:
        try:
            records = list(iter_records(batch))
        except CorruptRecordError:
            records = None
    return DumpedBatch(position, len(batch), header, is_valid, records, marker)


def _base_offset(path: Path) -> int:
    digits = path.name.split(".")[0]
    if not (digits.isascii() and digits.isdigit()):
        raise ValueError(f"{path} is not named by an offset")
    return int(digits)
