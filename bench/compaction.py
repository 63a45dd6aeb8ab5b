"""Compaction of a closed directory: many small files to few, on this machine's disk and on a real HDFS.

    python -m bench.compaction [--rows N] [--files N] [--rounds N] [--no-hdfs] [--write-doc docs/performance.md]
    python -m bench.compaction --rows 100000 --rounds 1 --no-hdfs      a small one, to see that it runs

The records are the loader's (ten fields, about 120 bytes, zstd level 1 before and after). Rates are MB of the input
files' bytes per second of the process's CPU time, all threads, medians of rounds, in each of which every work takes its
turn. A plain copy reads the same files and writes them again through the same client, 4 MB at a time; what Avro is held
against on HDFS is its rate by the clock. Sorted in pieces is what happens where memory does not hold a directory. Rows
sorted by a number, with nothing read or written, stand against Arrow's own sort.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from bench.load import loader_topic, report
from bench.load.turns import in_turn

from millstream.core._kernels.crc32c import crc32c
from millstream.hadoop_loader.commit import TableFile
from millstream.hadoop_loader.compaction import DirectoryPlan, compact_directory
from millstream.hadoop_loader.compaction.parquet_rows import merged_schema, tables_of
from millstream.hadoop_loader.compaction.row_order import Key, sorted_rows
from millstream.hadoop_loader.filesystem import FileSystem, FileSystemSettings, open_filesystem
from millstream.hadoop_loader.job import CompactionSettings, EncodingSettings
from millstream.hadoop_loader.writing import AvroFile, Datums, ParquetFile
from millstream.schemas.avro import AvroDecoder
from millstream.schemas.avro.decoder import located

SECTION = "compaction"
DIRECTORY = "events/{}/day=1"
CHUNK_BYTES = 4 << 20
PIECES_MEMORY_BYTES = 64 << 20
ENCODING = EncodingSettings()
GOALS = {
    "Parquet, unsorted": report.Target("MB/CPU-s", ">=", 35, absolute=True),
    "Parquet, sorted by a number": report.Target("MB/CPU-s", ">=", 20, absolute=True),
    "Avro": report.Target("MB/CPU-s", ">=", 300, absolute=True),
    "Avro on HDFS, of a plain copy": report.Target("rate", ">=", 0.8, absolute=True),
}


def staged(filesystem: FileSystem, format_: str, path: str, values: pa.Array) -> TableFile:
    """Write a file as the loader does, and return what the commit log would say of it."""
    name = path.rpartition("/")[2]
    if format_ == "parquet":
        decoder = AvroDecoder({loader_topic.SCHEMA_ID: loader_topic.TEXT})
        batch = decoder.decode(values).batch
        file: AvroFile | ParquetFile = ParquetFile(lambda: filesystem.create(path), batch.schema, ENCODING.parquet)
        assert isinstance(file, ParquetFile)
        file.append(batch)
    else:
        file = AvroFile(lambda: filesystem.create(path), loader_topic.TEXT, ENCODING.avro)
        data, offsets, _ = located(values)
        file.append(Datums(data, offsets, skip=5), 0, len(values))
    file.finish()
    file.output.file.close()
    return TableFile(
        directory=path.rpartition("/")[0],
        name=name,
        topic="events",
        topic_id="ZXZlbnRzZXZlbnRzZXZlbg",
        partition=0,
        first_offset=0,
        last_offset=len(values) - 1,
        rows=len(values),
        length=file.output.size_bytes,
        checksum=file.output.checksum,
        min_timestamp_ms=0,
        max_timestamp_ms=0,
    )


def prepared(filesystem: FileSystem, format_: str, values: pa.Array, files: int, rows: int) -> DirectoryPlan:
    """Fill a directory with small files."""
    directory = DIRECTORY.format(format_)
    filesystem.make_directory(directory)
    each = rows // files
    made = []
    for number in range(files):
        start = number * each % (len(values) - each)
        path = f"{directory}/{number}.{format_}"
        made.append(staged(filesystem, format_, path, values.slice(start, each)))
    return DirectoryPlan(directory, "events", format_, "day=1", tuple(made))


def measured(work: Callable[[], object]) -> tuple[float, float]:
    """Return CPU and wall seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


def compaction_of(filesystem: FileSystem, plan: DirectoryPlan, settings: CompactionSettings, staging: str) -> None:
    """Compact the directory to `staging`."""
    filesystem.make_directory(staging)
    compact_directory(filesystem, plan, staging, settings, ENCODING, stop=threading.Event())


def plain_copy_of(filesystem: FileSystem, plan: DirectoryPlan, staging: str) -> None:
    """Read all bytes, sum them up, and write them to one file."""
    filesystem.make_directory(staging)
    with filesystem.create(f"{staging}/copy") as target:
        for file in plan.files:
            with filesystem.open(file.path) as source:
                for position in range(0, source.size, CHUNK_BYTES):
                    data = source.read_at(position, CHUNK_BYTES)
                    crc32c(data)
                    target.write(data)
        target.sync()


def medians(
    filesystem: FileSystem, works: dict[str, Callable[[str], None]], rounds: int
) -> dict[str, tuple[float, float]]:
    """Return the medians of CPU and wall seconds by work; a work is told where to stage."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    for number in range(rounds):
        for name in in_turn(list(works), number):
            found[name].append(measured(partial(works[name], "staging")))
            filesystem.delete("staging", recursive=True)
    return {
        name: (statistics.median(cpu for cpu, _ in each), statistics.median(wall for _, wall in each))
        for name, each in found.items()
    }


def on(filesystem: FileSystem, plan: DirectoryPlan, rounds: int) -> dict[str, float]:
    """Return the figures of one directory on one file system."""
    size, rows = plan.size_bytes / 1e6, sum(file.rows for file in plan.files)
    print(f"{plan.format}: {len(plan.files)} files, {size:.0f} MB, {rows:,} rows", flush=True)
    compacted = partial(compaction_of, filesystem, plan)
    copied = "plain copy"
    works: dict[str, Callable[[str], None]]
    if plan.format == "avro":
        works = {"Avro": partial(compacted, CompactionSettings()), copied: partial(plain_copy_of, filesystem, plan)}
    else:
        works = {
            "Parquet, unsorted": partial(compacted, CompactionSettings()),
            "Parquet, sorted by a number": partial(compacted, CompactionSettings(sort_by="amount")),
            "Parquet, sorted by a text": partial(compacted, CompactionSettings(sort_by="user")),
            "Parquet, sorted by a number in pieces": partial(
                compacted, CompactionSettings(sort_by="amount", memory_bytes=PIECES_MEMORY_BYTES)
            ),
        }
    found = medians(filesystem, works, rounds)
    for name, (cpu, wall) in found.items():
        print(f"  {name}: {size / cpu:.1f} MB/CPU-s, {size / wall:.1f} MB/s, {rows / cpu / 1e6:.2f} M rows/CPU-s")
    figures = {name: size / cpu for name, (cpu, _) in found.items() if name != copied}
    if copied in found:
        figures["Avro, of a plain copy"] = found[copied][1] / found["Avro"][1]
    return figures


def order_on(filesystem: FileSystem, plan: DirectoryPlan, rounds: int) -> dict[str, float]:
    """Return how fast rows are sorted by a number, held against Arrow's rate."""
    schema = merged_schema(filesystem, plan.files)
    memory = CompactionSettings().memory_bytes
    decoded = (tables_of(filesystem, file, schema, memory, lambda _bytes: None) for file in plan.files)
    table = pa.concat_tables([one for tables in decoded for one in tables])
    keys: list[Key] = [("amount", "ascending")]
    works: dict[str, Callable[[], object]] = {
        "sorted": lambda: sorted_rows(table, keys),
        "sorted by Arrow": lambda: pc.sort_indices(table, sort_keys=keys),
    }
    found: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds):
        for name in in_turn(list(works), number):
            found[name].append(measured(works[name])[0])
    cpu = {name: statistics.median(each) for name, each in found.items()}
    for name, each in cpu.items():
        print(f"  rows {name}: {table.num_rows / each / 1e6:.1f} M/CPU-s")
    return {"Rows sorted by a number, of Arrow's rate": cpu["sorted by Arrow"] / cpu["sorted"]}


def main() -> int:
    """Run it. A goal that is missed is told, and ends no `make bench` that has more to measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, default=1_500_000)
    parser.add_argument("--files", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-hdfs", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--write-doc", type=Path)
    arguments = parser.parse_args()
    # As `millstream load` has it.
    pa.set_memory_pool(pa.system_memory_pool())
    values = loader_topic.values(min(loader_topic.DISTINCT, arguments.rows))
    figures: dict[str, float] = {}
    folder = Path(tempfile.mkdtemp(prefix="millstream-bench-"))
    try:
        with open_filesystem(f"file://{folder}", FileSystemSettings()) as local:
            for format_ in ("parquet", "avro"):
                plan = prepared(local, format_, values, arguments.files, arguments.rows)
                figures |= on(local, plan, arguments.rounds)
                if format_ == "parquet":
                    figures |= order_on(local, plan, arguments.rounds)
    finally:
        shutil.rmtree(folder)
    if not arguments.no_hdfs:
        from millstream.testing.hdfs import MiniHdfs

        with (
            tempfile.TemporaryDirectory() as state,
            # Hadoop's own compiler settings: this is no test, whose JVMs start quickly and stay slow.
            MiniHdfs(Path(state), jvm_options=("-Xmx512m",)) as cluster,
            open_filesystem(f"{cluster.uri}/bench", FileSystemSettings(deadline_s=60)) as remote,
        ):
            found = on(remote, prepared(remote, "avro", values, arguments.files, arguments.rows), arguments.rounds)
        figures["Avro on HDFS"] = found["Avro"]
        figures["Avro on HDFS, of a plain copy"] = found["Avro, of a plain copy"]
    lines = ["| compaction | measured | goal |", "|---|---|---|"]
    missed = 0
    for name, value in figures.items():
        goal = GOALS.get(name)
        missed += goal is not None and not goal.met(value)
        unit = "x" if ", of " in name else " MB/CPU-s"
        lines.append(report.table_row([name, f"{report.number(value)}{unit}", "" if goal is None else f"{goal}{unit}"]))
    print("\n".join(lines))
    print(f"{missed} goals missed")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures))
    if arguments.write_doc:
        said = (
            f"{arguments.rows:,} of the loader's records in {arguments.files} files, zstd level 1 before and after; MB"
            " of the files' bytes per second of the process's CPU time (all threads), medians of the rounds. A plain"
            " copy reads the same files and writes them through the same client; rates by the clock stand against it."
            " In pieces: with 64 MB of memory. `python -m bench.compaction`; "
        )
        report.replace_section(arguments.write_doc, SECTION, "Compaction", [f"{said}{report.machine()}.", "", *lines])
    return 0


if __name__ == "__main__":
    sys.exit(main())
