"""Spark's own Kafka source with from_avro, as a peer of the loader; runs in the environment of pyspark 4.1.1.

    SPARK_PYTHON bench/load/loader_spark.py --jars FOLDER --bootstrap HOST:PORT --to FOLDER --formats parquet

The load runs twice in one session, and the second run is told: CPU of the JVM from its beginning to its end.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

STARTED = time.monotonic()


def cpu_s(pid: int) -> float:
    """User and system time of a process so far, all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_mb(pid: int) -> float:
    """The largest resident size."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM:"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jars", required=True)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--schema", required=True)
    parser.add_argument("--to", required=True)
    parser.add_argument("--formats", required=True)
    options = parser.parse_args()
    from pyspark.sql import SparkSession
    from pyspark.sql.avro.functions import from_avro
    from pyspark.sql.functions import expr

    spark: Any = (
        SparkSession.builder.master("local[2]")
        .config("spark.jars", ",".join(str(path) for path in Path(options.jars).glob("*.jar")))
        .config("spark.ui.enabled", "false")
        .config("spark.driver.memory", "1g")
        .config("spark.sql.parquet.compression.codec", "zstd")
        .config("spark.hadoop.parquet.compression.codec.zstd.level", "1")
        .config("spark.sql.avro.compression.codec", "zstandard")
        .config("spark.sql.avro.zstandard.level", "1")
        .getOrCreate()
    )
    spark.sparkContext.setLogLevel("ERROR")
    jvm = int(spark._jvm.java.lang.ProcessHandle.current().pid())
    startup = time.monotonic() - STARTED
    target = Path(options.to) / "spark"
    figures: dict[str, float] = {}
    for _ in range(2):
        shutil.rmtree(target, ignore_errors=True)
        wall, cpu = time.monotonic(), cpu_s(jvm)
        source = (
            spark.read.format("kafka")
            .option("kafka.bootstrap.servers", options.bootstrap)
            .option("subscribe", options.topic)
            .option("startingOffsets", "earliest")
            .load()
        )
        datum = expr("substring(value, 6, length(value) - 5)")
        rows = source.select(from_avro(datum, options.schema).alias("r")).select("r.*")
        rows.write.format(options.formats).save(str(target))
        figures = {
            "cpu_s": cpu_s(jvm) - cpu,
            "wall_s": time.monotonic() - wall,
            "startup_s": startup,
            "bytes": sum(path.stat().st_size for path in target.rglob(f"*.{options.formats}")),
            "peak_mb": peak_mb(jvm),
        }
    figures["records"] = spark.read.format(options.formats).load(str(target)).count()
    print(json.dumps(figures))
    spark.stop()


main()
