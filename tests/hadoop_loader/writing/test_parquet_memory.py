"""What encoding Parquet takes besides the rows that are buffered, however wide they are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# Arrow tells the most that was allocated since its process began, so that this has one of its own.
_ENCODE = """
import sys

import numpy as np
import pyarrow as pa

from millstream.hadoop_loader.filesystem import LocalFileSystem
from millstream.hadoop_loader.job import ParquetSettings
from millstream.hadoop_loader.writing.parquet_file import ParquetFile

size = int(sys.argv[2])
rows = (16 << 20) // size
random = np.random.default_rng(1).integers(0, 256, rows * size, np.uint8)
offsets = np.arange(rows + 1, dtype=np.int32) * size
values = pa.Array.from_buffers(pa.binary(), rows, [None, pa.py_buffer(offsets), pa.py_buffer(random)])
batch = pa.record_batch({"number": pa.array(np.arange(rows)), "value": values})
lake = LocalFileSystem(sys.argv[1])
file = ParquetFile(lambda: lake.create("file.parquet"), batch.schema, ParquetSettings(row_group_bytes=64 << 20))
before = pa.total_allocated_bytes()
file.append(batch)
file.finish()
print(pa.default_memory_pool().max_memory() - before)
"""


@pytest.mark.parametrize("size", [2_000, 100_000])
def test_wide_values_take_little_more_than_they_are(size: int, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _ENCODE, str(tmp_path), str(size)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # Of a row group of 16 MB; the encoder holds a page four or five times.
    assert int(done.stdout) < 10 << 20, done.stdout
