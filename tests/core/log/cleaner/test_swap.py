"""A crash, or a power cut, at every change the cleaner makes to the disk; and readers while it works."""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.core.log.cleaner.test_model import check_cleaned
from tests.core.log.conftest import OpenManager
from tests.support.dirty_logs import NOW_MS, TOPIC, Kept, Model, Sweep, compacted, read_committed, stored

from millstream.core.log import Log, LogConfig, LogManager
from millstream.core.log.segment import Segment
from millstream.core.log.segments import Segments
from millstream.core.records import Compression
from millstream.testing.faulty_disk import FaultyDisk, SimulatedCrashError

SOAK = os.environ.get("MILLSTREAM_SOAK") == "1"


def make_model(seed: int = 5) -> Model:
    """Small segments of which several become one, with transactions, tombstones, and codecs."""
    model = Model(seed)
    for step in range(70):
        model.random_step(keys=12, transactions=True, compress=False)
        if step == 10:
            model.batch([(b"gone", b"value")])
            model.roll()
            model.batch([(b"gone", None)])
    model.batch([(b"packed", b"x" * 50)] * 5, compression=Compression.ZSTD)
    model.end_all()
    model.batch([(b"active", b"value")])
    return model


def config() -> LogConfig:
    """Three or so groups."""
    return compacted(segment_bytes=6000, delete_retention_ms=0, index_interval_bytes=100)


def sweep_twice(sweep: Sweep, log: Log) -> None:
    """The second time tombstones go, and markers get their horizons' due."""
    sweep.run()
    log.first_dirty_offset = None
    sweep.now_ms += 1
    sweep.run()


def count_changes(open_manager: OpenManager, path: Path) -> int:
    disk = FaultyDisk()
    manager = open_manager(config(), disk, path)
    before = disk.changes
    sweep_twice(Sweep(manager), manager.logs[TOPIC])
    return disk.changes - before


def check_latest(model: Model, log: Log) -> None:
    """Whatever happened, a consumer of committed records sees the newest of each key, and nothing that never was."""
    originals = {each.offset: each for each in model.records}
    records, _ = stored(log)
    assert all(originals[each.offset] == each for each in records)
    committed: dict[bytes | None, Kept] = {each.key: each for each in read_committed(log)}
    for key, record in model.latest(model.end_offset).items():
        found = committed.get(key)
        assert found == Kept(*record[:4]) or (record.value is None and found is None), (key, record, found)


@pytest.mark.parametrize("power_cut", [False, True], ids=["killed", "power cut"])
def test_a_crash_at_any_change_loses_no_latest_value(
    open_manager: OpenManager, tmp_path: Path, power_cut: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    model = make_model()
    model.write(tmp_path / "dry" / str(TOPIC))
    changes = count_changes(open_manager, tmp_path / "dry")
    assert changes > 60
    finished = 0
    # Every change in the soak, else each fourth, the first of them by the case.
    tried = range(1, changes + 1) if SOAK else range(1 + 2 * power_cut, changes + 1, 4)
    for change in tried:
        path = tmp_path / f"{power_cut}-{change}"
        model.write(path / str(TOPIC))
        disk = FaultyDisk()
        manager = open_manager(config(), disk, path)
        manager.logs[TOPIC].flush()
        manager.checkpoint()
        if power_cut:
            disk.sync_directory(str(path))
        disk.crash_at(disk.changes + change)
        with pytest.raises(SimulatedCrashError):
            sweep_twice(Sweep(manager), manager.logs[TOPIC])
        manager.release()
        disk.heal()
        if power_cut:
            disk.power_cut(change)
        again = open_manager(config(), path=path)
        log = again.logs[TOPIC]
        check_latest(model, log)
        names = {each.name for each in (path / str(TOPIC)).iterdir()}
        assert not [name for name in names if name.endswith((".swap", ".cleaned", ".deleted"))], names
        finished += log.size_bytes < sum(len(batch) for batches in model.segments for batch in batches)
        log.first_dirty_offset = None
        sweep = Sweep(again, now_ms=NOW_MS + 10)
        sweep_twice(sweep, log)
        check_cleaned(model, log, tombstones_gone=True)
        again.release()
    assert finished > len(tried) // 3


@pytest.mark.parametrize("operation", ["rename", "fsync", "pwrite", "open", "unlink", "preadv"])
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_a_disk_that_fails_costs_no_latest_value(
    open_manager: OpenManager, tmp_path: Path, operation: str, error: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL + 1)
    model = make_model()
    for skip in range(0, 40, 1 if SOAK else 8):
        path = tmp_path / f"{skip}"
        model.write(path / str(TOPIC))
        disk = FaultyDisk()
        manager = open_manager(config(), disk, path)
        log = manager.logs[TOPIC]
        disk.fail(operation, error, skip=skip)
        Sweep(manager).cleaner.clean_next(Sweep(manager).tools)
        disk.heal()
        if log.directory.offline_reason is None:
            check_latest(model, log)
            sweep_twice(Sweep(manager, now_ms=NOW_MS + 10), log)
            check_cleaned(model, log, tombstones_gone=True)
        manager.release()
        again = open_manager(config(), path=path)
        check_latest(model, again.logs[TOPIC])
        again.release()


def test_readers_and_lookups_go_on_while_segments_are_swapped(open_manager: OpenManager, tmp_path: Path) -> None:
    model = make_model()
    model.write(tmp_path / "data" / str(TOPIC))
    manager = open_manager(config())
    log = manager.logs[TOPIC]
    stop = threading.Event()
    failures: list[BaseException] = []

    def read() -> None:
        try:
            while not stop.is_set():
                log.cache.close_half()
                check_latest(model, log)
                log.max_timestamp_offset()
                found = log.offset_for_timestamp(NOW_MS + model.end_offset // 2)
                assert found is None or found.offset <= model.end_offset
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    sweep = Sweep(manager)
    for _ in range(60):
        sweep.now_ms += 1
        log.first_dirty_offset = None
        sweep.run()
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]
    assert log.directory.offline_reason is None


def test_what_read_a_segment_before_it_was_replaced_goes_on_in_the_new_one(
    open_manager: OpenManager, tmp_path: Path
) -> None:
    """A reader that holds the old segment reads its old file to the end; one that must open it looks again."""
    model = make_model()
    model.write(tmp_path / "data" / str(TOPIC))
    manager = open_manager(config())
    log = manager.logs[TOPIC]
    old = log.segments.first
    opened = old.files()
    Sweep(manager).run()
    assert old.replaced
    assert log.cache.files.pread(opened.log_fd, 8, 0) == bytes(8)
    with pytest.raises(FileNotFoundError):
        opened.index_fd()
    with pytest.raises(FileNotFoundError):
        old.files()
    with pytest.raises(FileNotFoundError):
        log.rebuild_index(old)
    assert log.directory.offline_reason is None


@pytest.mark.parametrize("end_offset", [40, 50], ids=["to the active segment", "to the end"])
@pytest.mark.parametrize("wait", [True, False])
def test_a_swap_under_a_read_hides_nothing_from_it(
    open_manager: OpenManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait: bool, end_offset: int
) -> None:
    """The read stands at the end of a segment, and what follows is in one now that begins before it."""
    model = Model(1)
    for number in range(5):
        model.roll()
        model.batch([(b"%d" % key, b"%d" % number) for key in range(10)])
    model.write(tmp_path / "data" / str(TOPIC))
    manager = open_manager(config())
    log = manager.logs[TOPIC]
    assert log.read(0, 1 << 20).next_offset == 10
    plain_after = Segments.after
    swaps: list[int] = []

    def after(self: Segments, segment: Segment) -> Segment | None:
        if not swaps:
            swaps.append(0)
            swaps[0] = Sweep(manager).run()
        return plain_after(self, segment)

    monkeypatch.setattr(Segments, "after", after)
    try:
        read = log.read(10, 1 << 20, end_offset=end_offset, wait=wait)
    except BlockingIOError:
        assert not wait
        read = log.read(10, 1 << 20, end_offset=end_offset)
    assert swaps == [1]
    assert [segment.base_offset for segment in log.segments] == [0, 40]
    # Of the first four batches only the fourth is left.
    assert (read.first_offset, read.next_offset) == (30, 40)
    assert log.directory.offline_reason is None


def apply_change(change: str, log: Log, manager: LogManager, model: Model) -> None:
    """What may happen to a log on another thread, whenever the cleaner lets go of it."""
    if change == "deleted":
        manager.delete_log(TOPIC)
    elif change == "truncated":
        log.truncate_to(model.bases[1])
    elif change == "retained":
        assert log.move_log_start(model.bases[-1])
        gone = log.delete_old_segments(NOW_MS, 2**62)
        assert gone
        manager.doom(gone)
    elif change == "reconfigured":
        log.config = LogConfig()
    elif change == "moving":
        log.is_moving = True
    else:
        assert change == "set aside"
        log.rename(f"{log.path}.0-stray", "it is set aside")


@pytest.mark.parametrize("change", ["deleted", "truncated", "retained", "reconfigured", "set aside", "moving"])
def test_a_log_that_changes_under_the_cleaner_is_given_up(
    open_manager: OpenManager, tmp_path: Path, change: str
) -> None:
    """Behind whichever read or write of a cleaning it changes: the first, the last, and those between."""
    model = make_model()
    moment, moments = -1, 0  # the first time none comes: they are counted
    while moment < moments:
        path = tmp_path / f"{moment}"
        model.write(path / str(TOPIC))
        manager = open_manager(config(), path=path)
        log = manager.logs[TOPIC]
        sweep = Sweep(manager)
        throttle_take = sweep.cleaner._throttle.take
        taken: list[int] = []

        def take(
            size_bytes: int,
            *,
            is_over: Callable[[], bool] | None = None,
            at: int = moment,
            log: Log = log,
            manager: LogManager = manager,
            throttle_take: Callable[[int], None] = throttle_take,
            taken: list[int] = taken,
        ) -> None:
            assert is_over is None, "a cleaning is not ended by its throttle"
            throttle_take(size_bytes)
            if len(taken) == at:
                apply_change(change, log, manager, model)
            taken.append(size_bytes)

        sweep.cleaner._throttle.take = take  # type: ignore[method-assign]
        sweep.cleaner.clean_next(sweep.tools)
        if moment < 0:
            assert log.first_dirty_offset == model.bases[-1]
            moments = len(taken)
            assert moments > 20
        else:
            check_given_up(change, log, sweep, model, moment)
        moment += 1
        manager.release()


def check_given_up(change: str, log: Log, sweep: Sweep, model: Model, moment: int) -> None:
    """Nothing is wrong, nothing counts as clean, nothing is left; what stays of the log can be cleaned later."""
    assert log.directory.offline_reason is None, moment
    assert not sweep.cleaner.uncleanable, moment
    assert log.first_dirty_offset is None, moment
    if change not in {"deleted", "set aside"}:
        left = [each.name for each in Path(log.path).iterdir() if each.name.endswith((".cleaned", ".swap"))]
        assert not left, moment
    if change == "retained":
        assert sweep.run() == 0
        assert log.segments.first.base_offset == model.bases[-1]
    elif change == "truncated":
        assert log.log_end_offset <= model.bases[1]
    elif change == "moving":
        assert sweep.run() == 0
        log.is_moving = False
        assert sweep.run() > 0


def make_growing_model() -> Model:
    """Eight segments of keys that come once, half of them in two transactions that span four: one is aborted."""
    model = Model(7)
    for number in range(8):
        model.batch([(b"%d-%d" % (number, index), b"x" * 30) for index in range(20)])
        keys = [(b"%d-%d in one" % (number, index), b"x" * 23) for index in range(20)]
        model.batch(keys, producer_id=10, transactional=True)
        if number in {3, 7}:
            model.end(10, commit=number == 7)
        model.roll()
    model.batch([(b"active", b"value")])
    return model


def test_a_group_that_does_not_fit_one_segment_is_halved(open_manager: OpenManager, tmp_path: Path) -> None:
    """Records may grow while they are written anew: no segment passes the int32 positions of its indexes."""
    model = make_growing_model()
    model.write(tmp_path / "data" / str(TOPIC))
    log = (manager := open_manager(compacted(segment_bytes=1 << 20))).logs[TOPIC]
    sweep = Sweep(manager)
    # The real limit is 2 GiB. Eight segments do not fit, nor the four of the committed transaction.
    limit = sweep.tools.segment_bytes_max = 3 * max(segment.size_bytes for segment in log.segments)
    assert sweep.run() == 1
    assert not sweep.cleaner.uncleanable
    assert [segment.base_offset // 40 for segment in log.segments] == [0, 4, 6, 8]
    assert max(segment.size_bytes for segment in log.segments) <= limit
    check_cleaned(model, log)
    assert not [each.name for each in (tmp_path / "data" / str(TOPIC)).iterdir() if each.suffix == ".cleaned"]


def test_a_segment_that_grows_over_the_limit_is_left_alone(
    open_manager: OpenManager, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    model = make_growing_model()
    model.write(tmp_path / "data" / str(TOPIC))
    log = (manager := open_manager(config())).logs[TOPIC]
    before = stored(log)
    sweep = Sweep(manager)
    sweep.tools.segment_bytes_max = 100
    sweep.run()
    (found,) = sweep.cleaner.uncleanable
    assert (found.topic_partition, found.offset) == (TOPIC, 0)
    assert "grows over 100 bytes" in found.reason
    assert stored(log) == before
