"""What encoding Parquet takes besides the rows that are buffered, however wide they are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
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

# Rows of 300 columns, four at a time, into ten files.
_APPEND = """
import sys

import pyarrow as pa

from millstream.core.metrics.process import peak_memory_bytes
from millstream.hadoop_loader.filesystem import LocalFileSystem
from millstream.hadoop_loader.job import ParquetSettings
from millstream.hadoop_loader.writing.parquet_file import ParquetFile

batch = pa.record_batch({f"f{number}": pa.array(range(1_000)) for number in range(300)})
lake = LocalFileSystem(sys.argv[1])
files = [ParquetFile(lambda: lake.create("file.parquet"), batch.schema, ParquetSettings()) for _ in range(10)]
before = peak_memory_bytes()
for start in range(0, 160, 4):
    for file in files:
        file.append(batch.take(pa.array(range(start, start + 4))))
print(peak_memory_bytes() - before)
files[0].finish()
files[0].output.file.sync()
files[0].output.file.close()
"""


def test_a_few_wide_rows_at_a_time_take_little_more_than_they_are(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _APPEND, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system"},
    )
    assert done.returncode == 0, done.stderr
    # The values are 4 MB; with each batch by itself 60 MB were taken.
    assert int(done.stdout) < 40 << 20, done.stdout
    rows = pq.read_table(tmp_path / "file.parquet")
    assert rows.column("f0").to_pylist() == rows.column("f299").to_pylist() == list(range(160))


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
