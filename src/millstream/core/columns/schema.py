"""The columns that records become.

    topic           dictionary<int32, string>      the topics of the batch are its dictionary
    partition       int32
    offset          int64
    timestamp       timestamp[ms, UTC]             the record's own; -1, which some producers send for none, is kept
    timestamp_type  int8                           0 the producer's time (CreateTime), 1 the broker's (LogAppendTime)
    key, value      binary, null where the record has none; with views=True binary_view
    headers         list<struct<key: string, value: binary>>, never null; a header's value may be
    leader_epoch    int32                          of the leader that appended the record (KIP-320), -1 if unknown

Times are in UTC since a record's timestamp is an instant: milliseconds since 1970, not a wall clock's reading.
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa

TOPIC_TYPE: Final = pa.dictionary(pa.int32(), pa.string())
TIMESTAMP_TYPE: Final = pa.timestamp("ms", tz="UTC")
HEADER_TYPE: Final = pa.struct(
    [pa.field("key", pa.string(), nullable=False), pa.field("value", pa.binary(), nullable=True)]
)
HEADERS_TYPE: Final = pa.list_(pa.field("item", HEADER_TYPE, nullable=False))


def _schema(content: pa.DataType) -> pa.Schema:
    return pa.schema(
        [
            pa.field("topic", TOPIC_TYPE, nullable=False),
            pa.field("partition", pa.int32(), nullable=False),
            pa.field("offset", pa.int64(), nullable=False),
            pa.field("timestamp", TIMESTAMP_TYPE, nullable=False),
            pa.field("timestamp_type", pa.int8(), nullable=False),
            pa.field("key", content),
            pa.field("value", content),
            pa.field("headers", HEADERS_TYPE, nullable=False),
            pa.field("leader_epoch", pa.int32(), nullable=False),
        ]
    )


RECORD_SCHEMA: Final = _schema(pa.binary())
VIEW_SCHEMA: Final = _schema(pa.binary_view())
