"""Jobs that have settings in common: what an included file says holds unless the job says otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest

from millstream.hadoop_loader.job import JobError, LoadJob, Secret, read_resolved

COMMON = """
workers = 3
[source]
bootstrap_servers = "kafka:9092"
[source.client]
security.protocol = "SASL_SSL"
sasl.mechanism = "PLAIN"
sasl.username = "loader"
sasl.password = { env = "KAFKA_PASSWORD" }
[destination]
uri = "file:///data/lake"
formats = ["avro", "parquet"]
[value]
framing = "none"
schema_file = "any.avsc"
"""
JOB = """
name = "orders"
include = "shared/common.toml"
source.topics = ["orders"]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "common.toml").write_text(COMMON)
    (tmp_path / "shared" / "any.avsc").write_text('"string"')
    return tmp_path


def job_file(folder: Path, text: str) -> Path:
    path = folder / "orders.toml"
    path.write_text(text)
    return path


def test_what_a_job_says_goes_over_what_it_includes(folder: Path) -> None:
    path = job_file(
        folder,
        JOB
        + """
        workers = 5
        source.client.sasl.password = { file = "password" }
        destination.formats = ["parquet"]
        partitioning = { kind = "kafka" }
        """,
    )

    job = LoadJob.load(path)

    assert (job.name, job.workers, job.source.topics) == ("orders", 5, ("orders",))
    assert job.source.bootstrap_servers == "kafka:9092"
    assert job.source.client["security.protocol"] == "SASL_SSL"
    # A reference is taken whole: it has a variable or a file, never both.
    assert job.source.client["sasl.password"] == Secret(file="password")
    assert (job.destination.uri, job.destination.formats) == ("file:///data/lake", frozenset({"parquet"}))
    assert job.partitioning.kind == "kafka"
    # From the file on that names it.
    assert job.value.schema_file == str(folder / "shared" / "any.avsc")


@pytest.mark.parametrize(
    ("lower", "upper"), [('"fetch.max.bytes"', "fetch.max.bytes"), ("fetch.max.bytes", '"fetch.max.bytes"')]
)
def test_names_with_dots_are_one_name_however_they_are_written(folder: Path, lower: str, upper: str) -> None:
    (folder / "more.toml").write_text(f"[source.client]\n{lower} = 1\nfetch.min.bytes = 3\n")
    text = (
        JOB.replace("shared/common.toml", "more.toml")
        + f"source.bootstrap_servers = 'kafka:9092'\nsource.client.{upper} = 2\n"
    )
    text += "value.format = 'raw'\ndestination.uri = '/lake'\n"

    assert LoadJob.load(job_file(folder, text)).source.client == {"fetch.max.bytes": "2", "fetch.min.bytes": "3"}


def test_a_later_file_goes_over_those_before_it(folder: Path) -> None:
    (folder / "more.toml").write_text('[destination]\nuri = "file:///data/other"\n')
    both = JOB.replace('"shared/common.toml"', '["shared/common.toml", "more.toml"]')

    destination = LoadJob.load(job_file(folder, both)).destination

    assert (destination.uri, destination.formats) == ("file:///data/other", frozenset({"avro", "parquet"}))


def test_problems_are_told_with_the_file_they_are_in(folder: Path) -> None:
    common = folder / "shared" / "common.toml"
    common.write_text(COMMON.replace("workers = 3", "worker = 3") + "[partitioning]\nzone = 'Europe/Berln'\n")
    path = job_file(folder, JOB + "[partitioning]\npattern = 'weekly'\n")

    with pytest.raises(JobError) as caught:
        LoadJob.load(path)

    assert [(one.key, one.origin, one.line) for one in caught.value.problems] == [
        ("partitioning.pattern", "", 6),
        ("worker", str(common), 2),
        ("partitioning.zone", str(common), 17),
    ]
    assert str(caught.value).startswith(f"{path}: 3 problems\n  line 6: ")
    assert f"{common}: line 17: partitioning.zone" in str(caught.value)


def test_secrets_that_lack_are_told_with_the_file_they_are_in(folder: Path) -> None:
    with pytest.raises(JobError) as caught:
        read_resolved(job_file(folder, JOB), {})

    (problem,) = caught.value.problems
    assert (problem.origin, problem.line) == (str(folder / "shared" / "common.toml"), 9)
    assert "KAFKA_PASSWORD is not set" in problem.what


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ('"none.toml"', "cannot be read"),
        ("3", "names no files"),
        ('[""]', "names no files"),
        ('["nested.toml"]', "includes files itself"),
        (str(["nested.toml"] * 17), "17 files"),
    ],
)
def test_what_cannot_be_included_is_told_at_its_line(folder: Path, value: str, words: str) -> None:
    (folder / "nested.toml").write_text('include = "shared/common.toml"\n')

    with pytest.raises(JobError) as caught:
        LoadJob.load(job_file(folder, JOB.replace('"shared/common.toml"', value)))

    (problem,) = caught.value.problems
    assert (problem.key, problem.line) == ("include", 3)
    assert words in str(problem)


def test_an_included_file_that_is_no_toml_is_named(folder: Path) -> None:
    common = folder / "shared" / "common.toml"
    common.write_text("workers = three\n")

    with pytest.raises(JobError, match="line 1: the file: it is no TOML") as caught:
        LoadJob.load(job_file(folder, JOB))

    assert caught.value.origin == str(common)


def test_include_in_a_table_is_told_where_it_belongs(folder: Path) -> None:
    with pytest.raises(JobError, match="before the first"):
        LoadJob.load(job_file(folder, JOB.replace("include", "[source]\ninclude")))
