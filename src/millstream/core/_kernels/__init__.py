"""Compiled loops over buffers and integers, in Cython's pure-Python mode, and nothing else.

    arrow_columns     located records into Arrow's layout: place_records, gather_bytes, view_bytes, gather_headers
    crc32c            crc32c: the checksum of batches
    record_batches    headers of many batches a call: check_batches, index_batches, trim_batches, find_batch
    batch_validation  the produce path: inspect_batch, walk_records
    compaction        the log's cleaner: note_keys, filter_batches
    consumer_records  a fetch looked over, and records as objects: survey_batches, build_records, ConsumerRecord
    record_accumulator the producer: batches filled record by record, the one compiled class
    record_encoding   Arrow's columns into records: partition_rows, order_rows, measure_batch, encode_batch
    record_columns    records of many batches a call: locate_records, locate_payload

Each of these also runs interpreted, slower and with the same results. `native.h` and `native.pxd` hold the few lines
of C that the compiled ones share, `interpreted.py` the same functions in Python, `shim.py` stands in for Cython.
"""

from __future__ import annotations

from importlib import import_module

KERNELS = (
    "arrow_columns",
    "batch_validation",
    "compaction",
    "consumer_records",
    "crc32c",
    "record_accumulator",
    "record_batches",
    "record_columns",
    "record_encoding",
)


def kernels_compiled() -> dict[str, bool]:
    """Return for each kernel whether the compiled one runs; `millstream doctor` tells."""
    return {name: import_module(f"{__name__}.{name}").is_compiled() for name in KERNELS}
