"""Iceberg tables over a root's Parquet files: added, replaced by compaction, evolved; a repeated call does nothing."""

from __future__ import annotations

import json
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from tests.support.table_roots import TableRoot, parquet_bytes

from millstream.hadoop_loader.catalogs import KnownTable, tell_catalogs
from millstream.hadoop_loader.catalogs.iceberg import CatalogAwayError, IcebergError, IcebergTables
from millstream.hadoop_loader.commit import LoadDraft, Role
from millstream.hadoop_loader.compaction import compact, plan_compaction
from millstream.hadoop_loader.filesystem.deadlines import Deadlines
from millstream.hadoop_loader.job import (
    CompactionSettings,
    DestinationSettings,
    EncodingSettings,
    IcebergSettings,
    LoadJob,
    SourceSettings,
    ValueSettings,
)
from millstream.hadoop_loader.tables import merge

ROWS = pa.table(
    {
        "id": pa.array(range(5), pa.int64()),
        "kind": pa.array(list("aabbc")).dictionary_encode(),
        "at": pa.array(range(5), pa.timestamp("ms", "UTC")),
        "part": pa.array([{"x": 1}] * 5, pa.struct([pa.field("x", pa.int32(), nullable=False)])),
    }
)
LATER = ROWS.append_column("note", pa.array(["n"] * 5)).set_column(
    3, "part", pa.array([{"x": 1, "y": "z"}] * 5, pa.struct([("x", pa.int32()), ("y", pa.string())]))
)


@pytest.fixture
def root(tmp_path: Path) -> TableRoot:
    return TableRoot(tmp_path / "root")


@pytest.fixture
def settings(tmp_path: Path) -> IcebergSettings:
    warehouse = tmp_path / "warehouse"
    warehouse.mkdir()
    return IcebergSettings(
        namespace="lake",
        properties={"type": "sql", "uri": f"sqlite:///{tmp_path}/catalog.db", "warehouse": f"file://{warehouse}"},
    )


def known(columns: pa.Schema) -> KnownTable:
    return KnownTable("orders", "orders", "parquet", 1, columns, "{}", ("day",))


def commit(root: TableRoot, settings: IcebergSettings, columns: pa.Schema) -> bool:
    state = root.log.read()
    tables = IcebergTables(settings, root.filesystem)
    try:
        return tables.commit(known(columns), state.files.under("orders/parquet"), state.number)
    finally:
        tables.close()


def scanned(root: TableRoot, settings: IcebergSettings) -> tuple[Any, pa.Table]:
    tables = IcebergTables(settings, root.filesystem)
    try:
        table = tables._catalog.load_table("lake.orders")
        return table, table.scan().to_arrow()
    finally:
        tables.close()


def test_files_are_added_replaced_and_evolve(root: TableRoot, settings: IcebergSettings) -> None:
    root.load([(0, "parquet", parquet_bytes(ROWS), 5), (1, "parquet", parquet_bytes(ROWS), 5)])
    assert commit(root, settings, ROWS.schema)
    assert not commit(root, settings, ROWS.schema), "what was committed is not committed again"
    _, first = scanned(root, settings)
    assert sorted(first["id"].to_pylist()) == sorted([*range(5), *range(5)])

    # Two loads, of which Iceberg only hears together.
    root.load([(0, "parquet", parquet_bytes(LATER), 5)])
    root.load([(1, "parquet", parquet_bytes(LATER), 5)], directory="day=2")
    assert commit(root, settings, LATER.schema)

    table, second = scanned(root, settings)
    assert second["note"].to_pylist().count(None) == 10
    assert {str(row) for row in second["part"].to_pylist()} == {"{'x': 1, 'y': None}", "{'x': 1, 'y': 'z'}"}
    connection = table.scan().to_duckdb("orders", connection=duckdb.connect())
    found = connection.execute("SELECT count(*), count(note), sum(part.x) FROM orders").fetchall()
    assert found == [(20, 10, 20)]

    claim = root.claim(Role.COMPACT)
    plans = plan_compaction(claim.state, CompactionSettings())
    compact(root.filesystem, root.log, claim, plans, CompactionSettings(), EncodingSettings(), stop=threading.Event())
    claim.release()
    assert commit(root, settings, LATER.schema)

    table, third = scanned(root, settings)
    order = [("note", "ascending"), ("id", "ascending")]
    assert third.sort_by(order).to_pylist() == second.sort_by(order).to_pylist()
    assert len(list(table.scan().plan_files())) == 2
    numbers = [one.summary.additional_properties["millstream.commit"] for one in table.metadata.snapshots]
    assert numbers == sorted(numbers, key=int)
    least = table.scan(row_filter="id >= 4").to_arrow()
    assert least.num_rows == 4


def test_a_table_of_others_is_left_as_it_is(root: TableRoot, settings: IcebergSettings, tmp_path: Path) -> None:
    root.load([(0, "parquet", parquet_bytes(ROWS), 5)])
    tables = IcebergTables(settings, root.filesystem)
    tables._catalog.create_namespace("lake")
    foreign = tables._catalog.create_table("lake.orders", pa.schema([("theirs", pa.string())]))
    tables.close()

    with pytest.raises(IcebergError, match=r"not of this root.*table_prefix"):
        commit(root, settings, ROWS.schema)

    foreign.append(pa.table({"theirs": ["a", "b"]}))
    with pytest.raises(IcebergError, match=r"not of this root.*table_prefix"):
        commit(root, settings, ROWS.schema)
    table, found = scanned(root, settings)
    assert found.to_pylist() == [{"theirs": "a"}, {"theirs": "b"}]
    assert table.schema().column_names == ["theirs"]

    # Another root of the same names is no less another.
    beside = replace(settings, table_prefix="our_")
    assert commit(root, beside, ROWS.schema)
    other = TableRoot(tmp_path / "other")
    other.load([(0, "parquet", parquet_bytes(ROWS), 5)])
    with pytest.raises(IcebergError, match="not of this root"):
        commit(other, beside, ROWS.schema)


def test_a_table_filled_before_roots_were_written_down_is_still_ours(
    root: TableRoot, settings: IcebergSettings
) -> None:
    root.load([(0, "parquet", parquet_bytes(ROWS), 5)])
    assert commit(root, settings, ROWS.schema)
    table, _ = scanned(root, settings)
    with table.transaction() as transaction:
        transaction.remove_properties("millstream.root", "millstream.table")

    root.load([(0, "parquet", parquet_bytes(ROWS), 5)])
    assert commit(root, settings, ROWS.schema)
    assert scanned(root, settings)[1].num_rows == 10


def test_tables_whose_names_meet_in_the_catalog_do_not_mix(root: TableRoot, settings: IcebergSettings) -> None:
    root.load([(0, "parquet", parquet_bytes(ROWS), 5)])
    state = root.log.read()
    files = list(state.files.under("orders/parquet"))
    first = replace(known(ROWS.schema), topic="orders.all", name="orders.all")
    second = replace(known(ROWS.schema), topic="orders_all", name="orders_all")
    tables = IcebergTables(settings, root.filesystem)

    assert tables.commit(first, files, state.number)
    for number in (state.number, state.number + 1):
        with pytest.raises(IcebergError, match=r"lake.orders_all.*shows orders\.all, not orders_all"):
            tables.commit(second, [], number)
    assert not tables.commit(first, files, state.number)

    assert tables._catalog.load_table("lake.orders_all").scan().to_arrow().num_rows == 5
    tables.close()


def test_a_catalog_that_is_not_there_is_told_of(root: TableRoot, settings: IcebergSettings, tmp_path: Path) -> None:
    root.load([(0, "parquet", parquet_bytes(ROWS), 5)])
    elsewhere = replace(settings, properties={**settings.properties, "uri": f"sqlite:///{tmp_path}/no/such/catalog.db"})

    with pytest.raises(IcebergError, match="catalog"):
        commit(root, elsewhere, ROWS.schema)


def test_a_job_s_tables_are_told_after_a_commit(root: TableRoot, settings: IcebergSettings, tmp_path: Path) -> None:
    schema = {"type": "record", "name": "Order", "fields": [{"name": "id", "type": "long"}]}
    rows = parquet_bytes(ROWS.select(["id"]))
    root.load([(0, "parquet", rows, 5), (0, "parquet", rows, 5)])
    claim = root.claim(Role.LOAD)
    document = merge(None, {1: json.dumps(schema)}, topic="orders").document
    root.log.commit(claim, LoadDraft(schemas={"orders": document}))
    claim.release()
    job = LoadJob(
        name="orders",
        source=SourceSettings(bootstrap_servers="127.0.0.1:9092", topics=("orders",)),
        value=ValueSettings(framing="none", schema=json.dumps(schema)),
        destination=DestinationSettings(uri=root.filesystem.uri, formats=frozenset({"parquet"})),
        iceberg=settings,
    )

    assert tell_catalogs(job, root.filesystem, root.log.read()) == []
    assert tell_catalogs(job, root.filesystem, root.log.read()) == []

    table, found = scanned(root, settings)
    assert found.num_rows == 10
    assert len(table.metadata.snapshots) == 1
    no_catalog = replace(
        job, iceberg=replace(settings, properties={"type": "sql", "uri": "sqlite:////no/such/place.db"})
    )
    (problem,) = tell_catalogs(no_catalog, root.filesystem, root.log.read())
    assert problem.startswith("Iceberg: catalog 'default'")


def test_a_catalog_that_hangs_holds_a_run_for_one_deadline(root: TableRoot, settings: IcebergSettings) -> None:
    root.load([(0, "parquet", parquet_bytes(ROWS.select(["id"])), 5)])
    schema = json.dumps({"type": "record", "name": "Order", "fields": [{"name": "id", "type": "long"}]})
    claim = root.claim(Role.LOAD)
    root.log.commit(claim, LoadDraft(schemas={"orders": merge(None, {1: schema}, topic="orders").document}))
    claim.release()
    job = LoadJob(
        name="orders",
        source=SourceSettings(bootstrap_servers="127.0.0.1:9092", topics=("orders",)),
        value=ValueSettings(framing="none", schema=schema),
        destination=DestinationSettings(uri=root.filesystem.uri, formats=frozenset({"parquet"})),
    )
    with socket.create_server(("127.0.0.1", 0)) as silent:
        rest = {"type": "rest", "uri": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        hangs = replace(job, iceberg=replace(settings, properties=rest, deadline_s=0.2))
        began = time.monotonic()

        (problem,) = tell_catalogs(hangs, root.filesystem, root.log.read())

        assert time.monotonic() - began < 30
        assert "catalog 'default': no answer within 0.2 s" in problem

    # Hung in the middle: the table that was begun is told of, those behind it wait for the next run.
    asked: list[str] = []
    never = threading.Event()
    tables = IcebergTables(settings, root.filesystem)
    # From here on alone: how long it takes to open a catalog says how busy the machine is.
    tables._deadlines.close()
    tables._deadlines = Deadlines("catalog 'default'", 0.2, 4)

    def load_table(identifier: str) -> Any:
        asked.append(identifier)
        never.wait()

    tables._catalog.load_table = load_table  # type: ignore[method-assign,assignment]
    try:
        with pytest.raises(CatalogAwayError, match="no answer"):
            tables.commit(known(ROWS.schema), [], 1)
        assert asked == ["lake.orders"]
    finally:
        never.set()
        tables.close()
