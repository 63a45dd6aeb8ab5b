"""Log directories: locked, identified, written to inline or by their thread, and failing alone."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.core.log.conftest import OpenManager
from tests.support.logs import TOPIC_ID, append, read_all

from millstream.core.log import (
    InconsistentDirectoryError,
    LogConfig,
    LogDirectory,
    LogDirectoryError,
    LogLockedError,
    LogManager,
    TopicPartition,
    read_meta_properties,
)
from millstream.core.log.directory import INLINE_LATENCY_US
from millstream.core.log.files import Buffer, FileSystem
from millstream.testing.faulty_disk import FaultyDisk, SyncJournal, lose_unsynced

TP = TopicPartition("flights", 0)
CONFIG = LogConfig(segment_bytes=1000)
HOLDER = """
import sys
from millstream.core.log import LogDirectory
directory = LogDirectory(sys.argv[1])
directory.open("a cluster", 1)
print("locked", flush=True)
sys.stdin.read()
"""


def test_a_directory_is_locked_while_in_use(open_manager: OpenManager, tmp_path: Path) -> None:
    open_manager()
    script = (
        "import sys\n"
        "from millstream.core.log import LogDirectory, LogLockedError\n"
        "try:\n    LogDirectory(sys.argv[1]).open('a cluster', 1)\n"
        "except LogLockedError as error:\n    print(error)"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "data")], capture_output=True, text=True, timeout=60
    )
    assert "is in use by another process" in run.stdout


def test_a_lock_held_elsewhere_is_told(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            HOLDER,
            str(tmp_path),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(LogLockedError, match="another process"):
            LogDirectory(tmp_path).open("a cluster", 1)
        holder.communicate("", timeout=30)
    directory = LogDirectory(tmp_path)
    directory.open("a cluster", 1)
    directory.close()


def test_another_clusters_directory_is_refused(tmp_path: Path) -> None:
    directory = LogDirectory(tmp_path)
    directory.open("mine", 1)
    first_id = directory.directory_id
    directory.close()
    assert read_meta_properties(str(tmp_path))["cluster.id"] == "mine"
    for cluster_id, node_id in (("theirs", 1), ("mine", 2)):
        with pytest.raises(InconsistentDirectoryError, match="belongs to another one"):
            LogDirectory(tmp_path).open(cluster_id, node_id)
    directory = LogDirectory(tmp_path)
    directory.open("mine", 1)
    assert directory.directory_id == first_id
    assert len(first_id) == 16
    directory.close()


async def test_writes_are_inline_while_the_disk_is_fast(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    manager = LogManager([LogDirectory(tmp_path, loop=loop)], loop=loop)
    manager.load(CONFIG, cluster_id="a cluster")
    directory = manager.directories[0]
    log = manager.create_log(TP, TOPIC_ID, CONFIG)
    events: asyncio.Queue[tuple[int | None, BaseException | None]] = asyncio.Queue()

    def note(offset: int | None, error: BaseException | None) -> None:
        events.put_nowait((offset, error))

    append(log, b"first", write=False)
    assert not directory.submit(log, note)  # the segment is opened, so the thread writes
    assert events.empty()
    assert await asyncio.wait_for(events.get(), 10) == (1, None)
    directory.write_latency_us = 0
    append(log, b"second", write=False)
    assert directory.submit(log, note)
    assert events.get_nowait() == (2, None)

    directory.write_latency_us = 100 * INLINE_LATENCY_US
    for index in range(20):
        append(log, b"%d" % index, write=False)
        assert not directory.submit(log, note)
    offsets = [(await asyncio.wait_for(events.get(), 10))[0] for _ in range(20)]
    assert offsets == sorted(offsets, key=lambda offset: offset or 0)
    assert offsets[-1] == 22
    directory.submit_flush(log, note)
    directory.submit_flush(log, note)
    assert [await asyncio.wait_for(events.get(), 10) for _ in range(2)] == [(22, None)] * 2
    assert log.flushed_offset == 22
    await asyncio.to_thread(manager.close)


async def test_what_is_submitted_before_a_write_begins_goes_with_it(tmp_path: Path) -> None:
    class CountingFiles(FileSystem):
        writes = 0

        def pwritev(self, fd: int, buffers: Sequence[Buffer], position: int) -> int:
            self.writes += 1
            return super().pwritev(fd, buffers, position)

    loop = asyncio.get_running_loop()
    files = CountingFiles()
    manager = LogManager([LogDirectory(tmp_path, files, loop=loop)], loop=loop)
    manager.load(LogConfig(), cluster_id="a cluster")
    directory = manager.directories[0]
    logs = [manager.create_log(TopicPartition("flights", index), TOPIC_ID, LogConfig()) for index in range(2)]
    events: asyncio.Queue[tuple[int, int | None]] = asyncio.Queue()
    directory.write_latency_us = 100 * INLINE_LATENCY_US
    for log in logs:
        append(log, b"first")
    files.writes = 0
    # The writer thread waits for the first log, and the second stands behind it.
    with logs[0].lock:
        for submit in range(10):
            append(logs[submit % 2], b"%d" % submit, write=False)
            directory.submit(logs[submit % 2], lambda offset, _, submit=submit: events.put_nowait((submit, offset)))  # type: ignore[misc]
    ended = [await asyncio.wait_for(events.get(), 10) for _ in range(10)]
    assert sorted(ended) == [(submit, 6) for submit in range(10)]
    assert [submit for submit, _ in ended if submit % 2] == [1, 3, 5, 7, 9]
    assert files.writes == 2
    await asyncio.to_thread(manager.close)


async def test_a_failed_write_fails_everything_behind_it(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    disk = FaultyDisk()
    manager = LogManager([LogDirectory(tmp_path, disk, loop=loop)], loop=loop)
    manager.load(LogConfig(), cluster_id="a cluster")
    directory = manager.directories[0]
    log = manager.create_log(TP, TOPIC_ID, LogConfig())
    append(log, b"kept")
    events: asyncio.Queue[tuple[int | None, LogDirectoryError | None]] = asyncio.Queue()
    disk.fail("pwritev", errno.ENOSPC)
    directory.write_latency_us = 100 * INLINE_LATENCY_US
    # The writer thread waits until all of them stand in line.
    with log.lock:
        for index in range(3):
            append(log, b"lost %d" % index, write=False)
            directory.submit(log, lambda offset, error: events.put_nowait((offset, error)))
    outcomes = [await asyncio.wait_for(events.get(), 10) for _ in range(3)]
    assert all(offset is None and error is not None and error.shortage for offset, error in outcomes)
    assert directory.offline_reason is None
    assert (log.reserved_end_offset, log.log_end_offset) == (1, 1)
    append(log, b"next", write=False)
    directory.submit(log, lambda offset, error: events.put_nowait((offset, error)))
    assert await asyncio.wait_for(events.get(), 10) == (2, None)
    assert [record.value for record in read_all(log)] == [b"kept", b"next"]
    await asyncio.to_thread(manager.close)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EMFILE, errno.EDQUOT])
def test_a_shortage_is_undone_and_passes(open_manager: OpenManager, error: int) -> None:
    disk = FaultyDisk()
    manager = open_manager(CONFIG, disk)
    log = manager.create_log(TP, TOPIC_ID, CONFIG)
    append(log, b"a", producer_id=1, producer_epoch=0, base_sequence=0)
    log.release()
    operation = "open" if error == errno.EMFILE else "pwritev"
    disk.fail(operation, error, path=".log")
    with pytest.raises(LogDirectoryError) as refused:
        append(log, b"b", producer_id=1, producer_epoch=0, base_sequence=1)
    assert refused.value.shortage
    assert manager.directories[0].offline_reason is None
    assert [record.value for record in read_all(log)] == [b"a"]
    assert append(log, b"b", producer_id=1, producer_epoch=0, base_sequence=1).first_offset == 1
    manager.close()
    assert [record.value for record in read_all(open_manager(CONFIG).logs[TP])] == [b"a", b"b"]


@pytest.mark.parametrize("operation", ["pwritev", "fdatasync", "preadv"])
def test_an_io_error_takes_its_directory_offline_and_no_other(tmp_path: Path, operation: str) -> None:
    disk = FaultyDisk()
    told: list[LogDirectory] = []
    directories = [LogDirectory(tmp_path / name, disk, on_offline=told.append) for name in ("bad", "good")]
    manager = LogManager(directories)
    manager.load(CONFIG, cluster_id="a cluster")
    logs = [
        manager.create_log(TopicPartition("flights", index), TOPIC_ID, CONFIG, directory=directory)
        for index, directory in enumerate(directories)
    ]
    for log in logs:
        append(log, b"acknowledged")
    disk.fail(operation, errno.EIO, path="bad")

    def use() -> None:
        append(logs[0], b"x")
        logs[0].flush()
        read_all(logs[0])

    with pytest.raises(LogDirectoryError, match=r"Input/output error") as failed:
        use()
    assert not failed.value.shortage
    assert told == [directories[0]]
    with pytest.raises(LogDirectoryError, match="offline"):
        append(logs[0], b"y")
    assert append(logs[1], b"z").first_offset == 1
    assert manager.create_log(TopicPartition("new", 0), TOPIC_ID, CONFIG).directory is directories[1]
    manager.close()
    assert (tmp_path / "good" / ".kafka_cleanshutdown").exists()
    assert not (tmp_path / "bad" / ".kafka_cleanshutdown").exists()

    again = LogManager([LogDirectory(tmp_path / name) for name in ("bad", "good")])
    again.load(CONFIG, cluster_id="a cluster")
    assert read_all(again.logs[TopicPartition("flights", 0)])[0].value == b"acknowledged"
    again.release()


def test_few_descriptors_are_enough_for_many_logs(open_manager: OpenManager) -> None:
    manager = open_manager()
    logs = [manager.create_log(TopicPartition("t", index), TOPIC_ID, LogConfig()) for index in range(60)]
    used = len(list(Path("/proc/self/fd").iterdir()))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 25, limits[1]))
    try:
        for log in logs:
            append(log, b"x")
        assert [len(read_all(log)) for log in logs] == [1] * 60
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert manager.directories[0].offline_reason is None
    while manager.cache.close_idle():
        pass
    manager.cache.close_idle()
    assert len(manager.cache) == 0


def test_a_really_full_file_system(tmp_path: Path, open_manager: OpenManager) -> None:
    mounted = tmp_path / "small"
    mounted.mkdir()
    if os.geteuid() == 0:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mounted)], timeout=30)
        full = None if done.returncode == 0 else FaultyDisk()
    else:
        full = FaultyDisk()
    try:
        manager = open_manager(LogConfig(), full, path=mounted / "data")
        log = manager.create_log(TP, TOPIC_ID, LogConfig())
        if full is not None:
            full.fail("pwritev", errno.ENOSPC, skip=5, times=10**6)
        acknowledged: list[int] = []

        def fill() -> None:
            for index in range(200):
                append(log, b"%04d" % index * 3000)
                acknowledged.append(index)

        with pytest.raises(LogDirectoryError, match="No space left") as refused:
            fill()
        assert refused.value.shortage
        assert acknowledged
        assert log.log_end_offset == len(acknowledged)
        assert [int((record.value or b"")[:4]) for record in read_all(log)] == acknowledged
        manager.release()
        log = open_manager(LogConfig(), path=mounted / "data").logs[TP]
        assert [int((record.value or b"")[:4]) for record in read_all(log)] == acknowledged
        log.release()
        log.directory.close()
    finally:
        if full is None and os.geteuid() == 0:
            subprocess.run(["umount", "-l", str(mounted)], check=True, timeout=30)


def test_a_journal_of_syncs_tells_what_a_power_cut_leaves(open_manager: OpenManager, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    manager = open_manager(CONFIG, SyncJournal(str(journal)))
    log = manager.create_log(TP, TOPIC_ID, CONFIG)
    for index in range(30):
        append(log, b"%d" % index)
    log.flush()
    for index in range(30, 60):
        append(log, b"%d" % index)
    manager.release()

    lost = lose_unsynced(journal)

    assert sum(lost.values()) > 1000
    log = open_manager(CONFIG).logs[TP]
    values = [record.value for record in read_all(log)]
    assert len(values) >= 30
    assert values == [b"%d" % index for index in range(len(values))]
