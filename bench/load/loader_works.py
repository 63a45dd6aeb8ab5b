"""Loaders as one would write them by hand, each in a process of its own: what `bench.loader` holds ours against.

    python -m bench.load.loader_works WORK --bootstrap HOST:PORT --to FOLDER [--partitions 0,1,2]

    polars           confluent-kafka, an Avro container in memory, polars.read_avro, Parquet
    copy             confluent-kafka, datums put undecoded into an Avro file's blocks
    fastavro         confluent-kafka, fastavro, --formats parquet (pyarrow) or avro
    read             confluent-kafka, nothing done with the records
    millstream       --formats avro,parquet: one worker's share of a run in this process, for a profiler to look at

The last line printed is JSON: records, CPU and wall seconds from the first fetch to the last close, bytes written, peak
memory. Parquet is zstd at level 1 with statistics, Avro zstd at level 1 (fastavro, whose zstd
needs another package: deflate). Files are synced.
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

from bench.load.brokers import peak_memory_mb
from bench.load.loader_topic import PARTITIONS, SCHEMA, SCHEMA_ID, TEXT, TOPIC

_BATCH = 50_000
_PREFIX = 5


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
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer(
        {
            "bootstrap.servers": options.bootstrap,
            "group.id": "bench",
            "enable.auto.commit": False,
            "queued.max.messages.kbytes": 65_536,
            "check.crcs": True,
        }
    )
    ends = {one: consumer.get_watermark_offsets(TopicPartition(TOPIC, one))[1] for one in options.partitions}
    left = sum(ends.values())
    consumer.assign([TopicPartition(TOPIC, partition, 0) for partition in options.partitions])
    while left > 0:
        messages = consumer.consume(min(_BATCH, left), 1.0)
        if messages:
            left -= len(messages)
            yield [message.value() or b"" for message in messages]
    consumer.close()


def read(options: argparse.Namespace) -> dict[str, float]:
    """Nothing but reading."""
    stretch = Stretch()
    return stretch.figures(sum(map(len, confluent_values(options))), Path(options.to))


def copy(options: argparse.Namespace) -> dict[str, float]:
    """Datums copied undecoded into the blocks of an Avro file."""
    import zstandard
    from fastavro import writer

    stretch = Stretch()
    head = io.BytesIO()
    writer(head, SCHEMA, [], codec="null")
    sync = head.getvalue()[-16:]
    content = head.getvalue().replace(b"\x08null", b"\x12zstandard")
    compressor = zstandard.ZstdCompressor(level=1)
    records = 0
    with (Path(options.to) / "copy.avro").open("wb") as file:
        file.write(content)
        for some in confluent_values(options):
            records += len(some)
            for start in range(0, len(some), 2_000):
                block = [value[_PREFIX:] for value in some[start : start + 2_000]]
                data = compressor.compress(b"".join(block))
                file.write(_varint(len(block)) + _varint(len(data)) + data + sync)
    _sync(options)
    return stretch.figures(records, Path(options.to))


def polars(options: argparse.Namespace) -> dict[str, float]:
    """A container made in memory for polars' own Avro reader, and its Parquet writer."""
    import polars as pl
    import pyarrow.parquet as pq
    from fastavro import writer

    stretch = Stretch()
    head = io.BytesIO()
    writer(head, SCHEMA, [], codec="null")
    sync = head.getvalue()[-16:]
    output: Any = None
    records = 0
    for some in _gathered(confluent_values(options), 500_000):
        datums = b"".join([value[_PREFIX:] for value in some])
        container = head.getvalue() + _varint(len(some)) + _varint(len(datums)) + datums + sync
        table = pl.read_avro(io.BytesIO(container)).to_arrow()
        if output is None:
            output = _parquet(pq, options, table.schema)
        output.write_table(table)
        records += len(some)
    output.close()
    _sync(options)
    return stretch.figures(records, Path(options.to))


def fastavro(options: argparse.Namespace) -> dict[str, float]:
    """A record at a time."""
    import fastavro as fa
    import pyarrow as pa
    import pyarrow.parquet as pq

    from millstream.schemas.avro import avro_to_arrow_schema

    stretch = Stretch()
    parsed = fa.parse_schema(json.loads(TEXT))
    records = 0

    def decoded() -> Iterator[Any]:
        nonlocal records
        for some in confluent_values(options):
            records += len(some)
            for value in some:
                yield fa.schemaless_reader(io.BytesIO(value[_PREFIX:]), parsed)

    if options.formats == ["avro"]:
        with (Path(options.to) / "fastavro.avro").open("wb") as file:
            fa.writer(file, parsed, decoded(), codec="deflate", sync_interval=256 * 1024)
    else:
        schema = avro_to_arrow_schema(TEXT)
        with _parquet(pq, options, schema) as output:
            for some in _gathered(([one] for one in decoded()), 200_000):
                output.write_table(pa.Table.from_pylist(some, schema=schema))
    _sync(options)
    return stretch.figures(records, Path(options.to))


def _gathered(lists: Iterator[list[Any]], count: int) -> Iterator[list[Any]]:
    some: list[Any] = []
    for one in lists:
        some += one
        if len(some) >= count:
            yield some
            some = []
    if some:
        yield some


def _parquet(pq: Any, options: argparse.Namespace, schema: Any) -> Any:
    path = Path(options.to) / "script.parquet"
    return pq.ParquetWriter(path, schema, compression="zstd", compression_level=1, write_statistics=True)


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
