"""What dump tells of each kind of file."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.core.log.conftest import OpenManager
from tests.support.logs import TOPIC_ID, append, read_all

from millstream.core.log import LogConfig, ProducerEntry, TopicPartition
from millstream.core.log.dump import DumpedBatch, DumpedDamage, DumpedOffset, dump_file, index_mismatches

TP = TopicPartition("flights", 0)


@pytest.fixture
def folder(open_manager: OpenManager, tmp_path: Path) -> Path:
    manager = open_manager()
    log = manager.create_log(TP, TOPIC_ID, LogConfig(index_interval_bytes=100))
    for index in range(10):
        append(log, b"%d" % index, b"+", producer_id=3, producer_epoch=0, base_sequence=2 * index)
    assert len(read_all(log)) == 20
    manager.close()
    return tmp_path / "data" / "flights-0"


def test_every_kind_of_file(folder: Path) -> None:
    batches = list(dump_file(folder / f"{0:020d}.log", with_records=True))
    assert all(isinstance(batch, DumpedBatch) and batch.is_valid for batch in batches)
    records = [record for batch in batches if isinstance(batch, DumpedBatch) for record in batch.records or ()]
    assert [record.offset for record in records] == list(range(20))
    entries = list(dump_file(folder / f"{0:020d}.index"))
    starts = [batch.position for batch in batches if isinstance(batch, DumpedBatch)]
    assert len(entries) >= 4
    assert all(isinstance(entry, DumpedOffset) and entry.position in starts for entry in entries)
    assert len(list(dump_file(folder / f"{0:020d}.timeindex"))) == 1
    (producer,) = dump_file(folder / f"{20:020d}.snapshot")
    assert isinstance(producer, ProducerEntry)
    assert producer.last_sequence == 19
    for name in (f"{0:020d}.index", f"{0:020d}.timeindex"):
        assert index_mismatches(folder / name) == []
    with pytest.raises(ValueError, match=r"none of \.log"):
        list(dump_file(folder / f"{0:020d}.other"))
    with pytest.raises(ValueError, match="not named by an offset"):
        list(dump_file(folder / "partition.metadata"))


def test_damage_is_told_and_stepped_over(folder: Path) -> None:
    path = folder / f"{0:020d}.log"
    data = bytearray(path.read_bytes())
    size = len(data) // 10
    data[2 * size + 70] ^= 1  # a record
    data[5 * size + 16] = 9  # the magic
    path.write_bytes(bytes(data) + b"torn")
    found = list(dump_file(path))
    assert [each.is_valid for each in found if isinstance(each, DumpedBatch)] == [True, True, False, *[True] * 6]
    assert [each for each in found if isinstance(each, DumpedDamage)] == [(5 * size, size), (10 * size, 4)]


def test_an_index_that_points_elsewhere_is_told(folder: Path) -> None:
    path = folder / f"{0:020d}.index"
    data = bytearray(path.read_bytes())
    data[7] ^= 1
    path.write_bytes(data)
    assert any("no batch begins" in each for each in index_mismatches(path))
