"""The newest offset of each key in the dirty part of a log: one table in one piece of memory, filled by a kernel.

The memory (`log.cleaner.dedupe.buffer.size`, a thread's share of it) is mapped once and kept; of it only as much is
used, and so touched, as the records at hand can fill. Keys are known by 128 bits of a hash whose secret is made anew by
each process, so that nobody can choose two keys that meet (Kafka takes MD5). Owned by one cleaner thread.

**Slices.** When the memory is full in the middle of the dirty part, Kafka's cleaner copies the log for the keys it has,
and begins again behind them: with a tenth as many keys as records, ten times for a map that holds half of the keys.
Where keys come again, this map is halved instead: it forgets the keys of half of the slices that keys fall into by
their hashes, and reads on. The log is copied once for each set of slices then, and all of it is clean.
"""

from __future__ import annotations

import mmap
from array import array
from typing import Final

from millstream.core._kernels.compaction import (
    clear_table,
    find_offset,
    halve_slices,
    note_keys,
    note_payload_keys,
)
from millstream.core.records import BatchHeader, StopReason

ENTRY_SIZE: Final = 24
PLACES_MIN: Final = 2
PLACES_MAX: Final = 2**31
SLICES: Final = 2**31
# The log is copied this often at most before the part behind what was noted comes in turn.
SLICE_SETS_MAX: Final = 8
# Records a key, in what was read when the map is full, from which on it is halved: with fewer, most keys come but once
# and little would go for the copying.
RECORDS_PER_KEY_MIN: Final = 1.25

_ENTRY_WORDS: Final = ENTRY_SIZE // 8
_PLACES, _ENTRIES, _ENTRIES_MAX, _LATEST, _START, _SECRET = range(6)
_LOOKED, _SLICE, _SLICE_END, _STATE_SIZE = range(7, 11)

assert ENTRY_SIZE == 8 * _ENTRY_WORDS, ENTRY_SIZE


class OffsetMap:
    """The table, between one `begin` and the next; `latest_offset` is how far the log has been read into it."""

    def __init__(self, size_bytes: int, *, load_factor: float, secret: bytes) -> None:
        """Map the memory; `secret` is 16 bytes nobody knows."""
        self._places_max = min(max(size_bytes // ENTRY_SIZE, PLACES_MIN), PLACES_MAX)
        self._load_factor = load_factor
        self._memory = mmap.mmap(-1, self._places_max * ENTRY_SIZE)
        # What the kernel fills, and what it knows of it; see `_kernels.compaction`.
        self.table = memoryview(self._memory).cast("q")
        self.state = array("q", bytes(8 * _STATE_SIZE))
        self.state[_SECRET] = int.from_bytes(secret[:8], "big", signed=True)
        self.state[_SECRET + 1] = int.from_bytes(secret[8:16], "big", signed=True)
        self.begin(0, 1)

    def begin(self, start_offset: int, keys_max: int) -> None:
        """Forget everything; at most `keys_max` keys will come, of records at `start_offset` or behind."""
        self.state[_SLICE], self.state[_SLICE_END] = 0, SLICES
        self._forget(start_offset, keys_max)

    def begin_next_slices(self, start_offset: int, keys_max: int) -> bool:
        """Forget everything, for as many slices behind the ones that were noted; False where those were the last."""
        state = self.state
        count = state[_SLICE_END] - state[_SLICE]
        if state[_SLICE_END] == SLICES:
            return False
        state[_SLICE], state[_SLICE_END] = state[_SLICE_END], min(state[_SLICE_END] + count, SLICES)
        self._forget(start_offset, keys_max)
        return True

    def make_room(self) -> bool:
        """The map is full: note only half of the slices from now on, where that is worth it; say whether it was."""
        state = self.state
        count = state[_SLICE_END] - state[_SLICE]
        records = state[_LOOKED] * count / SLICES
        if count <= SLICES // SLICE_SETS_MAX or records < RECORDS_PER_KEY_MIN * len(self):
            return False
        halve_slices(self.table, state)
        return True

    def _forget(self, start_offset: int, keys_max: int) -> None:
        places = min(self._places_max, max(int(keys_max / self._load_factor) + 2, PLACES_MIN))
        clear_table(self.table, places * _ENTRY_WORDS)
        state = self.state
        state[_PLACES] = places
        state[_ENTRIES] = state[_LOOKED] = 0
        state[_ENTRIES_MAX] = min(max(int(places * self._load_factor), 1), places - 1)
        state[_LATEST] = -1
        state[_START] = start_offset

    def __len__(self) -> int:
        return self.state[_ENTRIES]

    @property
    def utilization(self) -> float:
        """How much of all the memory's places is in use."""
        return len(self) / self._places_max

    @property
    def latest_offset(self) -> int:
        """The newest offset looked at, -1 without one: whatever lies behind it is left as it is."""
        return self.state[_LATEST]

    @latest_offset.setter
    def latest_offset(self, offset: int) -> None:
        self.state[_LATEST] = offset

    @property
    def looked_count(self) -> int:
        """Records looked at, of any slice."""
        return self.state[_LOOKED]

    def note_batches(
        self, data: memoryview, rows: array[int], row: int, row_end: int, actions: bytearray
    ) -> tuple[int, StopReason]:
        """Note the keys of these batches; return the row reached and why it stopped there."""
        row, reason = note_keys(data, rows, row, row_end, actions, self.table, self.state)
        return row, StopReason(reason)

    def note_payload(self, payload: memoryview, header: BatchHeader) -> StopReason:
        """Note the keys of one decompressed batch."""
        return StopReason(
            note_payload_keys(payload, header.count, header.base_offset, header.last_offset, self.table, self.state)
        )

    def find(self, key: bytes) -> int:
        """Return the newest offset noted for the key, -1 where there is none."""
        return find_offset(key, self.table, self.state)
