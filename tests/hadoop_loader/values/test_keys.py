"""Keys with a schema: a column of what it says, in both formats, through whole loads; a bad one costs its record."""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.support.registry import registry

from millstream import Admin, Producer
from millstream.hadoop_loader.driver import run_load
from millstream.hadoop_loader.driver.report import Outcome
from millstream.hadoop_loader.job import (
    AvroSettings,
    DestinationSettings,
    EncodingSettings,
    LoadJob,
    Partitioning,
    RegistrySettings,
    SourceSettings,
    ValueSettings,
)
from millstream.schemas.avro import AvroEncoder
from millstream.schemas.client import RegistryClient
from millstream.testing import TestBroker

_numbers = itertools.count()

USER_1 = '{"type": "record", "name": "User", "fields": [{"name": "id", "type": "long"}]}'
USER_2 = """{"type": "record", "name": "User", "fields": [
    {"name": "id", "type": "long"},
    {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["PERSON", "ROBOT"]}, "default": "PERSON"}]}"""
USER_PROTO = 'syntax = "proto3"; message Other { bool x = 1; } message User { int64 id = 1; string kind = 2; }'


@pytest.fixture(scope="module")
def registry_url(millstream_broker_session: TestBroker) -> Iterator[str]:
    with registry(millstream_broker_session.bootstrap_servers) as running:
        yield running.url


def load(
    bootstrap: str, root: Path, records: list[tuple[bytes | None, bytes | None]], registry_url: str, **key: Any
) -> tuple[Any, list[tuple[Any, Any]], list[tuple[Any, Any]]]:
    """Load records; return the report, and (value, key) of the rows of Parquet and of Avro."""
    topic = f"keys-{os.getpid()}-{next(_numbers)}"
    with Admin(bootstrap) as admin, Producer(bootstrap) as producer:
        admin.create_topic(topic, partitions=1)
        for value, record_key in records:
            producer.send(topic, value, key=record_key)
        producer.flush()
    job = LoadJob(
        name="keys",
        workers=1,
        source=SourceSettings(bootstrap_servers=bootstrap, topics=(topic,)),
        registry=RegistrySettings(urls=(registry_url,)),
        value=ValueSettings(format="raw"),
        key=ValueSettings(**key),
        partitioning=Partitioning(kind="none"),
        encoding=EncodingSettings(avro=AvroSettings(codec="null")),
        destination=DestinationSettings(uri=root.as_uri(), formats=frozenset({"avro", "parquet"})),
    )
    report = run_load(job)
    parquet: list[tuple[Any, Any]] = []
    avro: list[tuple[Any, Any]] = []
    for file in sorted((root / topic / "parquet").glob("*.parquet")):
        table = pq.read_table(file)
        parquet += zip(table["value"].to_pylist(), table["key"].to_pylist(), strict=True)
    for file in sorted((root / topic / "avro").glob("*.avro")):
        avro += [(row["value"], row["key"]) for row in avro_rows(file)]
    return report, parquet, avro


def avro_rows(file: Path) -> list[Any]:
    return list(fastavro.reader(io.BytesIO(file.read_bytes())))


@pytest.mark.parametrize("schema", [USER_2, None], ids=["job", "registry"])
def test_keys_of_several_writers_are_read_by_one_schema(
    millstream_broker_session: TestBroker, registry_url: str, tmp_path: Path, schema: str | None
) -> None:
    with RegistryClient(registry_url) as client:
        ids = [client.register("keys-test-key", schema) for schema in (USER_1, USER_2)]
    ones = AvroEncoder(USER_1, ids[0]).encode(pa.table({"id": [1, 2]})).to_pylist()
    (other,) = AvroEncoder(USER_2, ids[1]).encode(pa.table({"id": [3], "kind": ["ROBOT"]})).to_pylist()
    records = [(b"a", ones[0]), (b"b", None), (b"c", b"no key at all"), (b"d", other), (None, ones[1])]

    report, parquet, avro = load(
        millstream_broker_session.bootstrap_servers,
        tmp_path,
        records,
        registry_url,
        format="avro",
        schema=schema,
    )

    expected = {
        (b"a", (1, "PERSON")),
        (b"b", None),
        (b"d", (3, "ROBOT")),
        (None, (2, "PERSON")),
    }
    assert (report.errors, report.outcome, report.rows) == ([], Outcome.LOADED, 4)
    assert report.audit["bad"] == 1
    for rows in (parquet, avro):
        found = {(value, None if key is None else (key["id"], key["kind"])) for value, key in rows}
        assert found == {each if isinstance(each[1], tuple) else (each[0], None) for each in expected}
    (letters,) = (tmp_path / "_dead_letters").rglob("*.avro")
    (letter,) = avro_rows(letters)
    assert (letter["key"], letter["value"]) == (b"no key at all", b"c")
    assert "its key: " in letter["error"]


@pytest.mark.parametrize(
    ("key", "raw", "read"),
    [
        ({"format": "avro", "framing": "none", "schema": '"long"'}, [b"\x02", b"\x03"], [1, -2]),
        ({"format": "avro", "framing": "none", "schema": '"string"'}, [b"\x02x", b"\x00"], ["x", ""]),
        (
            {"format": "protobuf", "framing": "none", "schema": USER_PROTO, "message": "User"},
            [b"\x08\x05\x12\x01r", b""],
            [{"id": 5, "kind": "r"}, {"id": 0, "kind": ""}],
        ),
    ],
    ids=["long", "string", "protobuf"],
)
def test_keys_without_framing(
    millstream_broker_session: TestBroker,
    registry_url: str,
    tmp_path: Path,
    key: dict[str, Any],
    raw: list[bytes],
    read: list[Any],
) -> None:
    records: list[tuple[bytes | None, bytes | None]] = [(b"%d" % number, each) for number, each in enumerate(raw)]
    report, parquet, avro = load(millstream_broker_session.bootstrap_servers, tmp_path, records, registry_url, **key)
    assert (report.errors, report.outcome) == ([], Outcome.LOADED)
    assert parquet == avro == [(b"%d" % number, each) for number, each in enumerate(read)]


def test_raw_keys_stand_beside_raw_values(
    millstream_broker_session: TestBroker, registry_url: str, tmp_path: Path
) -> None:
    records: list[tuple[bytes | None, bytes | None]] = [(b"a", b"k\xff"), (b"b", None), (None, b"")]
    report, parquet, avro = load(
        millstream_broker_session.bootstrap_servers, tmp_path, records, registry_url, format="raw"
    )
    assert (report.errors, report.rows) == ([], 3)
    assert sorted(parquet, key=str) == sorted(avro, key=str) == sorted(records, key=str)
