"""Index lookups against a scan from the front, and leader epochs against Kafka's rules."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from millstream.core.log.leader_epochs import EpochEntry, LeaderEpochs
from millstream.core.log.offset_index import OffsetIndex
from millstream.core.log.sparse_index import PAGE_ENTRIES, last_at_or_before
from millstream.core.log.time_index import TimeIndex


@given(
    steps=st.lists(st.integers(0, 50) | st.integers(0, 2**20), max_size=4 * PAGE_ENTRIES),
    probes=st.lists(st.integers(-5, 2**22)),
)
def test_the_last_entry_at_or_before(steps: list[int], probes: list[int]) -> None:
    entry = struct.Struct(">qI")
    keys = [sum(steps[: index + 1]) for index in range(len(steps))]
    data = b"".join(entry.pack(key, index) for index, key in enumerate(keys))

    def read(size: int, position: int) -> bytes:
        assert 0 < size <= PAGE_ENTRIES * entry.size
        return data[position : position + size]

    for probe in [*probes, *keys[::97]]:
        expected = max(((key, index) for index, key in enumerate(keys) if key <= probe), default=None)
        found = last_at_or_before(read, entry, len(keys), probe)
        assert (found and found[0]) == (expected and expected[0])


def test_a_lookup_in_an_even_index_takes_few_reads() -> None:
    entry = struct.Struct(">II")
    count = 262_144  # the index of a 1 GB segment
    data = struct.pack(
        f">{2 * count}I", *(number for index in range(count) for number in (index * 40 + 39, index * 4100))
    )
    worst = 0
    for key in range(0, count * 40, 99_991):
        reads: list[int] = []

        def read(size: int, position: int, reads: list[int] = reads) -> bytes:
            reads.append(position)
            return data[position : position + size]

        found = last_at_or_before(read, entry, count, key)
        assert found == ((key - 39) // 40 * 40 + 39, (key - 39) // 40 * 4100) if key >= 39 else found is None
        worst = max(worst, len(reads))
    assert worst <= 4


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 99)), max_size=40), st.integers(0, 40), st.integers(-3, 500)
)
def test_entries_are_found_in_the_file_and_in_memory(steps: list[tuple[int, int]], stored: int, probe: int) -> None:
    base = 1 << 40
    index, times = OffsetIndex(base, 0), TimeIndex(base, 0, -1)
    entries: list[tuple[int, int]] = []
    file = time_file = b""
    offset, position = base, 0
    for number, (offset_step, position_step) in enumerate(steps):
        offset, position = offset + offset_step, position + position_step
        index.append(offset, position)
        times.maybe_append(position // 2, offset)
        entries.append((offset, position))
        if number + 1 == stored:
            file, time_file = index.tail_bytes(), times.tail_bytes()
            index.tail_stored()
            times.tail_stored()
            assert index.tail_count == times.tail_count == 0

    expected = max((position for offset, position in entries if offset <= base + probe), default=0)
    assert index.lookup(base + probe, lambda size, at: file[at : at + size]) == expected
    assert len(index) == len(steps)
    grown: list[tuple[int, int]] = []
    for offset, position in entries:
        if not grown or position // 2 > grown[-1][0]:
            grown.append((position // 2, offset))
    behind = [offset for timestamp, offset in grown if timestamp <= probe]
    assert times.lookup(probe, lambda size, at: time_file[at : at + size]) == (behind[-1] if behind else base)


def test_leader_epochs() -> None:
    epochs = LeaderEpochs([EpochEntry(0, 0), EpochEntry(2, 10), EpochEntry(5, 30)])
    assert [epochs.end_offset_for(epoch, 50) for epoch in (-1, 0, 1, 2, 4, 5, 6)] == [
        (-1, -1), (0, 10), (0, 10), (2, 30), (2, 30), (5, 50), (-1, -1),
    ]  # fmt: skip
    assert [epochs.epoch_for_offset(offset) for offset in (0, 9, 10, 49)] == [0, 0, 2, 5]
    assert not epochs.changed
    epochs.assign(5, 40)
    assert not epochs.changed
    epochs.assign(4, 20)  # contradicts 5 at 30
    assert epochs.entries == ((0, 0), (2, 10), (4, 20))
    assert epochs.changed
    epochs.truncate_from_start(15)
    assert epochs.entries == ((2, 15), (4, 20))
    assert epochs.end_offset_for(1, 50) == (1, 15)
    epochs.truncate_from_end(20)
    assert epochs.entries == ((2, 15),)
    assert LeaderEpochs().end_offset_for(0, 5) == (-1, -1)
