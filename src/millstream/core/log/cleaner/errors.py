"""Why a cleaning ended before its end."""

from __future__ import annotations


class CleaningAbortedError(Exception):
    """The log was deleted, moved, truncated, or is no longer compacted, or the cleaner stops: nothing is wrong."""


class SegmentOverflowError(Exception):
    """What stays of a group of segments does not fit one: delete horizons and codecs may make records grow."""


class UncleanableError(Exception):
    """A batch of the log cannot be read. Nothing of it is touched until a person has looked."""

    def __init__(self, path: str, position: int, offset: int, why: str) -> None:
        super().__init__(f"{path}: the batch at byte {position}, offset {offset} or behind it, {why}")
        self.offset = offset
