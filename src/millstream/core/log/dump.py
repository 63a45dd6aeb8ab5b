"""What the files of a partition hold, entry by entry, for people: the counterpart of Kafka's DumpLogSegments.

`dump_file` reads one file by its suffix and yields a dict per entry, ready for JSON, in the file's order; `kind` comes
first and says what it is. It trusts nothing: what cannot be read is yielded as a `problem` with its position, and
reading goes on behind it where anything intact follows. Memory does not grow with the file. Blocks; changes nothing.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from millstream.core.log import offset_index, time_index
from millstream.core.log.producer_state import CorruptSnapshotError, decode_snapshot
from millstream.core.log.transaction_index import CorruptTransactionIndexError, read_entries
from millstream.core.records import (
    BatchHeader,
    CorruptRecordError,
    StopReason,
    check_batches,
    find_batch,
    iter_records,
    new_rows,
    read_header,
)

Entry = dict[str, Any]

_OFFSET_MAX: Final = 2**63 - 1
_REASONS: Final = {
    StopReason.TRUNCATED: "the batch is not whole",
    StopReason.BAD_LENGTH: "no batch has such a length",
    StopReason.BAD_MAGIC: "the batch is not of magic 2",
    StopReason.BAD_CRC: "the batch's CRC does not agree with its bytes",
    StopReason.BAD_OFFSET: "the batch's offset is not above the one before it",
}


def dump_file(path: Path, *, deep: bool = False) -> Iterator[Entry]:
    """Yield the entries of a .log, .index, .timeindex, .txnindex or .snapshot file; `deep`: records below their batch.

    Raises OSError, and ValueError for a name that is none of these.
    """
    if path.suffix == ".log":
        return _dump_log(path, deep)
    reader = _INDEXES.get(path.suffix)
    if reader is None:
        raise ValueError(f"{path} is no file of a log: known are .log, {', '.join(_INDEXES)}")
    return reader(path.read_bytes(), _base_offset(path))


def _dump_log(path: Path, deep: bool) -> Iterator[Entry]:
    size = path.stat().st_size
    if not size:
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        view = memoryview(data)
        try:
            yield from _dump_batches(view, _base_offset(path), deep)
        finally:
            view.release()


def _dump_batches(data: memoryview, next_offset: int, deep: bool) -> Iterator[Entry]:
    rows = new_rows(1)
    position, end = 0, len(data)
    while position < end:
        count, after, reason = check_batches(data, position, end, next_offset, rows)
        if count:
            header = read_header(data, position)
            yield _batch(header, position)
            if deep:
                yield from _records(data[position:after], position)
            position, next_offset = after, header.last_offset + 1
            continue
        yield {"kind": "problem", "position": position, "text": f"at byte {position}: {_reason(reason)}"}
        found = find_batch(data, position + 1, end, next_offset, _OFFSET_MAX)
        if found < 0:
            return
        position = found


def _reason(reason: int) -> str:
    return _REASONS.get(StopReason(reason), "nothing readable")


def _batch(header: BatchHeader, position: int) -> Entry:
    return {
        "kind": "batch",
        "base_offset": header.base_offset,
        "last_offset": header.last_offset,
        "count": header.count,
        "position": position,
        "size": header.size_bytes,
        "compression": header.compression.name.lower(),
        "timestamp_type": header.timestamp_type.name.lower(),
        "base_timestamp": header.base_timestamp,
        "max_timestamp": header.max_timestamp,
        "leader_epoch": header.partition_leader_epoch,
        "producer_id": header.producer_id,
        "producer_epoch": header.producer_epoch,
        "base_sequence": header.base_sequence,
        "transactional": header.is_transactional,
        "control": header.is_control,
        "crc": header.crc,
    }


def _records(batch: memoryview, position: int) -> Iterator[Entry]:
    try:
        for record in iter_records(batch):
            yield {
                "kind": "record",
                "offset": record.offset,
                "timestamp": record.timestamp,
                "key": _text(record.key),
                "value": _text(record.value),
                "headers": [[name, _text(value)] for name, value in record.headers],
            }
    except CorruptRecordError as error:
        yield {"kind": "problem", "position": position, "text": f"in the batch at byte {position}: {error}"}


def _text(data: bytes | None) -> str | None:
    return None if data is None else bytes(data).decode(errors="backslashreplace")


def _dump_offset_index(data: bytes, base_offset: int) -> Iterator[Entry]:
    for relative, position in _entries(data, offset_index.ENTRY, lambda entry: entry == (0, 0)):
        yield {"kind": "index", "offset": base_offset + relative, "position": position}
    yield from _remainder(data, offset_index.ENTRY)


def _dump_time_index(data: bytes, base_offset: int) -> Iterator[Entry]:
    for timestamp, relative in _entries(data, time_index.ENTRY, lambda entry: entry[0] == 0):
        yield {"kind": "timeindex", "timestamp": timestamp, "offset": base_offset + relative}
    yield from _remainder(data, time_index.ENTRY)


def _entries(data: bytes, entry: struct.Struct, is_unused: Callable[[tuple[int, ...]], bool]) -> Iterator[Any]:
    """Yield whole entries up to the zeros that a preallocated file ends in; nothing follows those."""
    for values in entry.iter_unpack(data[: len(data) // entry.size * entry.size]):
        if is_unused(values):
            return
        yield values


def _remainder(data: bytes, entry: struct.Struct) -> Iterator[Entry]:
    if rest := len(data) % entry.size:
        position = len(data) - rest
        yield {"kind": "problem", "position": position, "text": f"at byte {position}: {rest} bytes are no whole entry"}


def _dump_transactions(data: bytes, base_offset: int) -> Iterator[Entry]:
    try:
        for entry in read_entries(data, base_offset):
            yield {"kind": "transaction", **entry._asdict()}
    except CorruptTransactionIndexError as error:
        yield {"kind": "problem", "position": 0, "text": str(error)}


def _dump_snapshot(data: bytes, _base_offset: int) -> Iterator[Entry]:
    try:
        entries = decode_snapshot(data, 0)
    except CorruptSnapshotError as error:
        yield {"kind": "problem", "position": 0, "text": str(error)}
        return
    for entry in entries:
        fields = entry._asdict()
        batches = fields.pop("batches")
        del fields["used_ms"]  # when we read it, not what the file says
        yield {"kind": "producer", **fields, "batches": [list(batch) for batch in batches]}


_INDEXES: Final[dict[str, Callable[[bytes, int], Iterator[Entry]]]] = {
    ".index": _dump_offset_index,
    ".timeindex": _dump_time_index,
    ".txnindex": _dump_transactions,
    ".snapshot": _dump_snapshot,
}


def _base_offset(path: Path) -> int:
    """Return the offset that a file's name stands for, or 0 for a copy with a name of its own."""
    return int(path.stem) if path.stem.isdecimal() else 0
