"""Batches made by kafka-python, by aiokafka and here, each read by the others, and ours by Kafka's own reader."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import aiokafka.record.default_records as aiokafka_batches
import aiokafka.record.memory_records as aiokafka_memory
import kafka.record.default_records as kafka_python_batches
import kafka.record.memory_records as kafka_python_memory
import pytest

from millstream.core.records import (
    AppendRules,
    BatchBuilder,
    Compression,
    Record,
    iter_records,
    open_batch,
    read_header,
    validate_batch,
)
from millstream.testing.kafka import Java

NOW = 1_700_000_000_000
RECORDS = [
    Record(
        offset,
        NOW + offset * 7 % 100,
        None if offset % 3 == 0 else b"key-%d" % offset,
        None if offset % 5 == 1 else b"value " * (offset % 200),
        (("trace", b"%d" % offset), ("empty", b""), ("null", None)) if offset % 4 == 0 else (),
    )
    for offset in range(1000)
]
each_codec = pytest.mark.parametrize("codec", Compression)
each_client = pytest.mark.parametrize("client", ["kafka-python", "aiokafka"])
BUILDERS = {
    "kafka-python": kafka_python_batches.DefaultRecordBatchBuilder,
    "aiokafka": aiokafka_batches.DefaultRecordBatchBuilder,
}
READERS = {"kafka-python": kafka_python_memory.MemoryRecords, "aiokafka": aiokafka_memory.MemoryRecords}


def ours(codec: Compression) -> bytes:
    builder = BatchBuilder(compression=codec, producer_id=77, producer_epoch=3, base_sequence=9)
    for record in RECORDS:
        builder.append(*record[1:])
    return builder.build()


@each_codec
@each_client
def test_their_batches_are_read_and_validated_here(client: str, codec: Compression) -> None:
    builder: Any = BUILDERS[client](2, int(codec), False, 77, 3, 9, 1 << 20)
    for record in RECORDS:
        builder.append(record.offset, record.timestamp, record.key, record.value, list(record.headers))
    batch = bytes(builder.build())

    header = validate_batch(batch, AppendRules(), NOW)

    assert (header.compression, header.count, header.producer_id, header.base_sequence) == (codec, 1000, 77, 9)
    assert list(iter_records(batch)) == RECORDS
    assert open_batch(batch, AppendRules(validate_compressed=True), NOW) is batch


@each_codec
@each_client
def test_our_batches_are_read_by_them(client: str, codec: Compression) -> None:
    batch: Any = READERS[client](ours(codec)).next_batch()

    assert batch.validate_crc()
    assert (batch.producer_id, batch.producer_epoch, batch.base_sequence) == (77, 3, 9)
    theirs = [Record(r.offset, r.timestamp, r.key, r.value, tuple(r.headers)) for r in batch]
    assert theirs == RECORDS


@each_client
def test_uncompressed_batches_are_the_same_bytes(client: str) -> None:
    builder: Any = BUILDERS[client](2, 0, False, 77, 3, 9, 1 << 20)
    for record in RECORDS:
        builder.append(record.offset, record.timestamp, record.key, record.value, list(record.headers))
    theirs = bytes(builder.build())

    mine = ours(Compression.NONE)

    # Clients set different leader epochs (the log replaces them, and no CRC covers them).
    assert mine[:12] + mine[16:] == theirs[:12] + theirs[16:]


@pytest.mark.java
def test_kafka_reads_every_codec(jars: Path, tmp_path: Path) -> None:
    segment = tmp_path / "00000000000000000000.log"
    with segment.open("wb") as file:
        for number, codec in enumerate(Compression):
            builder = BatchBuilder(compression=codec, base_offset=1000 * number)
            for record in RECORDS:
                builder.append(*record[1:])
            assert read_header(builder.build()).compression is codec
            file.write(builder.build())

    output = (
        Java(jars)
        .run("org.apache.kafka.tools.DumpLogSegments", "--deep-iteration", "--print-data-log", "--files", str(segment))
        .stdout
    )

    for codec in Compression:
        assert re.search(rf"compresscodec: {codec.name.lower()} crc: \d+ isvalid: true", output), codec
    line = r"^\| offset: (\d+) .*?CreateTime: (\d+) keySize: (-?\d+) valueSize: (-?\d+)"
    dumped = re.findall(line, output, re.MULTILINE)
    expected = [
        (
            str(1000 * number + record.offset),
            str(record.timestamp),
            str(-1 if record.key is None else len(record.key)),
            str(-1 if record.value is None else len(record.value)),
        )
        for number in range(len(Compression))
        for record in RECORDS
    ]
    assert dumped == expected
