"""A job's fields against its values' columns: misspelt and of a wrong type, and what is said of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from millstream.hadoop_loader.job import Partitioning
from millstream.hadoop_loader.partitioning import why_not_placed
from millstream.hadoop_loader.tables.parquet import arrow_schema, parquet_avro_schema

INNER = {"type": "record", "name": "Place", "fields": [{"name": "city", "type": "string"}]}
TYPES: dict[str, Any] = {
    "country": ["null", "string"],
    "place": ["null", INNER],
    "tags": {"type": "array", "items": "string"},
    "clicked_at": {"type": "long", "logicalType": "timestamp-millis"},
    "exact": ["null", {"type": "long", "logicalType": "timestamp-nanos"}],
    "day": {"type": "int", "logicalType": "date"},
    "hour": {"type": "int", "logicalType": "time-millis"},
    "price": "double",
    "kind": {"type": "enum", "name": "Kind", "symbols": ["A"]},
    "count": "long",
}
SCHEMA = json.dumps(
    {"type": "record", "name": "V", "fields": [{"name": name, "type": one} for name, one in TYPES.items()]}
)


def why_not(**settings: Any) -> str | None:
    return why_not_placed(Partitioning(**settings), arrow_schema(parquet_avro_schema(SCHEMA)), SCHEMA)


@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "none"},
        {"kind": "kafka"},
        {"kind": "time"},
        {"kind": "fields", "fields": ("country", "place.city", "kind", "price", "day")},
        {"kind": "time", "fields": ("country",)},
        *({"kind": "time", "timestamp": name} for name in ("clicked_at", "day", "count", "country", "place.city")),
        {"kind": "time", "timestamp": "exact", "timestamp_unit": "ns"},
        {"kind": "kafka", "timestamp": "nobody looks"},
    ],
)
def test_rows_can_be_placed(settings: dict[str, Any]) -> None:
    assert why_not(**settings) is None


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"kind": "fields", "fields": ("country", "coutry")}, "did you mean country?"),
        ({"kind": "fields", "fields": ("place.citty",)}, "did you mean place.city?"),
        ({"kind": "fields", "fields": ("zzz",)}, 'partitioning.fields has "zzz": the values have no such field'),
        ({"kind": "fields", "fields": ("place",)}, "a record, which names no directory"),
        ({"kind": "fields", "fields": ("tags",)}, "which names no directory"),
        ({"kind": "time", "fields": ("contry",)}, "did you mean country?"),
        (
            {"timestamp": "clickd_at"},
            'partitioning.timestamp = "clickd_at": the values have no such field; did you mean clicked_at?',
        ),
        ({"timestamp": "price"}, "the field is double; it takes a timestamp"),
        ({"timestamp": "kind"}, "the field is an enum"),
        ({"timestamp": "hour"}, "a time of day"),
        ({"timestamp": "exact"}, 'set partitioning.timestamp_unit = "ns"'),
    ],
)
def test_no_row_can_be_placed(settings: dict[str, Any], said: str) -> None:
    assert said in str(why_not(**settings))
