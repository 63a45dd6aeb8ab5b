"""Spark sessions that are made for jobs: shared by the jobs of a process, with secrets that nobody is shown."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyspark
import pytest
from tests.support.raw_topics import RawTopic
from tests.support.spark_sessions import LEFT_OUT, run_sessions

from millstream.hadoop_loader.engines.spark import EXIT_STALLED
from millstream.hadoop_loader.engines.spark_session import redaction_of
from millstream.hadoop_loader.job import Secret, SparkSettings
from millstream.testing import TestBroker

SECRET = "shown-to-nobody"
NAME = "spark.hadoop.fs.azure.account.key.lake"


def test_names_of_secrets_are_redacted_as_they_are_written() -> None:
    pattern = redaction_of("(?i)password", [NAME, "spark.hive.a+b"])

    shown = ["spark.app.name", f"{NAME}2", "spark.hive.aab", "x.fs.azure.account.key.lake"]
    hidden = ["ssl.PASSWORD", NAME, "fs.azure.account.key.lake", "spark.hive.a+b", "hive.a+b"]
    # Java takes a flag in the middle of a pattern, Python at its beginning only.
    found = re.compile(pattern.replace("(?i)", ""), re.IGNORECASE)
    assert [name for name in shown + hidden if found.search(name)] == hidden


def test_a_task_that_tells_nothing_ends_its_process() -> None:
    script = """if True:
        import threading
        from millstream.hadoop_loader.engines.spark import Watchdog
        with Watchdog(60.0):
            pass
        with Watchdog(0.5) as watchdog:
            for _ in range(10):
                threading.Event().wait(0.1)
                watchdog.handle_progress(None)
            print("told for longer than that", flush=True)
            threading.Event().wait()
        """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)

    assert done.returncode == EXIT_STALLED
    assert "told for longer" in done.stdout
    assert "nothing was heard of the split for 0.5 s" in done.stderr


@pytest.fixture(scope="module")
def found(millstream_broker_session: TestBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What a process with two engines found."""
    folder = tmp_path_factory.mktemp("sessions")
    topic = RawTopic(millstream_broker_session.bootstrap_servers, folder / "lake")
    topic.send(100)
    events = folder / "events"
    events.mkdir()
    settings = SparkSettings(
        master="local-cluster[1,1,600]",
        config={
            "spark.executor.memory": "512m",
            "spark.driver.memory": "512m",
            "spark.driver.host": "127.0.0.1",
            "spark.ui.port": "0",
            "spark.eventLog.enabled": "true",
            "spark.eventLog.dir": events.as_uri(),
            "spark.eventLog.compress": "false",
            LEFT_OUT: "1",
            NAME: Secret(SECRET),
        },
    )
    told = run_sessions(topic.job(changes={"engine": "spark", "spark": settings}), folder)
    told["events"] = "".join(path.read_text() for path in events.rglob("*") if path.is_file())
    yield told
    shutil.rmtree(Path(pyspark.__file__).parent / "work" / told["application"], ignore_errors=True)


@pytest.mark.java
@pytest.mark.timeout(600)
def test_secrets_of_a_session_are_shown_to_nobody(found: dict[str, Any]) -> None:
    assert found["known"] == [SECRET]
    assert any("CoarseGrainedExecutorBackend" in argument for argument in found["commands"])
    assert not [argument for argument in found["commands"] if SECRET in argument]
    for where in ("ui", "events"):
        assert "fs.azure.account.key.lake" in found[where], where
        assert SECRET not in found[where], where
    assert "spark.executor.extraJavaOptions is a secret" in found["refused"][1]


@pytest.mark.java
@pytest.mark.timeout(600)
def test_jobs_share_a_session_and_the_last_one_stops_it(found: dict[str, Any]) -> None:
    assert found["shared"] == {"outcome": "loaded", "rows": 100, "errors": []}
    assert "says otherwise of spark.task.maxFailures" in found["refused"][0]
    # The next one asked for other settings, and was given a session of its own: with those, and no others.
    assert len(found["refused"]) == 2
    assert found["left out"] is None


@pytest.mark.java
@pytest.mark.timeout(600)
def test_executors_take_memory_as_local_workers_do(found: dict[str, Any]) -> None:
    assert found["pool"] == "system"


@pytest.mark.java
@pytest.mark.timeout(600)
def test_a_cluster_that_grants_nothing_is_not_waited_for(found: dict[str, Any]) -> None:
    assert found["starved"]["outcome"] == "failed"
    assert "granted no executor" in found["starved"]["errors"][0]
