"""What dump tells of each kind of file."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.core.log.conftest import OpenManager
from tests.support.logs import TOPIC_ID, append, read_all

from millstream.core.log import LogConfig, TopicPartition
from millstream.core.log.dump import dump_file

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
    entries = list(dump_file(folder / f"{0:020d}.log", deep=True))
    starts = [entry["position"] for entry in entries if entry["kind"] == "batch"]
    assert len(starts) == 10
    assert [entry["offset"] for entry in entries if entry["kind"] == "record"] == list(range(20))
    indexed = [entry["position"] for entry in dump_file(folder / f"{0:020d}.index")]
    assert len(indexed) >= 4
    assert set(indexed) < set(starts)
    assert len(list(dump_file(folder / f"{0:020d}.timeindex"))) == 1
    (producer,) = dump_file(folder / f"{20:020d}.snapshot")
    assert (producer["kind"], producer["batches"][-1][1]) == ("producer", 19)
    with pytest.raises(ValueError, match="no file of a log"):
        list(dump_file(folder / "partition.metadata"))


def test_damage_is_told_and_stepped_over(folder: Path) -> None:
    path = folder / f"{0:020d}.log"
    data = bytearray(path.read_bytes())
    size = len(data) // 10
    data[2 * size + 70] ^= 1  # a record
    data[5 * size + 16] = 9  # the magic
    path.write_bytes(bytes(data) + b"torn")
    found = [(entry["kind"], entry["position"]) for entry in dump_file(path)]
    bad = {2 * size, 5 * size, 10 * size}
    assert found == [("problem" if at in bad else "batch", at) for at in range(0, 11 * size, size)]
