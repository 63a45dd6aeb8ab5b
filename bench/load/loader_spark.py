"""Spark's own Kafka source with from_avro, as a peer of the loader; runs in the environment of pyspark 4.1.1.

    SPARK_PYTHON bench/load/loader_spark.py --jars FOLDER --topic NAME --schema TEXT

One session does every load it is asked for, so that what a JVM has to warm up is behind it: a line of JSON in
({"bootstrap": ..., "to": URI, "formats": ..., "is_counted": ...}), a line of JSON out. CPU is that of the JVM from a
load's beginning to its end. The first line out tells what the start of the session took.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
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


def session(jars: str) -> Any:
    """Return a session on two cores, whose files are compressed as everybody's are."""
    from pyspark.sql import SparkSession

    spark = (
        SparkSession.builder.master("local[2]")
        .config("spark.jars", ",".join(str(path) for path in Path(jars).glob("*.jar")))
        .config("spark.ui.enabled", "false")
        .config("spark.driver.memory", "1g")
        .config("spark.hadoop.dfs.replication", "1")
        .config("spark.sql.parquet.compression.codec", "zstd")
        .config("spark.hadoop.parquet.compression.codec.zstd.level", "1")
        .config("spark.sql.avro.compression.codec", "zstandard")
        .config("spark.sql.avro.zstandard.level", "1")
        .getOrCreate()
    )
    spark.sparkContext.setLogLevel("ERROR")
    return spark


def load(spark: Any, jvm: int, topic: str, schema: str, asked: dict[str, Any]) -> dict[str, float]:
    """Load the topic once."""
    from pyspark.sql.avro.functions import from_avro
    from pyspark.sql.functions import expr

    target, formats = f"{asked['to']}/spark", asked["formats"]
    wall, cpu = time.monotonic(), cpu_s(jvm) + time.process_time()
    source = (
        spark.read.format("kafka")
        .option("kafka.bootstrap.servers", asked["bootstrap"])
        .option("subscribe", topic)
        .option("startingOffsets", "earliest")
        .load()
    )
    datum = expr("substring(value, 6, length(value) - 5)")
    rows = source.select(from_avro(datum, schema).alias("r")).select("r.*")
    rows.write.format(formats).save(target)
    figures = {"cpu_s": cpu_s(jvm) + time.process_time() - cpu, "wall_s": time.monotonic() - wall}
    path = spark._jvm.org.apache.hadoop.fs.Path(target)
    filesystem = path.getFileSystem(spark._jsc.hadoopConfiguration())
    figures["bytes"] = filesystem.getContentSummary(path).getLength()
    if asked["is_counted"]:
        figures["records"] = spark.read.format(formats).load(target).count()
    return {**figures, "peak_mb": peak_mb(jvm)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jars", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--schema", required=True)
    options = parser.parse_args()
    spark = session(options.jars)
    jvm = int(spark._jvm.java.lang.ProcessHandle.current().pid())
    started = {"startup_s": time.monotonic() - STARTED, "startup_cpu_s": cpu_s(jvm) + time.process_time()}
    print(json.dumps(started), flush=True)
    for line in sys.stdin:
        print(json.dumps(load(spark, jvm, options.topic, options.schema, json.loads(line))), flush=True)
    spark.stop()


if __name__ == "__main__":
    main()
