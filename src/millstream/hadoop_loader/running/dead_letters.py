"""Records that could not be read, kept as they came: Avro files below `_dead_letters/TOPIC`.

    topic, partition, offset, timestamp, timestamp_type   of the record       schema_id   that its value names, or null
    key, value     bytes as they came, or null            headers             in their order, names may come twice
    error          why, in a sentence

`replay-dead-letters` reads them back; so does every reader of Avro.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from millstream.hadoop_loader.values import BadRow
from millstream.hadoop_loader.values.located import locate, schema_ids
from millstream.hadoop_loader.values.metadata import METADATA, ExtraColumn
from millstream.hadoop_loader.writing import Datums, Rows
from millstream.schemas.avro import AvroEncoder

if TYPE_CHECKING:
    from millstream.hadoop_loader.values.fetched import Fetched

_FIELDS: Final = ("topic", "partition", "offset", "timestamp", "timestamp_type", "key", "headers", "schema_id")


def _field(column: ExtraColumn) -> dict[str, Any]:
    return {**column.avro_field, "name": column.source}


SCHEMA: Final = json.dumps(
    {
        "type": "record",
        "name": "DeadLetter",
        "namespace": "millstream",
        "fields": [
            *(_field(METADATA[name]) for name in _FIELDS),
            {"name": "value", "type": ["null", "bytes"], "default": None},
            {"name": "error", "type": "string"},
        ],
    }
)


class DeadLetters:
    """Encodes bad records; one thread at a time."""

    def __init__(self) -> None:
        self._encoder = AvroEncoder(SCHEMA)

    def rows(self, fetched: Fetched, bad: Sequence[BadRow]) -> Rows:
        """Return rows of the file of dead letters; `bad` are in the order of their rows."""
        rows = pa.array([one.row for one in bad], pa.int64())
        kept = fetched.records.take(rows)
        columns = {
            "topic": kept.column("topic").dictionary_decode(),
            "partition": kept.column("partition"),
            "offset": kept.column("offset"),
            "timestamp": kept.column("timestamp"),
            "timestamp_type": kept.column("timestamp_type").cast(pa.int32()),
            "key": kept.column("key"),
            "headers": kept.column("headers"),
            "schema_id": schema_ids(fetched.values).take(rows),
            "value": kept.column("value"),
            "error": pa.array([one.reason for one in bad], pa.string()),
        }
        made = locate(self._encoder.encode(pa.RecordBatch.from_pydict(columns)))
        return Rows(
            kept.column("offset"),
            kept.column("timestamp").cast(pa.int64()),
            datums=Datums(made.data, made.positions, made.sizes),
        )
