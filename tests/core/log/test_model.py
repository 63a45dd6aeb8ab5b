"""A log against a list: random lives of appends, rolls, truncations, restarts and crashes."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.support.logs import NOW_MS, TOPIC_ID, Stored, append, read_all

from millstream.core.log import (
    FileSystem,
    Log,
    LogConfig,
    LogDirectory,
    LogManager,
    OffsetOutOfRangeError,
    TopicPartition,
)

TP = TopicPartition("model", 1)


class UnsyncedFiles(FileSystem):
    """The real files, without waiting for the disk: no model run here ends in a power cut."""

    def fsync(self, fd: int) -> None:
        assert fd >= 0

    fdatasync = fsync


class LogModel(RuleBasedStateMachine):
    """`records` is what the log must hold; batches are remembered by their last offsets."""

    manager: LogManager
    log: Log

    @initialize(
        segment_bytes=st.integers(500, 2000),
        interval=st.integers(1, 600),
        index_bytes=st.sampled_from([60, 200, 10_000]),
    )
    def start(self, segment_bytes: int, interval: int, index_bytes: int) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.config = LogConfig(
            segment_bytes=segment_bytes, index_interval_bytes=interval, segment_index_bytes=index_bytes, segment_ms=50
        )
        self.records: list[Stored] = []
        self.starts: list[int] = []  # base offsets of batches
        self.log_start = 0
        self.epoch = 0
        self.open()

    def open(self) -> None:
        self.manager = LogManager(
            [LogDirectory(Path(self.folder.name), UnsyncedFiles())], now_ms=lambda: NOW_MS, open_segments_max=3
        )
        self.manager.load(self.config, cluster_id="a cluster")
        self.log = self.manager.logs.get(TP) or self.manager.create_log(TP, TOPIC_ID, self.config)

    def end(self) -> int:
        return self.records[-1].offset + 1 if self.records else self.empty_end

    empty_end = 0

    @rule(
        batches=st.lists(
            st.tuples(st.integers(1, 4), st.integers(0, 200), st.integers(-30, 60)), min_size=1, max_size=6
        )
    )
    def append(self, batches: list[tuple[int, int, int]]) -> None:
        for count, size, shift in batches:
            base = self.log.reserved_end_offset
            timestamp = NOW_MS + base + shift
            values = [b"%d:" % (base + index) + b"x" * (size // count) for index in range(count)]
            reservation = append(self.log, *values, timestamp=timestamp, leader_epoch=self.epoch, write=False)
            assert reservation.first_offset == base
            self.starts.append(base)
            self.records += [Stored(base + index, timestamp + index, value) for index, value in enumerate(values)]
        self.log.write()

    @rule()
    def new_epoch(self) -> None:
        self.epoch += 1

    @rule(share=st.floats(0, 1))
    def truncate(self, share: float) -> None:
        end = self.end()
        offset = self.log_start + round((end - self.log_start) * share)
        self.log.truncate_to(offset)
        if offset < end:
            base = max((each for each in self.starts if each <= offset), default=offset)
            base = max(base, self.log_start)  # what lies before the start was deleted for good
            self.records = [record for record in self.records if record.offset < base]
            self.starts = [each for each in self.starts if each < base]
            self.empty_end = base

    @rule(share=st.floats(0, 1))
    def move_start(self, share: float) -> None:
        end = self.end()
        self.log.move_log_start(self.log_start + round((end - self.log_start) * share))
        self.log_start = self.log.log_start_offset
        self.manager.checkpoint()
        self.empty_end = end
        self.records = [record for record in self.records if record.offset >= self.log_start]

    @rule()
    def delete_old(self) -> None:
        self.manager.doom(self.log.delete_old_segments(NOW_MS, self.log.log_end_offset))
        self.manager.unlink_doomed(NOW_MS + 10**6)

    @rule()
    def flush(self) -> None:
        assert self.log.flush() == self.log.log_end_offset
        self.manager.checkpoint()

    @rule(clean=st.booleans())
    def restart(self, clean: bool) -> None:
        if clean:
            self.manager.close()
        else:
            self.manager.release()
        self.open()

    @invariant()
    def bounds(self) -> None:
        if not hasattr(self, "log"):
            return
        log = self.log
        assert log.log_start_offset == self.log_start
        assert log.log_start_offset <= log.log_end_offset == log.reserved_end_offset == self.end()
        assert log.flushed_offset <= log.log_end_offset
        assert log.segments.first.base_offset <= max(log.log_start_offset, log.segments.first.base_offset)

    @rule(size_bytes=st.integers(1, 3000))
    def read_everything(self, size_bytes: int) -> None:
        assert read_all(self.log, size_bytes=size_bytes) == self.records

    @rule(share=st.floats(0, 1))
    def read_one(self, share: float) -> None:
        if self.records:
            record = self.records[round((len(self.records) - 1) * share)]
            assert read_all(self.log, record.offset)[0] == record

    @rule(shift=st.integers(-100, 500))
    def by_timestamp(self, shift: int) -> None:
        expected = next((record.offset for record in self.records if record.timestamp >= NOW_MS + shift), None)
        found = self.log.offset_for_timestamp(NOW_MS + shift)
        assert (found and found.offset) == expected

    @rule()
    def outside(self) -> None:
        with pytest.raises(OffsetOutOfRangeError):
            self.log.read(self.log.log_end_offset + 1, 100)

    def teardown(self) -> None:
        if hasattr(self, "manager"):
            self.manager.release()
            self.folder.cleanup()


@pytest.mark.timeout(1200)
def test_a_log_is_a_list(soak: bool) -> None:
    run: Any = LogModel.TestCase
    run.settings = settings(
        max_examples=400 if soak else 20,
        stateful_step_count=30,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run("runTest").runTest()
