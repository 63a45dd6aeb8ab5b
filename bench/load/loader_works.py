"""Loaders as one would write them by hand, each in a process of its own: what `bench.loader` holds ours against.

    python -m bench.load.loader_works WORK --bootstrap HOST:PORT --to FOLDER [--partitions 0,1,2]

    polars           confluent-kafka, Avro containers in memory, polars.read_avro, Parquet by pyarrow
    copy             confluent-kafka, datums put undecoded into an Avro file's blocks
    fastavro         confluent-kafka, Avro containers in memory, fastavro, --formats parquet (pyarrow) or avro
    read             confluent-kafka, nothing done with the records
    millstream       --formats avro,parquet: one worker's share of a run in this process, for a profiler to look at

The last line printed is JSON: records, CPU and wall seconds from the first fetch to the last close, bytes written, peak
memory. Modules are loaded before. Parquet is zstd at level 1 with statistics, Avro zstd at level 1. Files are synced.

The scripts are as fast as they could be made in a page of Python. What was set, and what for:

- Messages are taken 500 at a time. Lists of 50,000 take three times the CPU time: they leave the processor's caches,
  and Python's collector, which begins at 700 objects, walks them again and again.
- `fetch.queue.backoff.ms` is 10. Its default, a second, is how long librdkafka pauses once 100,000 messages are queued,
  and a reader that is through with them earlier waits. A longer queue (`queued.min.messages`) takes more CPU time.
- CRCs are checked, as ours does it. Partitions are assigned all at once, without a group.
- Values are cut and joined list by list; containers hold 50,000 records, row groups 500,000, as many as in ours.
- Dictionaries are for the columns whose values repeat: of others pyarrow would give them up after some work.
- fastavro's own zstd needs another package; its blocks go through the compressor that the copy has.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import confluent_kafka
import fastavro as fa
import fastavro._write as fastavro_write
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from bench.load.brokers import peak_memory_mb
from bench.load.loader_topic import PARTITIONS, SCHEMA, SCHEMA_ID, TEXT, TOPIC

_BATCH = 500
_BLOCK_RECORDS = 2_000
_BLOCK_BYTES = 256 * 1024
_CONTAINER_RECORDS = 50_000
_GROUP_RECORDS = 500_000
_PREFIX = 5
_REPEATING = ["referrer", "kind", "quantity", "is_new", "scores.list.element"]


class Stretch:
    """CPU and wall time from where the work begins."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def figures(self, records: int, folder: Path) -> dict[str, float]:
        """Return what there is to say at the end."""
        return {
            "records": records,
            "cpu_s": time.process_time() - self._cpu,
            "wall_s": time.monotonic() - self._wall,
            "bytes": sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
            "peak_mb": peak_memory_mb(os.getpid()),
        }


def millstream(options: argparse.Namespace) -> dict[str, float]:
    """Ours: one worker's share of a run."""
    from millstream import Consumer
    from millstream.core.client.cluster import TopicPartition
    from millstream.hadoop_loader.filesystem import open_filesystem
    from millstream.hadoop_loader.job import (
        DestinationSettings,
        LoadJob,
        Partitioning,
        RegistrySettings,
        SourceSettings,
    )
    from millstream.hadoop_loader.running import run_split
    from millstream.hadoop_loader.running.reading import topic_id_text
    from millstream.hadoop_loader.running.without_pandas import hide_pandas
    from millstream.hadoop_loader.splits import OffsetRange, Split, SplitTask
    from millstream.hadoop_loader.tables import TableVersion

    hide_pandas()
    job = LoadJob(
        name="bench",
        source=SourceSettings(bootstrap_servers=options.bootstrap, topics=(TOPIC,)),
        registry=RegistrySettings(urls=("http://127.0.0.1:9",)),
        destination=DestinationSettings(uri=options.uri, formats=frozenset(options.formats)),
        partitioning=Partitioning(kind="none"),
    )
    with Consumer(options.bootstrap) as consumer:
        topic_id = topic_id_text(consumer.topics()[TOPIC].topic_id)
        ends = consumer.end_offsets([TopicPartition(TOPIC, partition) for partition in options.partitions])
    ranges = tuple(OffsetRange(TOPIC, topic_id, tp.partition, -1, 0, end) for tp, end in ends.items())
    table = TableVersion(TOPIC, TOPIC, avro_schema=TEXT, writers={SCHEMA_ID: TEXT})
    with open_filesystem(job.destination.uri, job.destination.filesystem) as filesystem:
        filesystem.make_directory(options.staging)
        stretch = Stretch()
        result = run_split(SplitTask(job, Split(0, ranges), 0, options.staging, "bench", {TOPIC: table}), filesystem)
        figures = stretch.figures(result.rows, Path(options.to))
        return {**figures, "bytes": sum(file.length for file in result.files)}


def confluent_values(options: argparse.Namespace) -> Iterator[list[bytes]]:
    """Yield values of the partitions, in lists, up to their ends."""
    consumer = confluent_kafka.Consumer(
        {
            "bootstrap.servers": options.bootstrap,
            "group.id": "bench",
            "enable.auto.commit": False,
            "fetch.queue.backoff.ms": 10,
            "check.crcs": True,
        }
    )
    starts = [confluent_kafka.TopicPartition(TOPIC, partition, 0) for partition in options.partitions]
    left = sum(consumer.get_watermark_offsets(one)[1] for one in starts)
    consumer.assign(starts)
    while left > 0:
        messages = consumer.consume(min(_BATCH, left), 1.0)
        left -= len(messages)
        yield [message.value() or b"" for message in messages]
    consumer.close()


def datums(options: argparse.Namespace, count: int) -> Iterator[tuple[int, bytes]]:
    """Yield what is behind the prefixes of so many values or of a few more, and of how many."""
    records, pieces = 0, []
    for values in confluent_values(options):
        pieces.append(b"".join([value[_PREFIX:] for value in values]))
        records += len(values)
        if records >= count:
            yield records, b"".join(pieces)
            records, pieces = 0, []
    if records:
        yield records, b"".join(pieces)


def containers(options: argparse.Namespace) -> Iterator[tuple[int, io.BytesIO]]:
    """Yield Avro files of one block that is not compressed, and how many records each has."""
    head, sync = avro_head()
    for records, data in datums(options, _CONTAINER_RECORDS):
        yield records, io.BytesIO(b"".join((head, _varint(records), _varint(len(data)), data, sync)))


def avro_head() -> tuple[bytes, bytes]:
    """Return the head of a file whose blocks are not compressed, and what stands behind each block."""
    file = io.BytesIO()
    fa.writer(file, SCHEMA, [], codec="null")
    return file.getvalue(), file.getvalue()[-16:]


def read(options: argparse.Namespace) -> dict[str, float]:
    """Nothing but reading."""
    stretch = Stretch()
    return stretch.figures(sum(map(len, confluent_values(options))), Path(options.to))


def copy(options: argparse.Namespace) -> dict[str, float]:
    """Datums copied undecoded into the blocks of an Avro file."""
    stretch = Stretch()
    head, sync = avro_head()
    compressor = zstandard.ZstdCompressor(level=1)
    records = 0
    with (Path(options.to) / "copy.avro").open("wb") as file:
        file.write(head.replace(b"\x08null", b"\x12zstandard"))
        for count, plain in datums(options, _BLOCK_RECORDS):
            data = compressor.compress(plain)
            file.write(b"".join((_varint(count), _varint(len(data)), data, sync)))
            records += count
    _sync(options)
    return stretch.figures(records, Path(options.to))


def polars(options: argparse.Namespace) -> dict[str, float]:
    """Containers made in memory for polars' own Avro reader, and pyarrow's Parquet writer."""
    import polars as pl

    stretch = Stretch()
    tables = (pl.read_avro(file).to_arrow() for _, file in containers(options))
    return stretch.figures(_parquet(options, tables), Path(options.to))


def fastavro(options: argparse.Namespace) -> dict[str, float]:
    """A record at a time."""
    # Which pyarrow loads for its first array of Python's objects.
    import pandas  # type: ignore[import-untyped]  # noqa: F401

    from millstream.schemas.avro import avro_to_arrow_schema

    stretch = Stretch()
    if options.formats == ["parquet"]:
        schema = avro_to_arrow_schema(TEXT)
        tables = (pa.Table.from_pylist(list(fa.reader(file)), schema=schema) for _, file in containers(options))
        return stretch.figures(_parquet(options, tables), Path(options.to))

    compressor = zstandard.ZstdCompressor(level=1)
    records = 0

    def block(file: Any, plain: bytes, _level: int | None) -> None:
        data = compressor.compress(plain)
        file.write(_varint(len(data)) + data)

    def decoded() -> Iterator[Any]:
        nonlocal records
        for count, file in containers(options):
            records += count
            yield from fa.reader(file)

    fastavro_write.BLOCK_WRITERS["zstandard"] = block  # type: ignore[attr-defined]
    with (Path(options.to) / "fastavro.avro").open("wb") as file:
        fa.writer(file, fa.parse_schema(SCHEMA), decoded(), codec="zstandard", sync_interval=_BLOCK_BYTES)
    _sync(options)
    return stretch.figures(records, Path(options.to))


def _parquet(options: argparse.Namespace, tables: Iterator[pa.Table]) -> int:
    """Write tables to a file, and return how many rows they have."""
    writer: pq.ParquetWriter | None = None
    rows = 0
    for group in _gathered(tables):
        if writer is None:
            writer = pq.ParquetWriter(
                Path(options.to) / "script.parquet",
                group.schema,
                compression="zstd",
                compression_level=1,
                write_statistics=True,
                use_dictionary=_REPEATING,
            )
        writer.write_table(group, row_group_size=group.num_rows)
        rows += group.num_rows
    assert writer is not None, "no rows"
    writer.close()
    _sync(options)
    return rows


def _gathered(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Yield tables put together to row groups."""
    some: list[pa.Table] = []
    for table in tables:
        some.append(table)
        if sum(one.num_rows for one in some) >= _GROUP_RECORDS:
            yield pa.concat_tables(some)
            some = []
    if some:
        yield pa.concat_tables(some)


def _sync(options: argparse.Namespace) -> None:
    for path in Path(options.to).iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _varint(number: int) -> bytes:
    raw, out = number << 1, bytearray()
    while raw > 0x7F:
        out.append(raw & 0x7F | 0x80)
        raw >>= 7
    return bytes([*out, raw])


WORKS: dict[str, Callable[[argparse.Namespace], dict[str, float]]] = {
    "millstream": millstream,
    "polars": polars,
    "copy": copy,
    "fastavro": fastavro,
    "read": read,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", choices=list(WORKS))
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--to", required=True, help="an empty folder for what is written")
    parser.add_argument("--uri", default="", help="of ours: another destination than file:// of that folder")
    parser.add_argument("--staging", default="staging")
    parser.add_argument("--formats", type=lambda text: text.split(","), default=["parquet"])
    parser.add_argument(
        "--partitions", type=lambda text: [int(one) for one in text.split(",")], default=list(range(PARTITIONS))
    )
    options = parser.parse_args()
    options.uri = options.uri or f"file://{options.to}"
    print(json.dumps(WORKS[options.work](options)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
