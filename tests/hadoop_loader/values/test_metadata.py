"""Keys and metadata as columns: each taken for itself, as it was sent."""

from __future__ import annotations

import datetime
import itertools
from pathlib import Path
from typing import Any

import pytest
from tests.support.loads import FIRST_MS
from tests.support.split_runs import Record, SplitTopic

from millstream.hadoop_loader.job import ValueSettings
from millstream.hadoop_loader.tables import TableVersion, merge
from millstream.hadoop_loader.values.fetched import _Piece
from millstream.hadoop_loader.values.metadata import METADATA
from millstream.testing import TestBroker

_numbers = itertools.count()
SCHEMA = '{"type": "record", "name": "V", "fields": [{"name": "id", "type": "int"}]}'


@pytest.mark.parametrize("format_", ["avro", "json"])
def test_columns_of_records_are_taken_alone(
    format_: str, millstream_broker_session: TestBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gathered(_: object) -> None:
        raise AssertionError("whole records were put together")

    monkeypatch.setattr(_Piece, "records", gathered)
    topic = SplitTopic(millstream_broker_session.bootstrap_servers, f"metadata-{next(_numbers)}", tmp_path, 2)
    keys = [b"k", None, b"", b"\xff", b"l"]
    headers: list[list[tuple[str, bytes | None]]] = [[("a", b"1"), ("b", None)], [], [("a", b"2")], [], []]
    contents: list[bytes | None] = [b"\0\0\0\0\1" + bytes([2 * number]) for number in range(4)]
    if format_ == "json":
        contents = [b'{"id": %d}' % number for number in range(4)]
    records = [
        Record(value, key=key, headers=each, timestamp_ms=FIRST_MS + number, partition=1)
        for number, (value, key, each) in enumerate(zip([*contents, None], keys, headers, strict=True))
    ]
    topic.send(records)
    settings: dict[str, Any] = {"value": ValueSettings(format=format_)}
    table = merge(None, {1: SCHEMA}, topic=topic.name).version
    if format_ == "json":
        settings = {"value": ValueSettings(format="json", framing="none")}
        table = TableVersion(topic.name, topic.name)

    done = topic.run(topic.job(metadata_columns=tuple(METADATA), key=ValueSettings(format="raw"), **settings), table)

    read_ids = [1] * 4 if format_ == "avro" else [None] * 4
    expected = [
        {
            "key": keys[number],
            "_kafka_topic": topic.name,
            "_kafka_partition": 1,
            "_kafka_offset": number,
            "_kafka_timestamp": datetime.datetime.fromtimestamp(FIRST_MS / 1000, datetime.UTC)
            + datetime.timedelta(milliseconds=number),
            "_kafka_timestamp_type": 0,
            "_kafka_key": keys[number],
            "_kafka_headers": [{"key": name, "value": value} for name, value in headers[number]],
            "_kafka_leader_epoch": 0,
            "_kafka_schema_id": schema_id,
        }
        for number, schema_id in enumerate([*read_ids, None])
    ]
    for written in ("avro", "parquet"):
        rows = sorted((row for _, row in done.rows(written)), key=lambda row: row["_kafka_offset"])
        found = [{name: row[name] for name in expected[0]} for row in rows]
        assert found == expected
