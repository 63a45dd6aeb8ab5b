"""`millstream dump-log` on the files a broker left, whole and damaged."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import CommandLine

from millstream.testing import broker

RECORDS = 2_000


@pytest.fixture(scope="module")
def partition(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a partition with 2,000 records, written by an idempotent producer in many batches."""
    data = tmp_path_factory.mktemp("data")
    with broker(log_dir=data) as running:
        command = CommandLine(running.bootstrap_servers)
        command("topics", "create", "t", "-p", "1", "-c", "index.interval.bytes=1000")
        lines = "".join(f"k{index}:v{index}\n" for index in range(RECORDS))
        command("produce", "t", "-K", ":", "-z", "lz4", "--idempotent", "--batch-bytes", "4000", stdin=lines)
        assert running.stop() == 0
    return data / "t-0"


def dumped(offline: CommandLine, *arguments: str | Path, code: int = 0) -> list[dict[str, Any]]:
    result = offline("dump-log", "--json", *map(str, arguments), code=code)
    return [json.loads(line) for line in result.out.splitlines()]


def test_batches_and_records_of_a_log(partition: Path, offline: CommandLine) -> None:
    log = partition / "00000000000000000000.log"
    entries = dumped(offline, "--records", log)
    batches = [entry for entry in entries if entry["kind"] == "batch"]
    records = [entry for entry in entries if entry["kind"] == "record"]
    assert sum(batch["count"] for batch in batches) == RECORDS
    assert sum(batch["size"] for batch in batches) == log.stat().st_size
    assert {batch["compression"] for batch in batches} == {"lz4"}
    assert [(one["offset"], one["key"], one["value"]) for one in records] == [
        (index, f"k{index}", f"v{index}") for index in range(RECORDS)
    ]
    assert offline("dump-log", str(log), "--limit", "2").out.count("batch base_offset=") == 2


def test_indexes_point_at_batches(partition: Path, offline: CommandLine) -> None:
    base = partition / "00000000000000000000"
    batches = {entry["position"]: entry for entry in dumped(offline, base.with_suffix(".log"))}
    index = dumped(offline, base.with_suffix(".index"))
    assert len(index) > 3
    for entry in index:
        assert entry["offset"] == batches[entry["position"]]["last_offset"]
    times = dumped(offline, base.with_suffix(".timeindex"))
    assert times[-1]["timestamp"] == max(batch["max_timestamp"] for batch in batches.values())


def test_a_snapshot_names_the_producer(partition: Path, offline: CommandLine) -> None:
    (entry,) = dumped(offline, *partition.glob("*.snapshot"))
    assert entry["kind"] == "producer"
    assert entry["batches"][-1][3] == RECORDS - 1


@pytest.mark.parametrize("where", ["middle", "tail"])
def test_damage_is_said_and_what_lies_behind_it_is_still_shown(
    partition: Path, offline: CommandLine, tmp_path: Path, where: str
) -> None:
    whole = (partition / "00000000000000000000.log").read_bytes()
    batches = dumped(offline, partition / "00000000000000000000.log")
    hurt = batches[3]
    copy = tmp_path / "00000000000000000000.log"
    if where == "middle":
        flipped = bytearray(whole)
        flipped[hurt["position"] + hurt["size"] - 1] ^= 1
        copy.write_bytes(flipped)
    else:
        copy.write_bytes(whole[:-5])
    found = dumped(offline, copy, code=1)
    lost = hurt if where == "middle" else batches[-1]
    assert Counter(entry["kind"] for entry in found) == {"batch": len(batches) - 1, "problem": 1}
    (problem,) = [entry for entry in found if entry["kind"] == "problem"]
    assert problem["position"] == lost["position"]
    assert ("CRC" if where == "middle" else "not whole") in problem["text"]


def test_a_file_of_another_kind_is_refused(offline: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("hello")
    assert "is no file of a log" in offline("dump-log", str(file), code=1).err
    offline("dump-log", str(tmp_path / "missing.log"), code=2)
