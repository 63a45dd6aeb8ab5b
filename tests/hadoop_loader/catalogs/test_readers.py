"""Tables as others see them: Parquet files of several versions read by pyarrow, DuckDB and Spark; Hive's metastore.

Spark and the metastore are real, and slow to start: one of each serves the module.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from tests.support.avro_schemas import written
from tests.support.hive_metastore import HiveMetastore
from tests.support.raw_topics import RawTopic, rows_of, run_inline
from tests.support.spark_reader import read_by_spark
from tests.support.table_roots import TableRoot, avro_bytes, parquet_bytes

from millstream.hadoop_loader.catalogs import CatalogError, tell_catalogs
from millstream.hadoop_loader.catalogs.hive import hive_name, hive_type
from millstream.hadoop_loader.catalogs.known_tables import partition_keys
from millstream.hadoop_loader.catalogs.metastore import connected
from millstream.hadoop_loader.commit import LoadDraft, Role
from millstream.hadoop_loader.driver.anew import load_anew
from millstream.hadoop_loader.driver.directories import drop_tables
from millstream.hadoop_loader.driver.verify import verify_destination
from millstream.hadoop_loader.job import (
    DestinationSettings,
    HiveSettings,
    LoadJob,
    Partitioning,
    SourceSettings,
    ValueSettings,
)
from millstream.hadoop_loader.splits import FileKind
from millstream.hadoop_loader.tables import TableVersion, merge
from millstream.schemas.avro import AvroDecoder
from millstream.testing import TestBroker

pytestmark = pytest.mark.java

DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}
KIND = {"type": "enum", "name": "Kind", "symbols": ["A", "B"]}


def record(name: str, *fields: tuple[Any, ...]) -> dict[str, Any]:
    return {
        "type": "record",
        "name": name,
        "fields": [{"name": one[0], "type": one[1], **(one[2] if len(one) > 2 else {})} for one in fields],
    }


# What readers of Parquet differ about, and what changes within one generation of a table.
FIRST = record(
    "Order",
    ("id", "long"),
    ("kind", KIND),
    ("price", DECIMAL),
    ("note", "string"),
    ("clock", {"type": "int", "logicalType": "time-millis"}),
    ("precise", {"type": "long", "logicalType": "timestamp-nanos"}),
    ("key", {"type": "fixed", "name": "Key", "size": 16, "logicalType": "uuid"}),
    ("large", {"type": "bytes", "logicalType": "decimal", "precision": 50, "scale": 1}),
    ("empty", record("Empty")),
    ("nothing", "null"),
    ("one_of", ["null", "string", "int"]),
    ("item", record("Item", ("a", "int"))),
    ("items", {"type": "array", "items": "Item"}),
    ("by_name", {"type": "map", "values": record("Other", ("b", "int"))}),
    ("tree", record("Tree", ("left", ["null", "Tree"]))),
)
SECOND = record(
    "Order",
    ("id", "long"),
    ("kind", KIND | {"symbols": ["A", "NEW", "B"]}),
    ("price", ["null", DECIMAL | {"precision": 12}]),
    ("clock", {"type": "int", "logicalType": "time-millis"}),
    ("precise", {"type": "long", "logicalType": "timestamp-nanos"}),
    ("key", {"type": "fixed", "name": "Key", "size": 16, "logicalType": "uuid"}),
    ("large", {"type": "bytes", "logicalType": "decimal", "precision": 50, "scale": 1}),
    ("empty", record("Empty", ("filled", "string", {"default": ""}))),
    ("nothing", "null"),
    ("one_of", ["null", "string", "int", "double"]),
    ("item", record("Item", ("a", ["null", "int"]), ("more", "string", {"default": "m"}))),
    ("items", {"type": "array", "items": ["null", "Item"]}),
    ("by_name", {"type": "map", "values": ["null", record("Other", ("b", "int"), ("c", "long", {"default": 3}))]}),
    ("tree", record("Tree", ("left", ["null", "Tree"]))),
    ("added", {"type": "int", "logicalType": "date"}, {"default": 0}),
)
COMMON: dict[str, Any] = {
    "clock": 5_000,
    "precise": 1_700_000_000_123_456_789,
    "key": bytes(range(16)),
    "large": b"\x01\x02",
    "empty": {},
    "nothing": None,
    "tree": {"left": {"left": None}},
}
OLD: dict[str, Any] = COMMON | {
    "id": 1,
    "kind": "B",
    "price": b"\x7d",
    "note": "first",
    "one_of": 7,
    "item": {"a": 1},
    "items": [{"a": 2}],
    "by_name": {"k": {"b": 4}},
}
NEW: dict[str, Any] = COMMON | {
    "id": 2,
    "kind": "NEW",
    "price": None,
    "empty": {"filled": "f"},
    "one_of": 2.5,
    "item": {"a": None, "more": "x"},
    "items": [None, {"a": 5, "more": "y"}],
    "by_name": {"k": None, "l": {"b": 1, "c": 9}},
    "added": 19_000,
}


def bare(schema: Any) -> Any:
    """A schema without logical types, for fastavro to write raw numbers by."""
    if isinstance(schema, list):
        return [bare(one) for one in schema]
    if isinstance(schema, dict):
        return {key: bare(one) for key, one in schema.items() if key not in {"logicalType", "precision", "scale"}}
    return schema


def columns_of(table: TableVersion, writer: Any, value: Any) -> pa.RecordBatch:
    decoder = AvroDecoder(
        reader_schema=table.parquet_avro_schema, writer_schema=json.dumps(writer), framing="none", on_recursion="binary"
    )
    decoded = decoder.decode(pa.array([written(bare(writer), value)], pa.binary()))
    assert not decoded.errors
    return decoded.batch


@pytest.fixture(scope="module")
def metastore(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HiveMetastore]:
    with HiveMetastore(tmp_path_factory.mktemp("metastore")) as running:
        yield running


def test_files_of_all_versions_are_read_together_and_the_metastore_knows_them(
    tmp_path: Path, metastore: HiveMetastore
) -> None:
    # A table whose files were written under three versions: the second one's also hold the first writer's records.
    first = merge(None, {1: json.dumps(FIRST)}, topic="orders")
    second = merge(first.document, {2: json.dumps(SECOND)}, topic="orders")
    assert second.version.name == "orders", "no generation was opened"
    files = [
        columns_of(first.version, FIRST, OLD),
        columns_of(second.version, FIRST, OLD | {"id": 3}),
        columns_of(second.version, SECOND, NEW),
    ]
    folder = tmp_path / "versions"
    folder.mkdir()
    for number, batch in enumerate(files):
        pq.write_table(pa.Table.from_batches([batch]), folder / f"{number}.parquet")
    root = loaded_root(tmp_path / "root")
    job = hive_job(root, metastore.uri)
    state = root.log.read()

    assert tell_catalogs(job, root.filesystem, state) == []
    root.load([(0, "parquet", parquet_bytes(VALUES.append_column("more", pa.array(["m"] * 3))), 3)], directory="day=3")
    evolve(root, {2: json.dumps(LATER_VALUE)})
    state = root.log.read()
    assert tell_catalogs(job, root.filesystem, state) == []
    as_avro = replace(
        job, hive=HiveSettings(database="lake", metastore_uri=metastore.uri, format="avro", table_prefix="avro_")
    )
    assert tell_catalogs(as_avro, root.filesystem, state) == []
    merged, parquet, pruned, avro = read_by_spark(
        tmp_path / "spark",
        merged=[str(folder)],
        metastore=metastore.uri,
        sql=[
            "SELECT count(*) AS n, sum(id) AS ids, count(more) AS more FROM lake.orders",
            "SELECT id, day FROM lake.orders WHERE day = 'a/b' ORDER BY id",
            "SELECT count(*) AS n, sum(id) AS ids, count(DISTINCT day) AS days FROM lake.avro_orders",
        ],
    )

    schema = second.version.arrow_schema()
    by_arrow = ds.dataset(folder, schema=schema).to_table().sort_by("id").to_pylist()
    connection = duckdb.connect()
    by_duckdb = connection.execute(
        f"SELECT * EXCLUDE (tree, large, key) FROM read_parquet('{folder}/*.parquet', union_by_name = true) ORDER BY id"
    ).fetchall()
    names = [one[0] for one in connection.description or ()]
    assert isinstance(merged, list), merged
    by_spark = sorted(merged[1], key=lambda row: row["id"])
    assert [row["id"] for row in by_arrow] == [1, 2, 3]
    for arrow, duck, spark in zip(by_arrow, by_duckdb, by_spark, strict=True):
        from_duckdb = dict(zip(names, duck, strict=True))
        for name in ("id", "kind", "note", "clock", "precise", "item", "items", "added"):
            assert from_duckdb[name] == arrow[name], name
            found = spark.get(name)
            if name == "added" and found is not None:
                found = pa.scalar(found).cast(pa.date32()).as_py()
            assert without_nulls(found) == without_nulls(arrow[name]), name
        assert from_duckdb["price"] == arrow["price"]
        assert dict(arrow["by_name"]) == from_duckdb["by_name"]
    assert by_arrow[0]["added"] is None
    assert by_arrow[2]["added"].isoformat() == "1970-01-01", "the writer's default, where a record lacked the field"
    assert parquet == [parquet[0], [{"n": 9, "ids": 9, "more": 3}]]
    assert pruned[1] == [{"id": number, "day": "a/b"} for number in range(3)]
    assert avro == [avro[0], [{"n": 6, "ids": 6, "days": 2}]]


def without_nulls(value: Any) -> Any:
    """Spark's JSON leaves nulls out."""
    if isinstance(value, dict):
        return {key: without_nulls(one) for key, one in value.items() if one is not None}
    if isinstance(value, list):
        return [without_nulls(one) for one in value]
    return value


VALUES = pa.table({"id": pa.array(range(3), pa.int64()), "day": ["x"] * 3})
VALUE = record("Order", ("id", "long"), ("day", "string"))
LATER_VALUE = record("Order", ("id", "long"), ("day", "string"), ("more", "string", {"default": ""}))


def loaded_root(folder: Path) -> TableRoot:
    root = TableRoot(folder)
    for directory in ("day=1", "day=a%2Fb"):
        rows = [{"id": number, "day": "x"} for number in range(3)]
        files = [(0, "parquet", parquet_bytes(VALUES), 3), (0, "avro", avro_bytes(VALUE, rows), 3)]
        root.load(files, directory=directory)
    evolve(root, {1: json.dumps(VALUE)})
    return root


def evolve(root: TableRoot, writers: dict[int, str], topic: str = "orders") -> None:
    claim = root.claim(Role.LOAD)
    merged = merge(claim.state.schemas.get(topic), writers, topic=topic)
    root.log.commit(claim, LoadDraft(schemas={topic: merged.document}))
    claim.release()


def hive_job(root: TableRoot, uri: str | None) -> LoadJob:
    return LoadJob(
        name="orders",
        source=SourceSettings(bootstrap_servers="127.0.0.1:9092", topics=("orders", "Orders")),
        value=ValueSettings(framing="none", schema=json.dumps(VALUE)),
        destination=DestinationSettings(uri=root.filesystem.uri, formats=frozenset({"avro", "parquet"})),
        partitioning=Partitioning(kind="fields", fields=("day",)),
        hive=HiveSettings(database="lake", metastore_uri=uri),
    )


def test_columns_keep_their_places_in_a_metastore_that_looks_at_them(tmp_path: Path, metastore: HiveMetastore) -> None:
    root = TableRoot(tmp_path)
    root.load([(0, "parquet", parquet_bytes(VALUES), 3)])
    settings = HiveSettings(database="apart", metastore_uri=metastore.uri, table_prefix="places_")
    job = replace(hive_job(root, None), hive=settings, metadata_columns=("partition", "offset"))
    item = record("Item", ("a", "int"))
    grown = record("Item", ("a", "int"), ("b", "int", {"default": 0}))
    writers = {1: record("Order", ("id", "long"), ("item", item))}
    evolve(root, {key: json.dumps(one) for key, one in writers.items()})
    assert tell_catalogs(job, root.filesystem, root.log.read()) == []

    # A field before others, behind which the metadata columns are, and then one in a struct.
    for number, fields in enumerate(([("item", item)], [("item", grown)]), 2):
        evolve(
            root, {number: json.dumps(record("Order", ("first", "string", {"default": ""}), ("id", "long"), *fields))}
        )
        assert tell_catalogs(job, root.filesystem, root.log.read()) == []
    root.load([(0, "parquet", parquet_bytes(VALUES), 3)], directory="day=2")
    assert tell_catalogs(job, root.filesystem, root.log.read()) == []

    with connected(settings, root.filesystem.uri) as store:
        for held in (
            store._client.get_table("apart", "places_orders"),
            store._client.get_partition("apart", "places_orders", ["1"]),
            store._client.get_partition("apart", "places_orders", ["2"]),
        ):
            assert [(one.name, one.type) for one in held.sd.cols] == [
                ("id", "bigint"),
                ("item", "struct<a:int,b:int>"),
                ("_kafka_partition", "int"),
                ("_kafka_offset", "bigint"),
                ("first", "string"),
            ]


def test_scripts_are_written_once_for_each_version(tmp_path: Path) -> None:
    root = loaded_root(tmp_path / "root")
    job = hive_job(root, None)

    assert tell_catalogs(job, root.filesystem, root.log.read()) == []
    assert tell_catalogs(job, root.filesystem, root.log.read()) == []

    (script,) = (root.folder / "orders" / "_hive").iterdir()
    text = re.sub(r"file:\S+/root", "ROOT", script.read_text())
    assert text == (
        "CREATE DATABASE IF NOT EXISTS `lake`;\n\n"
        "CREATE EXTERNAL TABLE IF NOT EXISTS `lake`.`orders` (\n  `id` bigint\n)\n"
        "PARTITIONED BY (`day` string)\nSTORED AS PARQUET\nLOCATION 'ROOT/orders/parquet'\n"
        "TBLPROPERTIES ('millstream.version'='1');\n\n"
        "ALTER TABLE `lake`.`orders` REPLACE COLUMNS (`id` bigint) CASCADE;\n\n"
        "ALTER TABLE `lake`.`orders` SET TBLPROPERTIES ('millstream.version'='1');\n\n"
        "MSCK REPAIR TABLE `lake`.`orders`;\n"
    )


def test_a_script_that_a_crash_left_half_written_is_written_anew(tmp_path: Path) -> None:
    root = loaded_root(tmp_path / "root")
    job = hive_job(root, None)
    assert tell_catalogs(job, root.filesystem, root.log.read()) == []
    (script,) = (root.folder / "orders" / "_hive").iterdir()
    text = script.read_text()
    script.write_text(text[:40])

    assert tell_catalogs(job, root.filesystem, root.log.read()) == []

    assert script.read_text() == text


def test_tables_that_are_not_ours_are_left_as_they_are_and_keep_no_other_from_being_told(
    tmp_path: Path, metastore: HiveMetastore
) -> None:
    ours, elsewhere = loaded_root(tmp_path / "ours"), loaded_root(tmp_path / "elsewhere")
    settings = HiveSettings(database="apart", metastore_uri=metastore.uri, table_prefix="first_")
    job = replace(hive_job(ours, None), hive=settings)
    assert tell_catalogs(job, ours.filesystem, ours.log.read()) == []
    before = held_table(settings, "first_orders", job)

    # The same name from another root, as after destination.uri was changed.
    moved = replace(hive_job(elsewhere, None), hive=settings)
    evolve(elsewhere, {2: json.dumps(LATER_VALUE)})
    (problem,) = tell_catalogs(moved, elsewhere.filesystem, elsewhere.log.read())

    assert "apart.first_orders is at file:" in problem
    assert "table_prefix" in problem
    assert held_table(settings, "first_orders", job) == before

    # Somebody's own table over the same place, and one that the metastore refuses: the others are told.
    with connected(settings, ours.filesystem.uri) as store:
        table = store._client.get_table("apart", "first_orders")
        del table.parameters["millstream.version"]
        table.sd.cols[0].comment = "theirs"
        store._client.alter_table("apart", "first_orders", table)
    parquet = replace(job.destination, formats=frozenset({"parquet"}))
    theirs = held_table(settings, "first_orders", job)
    late_rows = [(0, "parquet", parquet_bytes(VALUES), 3)]
    ours.load(late_rows, directory="day=1", closed=False, kind=FileKind.LATE)

    (problem,) = tell_catalogs(replace(job, destination=parquet), ours.filesystem, ours.log.read())

    assert "apart.first_orders was made by others" in problem
    assert held_table(settings, "first_orders", job) == theirs
    assert held_table(settings, "first_orders_late", job)[2] == ["day=1"]
    failing = replace(job, hive=replace(settings, fail=True))
    with pytest.raises(CatalogError, match="made by others"):
        tell_catalogs(failing, ours.filesystem, ours.log.read())


def test_a_topic_loaded_anew_has_another_table_in_the_metastore_and_its_former_one_stays(
    tmp_path: Path, metastore: HiveMetastore, millstream_broker_session: TestBroker
) -> None:
    topic = RawTopic(millstream_broker_session.bootstrap_servers, tmp_path)
    settings = HiveSettings(database="apart", metastore_uri=metastore.uri)
    day = Partitioning(kind="time", pattern="day=%Y-%m-%d")
    job = topic.job(changes={"hive": settings, "partitioning": day})
    topic.send(20)
    assert run_inline(job).catalog_problems == []
    # Its job is of other directories from here on, which the former table must not get.
    hour = topic.job(changes={"hive": settings, "partitioning": Partitioning(kind="time", pattern="dt=%Y-%m-%d/h=%H")})

    begun = load_anew(hour, topic.name, "anew")
    assert (begun.errors, begun.notes, begun.former_tables) == ([], [], [topic.name])
    topic.send(100)
    again = run_inline(hour)
    assert (again.errors, again.catalog_problems, again.rows) == ([], [], 120)

    assert rows_of(topic.uri, "anew", "parquet") == topic.shown()
    former = held_table(settings, hive_name(topic.name), job)
    assert former[1:3] == (f"{topic.uri.replace('///', '/')}/{topic.name}/parquet", ["day=2026-01-01"])
    new = held_table(settings, "anew", job)
    assert new[1:3] == (
        f"{topic.uri.replace('///', '/')}/anew/parquet",
        ["dt=2026-01-01/h=00", "dt=2026-01-01/h=01"],
    )
    dropped = drop_tables(hour, [topic.name])
    assert (dropped.errors, dropped.notes, dropped.rows) == ([], [], 20)
    # What the metastore has of it is its readers' to drop.
    assert held_table(settings, hive_name(topic.name), job) == former
    assert held_table(settings, "anew", job) == new
    assert verify_destination(hour, deep=True).findings == []


def held_table(settings: HiveSettings, name: str, job: LoadJob) -> tuple[Any, ...]:
    """Columns, location and partitions of a table, and what else the metastore says of it."""
    with connected(settings, job.destination.uri) as store:
        table = store._client.get_table("apart", name)
        partitions = store._client.get_partition_names("apart", name, -1)
    return [str(column) for column in table.sd.cols], table.sd.location, partitions, table.parameters


def test_of_two_tables_that_meet_in_one_name_the_one_that_was_told_keeps_it(tmp_path: Path) -> None:
    root = loaded_root(tmp_path / "root")
    job = hive_job(root, None)
    assert tell_catalogs(job, root.filesystem, root.log.read()) == []
    before = {path.name: path.read_text() for path in (root.folder / "orders" / "_hive").iterdir()}
    root.load([(0, "parquet", parquet_bytes(VALUES), 3)], topic="Orders")
    evolve(root, {1: json.dumps(LATER_VALUE)}, topic="Orders")

    (problem,) = tell_catalogs(job, root.filesystem, root.log.read())

    assert "table Orders would be lake.orders, as orders is already" in problem
    assert {path.name: path.read_text() for path in (root.folder / "orders" / "_hive").iterdir()} == before
    assert not (root.folder / "Orders" / "_hive").exists()


def test_a_metastore_that_is_away_fails_a_run_only_where_the_job_says_so(tmp_path: Path) -> None:
    root = loaded_root(tmp_path / "root")
    job = hive_job(root, "thrift://127.0.0.1:9")

    (problem,) = tell_catalogs(job, root.filesystem, root.log.read())

    assert "thrift://127.0.0.1:9" in problem


def test_keys_of_partitions_are_in_the_order_of_directories() -> None:
    assert partition_keys(Partitioning(kind="time", fields=("country",), pattern="dt=%Y-%m-%d/h=%H")) == (
        "country",
        "dt",
        "h",
    )
    assert partition_keys(Partitioning(kind="time", fields=("country",), pattern="%Y/%m")) is None


@pytest.mark.parametrize(
    ("type_", "expected"),
    [
        (pa.list_(pa.struct([("A", pa.int32())])), "array<struct<a:int>>"),
        (pa.map_(pa.string(), pa.float32()), "map<string,float>"),
        (pa.decimal128(12, 3), "decimal(12,3)"),
        (pa.dictionary(pa.int32(), pa.string()), "string"),
        (pa.timestamp("ms", "UTC"), "timestamp"),
        (pa.binary(16), "binary"),
    ],
)
def test_types(type_: pa.DataType, expected: str) -> None:
    assert hive_type(type_) == expected
    assert hive_name("Web.clicks-v2") == "web_clicks_v2"
