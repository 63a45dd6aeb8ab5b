"""Tables of other libraries go out and come back by Arrow's own interface: polars, pandas, duckdb, datafusion."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import datafusion
import duckdb
import pandas as pd  # type: ignore[import-untyped]
import polars as pl
import pyarrow as pa
import pytest

from millstream import Consumer, Producer, TopicPartition

WAIT_S = 60.0
TABLE: dict[str, list[Any]] = {
    "key": ["UA", "AA", None, "UA"],
    "value": ["one", "two", "three", None],
    "time": [1_700_000_000_000, 1_700_000_000_001, 1_700_000_000_002, 1_700_000_000_003],
}
ROWS = [
    (key and key.encode(), value and value.encode(), at)
    for key, value, at in zip(TABLE["key"], TABLE["value"], TABLE["time"], strict=True)
]


class OnlyArray:
    """What speaks Arrow by `__arrow_c_array__` alone."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self._batch = batch

    def __arrow_c_array__(self, requested_schema: object = None) -> object:
        return self._batch.__arrow_c_array__(requested_schema)


class OnlyStream:
    """What speaks Arrow by `__arrow_c_stream__` alone."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)


def of_duckdb() -> Any:
    table = pa.table(TABLE)
    connection = duckdb.connect()
    return connection.from_arrow(table).project("key, value::BLOB AS value, time").order("time")


FRAMES: dict[str, Callable[[], Any]] = {
    "polars": lambda: pl.DataFrame(TABLE),
    "polars, categories": lambda: pl.DataFrame(TABLE).with_columns(pl.col("key").cast(pl.Categorical)),
    "polars, enum": lambda: pl.DataFrame(TABLE).with_columns(pl.col("key").cast(pl.Enum(["AA", "UA"]))),
    "polars, bytes": lambda: pl.DataFrame(TABLE).with_columns(pl.col("key", "value").cast(pl.Binary)),
    "polars, in chunks": lambda: pl.concat([pl.DataFrame(TABLE)[:1], pl.DataFrame(TABLE)[1:]], rechunk=False),
    "a series of structs": lambda: pl.DataFrame(TABLE).to_struct("rows"),
    "pandas": lambda: pd.DataFrame(TABLE),
    "pandas on arrow": lambda: pd.DataFrame(TABLE).convert_dtypes(dtype_backend="pyarrow"),
    "duckdb": of_duckdb,
    "datafusion": lambda: datafusion.SessionContext().from_arrow(pa.table(TABLE)),
    "an array": lambda: OnlyArray(pa.record_batch(TABLE)),
    "a stream": lambda: OnlyStream(pa.table(TABLE)),
}


@pytest.fixture
def producer(bootstrap: str) -> Iterator[Producer]:
    with Producer(bootstrap) as made:
        yield made


def read(bootstrap: str, topic: str, count: int, *, views: bool = False) -> list[pa.RecordBatch]:
    """Read so many records of a topic with one partition."""
    with Consumer(bootstrap, auto_offset_reset="earliest") as consumer:
        consumer.assign([TopicPartition(topic, 0)])
        batches = []
        while count > 0:
            batch = consumer.poll_arrow(WAIT_S, views=views)
            assert batch.num_rows, f"{count} records are missing"
            batches.append(batch)
            count -= batch.num_rows
    return batches


def test_each_kind_of_table_is_sent(bootstrap: str, producer: Producer, make_topic: Callable[[int], str]) -> None:
    topic = make_topic(1)
    for made in FRAMES.values():
        assert producer.send_batch(topic, made(), timestamp="time").result(WAIT_S).num_records == len(ROWS)
    batches = read(bootstrap, topic, len(ROWS) * len(FRAMES))
    rows = [
        (row["key"], row["value"], int(row["timestamp"].timestamp() * 1000 + 0.5))
        for batch in batches
        for row in batch.to_pylist()
    ]
    for at, name in enumerate(FRAMES):
        assert rows[at * len(ROWS) : (at + 1) * len(ROWS)] == ROWS, name


def test_columns_of_other_libraries_stand_beside_a_table(
    bootstrap: str, producer: Producer, make_topic: Callable[[int], str]
) -> None:
    topic = make_topic(2)
    frame = pl.DataFrame({"body": ["a", "b", "c"]})
    sent = producer.send_batch(
        topic,
        frame,
        key=pd.Series(["x", "y", None]),
        value="body",
        timestamp=pl.Series(["2024-01-01", "2024-01-02", "2024-01-03"]).str.to_datetime(),
        partition=pl.Series([1, 0, 1]),
    ).result(WAIT_S)
    assert sent.offsets == {0: (range(1),), 1: (range(2),)}
    (batch,) = read(bootstrap, topic, 1)
    assert batch.select(["key", "value"]).to_pylist() == [{"key": b"y", "value": b"b"}]
    assert pl.DataFrame(batch)["timestamp"].dt.strftime("%Y-%m-%d").to_list() == ["2024-01-02"]


@pytest.mark.parametrize("views", [False, True])
def test_what_is_read_becomes_a_table_of_theirs(
    bootstrap: str, producer: Producer, make_topic: Callable[[int], str], views: bool
) -> None:
    topic = make_topic(1)
    values = [b"%d and more than twelve bytes" % index for index in range(100)]
    headers = [[{"key": "h", "value": b"v"}]] * 100
    producer.send_batch(topic, {"key": [None, b"k"] * 50, "value": values}, headers=headers)
    producer.flush(WAIT_S)
    (batch,) = read(bootstrap, topic, 100, views=views)

    frame = batch.to_pandas()
    assert frame["value"].tolist() == values
    assert frame["topic"].unique().tolist() == [topic]
    assert frame["timestamp"].dt.tz is not None

    for made in (pl.from_arrow(batch), pl.DataFrame(batch)):
        assert isinstance(made, pl.DataFrame)
        assert made["value"].to_list() == values
        assert made["offset"].to_list() == list(range(100))
        assert made["headers"].to_list() == headers
        assert made.group_by("topic").len()["len"].to_list() == [100]

    counted = duckdb.connect().from_arrow(pa.Table.from_batches([batch])).aggregate("count(key), max(value)").fetchall()
    assert counted == [(50, max(values))]
    assert datafusion.SessionContext().from_arrow(batch).count() == 100
    # And out again, as it is.
    assert producer.send_batch(topic, pl.DataFrame(batch)).result(WAIT_S).num_records == 100
