"""Periodic work, disk space, health and the service manager: the small parts of the control plane, each for itself."""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from millstream.core.broker.disk_space import AUTOMATIC, DiskSpace, DiskWatermark, disk_space, watermark
from millstream.core.broker.health import Health
from millstream.core.broker.periodic import Periodic
from millstream.core.broker.service_manager import READY, notify, status
from millstream.core.log.directory import LogDirectory


async def test_periodic_work_survives_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    runs = 0
    done = asyncio.Event()

    async def work() -> None:
        nonlocal runs
        runs += 1
        if runs == 1:
            raise OSError("a bad moment")
        done.set()

    periodic = Periodic("retention", lambda: 1, work)
    periodic.start()
    async with asyncio.timeout(60):
        await done.wait()
    await periodic.stop()

    assert "retention failed" in caplog.text
    assert "a bad moment" in caplog.text


async def test_stop_lets_a_run_finish_and_ends_a_pause_at_once() -> None:
    started, finished = asyncio.Event(), False

    async def work() -> None:
        nonlocal finished
        started.set()
        await asyncio.sleep(0)
        finished = True

    running = Periodic("flush", lambda: 0, work)
    running.start()
    await started.wait()
    await running.stop()
    assert finished

    never = Periodic("flush", lambda: 2**63 - 1, work)
    never.start()
    async with asyncio.timeout(60):
        await never.stop()


def directory_at(path: Path) -> LogDirectory:
    return LogDirectory(path)


async def test_the_watermark_comes_and_goes_with_the_space(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    usable = 5_000
    directories = [directory_at(tmp_path / "a"), directory_at(tmp_path / "b")]
    directories[1].offline_reason = "EIO"
    with ThreadPoolExecutor(1) as executor:
        disks = DiskWatermark(
            directories, executor, free_bytes_min=lambda: 1_000, measure=lambda path: DiskSpace(10_000, usable)
        )
        await disks.check()
        assert directories[0].read_only_reason is None

        usable = 999
        await disks.check()
        assert "999 bytes free" in (directories[0].read_only_reason or "")
        assert directories[1].read_only_reason is None, "an offline directory is asked nothing"

        usable = 1_050  # above the watermark, but not by enough to end the flapping
        await disks.check()
        assert directories[0].read_only_reason is not None

        usable = 1_100
        await disks.check()
        assert directories[0].read_only_reason is None
        assert disks.spaces == {directories[0].path: DiskSpace(10_000, 1_100)}
    assert caplog.text.count("no more records are taken") == 1


@pytest.mark.parametrize(
    ("configured", "total", "expected"),
    [(123, 10**12, 123), (0, 10**12, 0), (AUTOMATIC, 10**12, 512 << 20), (AUTOMATIC, 64 << 20, (64 << 20) // 50)],
)
def test_watermark(configured: int, total: int, expected: int) -> None:
    assert watermark(configured, total) == expected


def test_disk_space_of_a_folder_and_of_none(tmp_path: Path) -> None:
    space = disk_space(str(tmp_path))
    assert space is not None
    assert 0 < space.usable_bytes <= space.total_bytes
    assert disk_space(str(tmp_path / "nothing")) is None


def health_of(directories: list[LogDirectory], **changes: Any) -> Health:
    settings: dict[str, Any] = {
        "lag_ms": lambda: 3.0,
        "lag_threshold_ms": lambda: 500,
        "metadata_problem": lambda: None,
    }
    return Health(directories, **(settings | changes))


def test_health_names_every_reason(tmp_path: Path) -> None:
    well, full, failed = (directory_at(tmp_path / name) for name in ("well", "full", "failed"))
    assert health_of([well]).answer().status == 200
    assert "".join(health_of([well]).answer().body) == "ok\n"

    full.read_only_reason = "3 bytes free"
    failed.offline_reason = "input/output error"
    answer = health_of(
        [well, full, failed], lag_ms=lambda: 700.0, metadata_problem=lambda: "the metadata store is gone"
    ).answer()

    assert answer.status == 503
    lines = "".join(answer.body).splitlines()
    assert len(lines) == 4
    assert "3 bytes free" in lines[0]
    assert "failed" in lines[1]
    assert "input/output error" in lines[1]
    assert "700 ms" in lines[2]
    assert "the metadata store is gone" in lines[3]


def test_the_service_manager_is_told(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        assert notify(str(tmp_path / "notify"), READY, status("serving\non 9092"))
        assert manager.recv(1000) == b"READY=1\nSTATUS=serving on 9092"

        name = f"millstream-test-{tmp_path.name}-{id(manager)}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as abstract:
            abstract.bind("\0" + name)
            assert notify("@" + name, READY)
            assert abstract.recv(1000) == b"READY=1"


def test_without_a_service_manager_nothing_is_sent(tmp_path: Path) -> None:
    assert not notify(None, READY)
    assert not notify("", READY)
    assert not notify(str(tmp_path / "nobody"), READY)
