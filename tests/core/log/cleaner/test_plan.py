"""Which logs are due, how far they may be cleaned, which segments become one; and how fast."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.core.log.conftest import OpenManager
from tests.support.dirty_logs import NOW_MS, SECRET, TOPIC, Model, Sweep, compacted, stored

from millstream.core.log import Log, LogConfig
from millstream.core.log.cleaner.offset_map import OffsetMap
from millstream.core.log.cleaner.plan import examine, group_segments
from millstream.core.log.offset_index import RELATIVE_OFFSET_MAX
from millstream.core.log.segment import Segment


def make_log(open_manager: OpenManager, tmp_path: Path, config: LogConfig, segments: int = 5) -> Log:
    """Segments of one batch of ten records each, a second apart; the last one is active."""
    model = Model(1)
    for number in range(segments):
        model.roll()
        model.batch([(b"%d" % index, b"x" * 10) for index in range(10)], timestamp=NOW_MS + 1000 * number)
    model.write(tmp_path / "data" / str(TOPIC))
    return open_manager(config).logs[TOPIC]


def test_the_active_segment_and_what_is_unstable_are_not_cleaned(open_manager: OpenManager, tmp_path: Path) -> None:
    log = make_log(open_manager, tmp_path, compacted())
    size = log.segments.first.size_bytes
    found = examine(log, 50, NOW_MS)
    assert (found.first_dirty_offset, found.first_uncleanable_offset, found.cleanable_bytes) == (0, 40, 4 * size)
    assert examine(log, 29, NOW_MS).first_uncleanable_offset == 20
    assert examine(log, 30, NOW_MS).first_uncleanable_offset == 30
    nothing = examine(log, 5, NOW_MS)
    assert (nothing.first_uncleanable_offset, nothing.cleanable_bytes, nothing.is_due) == (0, 0, False)


def test_a_log_is_due_above_its_ratio(open_manager: OpenManager, tmp_path: Path) -> None:
    log = make_log(open_manager, tmp_path, compacted(min_cleanable_dirty_ratio=0.5))
    log.first_dirty_offset = 20
    assert examine(log, 50, NOW_MS).cleanable_ratio == 0.5
    assert not examine(log, 50, NOW_MS).is_due
    log.first_dirty_offset = 10
    assert examine(log, 50, NOW_MS).is_due
    log.first_dirty_offset = 40
    assert examine(log, 50, NOW_MS).cleanable_ratio == 0


@pytest.mark.parametrize("stale", [51, 10**9])
def test_a_checkpoint_that_cannot_be_right_means_that_all_is_dirty(
    open_manager: OpenManager, tmp_path: Path, stale: int
) -> None:
    log = make_log(open_manager, tmp_path, compacted())
    log.first_dirty_offset = stale
    assert examine(log, 50, NOW_MS).first_dirty_offset == 0
    log.move_log_start(15)
    log.first_dirty_offset = 10
    assert examine(log, 50, NOW_MS).first_dirty_offset == 15


def test_truncation_takes_back_what_was_cleaned(open_manager: OpenManager, tmp_path: Path) -> None:
    log = make_log(open_manager, tmp_path, compacted())
    log.first_dirty_offset = 40
    log.truncate_to(20)
    assert log.first_dirty_offset == 20


def test_young_records_wait_for_the_minimal_lag(open_manager: OpenManager, tmp_path: Path) -> None:
    log = make_log(open_manager, tmp_path, compacted(min_compaction_lag_ms=1000))
    newest_ms = NOW_MS + 2000 + 9  # of the third segment
    assert examine(log, 50, newest_ms + 999).first_uncleanable_offset == 20
    assert examine(log, 50, newest_ms + 1000).first_uncleanable_offset == 30


def test_old_records_are_due_whatever_the_ratio(open_manager: OpenManager, tmp_path: Path) -> None:
    config = compacted(min_cleanable_dirty_ratio=1.0, max_compaction_lag_ms=5000)
    log = make_log(open_manager, tmp_path, config)
    assert config.roll_ms == 5000
    first_ms = NOW_MS + 9
    assert not examine(log, 50, first_ms + 5000).is_due
    found = examine(log, 50, first_ms + 5001)
    assert (found.is_due, found.compaction_delay_ms) == (True, 1)
    assert not examine(log, 0, first_ms + 5001).is_due


def test_segments_are_grouped_as_far_as_one_can_hold_them(open_manager: OpenManager) -> None:
    cache = open_manager().cache

    def segment(base: int, size: int, index: int = 8) -> Segment:
        made = Segment(cache, "/nowhere", base, created_ms=0)
        made.size_bytes, made.index_bytes, made.time_index_bytes = size, index, 12
        return made

    def bases(*segments: Segment, end: int, **limits: int) -> list[list[int]]:
        groups = group_segments(segments, end, **{"segment_bytes": 100, "index_bytes": 1000, **limits})
        return [[each.base_offset for each in group] for group in groups]

    few = [segment(0, 50), segment(10, 50), segment(20, 1), segment(30, 99), segment(40, 200)]
    assert bases(*few, end=50) == [[0, 10], [20, 30], [40]]
    assert bases(*few, end=50, index_bytes=15) == [[0], [10], [20], [30], [40]]
    far = [segment(0, 1), segment(RELATIVE_OFFSET_MAX, 1), segment(RELATIVE_OFFSET_MAX + 1, 1)]
    assert bases(*far, end=2**33) == [[0, RELATIVE_OFFSET_MAX], [RELATIVE_OFFSET_MAX + 1]]


def test_compact_and_delete_together(open_manager: OpenManager, tmp_path: Path) -> None:
    """Retention takes whole segments from the front, cleaning the older values; neither hinders the other."""
    config = compacted(cleanup_policy=frozenset({"compact", "delete"}), retention_ms=2500, segment_bytes=300)
    log = make_log(open_manager, tmp_path, config, segments=6)
    manager = open_manager(config)
    log = manager.logs[TOPIC]
    manager.doom(log.delete_old_segments(NOW_MS + 4000, 60))
    assert log.log_start_offset == 20
    sweep = Sweep(manager)
    sweep.run()
    assert [each.offset for each in stored(log)[0]] == list(range(40, 60))
    assert log.log_start_offset == 20
    manager.doom(log.delete_old_segments(NOW_MS + 100_000, 60))
    assert log.log_start_offset == 60


def test_a_map_takes_no_more_memory_than_its_keys_need() -> None:
    offsets = OffsetMap(24 << 20, load_factor=0.5, secret=SECRET)
    offsets.begin(0, 10)
    assert offsets.state[0] == 22
    offsets.begin(0, 1 << 40)
    assert offsets.state[0] == 1 << 20
    assert offsets.state[2] == 1 << 19
    assert len(offsets) == 0
    assert offsets.find(b"nothing") == -1
    assert OffsetMap(0, load_factor=0.9, secret=os.urandom(16)).state[2] == 1
