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
        (summed up since the start), STATE_LARGEST_BATCH_BYTES. Writes due entries in the files' own form (8 and 12 bytes,
        big-endian) to the writable buffers offset_index and time_index, and a row (as above) only for a batch with a
        producer id, a control batch, or one that starts a leader epoch. Stops with ROWS_FULL when any output is full.

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
    locate_records(data, position, end, columns..., first, check_crc) / locate_payload(...): see RecordColumns
"""
