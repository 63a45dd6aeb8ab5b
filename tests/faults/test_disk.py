"""Damage on disk and disks that fail, seen from a client: reported, isolated, and nothing intact is lost."""

import contextlib
import errno
import os
import resource
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.faulty_broker import FaultyBroker

from millstream.core.records import BatchBuilder, iter_batches, iter_records, read_header
from millstream.core.wire import ErrorCode
from millstream.testing import TestBroker, broker
from millstream.testing.kafka import wait_until
from millstream.testing.raw import ClosedError, RawConnection

BATCHES = 40
A_BATCH = 5


def batch(number: int, size: int = 200) -> bytes:
    builder = BatchBuilder()
    for i in range(A_BATCH):
        builder.append(1_700_000_000_000 + number, None, b"%d " % (number * A_BATCH + i) + b"x" * size)
    return builder.build()


def fill(raw: RawConnection, topic: str, count: int = BATCHES, partition: int = 0) -> None:
    for number in range(count):
        answer = raw.produce(topic, partition, batch(number))
        assert (answer.error_code, answer.base_offset) == (0, number * A_BATCH)


def read(raw: RawConnection, topic: str, offset: int) -> tuple[int, list[int]]:
    """A fetch's error code, and the numbers in the records it gave."""
    answer = raw.fetch(topic, 0, offset, wait_ms=0)
    records = [record for _, data in iter_batches(answer.records or b"") for record in iter_records(data)]
    numbers = [int((record.value or b"").split()[0]) for record in records]
    assert numbers == [record.offset for record in records]
    return answer.error_code, numbers


def read_all(raw: RawConnection, topic: str, offset: int, end: int) -> list[int]:
    found: list[int] = []
    while offset < end:
        error, numbers = read(raw, topic, offset)
        assert error == 0
        assert numbers, f"nothing at offset {offset}"
        found += [number for number in numbers if number >= offset]
        offset = found[-1] + 1
    return found


@pytest.fixture
def running(tmp_path: Path) -> Iterator[TestBroker]:
    """A broker with a topic "t" of forty batches."""
    with broker({"log.index.interval.bytes": "1024"}, log_dir=tmp_path / "data") as started:
        with RawConnection(started.bootstrap_servers) as raw:
            raw.create_topic("t")
            fill(raw, "t")
        yield started


def log_file(running: TestBroker, suffix: str = "log") -> Path:
    return running.log_dir / "t-0" / f"{0:020d}.{suffix}"


@pytest.mark.parametrize("torn", [1, 40, 61, 300, 1000])
def test_a_torn_tail_is_cut_off_and_everything_before_it_served(running: TestBroker, torn: int) -> None:
    running.kill()
    with log_file(running).open("ab") as file:
        file.write(batch(99)[:torn])
    running.start()
    with RawConnection(running.bootstrap_servers) as raw:
        assert raw.offset("t", 0) == BATCHES * A_BATCH
        assert read_all(raw, "t", 0, BATCHES * A_BATCH) == list(range(BATCHES * A_BATCH))
        assert raw.produce("t", 0, batch(BATCHES)).base_offset == BATCHES * A_BATCH


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_a_flipped_bit_costs_its_batch_and_no_other(running: TestBroker, how: str) -> None:
    running.kill() if how == "kill" else running.stop()
    path = log_file(running)
    data = bytearray(path.read_bytes())
    size = read_header(data).size_bytes
    position = 0
    for _ in range(17):
        position += read_header(data, position).size_bytes
    data[position + size // 2] ^= 0x04
    path.write_bytes(data)
    running.start()
    bad = 17 * A_BATCH
    with RawConnection(running.bootstrap_servers) as raw:
        assert raw.offset("t", 0) == BATCHES * A_BATCH
        assert read_all(raw, "t", 0, bad) == list(range(bad))
        assert read(raw, "t", bad) == (ErrorCode.CORRUPT_MESSAGE, [])
        after = range(bad + A_BATCH, BATCHES * A_BATCH)
        assert read_all(raw, "t", after[0], after[-1] + 1) == list(after)
        assert raw.produce("t", 0, batch(BATCHES)).base_offset == BATCHES * A_BATCH
    wait_until(lambda: "t-0" in running.output, 90, "the damage to be reported")


@pytest.mark.parametrize("how", ["kill", "stop"])
@pytest.mark.parametrize("damage", ["missing", "zeroed", "garbage", "cut"])
def test_a_damaged_index_is_rebuilt(running: TestBroker, how: str, damage: str) -> None:
    running.kill() if how == "kill" else running.stop()
    for suffix in ("index", "timeindex"):
        path = log_file(running, suffix)
        size = path.stat().st_size
        if damage == "missing":
            path.unlink()
        elif damage == "cut":
            os.truncate(path, max(0, size - 5))
        else:
            path.write_bytes(bytes(size or 24) if damage == "zeroed" else os.urandom(size or 24))
    running.start()
    with RawConnection(running.bootstrap_servers) as raw:
        end = BATCHES * A_BATCH
        assert raw.offset("t", 0) == end
        for offset in (0, 1, 77, end - 1):
            error, numbers = read(raw, "t", offset)
            assert error == 0
            assert offset in numbers
        assert raw.offset("t", 0, 1_700_000_000_000 + 20) == 20 * A_BATCH


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MB; mounting it takes root."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        if os.environ.get("CI") == "true":
            pytest.fail(f"mount: {mounted.stderr.decode()}")
        pytest.skip("mounting a file system takes root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_really_full_file_system_stops_its_partitions_only_and_loses_nothing(
    small_disk: Path, tmp_path: Path
) -> None:
    """Two log directories, one of them full: its partitions refuse, the others go on; acknowledged records stay."""
    settings = {
        "log.dirs": f"{tmp_path / 'large'},{small_disk / 'data'}",
        "millstream.disk.free.min.bytes": "0",
        "log.index.size.max.bytes": "65536",
    }
    with broker(settings, log_dir=tmp_path / "large") as running:
        with RawConnection(running.bootstrap_servers) as raw:
            raw.create_topic("t", 2)
            small = next(p for p in range(2) if (small_disk / "data" / f"t-{p}").is_dir())
            acknowledged = 0
            while (answer := raw.produce("t", small, batch(acknowledged, 10_000))).error_code == 0:
                assert answer.base_offset == acknowledged * A_BATCH
                acknowledged += 1
                assert acknowledged < 1000, "the small disk never filled up"
            assert answer.error_code == ErrorCode.KAFKA_STORAGE_ERROR
            assert acknowledged > 50
            assert raw.produce("t", 1 - small, batch(0)).error_code == 0, "the other directory must go on"
        wait_until(lambda: "No space left" in running.output or "ENOSPC" in running.output, 90, "the reason to be told")
        running.kill()
        subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
        running.start()
        with RawConnection(running.bootstrap_servers) as raw:
            end = raw.offset("t", small)
            assert end >= acknowledged * A_BATCH
            offset = 0
            while offset < acknowledged * A_BATCH:
                found = raw.fetch("t", small, offset)
                assert found.error_code == 0
                for _, data in iter_batches(found.records):
                    for record in iter_records(data):
                        assert int((record.value or b"").split()[0]) == record.offset
                        offset = record.offset + 1
            assert raw.produce("t", small, batch(0)).error_code == 0


def test_a_restart_on_a_full_file_system_serves_reads_and_takes_records_once_there_is_room(
    small_disk: Path, tmp_path: Path
) -> None:
    settings = {
        "log.dirs": f"{tmp_path / 'large'},{small_disk / 'data'}",
        "metadata.log.dir": str(tmp_path / "large"),
        "millstream.disk.free.min.bytes": "0",
        "log.index.interval.bytes": "1",
    }
    with broker(settings, log_dir=tmp_path / "large") as running:
        with RawConnection(running.bootstrap_servers) as raw:
            raw.create_topic("t", 2)
            small = next(p for p in range(2) if (small_disk / "data" / f"t-{p}").is_dir())
            acknowledged = 0
            while raw.produce("t", small, batch(acknowledged, 1000)).error_code == 0:
                acknowledged += 1
                assert acknowledged < 10_000, "the small disk never filled up"
        running.kill()
        with (small_disk / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(4096)):
                continue
        assert os.statvfs(small_disk).f_bavail == 0
        running.start()
        with RawConnection(running.bootstrap_servers) as raw:
            offset = 0
            while offset < acknowledged * A_BATCH:
                found = raw.fetch("t", small, offset)
                assert found.error_code == 0
                numbers = [record.offset for _, data in iter_batches(found.records) for record in iter_records(data)]
                assert numbers[0] <= offset
                offset = numbers[-1] + 1
            assert raw.produce("t", small, batch(0, 100_000)).error_code == ErrorCode.KAFKA_STORAGE_ERROR
            assert raw.produce("t", 1 - small, batch(0)).error_code == 0, "the other directory must go on"
            subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
            wait_until(lambda: raw.produce("t", small, batch(0)).error_code == 0, 90, "records to be taken again")


def test_an_io_error_takes_one_directory_offline_and_the_others_serve_on(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    with FaultyBroker(*folders) as running:
        with RawConnection(running.bootstrap_servers) as raw:
            raw.create_topic("t", 2)
            where = {p: next(f for f in folders if (f / f"t-{p}").is_dir()) for p in range(2)}
            assert where[0] != where[1]
            for partition in range(2):
                fill(raw, "t", 5, partition)
            running.fail("pwritev", errno.EIO, times=1000, path=str(where[0]))
            assert raw.produce("t", 0, batch(5)).error_code == ErrorCode.KAFKA_STORAGE_ERROR
            assert raw.produce("t", 1, batch(5)).error_code == 0
            assert raw.produce("t", 0, batch(5)).error_code == ErrorCode.KAFKA_STORAGE_ERROR
            assert raw.fetch("t", 1, 0).error_code == 0
        wait_until(lambda: str(where[0]) in running.output, 90, "the failed directory to be named")
        running.kill()
        running.start()
        with RawConnection(running.bootstrap_servers) as raw:
            assert raw.offset("t", 0) >= 5 * A_BATCH
            assert read_all(raw, "t", 0, 5 * A_BATCH) == list(range(5 * A_BATCH))


def test_a_read_error_is_answered_and_does_not_stop_the_broker(tmp_path: Path) -> None:
    with FaultyBroker(tmp_path / "one", tmp_path / "two") as running, RawConnection(running.bootstrap_servers) as raw:
        raw.create_topic("t", 2)
        for partition in range(2):
            fill(raw, "t", 5, partition)
        running.fail("preadv", errno.EIO, times=1000, path="/t-0/")
        assert raw.fetch("t", 0, 0).error_code != 0
        assert raw.fetch("t", 1, 0).error_code == 0
        assert raw.produce("t", 1, batch(5)).error_code == 0


def test_no_more_descriptors_keep_new_clients_waiting_and_old_ones_served(tmp_path: Path) -> None:
    """EMFILE at accept: those who are connected notice nothing, and newcomers come in once descriptors are free."""
    with broker(log_dir=tmp_path / "data") as running, RawConnection(running.bootstrap_servers) as raw:
        raw.create_topic("t")
        fill(raw, "t", 5)
        used = len(list(Path(f"/proc/{running.pid}/fd").iterdir()))
        resource.prlimit(running.pid, resource.RLIMIT_NOFILE, (used + 20, 20_000))
        host, _, port = running.bootstrap_servers.rpartition(":")
        opened: list[socket.socket] = []
        try:
            for _ in range(60):
                opened.append(socket.create_connection((host, int(port)), timeout=60))  # noqa: PERF401
            request = struct.pack(">ihhih", 10, 18, 0, 1, -1)
            for connection in opened:
                connection.sendall(request)
            for number in range(5, 50):
                assert raw.produce("t", 0, batch(number)).error_code == 0
            assert read_all(raw, "t", 0, 50 * A_BATCH) == list(range(50 * A_BATCH))
        finally:
            for connection in opened:
                connection.close()

        def answers() -> bool:
            try:
                with RawConnection(running.bootstrap_servers, timeout_s=20) as newcomer:
                    return "t" in newcomer.topics()
            except (OSError, ClosedError):  # the loop may turn one away while it is still short of descriptors
                return False

        wait_until(answers, 90, "a new client to be served")
