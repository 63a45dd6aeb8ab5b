"""Spark in a process of its own: reads what it is told to, and prints it as JSON.

python tests/support/spark_reader.py '{"merged": ["/folder", ...], "metastore": "thrift://...", "sql": ["SELECT ..."]}'
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

MARK = "RESULT "
# The launcher's, the driver's and the executors': the quick compiler and the small collector are enough for few rows.
QUICK_JVM = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"


def read_by_spark(folder: Path, *, timeout_s: float = 240, **asked: Any) -> list[Any]:
    """Run this file; return for each thing asked [schema as text, rows], or a sentence where Spark refused."""
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, __file__, json.dumps(asked)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        cwd=folder,
        env={**os.environ, "JDK_JAVA_OPTIONS": QUICK_JVM},
    )
    found = [line.removeprefix(MARK) for line in done.stdout.splitlines() if line.startswith(MARK)]
    assert len(found) == 1, done.stdout[-2000:] + done.stderr[-4000:]
    result = json.loads(found[0])
    assert isinstance(result, list), result
    return result


def _causes(error: Exception) -> str:
    """Of Java's trace what is not places."""
    return "\n".join(line for line in str(error).splitlines() if not line.startswith("\tat "))[:4000]


def _main() -> None:
    from pyspark.sql import DataFrame, SparkSession

    asked = json.loads(sys.argv[1])
    builder = (
        SparkSession.builder.master("local[1]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.memory", "700m")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.sql.shuffle.partitions", "1")
    )
    if asked.get("metastore"):
        builder = builder.config("spark.hadoop.hive.metastore.uris", asked["metastore"]).enableHiveSupport()
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("OFF")
    results: list[Any] = []

    def add(frame: DataFrame) -> None:
        results.append([frame.schema.simpleString(), [json.loads(str(one)) for one in frame.toJSON().collect()]])

    for path in asked.get("merged", []):
        try:
            add(spark.read.option("mergeSchema", "true").parquet(path))
        except Exception as error:  # whatever it is, the test tells it
            results.append(_causes(error))
    for statement in asked.get("sql", []):
        try:
            add(spark.sql(statement))
        except Exception as error:
            results.append(_causes(error))
    print(MARK + json.dumps(results), flush=True)
    spark.stop()


if __name__ == "__main__":
    _main()
