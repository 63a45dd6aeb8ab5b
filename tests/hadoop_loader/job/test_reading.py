"""Job files: what they say comes out of them, and what is wrong in them is told at once, where it stands."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import importlib.machinery
import pickle
import sys
import tomllib
import types
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.hadoop_loader.job import (
    DestinationSettings,
    JobError,
    LoadJob,
    RegistrySettings,
    Secret,
    SourceSettings,
)
from millstream.hadoop_loader.job.lines import lines_of

MINIMAL = """
name = "flights"
[source]
bootstrap_servers = "127.0.0.1:9092"
topics = ["flights"]
[registry]
urls = "http://127.0.0.1:8081"
[destination]
uri = "file:///data/lake"
"""

WHOLE = """
name = "flights"
metadata_columns = ["partition", "offset"]
worker_memory_bytes = "512 MB"
workers = 4

[source]
bootstrap_servers = "kafka-1:9093,kafka-2:9093"
topics_pattern = "flights|weather-.*"
start = 2026-01-31T00:00:00Z
stop = "2026-02-01T00:00:00+01:00"
start_offsets.weather-1 = { "0" = 15 }
start_group = "connect-hdfs"
stop_offsets.flights = { "0" = 1500, "1" = 20 }
rate_limit_bytes_per_s = "20 MB"

[source.client]
security.protocol = "SASL_SSL"
sasl.mechanism = "SCRAM-SHA-256"
sasl.username = "loader"
sasl.password = { env = "KAFKA_PASSWORD" }
"ssl.truststore.location" = "/etc/ssl/kafka.pem"
fetch.max.bytes = 10_000_000

[registry]
urls = ["https://one:8081", "https://two:8081"]
user = "loader"
password = { file = "/run/secrets/registry" }

[destination]
uri = "hdfs://cluster1/warehouse"
formats = ["avro", "parquet"]
permission = "640"
deadline_s = "2 min"
nameservices.cluster1 = ["nn1:8020", "nn2:8020"]
properties.dfs.client.use.datanode.hostname = true
kerberos.principal = "loader@EXAMPLE.ORG"
kerberos.keytab = "/etc/loader.keytab"

[limits]
bytes = "1 GB"
age_s = "15 min"

[schedule]
cron = "*/15 * * * *"
jitter_s = 30
"""


def test_a_whole_file() -> None:
    job = LoadJob.loads(WHOLE)

    assert job.source.start == 1769817600000
    assert job.source.stop == 1769900400000
    assert (job.source.start_offsets, job.source.start_group) == ({"weather-1": {0: 15}}, "connect-hdfs")
    assert job.source.stop_offsets == {"flights": {0: 1500, 1: 20}}
    assert job.source.rate_limit_bytes_per_s == 20 * 2**20
    assert job.source.client["sasl.password"] == Secret(env="KAFKA_PASSWORD")
    assert job.source.client["ssl.truststore.location"] == "/etc/ssl/kafka.pem"
    assert job.source.client["fetch.max.bytes"] == "10000000"
    assert job.worker_memory_bytes == 512 * 2**20
    assert job.limits.bytes == 2**30
    assert job.limits.age_s == 900
    filesystem = job.destination.filesystem
    assert filesystem.permission == 0o640
    assert filesystem.deadline_s == 120
    assert filesystem.nameservices[0].rpc_addresses == ("nn1:8020", "nn2:8020")
    assert filesystem.properties == (("dfs.client.use.datanode.hostname", "true"),)
    assert filesystem.kerberos is not None
    assert job.key.format == "none"
    assert job.value.format == "avro"


def test_a_file_says_what_an_object_says() -> None:
    assert LoadJob.loads(MINIMAL) == LoadJob(
        name="flights",
        source=SourceSettings(bootstrap_servers="127.0.0.1:9092", topics=("flights",)),
        registry=RegistrySettings(urls=("http://127.0.0.1:8081",)),
        destination=DestinationSettings(uri="file:///data/lake"),
    )


def test_jobs_travel_to_workers() -> None:
    job = LoadJob.loads(WHOLE)
    assert pickle.loads(pickle.dumps(job)) == job


BAD = """name = "my flights"
worker_memory_bytes = "12 bananas"
engin = "spark"

[source]
bootstrap_servers = 9092
topics = "flights"
topics_pattern = "a(?=b)"
start = "begin"
zone = "UTC"

[source.client]
security.protocol = "SASL_SSL"
sasl.mechanism = "PLAIN"
sasl.pasword = "hunter2"
sasl.password = "hunter2"
group.id = "mine"

[value]
format = "arvo"

[destination]
formats = ["orc",
  "avro"]
replication = 0

[partitioning]
pattern = "dayly"
zone = "Europe/Berln"

[registry]
urls = "http://u:hunter2@x:1"
password = "hunter2"

[schedule]
cron = "* * *"
"""


def test_every_problem_is_told_at_once_with_its_line_and_remedy() -> None:
    with pytest.raises(JobError) as caught:
        LoadJob.loads(BAD, origin="flights.toml")

    told = {(problem.key, problem.line): f"{problem.what}; {problem.remedy}" for problem in caught.value.problems}
    expected = {
        ("name", 1): "letters, digits",
        ("worker_memory_bytes", 2): '"256 MB"',
        ("engin", 3): "did you mean engine?",
        ("source.bootstrap_servers", 6): "in quotes",
        ("source.topics_pattern", 8): "RE2",
        ("source.start", 9): "earliest",
        ("source.zone", 10): "did you mean partitioning.zone?",
        ("source.client.sasl.username", 12): "PLAIN needs it",
        ("source.client.sasl.pasword", 15): "did you mean sasl.password?",
        ("source.client.sasl.password", 16): "in the clear",
        ("source.client.group.id", 17): "source.group",
        ("value.format", 20): "did you mean avro?",
        ("destination.uri", 22): "not given",
        ("destination.formats", 23): 'no "orc"',
        ("destination.replication", 25): "at least 1",
        ("partitioning.pattern", 28): "did you mean daily?",
        ("partitioning.zone", 29): "did you mean Europe/Berlin?",
        ("registry.urls", 32): "password",
        ("registry.password", 33): '{ env = "NAME" }',
        ("schedule.cron", 36): "minute, hour",
    }
    assert told.keys() == expected.keys()
    for where, words in expected.items():
        assert words in told[where], (where, told[where])
    assert "hunter2" not in str(caught.value)
    assert str(caught.value).startswith("flights.toml: 20 problems")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("name = flights\n", 1, 'name = "flights"'),
        ('name = "a"\n[source\ntopics = 1', 2, "it is no TOML"),
        ('name = "a"\nname = "b"\n', 2, "given twice"),
    ],
)
def test_what_is_no_toml_is_told_with_its_line(text: str, line: int, words: str) -> None:
    with pytest.raises(JobError) as caught:
        LoadJob.loads(text)
    (problem,) = caught.value.problems
    assert problem.line == line
    assert words in str(problem)


def test_a_line_that_may_hold_a_secret_is_not_quoted() -> None:
    with pytest.raises(JobError) as caught:
        LoadJob.loads("[registry]\npassword = hunter2\n")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "key", "words"),
    [
        ('source.start = "2026-13-01"', "source.start", "date-time"),
        ("source.stop_offsets = { flights = 5 }", "source.stop_offsets", "a table for each topic"),
        ("source.start_offsets.flights = { a = 5 }", "source.start_offsets", "a table for each topic"),
        ("source.start_offsets.flihgts = { 0 = 5 }", "source.start_offsets", "no topic of that name"),
        (
            'source = { topics_pattern = "a.*", exclude_pattern = "ab", start_offsets.ab = { 0 = 5 } }',
            "source.start_offsets",
            "no topic of that name",
        ),
        ("source.stop_offsets.flihgts = { 0 = 5 }", "source.stop_offsets", "no topic of that name"),
        (
            "source = { start_offsets.flights = { 0 = 5 }, stop_offsets.flights = { 0 = 4 } }",
            "source.start_offsets",
            "starts at 5 and stops at 4",
        ),
        ("source.start = 2026-02-01\nsource.stop = 2026-01-01", "source.stop", "later date-time"),
        ('source.topics = ["a/b"]', "source.topics", "no topic's name"),
        ('source.exclude_pattern = "x"', "source.exclude_pattern", "topics_pattern"),
        ('source.client.ssl.truststore.password = "x"', "source.client.ssl.truststore.password", "{ env"),
        ('source.client.sasl.username = "u"', "source.client.sasl.username", "it would not be used"),
        ('source.client.fetch.max.bytes = "many"', "source.client.fetch.max.bytes", "fetch.max.bytes"),
        ('value.format = "none"', "value.format", "raw"),
        ('key.format = "protobuf"', "key.schema_file", "keys are read by one schema"),
        ('key = { format = "avro", framing = "none" }', "key.schema_file", "keys are read by one schema"),
        (
            'key.format = "avro"\npartitioning = { kind = "fields", fields = ["key.id"] }',
            "partitioning.fields",
            "give key.schema_file",
        ),
        ('key = { format = "protobuf", schema_file = "k.avsc" }', "key.schema_file", "is read by a .proto"),
        ('value.framing = "none"', "value.schema_file", "name a .avsc"),
        ('value.schema_file = "x.avsc"', "value.schema_file", "framing"),
        ('value = { format = "protobuf", framing = "none", schema_file = "x.proto" }', "value.message", "name"),
        ('partitioning.kind = "fields"', "partitioning.fields", "at least one"),
        ('partitioning.kind = "hourly"', "partitioning.kind", 'pattern = "hourly"'),
        ('partitioning = { kind = "none", fields = ["a"] }', "partitioning.fields", 'kind = "fields"'),
        ('partitioning = { kind = "fields", fields = ["a", "_id"] }', "partitioning.fields", "begin with a letter"),
        ('partitioning = { kind = "fields", fields = ["a", "A"] }', "partitioning.fields", "each once"),
        ('partitioning = { fields = ["dt"], pattern = "dt=%Y" }', "partitioning.fields", "each once"),
        (
            'value = { format = "json", framing = "none" }\npartitioning = { kind = "fields", fields = ["a"] }',
            "partitioning.fields",
            "give value.schema_file",
        ),
        (
            'value = { format = "json", framing = "none" }\npartitioning.timestamp = "at"',
            "partitioning.timestamp",
            "give value.schema_file",
        ),
        ('value.format = "raw"\npartitioning.timestamp = "at"', "partitioning.timestamp", "by record time"),
        ('partitioning.pattern = "%Y-%d"', "partitioning.pattern", "%d without %m"),
        ('partitioning.pattern = "%Y/_%m"', "partitioning.pattern", "hidden"),
        ('partitioning.pattern = "%Y-%W"', "partitioning.pattern", "no %W"),
        ('partitioning.pattern = "%Y/%m/%d/%H:00"', "partitioning.pattern", "no colon"),
        ('destination.table_names = { "a(" = "x" }', "destination.table_names", "RE2"),
        ("destination.table_names = { a = '\\1' }", "destination.table_names", "no group 1"),
        ("destination.table_names = { '(a)' = '\\1/x' }", "destination.table_names", "no name of a table"),
        ("destination.table_names = { '(a)' = '\\12024' }", "destination.table_names", "no digit behind it"),
        ('destination.table_names.prod.orders = "_orders"', "destination.table_names", "the first no"),
        ('hive.format = "avro"', "hive.format", "destination.formats"),
        ('hive.metastore_uri = "http://x:1"', "hive.metastore_uri", "thrift://"),
        ('hive.metastore_uri = "thrift://a:9083,b:9083"', "hive.metastore_uri", '"b:9083" is no address'),
        ('hive.metastore_uri = "thrift://a:x"', "hive.metastore_uri", "with commas between them"),
        ("schedule = { }", "schedule.cron", "one of the two"),
        ('metadata_columns = ["offset", "key", "offset"]', "metadata_columns", "offset is there twice"),
        ('key = { format = "raw", column = "my key" }', "key.column", "no name of a column"),
        ('key = { format = "raw", column = "" }', "key.column", "no name of a column"),
        ('value = { format = "raw", column = "my-value" }', "value.column", "no name of a column"),
        (
            'metadata_columns = ["key"]\nkey = { format = "raw", column = "_kafka_key" }',
            "key.column",
            "metadata_columns has a column of that name",
        ),
        ('value = { format = "avro", column = "v" }', "value.column", "it would not be used"),
        ('compaction.deduplicate_by = ["id"]', "compaction.deduplicate_by", "metadata_columns"),
        ('encoding.parquet = { codec = "gzip", level = 12 }', "encoding.parquet.level", "give 1 to 9"),
        ('encoding.parquet.row_group_bytes = "1 GB"', "encoding.parquet.row_group_bytes", "worker_memory_bytes larger"),
        ('destination.kerberos.principal = "a@B"', "destination.kerberos.keytab", "prove"),
        ('destination.permission = "rw"', "destination.permission", "octal"),
        ("workers = true", "workers", "whole number"),
        ("workers = 1.5", "workers", "whole number"),
        ("source = 5", "source", "[source]"),
        ('late.close_after_s = "1 year"', "late.close_after_s", "min, h, d"),
        ('registry.user = "u"', "registry.password", "both or neither"),
        ("source.start = 1969-12-31T23:59:59.999Z", "source.start", "before 1970"),
        ("source.stop = 0001-01-01", "source.stop", "before 1970"),
        ('source.group = ""', "source.group", "leave it out"),
        ('partitioning.timestamp = ""', "partitioning.timestamp", "leave it out"),
        ('destination.owner = "a\\u0000b"', "destination.owner", "a control character"),
        (
            'partitioning = { kind = "fields", fields = ["a\\nb"] }',
            "partitioning.fields",
            "a control character",
        ),
        ('registry.proxy = "proxy:3128"', "registry.proxy", "http://HOST:PORT"),
        ('registry.proxy = "http://p:x"', "registry.proxy", "http://HOST:PORT"),
        ('registry.timeout_s = "30 d"', "registry.timeout_s", "at most 86400"),
        ('destination.deadline_s = "30 d"', "destination.deadline_s", "at most 86400"),
        ('iceberg.deadline_s = "30 d"', "iceberg.deadline_s", "at most 86400"),
        ('schedule.every_s = "400 d"', "schedule.every_s", "at most 31622400"),
        ('schedule.jitter_s = "400 d"', "schedule.jitter_s", "at most 31622400"),
        ('schedule.retry_after_s = "400 d"', "schedule.retry_after_s", "at most 31622400"),
        ('schedule.stop_grace_s = "400 d"', "schedule.stop_grace_s", "at most 31622400"),
        ('source.timeout_s = "30 d"', "source.timeout_s", "at most 86400"),
    ],
)
def test_what_does_not_go_together(setting: str, key: str, words: str) -> None:
    base = tomllib.loads(MINIMAL)
    with pytest.raises(JobError) as caught:
        LoadJob.loads(dumped(merged(base, tomllib.loads(setting))))
    (problem,) = (each for each in caught.value.problems if each.key == key)
    assert words in f"{problem.what}; {problem.remedy}"


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("s3://bucket/x", "no address of a table root"),
        ("lake", "no address of a table root"),
        ("/", "whole file system"),
        ("file://data/lake", "three slashes"),
        ("hdfs:///lake", "no NameNode"),
        ("hdfs://nn:8020", "whole file system"),
        ("hdfs://nn:8020/a?b", "? or #"),
    ],
)
def test_addresses_of_no_table_root(uri: str, words: str) -> None:
    with pytest.raises(JobError, match=r"destination\.uri") as caught:
        LoadJob.loads(MINIMAL.replace("file:///data/lake", uri))
    assert words in str(caught.value)


def test_a_path_alone_is_a_local_root() -> None:
    assert LoadJob.loads(MINIMAL.replace("file:///data/lake", "/data/lake")).destination.uri == "/data/lake"


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="No such file"):
        LoadJob.load(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b'name = "a"\n\xff')
    with pytest.raises(JobError, match="line 2: the file: it is no UTF-8 text"):
        LoadJob.load(tmp_path / "bytes.toml")


def test_a_file_that_nests_too_deep_is_told() -> None:
    with pytest.raises(JobError, match="more deeply than can be read"):
        LoadJob.loads(f"a = {'[' * 5_000}{']' * 5_000}\n")


def test_files_may_begin_with_a_mark(tmp_path: Path) -> None:
    path, schema = tmp_path / "job.toml", tmp_path / "event.avsc"
    text = '"bytes"'
    schema.write_text(text, encoding="utf-8-sig")
    value = 'value = { format = "avro", framing = "none", schema_file = "event.avsc" }\n'
    path.write_text(value + MINIMAL, encoding="utf-8-sig")

    assert LoadJob.load(path).resolved({}).value.schema == text


def test_a_schema_file_lies_beside_its_job_and_travels_as_text(tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    path.write_text(MINIMAL + '[value]\nframing = "none"\nschema_file = "flight.avsc"\n')
    job = LoadJob.load(path)
    with pytest.raises(JobError, match=r"value\.schema_file"):
        job.resolved({})
    (tmp_path / "flight.avsc").write_text('"string"')
    assert job.resolved({}).value.schema == '"string"'
    (tmp_path / "flight.avsc").write_text('{"type": "recrod"}')
    with pytest.raises(JobError, match=r"value\.schema_file .*it is no Avro schema"):
        job.resolved({})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8) | st.datetimes(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=8), children, max_size=3),
    max_leaves=5,
)


@given(data=st.data())
def test_any_value_anywhere_is_taken_or_told(data: st.DataObject) -> None:
    """Whatever stands behind whatever key, a job or a JobError comes out, and nothing else."""
    document = tomllib.loads(WHOLE)
    table: Any = document
    while True:
        key = data.draw(st.sampled_from(sorted(table)))
        if isinstance(table[key], dict) and data.draw(st.booleans()):
            table = table[key]
            continue
        table[key] = data.draw(json_values.filter(lambda value: value is not None))
        break
    try:
        text = dumped(document)
        tomllib.loads(text)
    except (ValueError, TypeError):
        return  # TOML has no such value
    with contextlib.suppress(JobError):
        LoadJob.loads(text)


def test_lines_are_found_behind_texts_and_lists_of_several_lines() -> None:
    text = 'a = """\n[b]\nc = 1\n"""\nd = [\n  "x", # ]\n  "[e]",\n]\n'
    text += '[f."g.h"]\n"i j".k = { l = 1, m = { n = 2 } }\n[[o]]\np = 1\n'
    lines = lines_of(text)
    assert {key: lines[key] for key in ("a", "d", "f.g.h", "f.g.h.i j.k", "f.g.h.i j.k.l", "o", "o.p")} == {
        "a": 1,
        "d": 5,
        "f.g.h": 9,
        "f.g.h.i j.k": 10,
        "f.g.h.i j.k.l": 10,
        "o": 11,
        "o.p": 12,
    }
    assert "b" not in lines
    assert "e" not in lines


def merged(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in change.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


def dumped(value: Any, *, top: bool = True) -> str:
    """TOML for what tomllib reads; the standard library writes none."""
    if isinstance(value, dict):
        pairs = [f"{text(key)} = {dumped(held, top=False)}" for key, held in value.items()]
        return "\n".join(pairs) if top else f"{{ {', '.join(pairs)} }}"
    if isinstance(value, list):
        return f"[{', '.join(dumped(each, top=False) for each in value)}]"
    if isinstance(value, str):
        return text(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime.date):
        return value.isoformat()
    return repr(value)


def text(value: str) -> str:
    return '"' + "".join(each if each.isalnum() or each in " _-.:/" else f"\\U{ord(each):08x}" for each in value) + '"'


def test_every_field_is_frozen() -> None:
    job = LoadJob.loads(MINIMAL)
    with pytest.raises(dataclasses.FrozenInstanceError):
        job.name = "other"  # type: ignore[misc]


def test_a_cron_expression_may_have_tabs() -> None:
    schedule = LoadJob.loads(MINIMAL + '[schedule]\ncron = "0\\t5 * * *"\n').schedule
    assert schedule is not None
    assert schedule.cron == "0\t5 * * *"


def test_a_cron_expression_without_its_package_says_which_extra_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cronsim", None)
    with pytest.raises(JobError, match=r"schedule\.cron = .*cronsim.*pip install 'millstream\[hdfs\]'"):
        LoadJob.loads(MINIMAL + '[schedule]\ncron = "0 * * * *"\n')


def test_kerberos_for_a_metastore_without_its_package_says_which_extra_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    text = MINIMAL + '[hive]\nmetastore_uri = "thrift://a,thrift://b:9084/"\nkerberos_service = "hive"\n'
    monkeypatch.setitem(sys.modules, "gssapi", None)
    with pytest.raises(JobError, match=r"hive\.kerberos_service = .*gssapi.*pip install 'millstream\[kerberos\]'"):
        LoadJob.loads(text)
    there = types.ModuleType("gssapi")
    there.__spec__ = importlib.machinery.ModuleSpec("gssapi", None)
    monkeypatch.setitem(sys.modules, "gssapi", there)
    assert LoadJob.loads(text).hive is not None
