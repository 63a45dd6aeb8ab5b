"""Which columns get a dictionary: what is seen of a file's first rows says how all of them are encoded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from millstream.hadoop_loader.filesystem import LocalFileSystem
from millstream.hadoop_loader.job import ParquetSettings
from millstream.hadoop_loader.writing.parquet_file import DICTIONARY_BYTES_MAX, SAMPLED_ROWS, ParquetFile

ROWS = 30_000
FEW = 3_000  # twice in a sample at most, mostly, and ten times in all rows


def written(folder: Path, batch: pa.RecordBatch, settings: ParquetSettings | None = None) -> list[str]:
    """Return the paths of the columns with a dictionary, in a file that holds what was written."""
    lake = LocalFileSystem(str(folder))
    file = ParquetFile(lambda: lake.create("file.parquet"), batch.schema, settings or ParquetSettings())
    for start in range(0, batch.num_rows, 7_000):
        file.append(batch.slice(start, 7_000))
    file.finish()
    file.output.file.close()
    assert pq.read_table(folder / "file.parquet").equals(pa.Table.from_batches([batch]))
    group = pq.read_metadata(folder / "file.parquet").row_group(0)
    columns = [group.column(number) for number in range(group.num_columns)]
    return [column.path_in_schema for column in columns if column.has_dictionary_page]


def texts(numbers: np.ndarray, length: int = 8) -> pa.Array:
    return pa.array([f"{number:0{length}}" for number in numbers.tolist()])


@pytest.mark.parametrize("seed", range(2))
def test_values_that_repeat_themselves_later_get_a_dictionary(seed: int, tmp_path: Path) -> None:
    draw = np.random.default_rng(seed)
    drawn = texts(draw.integers(0, FEW, ROWS))
    nullable = pa.array([None if number & 1 else text for number, text in enumerate(drawn.to_pylist())])
    lists = pa.ListArray.from_arrays(pa.array(np.arange(ROWS + 1, dtype=np.int32)), drawn)
    columns = {
        "drawn": drawn,
        "a.b": drawn,
        "nullable": nullable,
        "number": pa.array(draw.integers(0, FEW, ROWS) / 7),
        "list": lists,
        "struct": pa.StructArray.from_arrays([drawn, texts(draw.permutation(ROWS))], names=["x", "y"]),
        "different": texts(draw.permutation(ROWS)),
    }
    dictionaries = ["drawn", "a.b", "nullable", "number", "list.list.element", "struct.x"]
    assert written(tmp_path, pa.record_batch(columns)) == dictionaries


def test_what_has_ever_new_values_gets_none(tmp_path: Path) -> None:
    draw = np.random.default_rng(4)
    # Half of them are alike, the others come once: ever more of them, the longer one looks.
    numbers = np.where(draw.random(ROWS) < 0.5, draw.integers(0, 1_000, ROWS), 1_000 + np.arange(ROWS))
    tail = draw.zipf(1.1, ROWS) % 10**9
    assert len(set(tail[:SAMPLED_ROWS].tolist())) < SAMPLED_ROWS
    assert written(tmp_path, pa.record_batch({"half": texts(numbers), "tail": texts(tail, 9)})) == []


def test_what_makes_too_large_a_dictionary_gets_none(tmp_path: Path) -> None:
    length = 2 * DICTIONARY_BYTES_MAX // FEW
    drawn = texts(np.random.default_rng(5).integers(0, FEW, ROWS), length)
    assert written(tmp_path, pa.record_batch({"long": drawn})) == []


def test_close_numbers_that_repeat_themselves_get_what_takes_fewer_bits(tmp_path: Path) -> None:
    draw = np.random.default_rng(6)
    columns = {
        "id": draw.choice(draw.integers(0, 10**9, 1_000), ROWS),
        "status": draw.choice(np.array([200, 301, 404, 500], np.int32), ROWS),
        # As many bits either way; fewer by differences; one value.
        "quantity": draw.integers(1, 100, ROWS),
        "day": np.arange(ROWS) // 50,
        "partition": np.zeros(ROWS, np.int32),
    }
    assert written(tmp_path, pa.record_batch({name: pa.array(of) for name, of in columns.items()})) == ["id", "status"]


def test_pages_of_wide_values_are_as_small_as_the_setting_says(tmp_path: Path) -> None:
    batch = pa.record_batch({"wide": texts(np.arange(4_000), 1_000)})
    sizes = {}
    for page_bytes in (8 * 1024, 128 * 1024):
        (folder := tmp_path / str(page_bytes)).mkdir()
        written(folder, batch, ParquetSettings(codec="none", page_bytes=page_bytes))
        sizes[page_bytes] = (folder / "file.parquet").stat().st_size
    # Each page has a header, of some twenty bytes at the least.
    pages = 4_000_000 // (8 * 1024) - 4_000_000 // (128 * 1024)
    assert sizes[8 * 1024] - sizes[128 * 1024] > 20 * pages
