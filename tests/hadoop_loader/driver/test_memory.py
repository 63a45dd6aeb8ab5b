"""What the system says that a worker took, beside what the job gives it: many directories, both formats."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
from tests.support.loads import FIRST_MS, KEPT

from millstream import Admin, Producer
from millstream.hadoop_loader import run_load
from millstream.hadoop_loader.job import (
    DestinationSettings,
    LoadJob,
    Partitioning,
    SourceSettings,
    ValueSettings,
)
from millstream.testing import broker

MB = 2**20
HOUR_MS = 3_600_000
RECORDS = 80_000
VALUE_BYTES = 2_000
DIRECTORIES = 100


def test_a_worker_takes_no_more_for_more_records(tmp_path: Path) -> None:
    with broker() as kafka:
        with Admin(kafka.bootstrap_servers) as admin:
            admin.create_topic("large", partitions=1, configs=KEPT)
        noise = random.Random(5).randbytes(RECORDS * VALUE_BYTES)
        values = pa.FixedSizeBinaryArray.from_buffers(pa.binary(VALUE_BYTES), RECORDS, [None, pa.py_buffer(noise)])
        times = pa.array([FIRST_MS + n % DIRECTORIES * HOUR_MS for n in range(RECORDS)], pa.timestamp("ms"))
        with Producer(kafka.bootstrap_servers) as producer:
            sent = producer.send_batch(
                "large", pa.table({"v": values.cast(pa.binary()), "t": times}), value="v", timestamp="t"
            )
            sent.result(60)
        job = LoadJob(
            name="large",
            source=SourceSettings(bootstrap_servers=kafka.bootstrap_servers, topics=("large",)),
            value=ValueSettings(format="raw"),
            destination=DestinationSettings(uri=tmp_path.as_uri(), formats=frozenset({"avro", "parquet"})),
            partitioning=Partitioning(kind="time", pattern="hourly"),
            workers=1,
            worker_memory_bytes=64 * MB,
            split_bytes=1_000 * MB,
        )
        report = run_load(job)

    assert report.rows == RECORDS
    # 130 MB are the interpreter and its libraries; a worker that may take 1 GB takes 320.
    assert report.peak_memory_bytes < (130 + 2 * 64) * MB, f"{report.peak_memory_bytes / MB:.0f} MB"
