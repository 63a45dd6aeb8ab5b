"""Which leader epoch began at which offset: what followers and consumers compare to find where logs diverge (KIP-101).

Epochs and start offsets both ascend. Held in memory; the holder of the log's write lock writes it to
`leader-epoch-checkpoint` when it has changed (`checkpoints`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import NamedTuple

UNDEFINED_EPOCH = -1
UNDEFINED_OFFSET = -1


class EpochEntry(NamedTuple):
    """A leader epoch and the first offset written under it."""

    epoch: int
    start_offset: int


class LeaderEpochs:
    """The epochs of one log, oldest first."""

    __slots__ = ("_entries", "changed")

    def __init__(self, entries: Iterable[EpochEntry] = ()) -> None:
        # Replaced on every change, never changed in place, so that any thread may read it.
        self._entries: tuple[EpochEntry, ...] = ()
        for entry in entries:
            self.assign(*entry)
        # Whether the checkpoint file is behind.
        self.changed = False

    @property
    def entries(self) -> tuple[EpochEntry, ...]:
        return self._entries

    @property
    def latest_epoch(self) -> int:
        """The newest epoch, UNDEFINED_EPOCH without one."""
        return self._entries[-1].epoch if self._entries else UNDEFINED_EPOCH

    def assign(self, epoch: int, start_offset: int) -> None:
        """Note that `epoch` begins at `start_offset`; later entries that contradict it go."""
        if epoch < 0 or start_offset < 0:
            return
        entries = self._entries
        if entries and entries[-1].epoch == epoch and start_offset >= entries[-1].start_offset:
            return
        kept = len(entries)
        while kept and (entries[kept - 1].epoch >= epoch or entries[kept - 1].start_offset >= start_offset):
            kept -= 1
        self._entries = (*entries[:kept], EpochEntry(epoch, start_offset))
        self.changed = True

    def end_offset_for(self, epoch: int, log_end_offset: int) -> tuple[int, int]:
        """Return (epoch, end offset) of the largest known epoch at or before `epoch`; (-1, -1) where nothing is known.

        The end offset of an epoch is where the next one begins (Kafka's OffsetForLeaderEpoch, KIP-279).
        """
        entries = self._entries
        if epoch == UNDEFINED_EPOCH or not entries or epoch > entries[-1].epoch:
            return UNDEFINED_EPOCH, UNDEFINED_OFFSET
        if epoch == entries[-1].epoch:
            return epoch, log_end_offset
        higher = bisect_right(entries, (epoch, 2**63))
        if higher == 0:
            return epoch, entries[0].start_offset
        return entries[higher - 1].epoch, entries[higher].start_offset

    def epoch_for_offset(self, offset: int) -> int:
        """Return the epoch under which `offset` was written, UNDEFINED_EPOCH where that is unknown."""
        found = UNDEFINED_EPOCH
        for entry in self._entries:
            if entry.start_offset > offset:
                break
            found = entry.epoch
        return found

    def truncate_from_end(self, end_offset: int) -> None:
        """Drop epochs that begin at or behind `end_offset`."""
        kept = tuple(entry for entry in self._entries if entry.start_offset < end_offset)
        if kept != self._entries:
            self._entries, self.changed = kept, True

    def truncate_from_start(self, start_offset: int) -> None:
        """Drop epochs that ended before `start_offset`; the one it lies in now begins there."""
        entries = self._entries
        first = sum(1 for entry in entries if entry.start_offset <= start_offset) - 1
        if first < 0 or (first == 0 and entries[0].start_offset == start_offset):
            return
        self._entries = (EpochEntry(entries[first].epoch, start_offset), *entries[first + 1 :])
        self.changed = True

    def clear(self) -> None:
        """Forget everything."""
        if self._entries:
            self._entries, self.changed = (), True
