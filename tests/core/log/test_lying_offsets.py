"""A flipped bit in a batch's base offset, which no CRC covers: that batch is kept and not served, all others are."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.core.log.conftest import OpenManager
from tests.support.logs import NOW_MS, TOPIC_ID, Stored, append, batch, read_all

from millstream.core.log import CorruptBatchError, Log, LogConfig, LogManager, TopicPartition
from millstream.core.log.config import COMPACT
from millstream.core.log.damage import RANGES_PER_SEGMENT_MAX, CorruptRange, merge_ranges
from millstream.core.log.lying_offsets import Placed, is_one_bit_up, liars, placed
from millstream.core.records import read_header

TP = TopicPartition("flights", 0)
CONFIG = LogConfig(segment_bytes=1200, index_interval_bytes=150)
BATCHES = 40
A_BATCH = 3


class Kept(NamedTuple):
    """Where a batch lies on disk."""

    path: Path
    position: int
    base_offset: int


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data" / "flights-0"


def record(offset: int) -> Stored:
    number, index = divmod(offset, A_BATCH)
    return Stored(offset, NOW_MS + index, b"value %02d.%d" % (number, index))


def write(manager: LogManager, config: LogConfig = CONFIG, count: int = BATCHES) -> Log:
    log = manager.create_log(TP, TOPIC_ID, config)
    for number in range(count):
        values = [b"value %02d.%d" % (number, index) for index in range(A_BATCH)]
        append(log, *values, producer_id=7, producer_epoch=0, base_sequence=number * A_BATCH, leader_epoch=number // 9)
    return log


def stop(manager: LogManager, how: str) -> None:
    manager.close() if how == "stopped" else manager.release()


def batches_of(folder: Path) -> list[Kept]:
    found = []
    for path in sorted(folder.glob("*.log")):
        data, position = path.read_bytes(), 0
        while position < len(data):
            header = read_header(data, position)
            found.append(Kept(path, position, header.base_offset))
            position += header.size_bytes
    return found


def lie(kept: Kept, base_offset: int) -> None:
    data = bytearray(kept.path.read_bytes())
    data[kept.position : kept.position + 8] = (base_offset % 2**64).to_bytes(8, "big")
    kept.path.write_bytes(data)


def check(log: Log, lost: range, end_offset: int = BATCHES * A_BATCH) -> None:
    assert log.log_end_offset == end_offset
    expected = [record(offset) for offset in range(end_offset) if offset not in lost]
    assert read_all(log) == expected
    assert read_all(log, size_bytes=1) == expected
    for offset in range(end_offset):
        if offset in lost:
            with pytest.raises(CorruptBatchError) as refused:
                log.read(offset, 1)
            assert refused.value.next_offset == lost.stop
        else:
            assert log.read(offset, 1).first_offset == offset - offset % A_BATCH
    assert [(each.first_offset, each.next_offset) for each in log.corrupt_ranges] == [(lost.start, lost.stop)]


@pytest.mark.parametrize("how", ["stopped", "killed"])
@pytest.mark.parametrize("bit", [*range(9), 20, 40, 62, 63])
@pytest.mark.parametrize("where", ["first", "middle", "before a roll", "behind a roll", "last"])
def test_one_lying_batch_costs_no_other(
    open_manager: OpenManager, folder: Path, where: str, bit: int, how: str
) -> None:
    manager = open_manager(CONFIG)
    write(manager)
    stop(manager, how)
    kept = batches_of(folder)
    rolled = next(index for index, each in enumerate(kept) if index > 9 and not each.position)
    index = {"first": 0, "middle": rolled + 3, "before a roll": rolled - 1, "behind a roll": rolled, "last": -1}[where]
    lie(kept[index], kept[index].base_offset ^ 1 << bit)
    sizes = {each.path: each.path.stat().st_size for each in kept}

    log = open_manager(CONFIG).logs[TP]

    check(log, range(kept[index].base_offset, kept[index].base_offset + A_BATCH))
    assert {path: path.stat().st_size for path in sizes} == sizes
    assert append(log, b"more", leader_epoch=9).first_offset == BATCHES * A_BATCH
    assert read_all(log)[-1].value == b"more"


def test_what_recovery_learns_of_producers_and_epochs_is_without_the_lie(
    open_manager: OpenManager, folder: Path
) -> None:
    manager = open_manager(CONFIG)
    write(manager)
    manager.release()
    bad = batches_of(folder)[18]  # the first of its leader epoch
    lie(bad, bad.base_offset + 256)

    log = open_manager(CONFIG).logs[TP]

    (entry,) = log.active_producers()
    assert entry.last_sequence == BATCHES * A_BATCH - 1
    assert [batch.first_offset for batch in entry.batches] == [offset * A_BATCH for offset in range(35, 40)]
    assert log.leader_epochs.entries == ((0, 0), (1, 27), (2, 54), (3, 81), (4, 108))
    duplicate = [b"value 39.%d" % index for index in range(A_BATCH)]
    again = append(log, *duplicate, producer_id=7, producer_epoch=0, base_sequence=39 * A_BATCH, leader_epoch=9)
    assert (again.first_offset, again.duplicate) == (39 * A_BATCH, True)


def test_a_bit_that_flips_while_the_log_is_served(open_manager: OpenManager, folder: Path) -> None:
    log = write(open_manager(CONFIG))
    log.roll()
    kept = batches_of(folder)
    assert len(read_all(log, size_bytes=1)) == BATCHES * A_BATCH  # every position is remembered
    lie(kept[17], kept[17].base_offset + 64)
    assert log.read(16 * A_BATCH, 10_000).next_offset == 17 * A_BATCH  # a reader that comes from just before it
    check(log, range(17 * A_BATCH, 18 * A_BATCH))


@pytest.mark.parametrize("to", [54, 60, 75, 80])
def test_a_truncation_behind_a_lie_cuts_where_it_is_told(open_manager: OpenManager, folder: Path, to: int) -> None:
    config = LogConfig(segment_bytes=100_000)
    log = write(open_manager(config), config)
    kept = batches_of(folder)
    lie(kept[17], kept[17].base_offset + 512)
    log.truncate_to(to)
    lost = range(17 * A_BATCH, 18 * A_BATCH)
    end_offset = to - to % A_BATCH
    assert log.log_end_offset == end_offset
    assert read_all(log) == [record(offset) for offset in range(end_offset) if offset not in lost]


def test_a_reader_that_may_not_wait_is_sent_to_a_thread(open_manager: OpenManager, folder: Path) -> None:
    log = write(open_manager(CONFIG))
    kept = batches_of(folder)
    read_all(log)
    lie(kept[17], kept[17].base_offset + 1)
    with pytest.raises(BlockingIOError):
        log.read(kept[17].base_offset, 1, wait=False)


@pytest.mark.parametrize("how", ["stopped", "killed"])
@pytest.mark.parametrize("number", [8, 9])
@pytest.mark.parametrize("change", [-32, 32, 1024])
def test_in_a_log_with_gaps_no_record_has_another_offset(
    open_manager: OpenManager, folder: Path, number: int, change: int, how: str
) -> None:
    """Compaction leaves gaps. What cannot be told apart is not served; what is served has its own offset."""
    config = LogConfig(cleanup_policy=frozenset({COMPACT}), segment_bytes=100_000, index_interval_bytes=150)
    manager = open_manager(config)
    write(manager, config)
    manager.close()
    kept = batches_of(folder)
    data = kept[0].path.read_bytes()
    staying = [each for index, each in enumerate(kept) if index % 4 != 1]
    ends = [*(each.position for each in kept[1:]), len(data)]
    compacted = b"".join(data[each.position : ends[kept.index(each)]] for each in staying)
    kept[0].path.write_bytes(compacted)
    for path in folder.glob("*index"):
        path.unlink()
    if how == "killed":
        (folder.parent / ".kafka_cleanshutdown").unlink()
        (folder.parent / "recovery-point-offset-checkpoint").unlink()
    bad = batches_of(folder)[number]
    lie(bad, bad.base_offset + change)

    log = open_manager(config).logs[TP]

    found = read_all(log)
    whole = {record(each.base_offset + index) for each in staying for index in range(A_BATCH)}
    lost = whole.difference(found)
    assert whole.issuperset(found)
    assert {record(bad.base_offset + index) for index in range(A_BATCH)} <= lost
    assert len(lost) <= (2 if change < 0 else 1) * A_BATCH
    assert log.log_end_offset == BATCHES * A_BATCH


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_many_lies_are_told_apart(open_manager: OpenManager, folder: Path, how: str) -> None:
    config = LogConfig(segment_bytes=100_000)
    manager = open_manager(config)
    write(manager, config, 120)
    stop(manager, how)
    kept = batches_of(folder)
    for each in kept[10:90:4]:
        lie(each, each.base_offset ^ 0x4000)
    log = open_manager(config).logs[TP]
    lost = {number * A_BATCH + index for number in range(10, 90, 4) for index in range(A_BATCH)}
    assert read_all(log) == [record(offset) for offset in range(120 * A_BATCH) if offset not in lost]
    assert log.log_end_offset == 120 * A_BATCH


@given(counts=st.lists(st.integers(1, 5), min_size=3, max_size=6), at=st.integers(0, 4), bit=st.integers(0, 20))
def test_among_contiguous_batches_the_liar_is_always_found(counts: list[int], at: int, bit: int) -> None:
    offsets = [100 + sum(counts[:index]) for index in range(len(counts) + 1)]
    at %= len(counts) - 1
    told = [Placed(index, 1, offset, count) for index, (offset, count) in enumerate(zip(offsets, counts, strict=False))]
    told[at] = told[at]._replace(base_offset=told[at].base_offset ^ 1 << bit)
    expected = 100
    before = None
    for index, here in enumerate(told):
        if here.base_offset < (before.next_offset if before else expected):
            behind = told[index + 1].base_offset if index + 1 < len(told) else offsets[-1]
            assert list(liars(expected, before, here, behind)) == [told[at]]
            return
        if before is not None:
            expected = before.next_offset
        before = here
    pytest.fail("the lie did not show")


def test_a_batch_is_told_by_its_crc_whatever_its_offset() -> None:
    data = bytearray(batch(b"a", b"b"))
    data[:8] = (-5).to_bytes(8, "big", signed=True)
    assert placed(memoryview(data), 9) == Placed(9, len(data), -5, 2)
    assert placed(memoryview(data)[:-1], 9) is None
    data[70] ^= 1
    assert placed(memoryview(data), 9) is None
    assert is_one_bit_up(12, 8)
    assert not is_one_bit_up(8, 12)
    assert not is_one_bit_up(11, 8)


def test_ranges_are_bounded() -> None:
    apart = [CorruptRange(0, 10 * n, 10 * n + 5, n, n + 1) for n in range(RANGES_PER_SEGMENT_MAX + 50)]
    other = CorruptRange(1000, 0, 5, 1000, 1001)
    merged = merge_ranges([other, *reversed(apart)])
    assert len(merged) == RANGES_PER_SEGMENT_MAX + 1
    assert merged[:-2] == apart[: RANGES_PER_SEGMENT_MAX - 1]
    assert merged[-2] == CorruptRange(0, 2550, apart[-1].end_position, 255, apart[-1].next_offset)
    assert merged[-1] == other
    assert merge_ranges([CorruptRange(0, 0, 5, 0, 1), CorruptRange(0, 5, 9, 1, 4)]) == [CorruptRange(0, 0, 9, 0, 4)]


def test_a_segment_full_of_damage_is_told_as_one(
    open_manager: OpenManager, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = LogConfig(segment_bytes=1 << 20)
    manager = open_manager(config)
    log = manager.create_log(TP, TOPIC_ID, config)
    count = 2 * RANGES_PER_SEGMENT_MAX + 100
    for index in range(count):
        append(log, b"%d" % index)
    manager.release()
    kept = batches_of(folder)
    data = bytearray(kept[0].path.read_bytes())
    for each in kept[1:-1:2]:
        data[each.position + 64] ^= 1
    kept[0].path.write_bytes(data)
    log = open_manager(config).logs[TP]
    assert len(log.corrupt_ranges) == RANGES_PER_SEGMENT_MAX
    found = read_all(log)
    assert [each.offset for each in found[:3]] == [0, 2, 4]
    assert found[-1].offset == log.log_end_offset - 1 == count - 1
    assert all(each.value == b"%d" % each.offset for each in found)
    assert sum("whatever is intact between" in each.message for each in caplog.records) == 1
