"""What a log does about damage: torn tails, flipped bits, lost indexes and checkpoints, and a crash at any point."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.core.log.conftest import OpenManager
from tests.support.logs import NOW_MS, TOPIC_ID, Stored, append, read_all

from millstream.core.log import (
    CorruptBatchError,
    FileSystem,
    Log,
    LogConfig,
    LogDirectory,
    LogDirectoryError,
    LogManager,
    TopicPartition,
)
from millstream.core.log.checkpoints import CLEAN_SHUTDOWN, LEADER_EPOCH, LOG_START_OFFSET, RECOVERY_POINT
from millstream.testing.faulty_disk import FaultyDisk, SimulatedCrashError

TP = TopicPartition("flights", 0)
CONFIG = LogConfig(segment_bytes=1000, index_interval_bytes=150)
COUNT = 40


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data" / "flights-0"


@pytest.fixture
def stored(open_manager: OpenManager) -> list[Stored]:
    """Write a log of several segments, and leave it as a crash does."""
    manager = open_manager(CONFIG)
    log = manager.create_log(TP, TOPIC_ID, CONFIG)
    for index in range(COUNT):
        append(log, b"value %d" % index, leader_epoch=index // 15, **producer(index))
    manager.release()
    return [Stored(index, NOW_MS, b"value %d" % index) for index in range(COUNT)]


def producer(sequence: int) -> dict[str, Any]:
    return {"producer_id": 7, "producer_epoch": 0, "base_sequence": sequence}


def logs_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.log"))


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 0x10
    path.write_bytes(data)


@pytest.mark.parametrize("cut", [1, 30, 60, 75])
def test_a_torn_tail_is_cut_off(open_manager: OpenManager, folder: Path, stored: list[Stored], cut: int) -> None:
    last = logs_of(folder)[-1]
    last.write_bytes(last.read_bytes()[:-cut])
    log = open_manager(CONFIG).logs[TP]
    assert read_all(log) == stored[:-1]
    assert log.log_end_offset == COUNT - 1
    assert log.corrupt_ranges == ()
    assert append(log, b"again", leader_epoch=2, **producer(COUNT - 1)).first_offset == COUNT - 1
    assert len(read_all(log)) == COUNT


@pytest.mark.parametrize("garbage", [b"\x00" * 5000, b"\xff" * 3, random.Random(1).randbytes(2000)])
def test_garbage_behind_the_last_batch_is_cut_off(
    open_manager: OpenManager, folder: Path, stored: list[Stored], garbage: bytes
) -> None:
    last = logs_of(folder)[-1]
    size = last.stat().st_size
    last.write_bytes(last.read_bytes() + garbage)
    log = open_manager(CONFIG).logs[TP]
    assert read_all(log) == stored
    assert last.stat().st_size == size


@pytest.mark.parametrize("where", [3, 9, 16, 18, 23, 40, 58, 65])
@pytest.mark.parametrize("segment", [0, 1])
@pytest.mark.parametrize("recovered", [True, False])
def test_a_bad_batch_with_valid_ones_behind_is_kept_reported_and_not_served(
    open_manager: OpenManager, folder: Path, stored: list[Stored], where: int, segment: int, recovered: bool
) -> None:
    """`where`: in the base offset, length, magic, CRC, last offset, timestamps, count, records of a batch."""
    if not recovered:
        open_manager(CONFIG).close()
    path = logs_of(folder)[segment]
    size = path.stat().st_size
    bad = int(path.stem) + 3
    batch_size = len(b"value 3") + 61 + 7
    position = next(
        at for at in range(3 * batch_size - 20, size) if path.read_bytes()[at : at + 8] == bad.to_bytes(8, "big")
    )
    flip(path, position + where)

    log = open_manager(CONFIG).logs[TP]

    assert path.stat().st_size == size
    assert read_all(log) == stored[:bad] + stored[bad + 1 :]
    with pytest.raises(CorruptBatchError, match="corrupt") as refused:
        log.read(bad, 1000)
    assert refused.value.next_offset == bad + 1
    assert log.read(bad + 1, 1000).first_offset == bad + 1
    assert log.read(bad - 1, 1 << 20).next_offset == bad  # those before it are given, it is not
    assert [(each.first_offset, each.next_offset) for each in log.corrupt_ranges] == [(bad, bad + 1)]
    assert log.log_end_offset == COUNT
    assert append(log, b"more", leader_epoch=2, **producer(COUNT)).first_offset == COUNT


def test_the_last_batch_of_a_sealed_segment_is_no_torn_tail(
    open_manager: OpenManager, folder: Path, stored: list[Stored]
) -> None:
    first, second = logs_of(folder)[:2]
    first.write_bytes(first.read_bytes()[:-5])
    bad = int(second.stem) - 1
    log = open_manager(CONFIG).logs[TP]
    assert read_all(log) == stored[:bad] + stored[bad + 1 :]
    with pytest.raises(CorruptBatchError) as refused:
        log.read(bad, 1000)
    assert refused.value.next_offset == bad + 1


def test_damage_is_told_after_a_restart_too(open_manager: OpenManager, folder: Path, stored: list[Stored]) -> None:
    flip(logs_of(folder)[0], 70)
    manager = open_manager(CONFIG)
    assert read_all(manager.logs[TP]) == stored[1:]
    manager.close()
    log = open_manager(CONFIG).logs[TP]
    assert read_all(log) == stored[1:]
    assert [each.first_offset for each in log.corrupt_ranges] == [0]


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("suffix", ["index", "timeindex"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(bytes(path.stat().st_size)),
        lambda path: path.write_bytes(path.read_bytes() + b"x"),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\xff" * path.stat().st_size),
        lambda path: path.write_bytes(path.read_bytes()[::-1]),
    ],
    ids=["missing", "zeroed", "odd", "empty", "ones", "reversed"],
)
def test_a_bad_index_costs_time_and_nothing_else(
    open_manager: OpenManager,
    folder: Path,
    stored: list[Stored],
    clean: bool,
    suffix: str,
    damage: Callable[[Path], None],
) -> None:
    if clean:
        open_manager(CONFIG).close()
    for path in folder.glob(f"*.{suffix}"):
        damage(path)
    log = open_manager(CONFIG).logs[TP]
    for offset in range(COUNT):
        assert log.read(offset, 1).first_offset == offset
    assert log.corrupt_ranges == ()
    if suffix == "timeindex":
        found = log.offset_for_timestamp(NOW_MS)
        assert found is not None
        assert found.offset == 0
    assert append(log, b"more", leader_epoch=2, **producer(COUNT)).first_offset == COUNT


@pytest.mark.parametrize(
    "content", [b"", b"not a checkpoint", b"0\n99\nflights 0 40\n", b"0\n1\nflights 0 400\n", b"\xff\x00"]
)
@pytest.mark.parametrize("name", [RECOVERY_POINT, LOG_START_OFFSET])
@pytest.mark.parametrize("clean", [True, False])
def test_a_corrupt_checkpoint_loses_nothing(
    open_manager: OpenManager, folder: Path, stored: list[Stored], content: bytes, name: str, clean: bool
) -> None:
    if clean:
        open_manager(CONFIG).close()
    (folder.parent / name).write_bytes(content)
    log = open_manager(CONFIG).logs[TP]
    if name == LOG_START_OFFSET and content.endswith(b" 400\n"):
        assert (log.log_start_offset, log.log_end_offset) == (400, 400)  # what the checkpoint says was deleted
        return
    assert read_all(log) == stored
    assert len(log.active_producers()) == 1


def test_a_corrupt_epoch_checkpoint_is_learned_again(
    open_manager: OpenManager, folder: Path, stored: list[Stored]
) -> None:
    (folder / LEADER_EPOCH).write_bytes(b"0\n1\nx y\n")
    log = open_manager(CONFIG).logs[TP]
    assert log.leader_epochs.entries == ((0, 0), (1, 15), (2, 30))


@pytest.mark.parametrize("clean", [True, False])
def test_corrupt_snapshots_are_made_again_from_the_log(
    open_manager: OpenManager, folder: Path, stored: list[Stored], clean: bool
) -> None:
    if clean:
        open_manager(CONFIG).close()
    for path in folder.glob("*.snapshot"):
        flip(path, path.stat().st_size - 3)
    log = open_manager(CONFIG).logs[TP]
    (entry,) = log.active_producers()
    assert entry.last_sequence == COUNT - 1
    duplicate = append(log, b"value 39", leader_epoch=2, **producer(COUNT - 1))
    assert (duplicate.first_offset, duplicate.duplicate) == (COUNT - 1, True)
    assert read_all(log) == stored


def test_the_clean_mark_is_gone_once_it_was_read(open_manager: OpenManager, folder: Path, stored: list[Stored]) -> None:
    open_manager(CONFIG).close()
    assert (folder.parent / CLEAN_SHUTDOWN).read_text() == '{"version":0,"brokerEpoch":-1}'
    manager = open_manager(CONFIG)
    assert manager.directories[0].was_clean
    assert not (folder.parent / CLEAN_SHUTDOWN).exists()


def test_only_what_follows_the_recovery_point_is_read(
    open_manager: OpenManager, folder: Path, stored: list[Stored]
) -> None:
    manager = open_manager(CONFIG)
    log = manager.logs[TP]
    log.flush()
    manager.checkpoint()
    manager.release()
    disk = FaultyDisk()
    for path in logs_of(folder)[:-1]:
        disk.fail("preadv", path=path.name, times=100)
    log = open_manager(CONFIG, disk).logs[TP]
    assert log.log_end_offset == COUNT
    disk.heal()
    assert read_all(log) == stored


# A crash at every change of a scripted life, with and without losing what was not synced.


class Script:
    """The life of a log; what was acknowledged is noted as it happens."""

    def __init__(self) -> None:
        self.written = 0
        self.flushed = 0
        self.start = 0

    def run(self, path: Path, files: FileSystem) -> None:
        manager = LogManager([LogDirectory(path, files)], now_ms=lambda: NOW_MS)
        try:
            manager.load(CONFIG, cluster_id="a cluster")
            log = manager.create_log(TP, TOPIC_ID, CONFIG)
            self.append(log, 12)
            log.flush()
            self.flushed = 12
            manager.checkpoint()
            self.append(log, 10)
            log.flush()
            self.flushed = 22
            log.move_log_start(8)
            manager.checkpoint()
            self.start = 8
            manager.doom(log.delete_old_segments(NOW_MS, self.written))
            manager.unlink_doomed(NOW_MS + 100_000)
            self.append(log, 5)
            manager.close()
            self.flushed = self.written
            manager.load(CONFIG, cluster_id="a cluster")
            if TP not in manager.logs:
                raise manager.directories[0].offline_error()
            log = manager.logs[TP]
            self.append(log, 9)
            log.flush()
            self.flushed = self.written
            manager.close()
        finally:
            manager.release()

    def append(self, log: Log, count: int) -> None:
        for _ in range(count):
            index = self.written
            append(log, b"value %d" % index, leader_epoch=index // 15, **producer(index))
            self.written = index + 1


def check_after_crash(script: Script, path: Path, *, power_cut: bool) -> None:
    manager = LogManager([LogDirectory(path)], now_ms=lambda: NOW_MS)
    try:
        manager.load(CONFIG, cluster_id="a cluster")
        log = manager.logs.get(TP)
        if log is None:
            assert script.written == 0 or (power_cut and script.flushed == 0)
            log = manager.create_log(TP, TOPIC_ID, CONFIG)
        found = read_all(log)
        kept = script.flushed if power_cut else script.written
        assert log.log_end_offset >= kept
        assert log.log_end_offset <= script.written + 1  # the append at hand may have arrived
        assert log.log_start_offset in {0, script.start, 8}
        expected = [
            Stored(index, NOW_MS, b"value %d" % index) for index in range(log.log_start_offset, log.log_end_offset)
        ]
        if power_cut:
            assert found[: kept - log.log_start_offset] == expected[: kept - log.log_start_offset]
            assert set(found) <= set(expected)
        else:
            assert found == expected
        assert [entry.last_sequence for entry in log.active_producers()] == ([found[-1].offset] if found else [])
        assert append(log, b"more", leader_epoch=9, **producer(log.log_end_offset)).duplicate is False
        assert read_all(log)[-1].value == b"more"
    finally:
        manager.release()


def count_changes(path: Path) -> int:
    disk = FaultyDisk()
    Script().run(path, disk)
    return disk.changes


@pytest.mark.parametrize("power_cut", [False, True])
def test_a_crash_at_any_change(tmp_path: Path, power_cut: bool) -> None:
    changes = count_changes(tmp_path / "whole")
    assert changes > 100
    for change in range(1, changes + 1):
        disk, script, path = FaultyDisk(), Script(), tmp_path / f"{change}"
        disk.crash_at(change, torn_bytes=(change * 37) % 120)
        with pytest.raises(SimulatedCrashError):
            script.run(path, disk)
        if power_cut:
            disk.power_cut(seed=change)
        print(f"crash at change {change}")
        check_after_crash(script, path, power_cut=power_cut)


def test_disk_errors_anywhere_lose_nothing_acknowledged(tmp_path: Path) -> None:
    for operation in ("pwritev", "pwrite", "fsync", "fdatasync", "open", "rename", "truncate", "pread", "preadv"):
        for skip in range(0, 40, 3):
            disk, script, path = FaultyDisk(), Script(), tmp_path / f"{operation}-{skip}"
            disk.fail(operation, skip=skip, path="flights")
            with suppress(LogDirectoryError):
                script.run(path, disk)
            check_after_crash(script, path, power_cut=False)
