"""Record batches of magic 2: header, builder, iteration, compression, validation.

The kernels that work on many batches a call, with the GIL released (`data` is any buffer; rows and columns are
`array("q")`, made by the caller once and used again; positions count from the start of `data`):

    crc32c(data, crc=0) -> int

    check_batches(data, position, end, next_offset, rows, check_crc=True) -> (count, position, reason)
        Fill one row of ROW_WIDTH integers per whole valid batch in data[position:end]: row i is
        rows[i * ROW_WIDTH : (i + 1) * ROW_WIDTH], column c of all is rows[c : count * ROW_WIDTH : ROW_WIDTH]. Columns:
        POSITION SIZE_BYTES BASE_OFFSET LAST_OFFSET LEADER_EPOCH ATTRIBUTES BASE_TIMESTAMP MAX_TIMESTAMP PRODUCER_ID
        PRODUCER_EPOCH BASE_SEQUENCE COUNT CRC. Batches must follow each other from next_offset up (gaps are fine).
        Stops with a StopReason: END (everything read), ROWS_FULL (call again from position), TRUNCATED (the batch at
        position isn't whole), BAD_LENGTH, BAD_MAGIC, BAD_CRC, BAD_OFFSET. position is where the unread batch starts.

    index_batches(data, state, offset_index, time_index, rows, check_crc=True) -> reason
        The same walk for recovery and for rebuilding indexes, no Python per batch. `state` is an array("q") of
        STATE_SIZE that carries over from chunk to chunk of one segment (new_index_state() makes it): STATE_POSITION
        (where to start in data; afterwards where it stopped), STATE_FILE_POSITION (of data[0] in the segment),
        STATE_SEGMENT_BASE_OFFSET, STATE_NEXT_OFFSET, STATE_INDEX_INTERVAL_BYTES, STATE_BYTES_SINCE_INDEX,
        STATE_MAX_TIMESTAMP with STATE_OFFSET_OF_MAX_TIMESTAMP, STATE_LAST_TIME_INDEXED, STATE_LEADER_EPOCH,
        STATE_INDEX_BYTES, STATE_TIME_INDEX_BYTES, STATE_ROWS (what this call wrote), STATE_BATCHES, STATE_RECORDS
        (summed up since the start), STATE_LARGEST_BATCH_BYTES. Writes due entries in the files' own form (8 and 12
        bytes, big-endian) to the writable buffers offset_index and time_index, and a row (as above) only for a batch
        with a producer id, a control batch, or one that starts a leader epoch. Stops with ROWS_FULL when any output
        is full.

    trim_batches(data, offset, end_offset, size_bytes_max, at_least_one=True)
        -> (start, end, first_offset, next_offset, corrupt_position, size_bytes_needed)
        For a fetch: data[start:end] are whole, CRC-checked batches, the first holds `offset`, all end before
        end_offset, size_bytes_max is kept but for a first batch that alone is larger. Nothing found: start == end.
        corrupt_position >= 0: a bad batch lies there (those before it are still given). size_bytes_needed > 0: the
        first wanted batch is cut off by the end of data and needs that many bytes from its start (`start`) on.

    find_batch(data, position, end, base_offset_min, base_offset_max) -> position or -1
        The next place with a whole valid batch (magic, length, CRC, offset in range), byte by byte: is there
        anything intact behind a damaged batch?

    inspect_batch(data, ...)      the produce path, used by validate_batch
    walk_records(data, ...)       validate-only walk of uncompressed records, used by validate_batch and open_batch
    locate_records, locate_payload     records into columns; RecordColumns holds the columns and calls them
"""

from __future__ import annotations

from millstream.core._kernels.batch_validation import inspect_batch, walk_records
from millstream.core._kernels.crc32c import crc32c
from millstream.core._kernels.record_batches import (
    check_batches,
    find_batch,
    index_batches,
    set_log_fields,
    trim_batches,
)
from millstream.core.records.builder import BatchBuilder, append_varint, keyed_batch, seal
from millstream.core.records.columns import RecordColumns
from millstream.core.records.compression import compress, decompress, decompress_into
from millstream.core.records.errors import CorruptRecordError, DecompressedTooLargeError, InvalidBatchError
from millstream.core.records.header import (
    HEADER_SIZE,
    NO_LEADER_EPOCH,
    NO_PRODUCER_EPOCH,
    NO_PRODUCER_ID,
    NO_SEQUENCE,
    NO_TIMESTAMP,
    BatchHeader,
    Buffer,
    Compression,
    TimestampType,
    read_header,
)
from millstream.core.records.reader import (
    DECOMPRESSED_BYTES_MAX,
    Record,
    iter_batches,
    iter_payload,
    iter_records,
    read_payload,
    read_varint,
)
from millstream.core.records.scan import (
    ROW_ATTRIBUTES,
    ROW_BASE_OFFSET,
    ROW_BASE_SEQUENCE,
    ROW_BASE_TIMESTAMP,
    ROW_COUNT,
    ROW_CRC,
    ROW_LAST_OFFSET,
    ROW_LEADER_EPOCH,
    ROW_MAX_TIMESTAMP,
    ROW_POSITION,
    ROW_PRODUCER_EPOCH,
    ROW_PRODUCER_ID,
    ROW_SIZE_BYTES,
    ROW_WIDTH,
    STATE_BATCHES,
    STATE_BYTES_SINCE_INDEX,
    STATE_FILE_POSITION,
    STATE_INDEX_BYTES,
    STATE_INDEX_INTERVAL_BYTES,
    STATE_LARGEST_BATCH_BYTES,
    STATE_LAST_TIME_INDEXED,
    STATE_LEADER_EPOCH,
    STATE_MAX_TIMESTAMP,
    STATE_NEXT_OFFSET,
    STATE_OFFSET_OF_MAX_TIMESTAMP,
    STATE_POSITION,
    STATE_RECORDS,
    STATE_ROWS,
    STATE_SEGMENT_BASE_OFFSET,
    STATE_SIZE,
    STATE_TIME_INDEX_BYTES,
    StopReason,
    new_index_state,
    new_rows,
)
from millstream.core.records.validation import AppendRules, needs_opening, open_batch, validate_batch

__all__ = [
    "DECOMPRESSED_BYTES_MAX",
    "HEADER_SIZE",
    "NO_LEADER_EPOCH",
    "NO_PRODUCER_EPOCH",
    "NO_PRODUCER_ID",
    "NO_SEQUENCE",
    "NO_TIMESTAMP",
    "ROW_ATTRIBUTES",
    "ROW_BASE_OFFSET",
    "ROW_BASE_SEQUENCE",
    "ROW_BASE_TIMESTAMP",
    "ROW_COUNT",
    "ROW_CRC",
    "ROW_LAST_OFFSET",
    "ROW_LEADER_EPOCH",
    "ROW_MAX_TIMESTAMP",
    "ROW_POSITION",
    "ROW_PRODUCER_EPOCH",
    "ROW_PRODUCER_ID",
    "ROW_SIZE_BYTES",
    "ROW_WIDTH",
    "STATE_BATCHES",
    "STATE_BYTES_SINCE_INDEX",
    "STATE_FILE_POSITION",
    "STATE_INDEX_BYTES",
    "STATE_INDEX_INTERVAL_BYTES",
    "STATE_LARGEST_BATCH_BYTES",
    "STATE_LAST_TIME_INDEXED",
    "STATE_LEADER_EPOCH",
    "STATE_MAX_TIMESTAMP",
    "STATE_NEXT_OFFSET",
    "STATE_OFFSET_OF_MAX_TIMESTAMP",
    "STATE_POSITION",
    "STATE_RECORDS",
    "STATE_ROWS",
    "STATE_SEGMENT_BASE_OFFSET",
    "STATE_SIZE",
    "STATE_TIME_INDEX_BYTES",
    "AppendRules",
    "BatchBuilder",
    "BatchHeader",
    "Buffer",
    "Compression",
    "CorruptRecordError",
    "DecompressedTooLargeError",
    "InvalidBatchError",
    "Record",
    "RecordColumns",
    "StopReason",
    "TimestampType",
    "append_varint",
    "check_batches",
    "compress",
    "crc32c",
    "decompress",
    "decompress_into",
    "find_batch",
    "index_batches",
    "inspect_batch",
    "iter_batches",
    "iter_payload",
    "iter_records",
    "keyed_batch",
    "needs_opening",
    "new_index_state",
    "new_rows",
    "open_batch",
    "read_header",
    "read_payload",
    "read_varint",
    "seal",
    "set_log_fields",
    "trim_batches",
    "validate_batch",
    "walk_records",
]
