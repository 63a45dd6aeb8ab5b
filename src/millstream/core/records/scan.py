"""Names for what the kernels over many batches take and give: rows, states, stop reasons, columns."""

from __future__ import annotations

from array import array
from enum import IntEnum
from typing import Final

ROW_WIDTH: Final = 13
(
    ROW_POSITION,
    ROW_SIZE_BYTES,
    ROW_BASE_OFFSET,
    ROW_LAST_OFFSET,
    ROW_LEADER_EPOCH,
    ROW_ATTRIBUTES,
    ROW_BASE_TIMESTAMP,
    ROW_MAX_TIMESTAMP,
    ROW_PRODUCER_ID,
    ROW_PRODUCER_EPOCH,
    ROW_BASE_SEQUENCE,
    ROW_COUNT,
    ROW_CRC,
) = range(ROW_WIDTH)

STATE_SIZE: Final = 16
(
    STATE_POSITION,
    STATE_FILE_POSITION,
    STATE_SEGMENT_BASE_OFFSET,
    STATE_NEXT_OFFSET,
    STATE_INDEX_INTERVAL_BYTES,
    STATE_BYTES_SINCE_INDEX,
    STATE_MAX_TIMESTAMP,
    STATE_OFFSET_OF_MAX_TIMESTAMP,
    STATE_LAST_TIME_INDEXED,
    STATE_LEADER_EPOCH,
    STATE_INDEX_BYTES,
    STATE_TIME_INDEX_BYTES,
    STATE_ROWS,
    STATE_BATCHES,
    STATE_RECORDS,
    STATE_LARGEST_BATCH_BYTES,
) = range(STATE_SIZE)


class StopReason(IntEnum):
    """Why a walk over batches ended; END and ROWS_FULL aside, nothing valid starts at the position it reached."""

    END = 0
    ROWS_FULL = 1
    TRUNCATED = 2  # the data ends inside the batch
    BAD_LENGTH = 3  # less than a header
    BAD_MAGIC = 4
    BAD_CRC = 5
    BAD_OFFSET = 6  # below the expected one, negative, or too far from the segment's base offset
    COMPRESSED = 7  # locate_records and the cleaner's only: the batch has to be decompressed, then locate_payload
    BAD_RECORD = 8  # locate_records and the cleaner's only: a record leaves its batch
    TABLE_FULL = 9  # the cleaner's only: there is no place for another key


def new_rows(batches: int) -> array[int]:
    """Return room for the rows of that many batches."""
    return array("q", bytes(8 * ROW_WIDTH * batches))


def new_index_state(
    segment_base_offset: int,
    *,
    index_interval_bytes: int,
    file_position: int = 0,
    next_offset: int | None = None,
    leader_epoch: int = -1,
) -> array[int]:
    """Return the state of index_batches at the start of a segment, or further on when the caller fills in the rest."""
    state = array("q", bytes(8 * STATE_SIZE))
    state[STATE_FILE_POSITION] = file_position
    state[STATE_SEGMENT_BASE_OFFSET] = segment_base_offset
    state[STATE_NEXT_OFFSET] = segment_base_offset if next_offset is None else next_offset
    state[STATE_INDEX_INTERVAL_BYTES] = index_interval_bytes
    state[STATE_MAX_TIMESTAMP] = -1
    state[STATE_OFFSET_OF_MAX_TIMESTAMP] = -1
    state[STATE_LAST_TIME_INDEXED] = -1
    state[STATE_LEADER_EPOCH] = leader_epoch
    return state
