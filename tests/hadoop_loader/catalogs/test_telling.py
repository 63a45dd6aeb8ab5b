"""Which directories a metastore is told of, and which it is to forget, as the log has them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.table_roots import TableRoot

from millstream.hadoop_loader.catalogs import KnownTable, metastore, tell_catalogs
from millstream.hadoop_loader.driver.directories import expire_directories
from millstream.hadoop_loader.driver.surroundings import Surroundings
from millstream.hadoop_loader.job import (
    DestinationSettings,
    HiveSettings,
    LoadJob,
    Partitioning,
    SourceSettings,
    ValueSettings,
)
from millstream.hadoop_loader.splits import FileKind
from millstream.testing.memory_filesystem import MemoryFileSystem

OLD, NEW = "year=2026/month=01/day=01", "year=2026/month=01/day=02"
JOB = LoadJob(
    name="orders",
    source=SourceSettings(bootstrap_servers="127.0.0.1:9092", topics=("orders",)),
    value=ValueSettings(format="raw"),
    destination=DestinationSettings(uri="file:///lake", formats=frozenset({"avro"})),
    partitioning=Partitioning(kind="time", pattern="daily"),
    hive=HiveSettings(format="avro", metastore_uri="thrift://127.0.0.1:9083"),
)


def test_partitions_of_what_has_expired_are_forgotten_of_late_records_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, tuple[set[str], set[str]]] = {}

    class Recorder:
        def bring_up_to_date(
            self,
            table: KnownTable,
            directories: Collection[str],
            expired: Collection[str],
            is_empty: Callable[[str], bool],
        ) -> int:
            told[table.name] = set(directories), set(filter(is_empty, expired))
            return 0

    @contextmanager
    def connected(*_: object) -> Iterator[Recorder]:
        yield Recorder()

    monkeypatch.setattr(metastore, "connected", connected)
    root = TableRoot(tmp_path, MemoryFileSystem())
    for directory in (OLD, NEW):
        root.load([(0, "avro", b"rows", 2)], directory=directory)
        root.load([(0, "avro", b"late", 1)], directory=directory, closed=False, kind=FileKind.LATE)

    assert tell_catalogs(JOB, root.filesystem, root.log.read()) == []
    assert told == {"orders": ({OLD, NEW}, set()), "orders.late": ({OLD, NEW}, set())}
    expire_directories(
        JOB, before_ms=1_767_312_000_000, surroundings=Surroundings(open_filesystem=lambda _job: root.filesystem)
    )
    assert told == {"orders": ({NEW}, {OLD}), "orders.late": ({NEW}, {OLD})}

    # One that tells an older state, beside a load that brought late records for what had expired.
    before = root.log.read()
    root.load([(0, "avro", b"later", 1)], directory=OLD, closed=False, kind=FileKind.LATE)
    assert tell_catalogs(JOB, root.filesystem, before) == []
    assert told["orders.late"] == ({NEW}, set())
