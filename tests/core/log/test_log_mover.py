"""Moving a log to another directory: the same bytes over there, whatever happens meanwhile, and wherever it is cut."""

from __future__ import annotations

import errno
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.logs import NOW_MS, TOPIC_ID, append, read_all

from millstream.core.log import FileSystem, Log, LogConfig, LogDirectory, LogManager, TopicPartition
from millstream.core.log.future_log import FutureLog, MoveEndedError
from millstream.core.log.log_mover import LogMover
from millstream.core.wire import KafkaError
from millstream.testing.faulty_disk import FaultyDisk, SimulatedCrashError
from millstream.testing.kafka import wait_until

TP = TopicPartition("t", 3)
CONFIG = LogConfig(segment_bytes=4096, index_interval_bytes=512, retention_ms=-1)


def manager_of(folder: Path, files: FileSystem | None = None) -> LogManager:
    files = files or FileSystem()
    manager = LogManager([LogDirectory(folder / name, files) for name in ("one", "two")], now_ms=lambda: NOW_MS)
    manager.load(CONFIG, cluster_id="c", node_id=1)
    return manager


def filled(manager: LogManager, batches: int = 60, *, size_bytes: int = 200) -> Log:
    log = manager.create_log(TP, TOPIC_ID, CONFIG, directory=manager.directories[0])
    for number in range(batches):
        append(log, b"%d" % number + b"x" * size_bytes, producer_id=7, producer_epoch=0, base_sequence=number)
    return log


def take(_size_bytes: int) -> None:
    """Copy as fast as it goes."""


def move(manager: LogManager, log: Log, to: int = 1) -> FutureLog:
    """Move on this thread."""
    log.is_moving = True
    future = FutureLog(log, manager.directories[to])
    future.open()
    finish(manager, future)
    return future


def finish(manager: LogManager, future: FutureLog) -> None:
    log, doomed = future.log, None
    while log.directory is not future.directory:
        while future.copy_some(take):
            pass
        doomed = future.arrive(manager.arrival)
    assert doomed is not None
    manager.doom_folder(doomed)
    log.is_moving = False


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in {".log", ".snapshot"}}


def folders(place: Path) -> list[str]:
    return sorted(path.name for name in ("one", "two") for path in (place / name).iterdir() if path.is_dir())


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[LogManager]:
    managed = manager_of(tmp_path)
    yield managed
    managed.close()


def test_the_same_bytes_lie_in_the_other_directory(manager: LogManager, tmp_path: Path) -> None:
    log = filled(manager)
    before, records = contents(Path(log.path)), read_all(log)
    assert len(log.segments) > 3
    move(manager, log)
    assert log.path == str(tmp_path / "two" / "t-3")
    assert contents(Path(log.path)) == before
    assert read_all(log) == records
    assert log.flushed_offset == log.log_end_offset
    (old,) = [name for name in folders(tmp_path) if name.endswith("-delete")]
    assert old.startswith("t-3.")
    # It goes on: appends, rolls, duplicates are known, another move back.
    assert append(log, b"0" + b"x" * 200, producer_id=7, producer_epoch=0, base_sequence=59).duplicate
    for number in range(60, 90):
        append(log, b"%d" % number, producer_id=7, producer_epoch=0, base_sequence=number)
    move(manager, log, to=0)
    assert [record.offset for record in read_all(log)] == list(range(90))


def test_it_is_found_there_after_a_clean_stop_and_after_a_crash(tmp_path: Path) -> None:
    manager = manager_of(tmp_path)
    log = filled(manager)
    log.move_log_start(17)
    move(manager, log)
    records = read_all(log)
    manager.release()
    for close in (LogManager.close, LogManager.release):
        manager = manager_of(tmp_path)
        found = manager.logs[TP]
        assert (found.path, found.log_start_offset) == (str(tmp_path / "two" / "t-3"), 17)
        assert found.topic_id == TOPIC_ID
        assert read_all(found) == records
        close(manager)
    assert folders(tmp_path)[0].startswith("t-3")


def test_what_is_appended_and_deleted_meanwhile(manager: LogManager) -> None:
    log = filled(manager)
    future = FutureLog(log, manager.directories[1])
    future.open()
    assert future.copy_some(take)
    assert future.copy_some(take)
    assert 0 < future.log_end_offset < log.log_end_offset
    assert future.size_bytes < log.size_bytes
    log.move_log_start(30)
    manager.doom(log.delete_old_segments(NOW_MS, log.log_end_offset))
    for number in range(60, 80):
        append(log, b"%d" % number, producer_id=7, producer_epoch=0, base_sequence=number)
    pending = append(log, b"reserved", producer_id=7, producer_epoch=0, base_sequence=80, write=False)
    before, records = contents(Path(log.path)), read_all(log)
    finish(manager, future)
    assert contents(Path(log.path)).items() >= before.items()
    assert read_all(log) == records
    log.write()
    assert read_all(log)[-1].offset == pending.first_offset


def test_a_reader_of_the_old_files_reads_on(manager: LogManager) -> None:
    log = filled(manager)
    first = log.segments.first
    first.files()
    move(manager, log)
    assert read_all(log, wait=True)[0].offset == 0
    with pytest.raises(FileNotFoundError):
        first.files()


@pytest.mark.parametrize("cut", ["crash", "power cut"])
def test_a_crash_at_every_step_leaves_the_log_whole(cut: str, tmp_path: Path, soak: bool) -> None:
    place = tmp_path / "counted"
    disk = FaultyDisk()
    manager = manager_of(place, disk)
    log = filled(manager, 30)
    log.flush()
    manager.checkpoint()
    records, start = read_all(log), disk.changes
    move(manager, log)
    steps = disk.changes - start
    manager.release()
    assert steps > 40
    chosen = range(steps) if soak else sorted([*random.Random(5).sample(range(steps), 25), *range(steps - 12, steps)])
    places = set()
    for step in dict.fromkeys(chosen):
        place = tmp_path / f"cut-{step}"
        disk = FaultyDisk()
        manager = manager_of(place, disk)
        log = filled(manager, 30)
        log.flush()
        manager.checkpoint()
        disk.crash_at(disk.changes + step)
        with pytest.raises(SimulatedCrashError):
            move(manager, log)
        disk.heal()
        manager.release()
        if cut == "power cut":
            disk.power_cut(step)
        manager = manager_of(place)
        found = manager.logs[TP]
        assert read_all(found) == records, f"step {step}: {folders(place)}"
        places.add(Path(found.directory.path).name)
        # A copy that was on its way arrives now.
        for log, directory, path in manager.placement.futures:
            future = FutureLog(log, directory, path)
            future.open()
            finish(manager, future)
            assert read_all(log) == records
            assert Path(log.directory.path).name == "two"
        append(found, b"on", producer_id=7, producer_epoch=0, base_sequence=30)
        manager.unlink_doomed(NOW_MS + 10 * CONFIG.file_delete_delay_ms)
        manager.close()
        left = [name for name in folders(place) if not name.endswith("-stray")]
        assert left == ["t-3"], f"step {step}"
    assert "one" in places


def test_a_restart_takes_up_what_was_synced(tmp_path: Path) -> None:
    manager = manager_of(tmp_path)
    log = filled(manager)
    future = FutureLog(log, manager.directories[1])
    future.open()
    while len(future._copies) < 4:
        assert future.copy_some(take)
    manager.close()
    manager = manager_of(tmp_path)
    (found,) = manager.placement.futures
    assert found.log is manager.logs[TP]
    assert found.log.is_moving
    again = FutureLog(*found)
    again.open()
    assert len(again._copies) == 3
    assert max(again._copies) < again.log_end_offset < found.log.log_end_offset
    finish(manager, again)
    assert len(read_all(found.log)) == 60
    manager.close()


def test_a_full_target_lets_the_log_be(manager: LogManager, tmp_path: Path) -> None:
    disk = FaultyDisk()
    other = manager_of(tmp_path / "full", disk)
    log = filled(other)
    disk.fail("pwrite", errno.ENOSPC, path="/two/", times=3)
    mover = LogMover(other, thread_count=1)
    mover.start()
    disk.fail("pwrite", errno.EIO, path="/two/", skip=9, times=1)
    mover.move(log, other.directories[1])
    wait_until(lambda: not mover.futures, 20, "the end of the move")
    assert log.directory is other.directories[0]
    assert other.directories[1].offline_reason is not None
    assert other.directories[0].offline_reason is None
    assert not log.is_moving
    assert len(read_all(log)) == 60
    mover.stop()
    other.close()


def test_writers_and_readers_go_on(manager: LogManager) -> None:
    log = filled(manager, 200, size_bytes=2000)
    mover = LogMover(manager, thread_count=1)
    mover.start()
    stop = threading.Event()
    failures: list[BaseException] = []

    def read() -> None:
        rng = random.Random(1)
        while not stop.is_set():
            try:
                offset = rng.randrange(log.log_end_offset)
                assert read_all(log, offset)[0].offset == offset
            except BaseException as error:
                failures.append(error)
                return

    reader = threading.Thread(target=read)
    reader.start()
    at = 200
    for turn in range(6):
        mover.move(log, manager.directories[(turn + 1) % 2])
        for _ in range(100):
            append(log, b"%d" % at, producer_id=7, producer_epoch=0, base_sequence=at)
            at += 1
        wait_until(lambda: not mover.futures, 30, "the end of the move")
    stop.set()
    reader.join()
    mover.stop()
    assert failures == []
    assert [record.offset for record in read_all(log)] == list(range(at))
    assert log.directory is manager.directories[0]


def test_a_move_that_is_not_wanted_any_more(manager: LogManager, tmp_path: Path) -> None:
    log = filled(manager)
    mover = LogMover(manager, thread_count=1, bytes_per_second=1)
    mover.start()
    mover.move(log, manager.directories[1])
    wait_until(lambda: any(name.endswith("-future") for name in folders(tmp_path)), 10, "the copy's folder")
    mover.move(log, manager.directories[0])  # where it is
    assert not mover.futures
    # Its thread waits no longer for what the rate would allow in an hour: the copy goes.
    wait_until(lambda: not any(name.endswith("-future") for name in folders(tmp_path)), 30, "the copy to go")
    mover.stop()
    assert log.directory is manager.directories[0]


def test_a_deleted_partition_ends_its_move(manager: LogManager) -> None:
    log = filled(manager)
    future = FutureLog(log, manager.directories[1])
    future.open()
    assert future.copy_some(take)
    manager.delete_log(TP)
    with pytest.raises(MoveEndedError):
        future.copy_some(take)
    renamed = future.drop()
    assert renamed is not None
    assert renamed.endswith("-delete")


def test_a_partition_deleted_while_its_copy_arrives_is_deleted_over_there(manager: LogManager, tmp_path: Path) -> None:
    log = filled(manager)
    future = FutureLog(log, manager.directories[1])
    future.open()
    while future.copy_some(take):
        pass
    begun = threading.Event()

    def delete() -> None:
        begun.set()
        manager.delete_log(TP)

    deletion = threading.Thread(target=delete)

    @contextmanager
    def arrival(log: Log, directory: LogDirectory) -> Iterator[None]:
        with manager.arrival(log, directory):
            deletion.start()
            assert begun.wait(30)
            wait_until(lambda: TP not in manager.logs, 30, "the deletion to reach the log's lock")
            yield

    doomed = future.arrive(arrival)
    deletion.join()
    assert doomed is not None
    manager.doom_folder(doomed)
    assert TP not in manager.logs
    assert all(name.endswith("-delete") for name in folders(tmp_path))
    assert len(folders(tmp_path)) == 2
    with pytest.raises(KafkaError):
        append(log, b"gone")
    manager.unlink_doomed(NOW_MS + 10 * CONFIG.file_delete_delay_ms)
    assert folders(tmp_path) == []
    assert read_all(manager.create_log(TP, bytes(16), CONFIG, directory=manager.directories[1])) == []


def test_a_source_that_cannot_be_renamed_is_given_up_and_the_log_goes_on_over_there(tmp_path: Path) -> None:
    disk = FaultyDisk()
    manager = manager_of(tmp_path, disk)
    log = filled(manager)
    future = FutureLog(log, manager.directories[1])
    future.open()
    while future.copy_some(take):
        pass
    disk.fail("rename", errno.EIO, path="/one/t-3")
    assert future.arrive(manager.arrival) is None
    assert log.directory is manager.directories[1]
    assert manager.directories[0].offline_reason is not None
    assert manager.directories[1].offline_reason is None
    append(log, b"over there", producer_id=7, producer_epoch=0, base_sequence=60)
    records = read_all(log)
    assert len(records) == 61
    assert folders(tmp_path) == ["t-3", "t-3"]
    manager.release()
    # The old folder is whole, and shorter.
    manager = manager_of(tmp_path)
    assert manager.logs[TP].path == str(tmp_path / "two" / "t-3")
    assert read_all(manager.logs[TP]) == records
    manager.close()


def test_a_directory_that_was_named_before_its_partition_came(manager: LogManager) -> None:
    for index in range(20):
        tp = TopicPartition("named", index)
        manager.placement.prefer(tp, manager.directories[1])
        assert manager.create_log(tp, TOPIC_ID, CONFIG).directory is manager.directories[1]


def test_indexes_that_found_no_room_are_made_again_over_there(manager: LogManager, tmp_path: Path) -> None:
    log = filled(manager)
    for segment in log.segments:
        segment.index_is_lost = True
        segment.index_bytes = segment.time_index_bytes = 0
        for suffix in (".index", ".timeindex"):
            Path(segment.stem + suffix).unlink(missing_ok=True)
    move(manager, log)
    log.store_index_tails()
    assert [directory.offline_reason for directory in manager.directories] == [None, None]
    assert not any(segment.index_is_lost for segment in log.segments)
    there = {path.name for path in (tmp_path / "two" / str(TP)).iterdir()}
    assert {f"{segment.base_offset:020d}.index" for segment in log.segments} <= there


def test_a_failed_write_keeps_the_copy(manager: LogManager) -> None:
    log = filled(manager)
    future = FutureLog(log, manager.directories[1])
    future.open()
    while future.copy_some(take):
        pass
    copied = future.size_bytes
    log.generation += 1  # as a failed write does
    while future.copy_some(take):
        pass
    assert future.size_bytes == copied
    finish(manager, future)
