"""Secrets: found when a run starts, carried to workers, and shown to nobody."""

from __future__ import annotations

import pickle
import traceback
from pathlib import Path

import pytest

from millstream.hadoop_loader.job import JobError, LoadJob, Secret, read_resolved

JOB = """
name = "flights"
[source]
bootstrap_servers = "127.0.0.1:9092"
topics = ["flights"]
[source.client]
security.protocol = "SASL_PLAINTEXT"
sasl.mechanism = "PLAIN"
sasl.username = "loader"
sasl.password = { env = "KAFKA_PASSWORD" }
[registry]
urls = "http://127.0.0.1:8081"
user = "loader"
password = { file = "FILE" }
[destination]
uri = "file:///data/lake"
"""


@pytest.fixture
def job(tmp_path: Path) -> LoadJob:
    (tmp_path / "password").write_text("from-file\n")
    return LoadJob.loads(JOB.replace("FILE", str(tmp_path / "password")))


def test_they_reach_the_clients(job: LoadJob) -> None:
    resolved = job.resolved({"KAFKA_PASSWORD": "from-env"})

    assert resolved.source.client_configs()["sasl.password"] == "from-env"
    assert resolved.source.consumer_configs()["sasl.password"] == "from-env"
    assert resolved.registry is not None
    assert resolved.registry.config().auth == ("loader", "from-file")
    # Workers on other machines have neither the variable nor the file.
    travelled = pickle.loads(pickle.dumps(resolved))
    assert travelled.source.client_configs()["sasl.password"] == "from-env"


def test_tasks_carry_what_workers_need(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("from-file\n")
    lines = """
    [spark]
    config = { "spark.hadoop.fs.s3a.secret.key" = { env = "OF_SPARK" } }
    [iceberg]
    properties = { uri = { env = "OF_CATALOG" } }
    """
    text = JOB.replace("FILE", str(tmp_path / "password")) + lines
    secrets = {"KAFKA_PASSWORD": "from-env", "OF_SPARK": "text-of-spark", "OF_CATALOG": "text-of-catalog"}
    resolved = LoadJob.loads(text).resolved(secrets)
    whole, travelled = pickle.dumps(resolved), pickle.dumps(resolved.for_workers())

    assert [name for name in (b"text-of-spark", b"text-of-catalog") if name in whole and name not in travelled] == [
        b"text-of-spark",
        b"text-of-catalog",
    ]
    assert b"from-env" in travelled
    assert b"from-file" in travelled


def test_they_are_in_no_repr(job: LoadJob) -> None:
    resolved = job.resolved({"KAFKA_PASSWORD": "from-env"})
    for shown in (repr(resolved), str(resolved), repr(resolved.source.client), repr(Secret("from-env"))):
        assert "from-env" not in shown
        assert "from-file" not in shown


def test_all_that_lack_are_named(job: LoadJob, tmp_path: Path) -> None:
    (tmp_path / "password").unlink()
    with pytest.raises(JobError) as caught:
        job.resolved({})
    assert [problem.key for problem in caught.value.problems] == ["source.client.sasl.password", "registry.password"]
    assert "KAFKA_PASSWORD is not set" in str(caught.value)
    assert "No such file" in str(caught.value)


def test_one_that_lacks_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "flights.toml"
    path.write_text(JOB)
    with pytest.raises(JobError) as caught:
        read_resolved(path, {"KAFKA_PASSWORD": "x"})
    assert str(caught.value).startswith(f"{path}: 1 problem\n  line 14: registry.password")


@pytest.mark.parametrize(("content", "words"), [(b"", "empty"), (b"\xff\xfe", "UTF-8"), (b"x" * 70_000, "longer")])
def test_files_that_hold_no_secret(job: LoadJob, tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "password").write_bytes(content)
    with pytest.raises(JobError, match=words):
        job.resolved({"KAFKA_PASSWORD": "x"})


def test_a_rotated_file_is_taken_by_the_next_run(job: LoadJob, tmp_path: Path) -> None:
    environ = {"KAFKA_PASSWORD": "x"}
    job.resolved(environ)
    (tmp_path / "password").write_text("rotated")
    registry = job.resolved(environ).registry
    assert registry is not None
    assert registry.config().auth == ("loader", "rotated")


def test_a_secret_that_was_not_looked_up_is_our_mistake(job: LoadJob) -> None:
    with pytest.raises(AssertionError, match="resolved") as caught:
        job.source.client_configs()
    assert "KAFKA_PASSWORD" in "".join(traceback.format_exception(caught.value))
