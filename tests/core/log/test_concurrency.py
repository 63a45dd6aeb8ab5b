"""What threads do to a log at the same time: each test makes the other thread's step happen at the worst moment."""

from __future__ import annotations

import asyncio
import errno
import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from tests.core.log.conftest import OpenManager
from tests.support.logs import NOW_MS, TOPIC_ID, append, batch, read_all

from millstream.core.log import (
    FileSystem,
    Log,
    LogConfig,
    LogDirectory,
    LogDirectoryError,
    LogManager,
    OffsetOutOfRangeError,
    TopicPartition,
)
from millstream.core.records import read_header
from millstream.testing.faulty_disk import FaultyDisk

TP = TopicPartition("flights", 0)
CONFIG = LogConfig(segment_bytes=300, index_interval_bytes=50)
LATER_MS = NOW_MS + CONFIG.retention_ms + 1_000_000


class InterruptedDisk(FileSystem):
    """The real file system; `then` runs once, before the next of these calls on a path that ends so."""

    def __init__(self) -> None:
        self.then: Callable[[], object] | None = None
        self.operation = self.suffix = ""
        self._paths: dict[int, str] = {}

    def before(self, operation: str, suffix: str, then: Callable[[], object]) -> None:
        self.operation, self.suffix, self.then = operation, suffix, then

    def _enter(self, operation: str, path: str) -> None:
        if self.then is not None and operation == self.operation and path.endswith(self.suffix):
            then, self.then = self.then, None
            then()

    def open(self, path: str, flags: int, mode: int = 0o644) -> int:
        self._enter("open", path)
        fd = super().open(path, flags, mode)
        self._paths[fd] = path
        return fd

    def preadv(self, fd: int, buffers: Sequence[bytearray | memoryview], position: int, *, wait: bool = True) -> int:
        self._enter("preadv", self._paths[fd])
        return super().preadv(fd, buffers, position, wait=wait)

    def pread(self, fd: int, size: int, position: int) -> bytes:
        self._enter("pread", self._paths[fd])
        return super().pread(fd, size, position)

    def pwrite(self, fd: int, data: bytes | bytearray | memoryview, position: int) -> int:
        self._enter("pwrite", self._paths[fd])
        return super().pwrite(fd, data, position)

    def fsync(self, fd: int) -> None:
        self._enter("fsync", self._paths[fd])
        super().fsync(fd)

    def fdatasync(self, fd: int) -> None:
        self._enter("fdatasync", self._paths[fd])
        super().fdatasync(fd)


def filled(manager: LogManager, count: int = 12) -> Log:
    log = manager.create_log(TP, TOPIC_ID, CONFIG)
    for index in range(count):
        append(log, b"%d" % index * 20, timestamp=NOW_MS + index)
    assert len(log.segments) > 3
    return log


@pytest.mark.parametrize(
    ("operation", "suffix", "work"),
    [
        ("preadv", ".log", lambda log: log.read(1, 1000)),
        ("preadv", ".index", lambda log: log.read(1, 1000)),
        ("pread", ".timeindex", lambda log: log.offset_for_timestamp(NOW_MS + 1)),
        ("fdatasync", ".log", lambda log: log.flush()),
        ("pwrite", ".timeindex", lambda log: log.store_index_tails()),
    ],
)
def test_descriptors_live_as_long_as_they_are_used(
    open_manager: OpenManager, operation: str, suffix: str, work: Callable[[Log], object]
) -> None:
    disk = InterruptedDisk()
    log = filled(open_manager(files=disk))
    append(log, b"tail", timestamp=NOW_MS + 12)
    taken: list[int] = []

    def take_its_place() -> None:
        while log.cache.close_half():
            continue
        taken.extend(os.open(os.devnull, os.O_RDWR) for _ in range(20))

    while log.cache.close_half():
        continue
    disk.before(operation, suffix, take_its_place)
    try:
        work(log)
        assert disk.then is None, "it never came to that"
        assert [stored.offset for stored in read_all(log)] == list(range(13))
    finally:
        for fd in taken:
            os.close(fd)


def test_what_is_appended_while_retention_looks_is_kept(open_manager: OpenManager) -> None:
    manager = open_manager()
    filled(manager)
    manager.close()
    disk = InterruptedDisk()
    log = open_manager(LogConfig(segment_ms=2**50), disk).logs[TP]
    writer = threading.Thread(target=lambda: append(log, b"new", timestamp=LATER_MS))

    def append_meanwhile() -> None:
        writer.start()
        writer.join(0.2)  # it ends, or waits for its turn

    disk.before("pread", f"{log.segments.active.base_offset:020d}.timeindex", append_meanwhile)
    log.delete_old_segments(LATER_MS, 2**62)
    writer.join()
    assert read_all(log)[-1].value == b"new"


def test_a_segment_that_goes_while_it_is_read_is_no_disk_error(open_manager: OpenManager) -> None:
    disk = InterruptedDisk()
    log = filled(open_manager(files=disk))
    while log.cache.close_half():
        continue
    disk.before("open", ".log", lambda: log.delete_old_segments(LATER_MS, 2**62))
    with pytest.raises(OffsetOutOfRangeError):
        log.read(0, 1000)
    assert log.directory.offline_reason is None


def test_a_segment_that_goes_during_a_lookup_is_no_disk_error(open_manager: OpenManager) -> None:
    disk = InterruptedDisk()
    log = filled(open_manager(files=disk))
    while log.cache.close_half():
        continue
    disk.before("open", ".timeindex", lambda: log.delete_old_segments(LATER_MS, 2**62))
    assert log.offset_for_timestamp(NOW_MS) is None  # as if it had gone before
    assert log.directory.offline_reason is None


@pytest.mark.parametrize("change", ["retention", "truncation"])
def test_segments_that_go_during_a_flush_need_none(open_manager: OpenManager, change: str) -> None:
    disk = InterruptedDisk()
    log = filled(open_manager(files=disk))

    def let_go() -> None:
        if change == "retention":
            log.delete_old_segments(LATER_MS, 2**62)
        else:
            log.truncate_to(1)
            append(log, b"another")

    while log.cache.close_half():
        continue
    disk.before("fsync", ".log", let_go)
    assert log.flush() == log.flushed_offset == log.log_end_offset == (12 if change == "retention" else 2)
    assert log.directory.offline_reason is None


def test_what_a_truncation_dropped_is_not_synced(open_manager: OpenManager) -> None:
    log = filled(open_manager())
    log.truncate_to(0)
    append(log, b"anew")
    assert log.flush() == 1


def test_a_read_that_meets_a_truncation_looks_again(open_manager: OpenManager) -> None:
    disk = InterruptedDisk()
    log = filled(open_manager(files=disk))
    disk.before("preadv", ".log", lambda: log.truncate_to(11))
    assert log.read(11, 1000).data.nbytes == 0
    assert log.directory.offline_reason is None


def test_reserving_while_the_writer_applies(open_manager: OpenManager) -> None:
    log = open_manager().create_log(TP, TOPIC_ID, LogConfig())
    done = threading.Event()

    def write_all() -> None:
        while not done.is_set() or log.log_end_offset < log.reserved_end_offset:
            log.write_reserved(log.generation)

    data = batch(b"x", producer_id=7, producer_epoch=0, base_sequence=0)
    header = read_header(data)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    writer = threading.Thread(target=write_all)
    writer.start()
    try:
        for sequence in range(3000):
            log.reserve(data, header._replace(base_sequence=sequence), leader_epoch=0, now_ms=NOW_MS)
    finally:
        done.set()
        writer.join()
        sys.setswitchinterval(interval)
    assert log.log_end_offset == 3000


@pytest.mark.parametrize("suffix", [".log", ".index", ".timeindex", ".snapshot"])
def test_a_roll_that_fails_half_way_is_tried_again(open_manager: OpenManager, suffix: str) -> None:
    disk = FaultyDisk()
    log = open_manager(files=disk).create_log(TP, TOPIC_ID, CONFIG)
    append(log, b"x" * 150)
    disk.fail("open", errno.ENOSPC, path=f"{1:020d}{suffix}")
    with pytest.raises(LogDirectoryError) as raised:
        append(log, b"y" * 150)
    assert raised.value.shortage
    assert append(log, b"z" * 150).first_offset == 1
    assert [stored.value[:1] for stored in read_all(log) if stored.value] == [b"x", b"z"]
    assert len(log.segments) == 2


def test_a_closed_log_takes_nothing(open_manager: OpenManager) -> None:
    manager = open_manager()
    log = filled(manager)
    append(log, b"pending", write=False)
    log.close()
    for _ in range(2):
        with pytest.raises(LogDirectoryError, match="closed"):
            log.write()
        with pytest.raises(LogDirectoryError, match="closed"):
            append(log, b"late")
    manager.close()
    assert [stored.offset for stored in read_all(open_manager(CONFIG).logs[TP])] == list(range(12))


async def test_a_mistake_of_ours_is_told_to_who_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    manager = LogManager([LogDirectory(tmp_path, loop=loop)], loop=loop)
    manager.load(LogConfig(), cluster_id="a cluster")
    log = manager.create_log(TP, TOPIC_ID, LogConfig())
    told: asyncio.Future[LogDirectoryError | None] = loop.create_future()

    def broken(position: object, data: object) -> None:
        raise AssertionError(f"{position} {data}")

    monkeypatch.setattr(log.cache.files, "pwritev", broken, raising=True)
    append(log, b"x", write=False)
    assert not log.directory.submit(log, lambda _, error: told.set_result(error))
    error = await told
    assert error is not None
    assert "unexpectedly" in error.message
    manager.release()
