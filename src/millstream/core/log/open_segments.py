"""The files of segments that are open now: one bounded cache for all logs, so that an idle partition holds none.

A segment is opened when something reads or appends it, and closed when others need its place (second chance: one that
was used since the last look stays). A reader keeps its `OpenSegment` for as long as it works with it; the descriptors
are closed with the last reference, so eviction never pulls a file from under a reader, and takes no lock on the hot
path.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Final

from millstream.core.log.errors import SegmentReplacedError
from millstream.core.log.files import FileSystem

if TYPE_CHECKING:
    from millstream.core.log.segment import Segment

SEGMENTS_MAX: Final = 2048
DESCRIPTORS_PER_SEGMENT: Final = 3

# Two readers that open the same index would otherwise lose one of two descriptors. Reentrant, since opening may have to
# release other segments first.
_opening: Final = threading.RLock()


class OpenSegment:
    """The descriptors of one segment. Its indexes are opened when first wanted."""

    __slots__ = ("_files", "_index_fd", "_stem", "_time_index_fd", "log_fd", "replaced", "used")

    def __init__(self, files: FileSystem, stem: str) -> None:
        """Open `<stem>.log`; OSError as the system says."""
        self._files = files
        self._stem = stem
        self._index_fd = self._time_index_fd = self.log_fd = -1
        # Set by each use, cleared when the cache looks for one to close.
        self.used = True
        # Whether the names are another segment's now: what is open can be read on, nothing more is opened.
        self.replaced = False
        self.log_fd = files.open(stem + ".log", os.O_RDWR)

    def index_fd(self) -> int:
        """Return the descriptor of `<stem>.index`."""
        if self._index_fd < 0:
            with _opening:
                if self._index_fd < 0:
                    self._index_fd = self._open(".index")
        return self._index_fd

    def time_index_fd(self) -> int:
        """Return the descriptor of `<stem>.timeindex`."""
        if self._time_index_fd < 0:
            with _opening:
                if self._time_index_fd < 0:
                    self._time_index_fd = self._open(".timeindex")
        return self._time_index_fd

    def _open(self, suffix: str) -> int:
        if self.replaced:
            raise SegmentReplacedError(self._stem + suffix)
        return self._files.open(self._stem + suffix, os.O_RDWR)

    @property
    def has_index(self) -> bool:
        """Whether a lookup needs no file to be opened."""
        return self._index_fd >= 0

    def __del__(self) -> None:
        for fd in (self.log_fd, self._index_fd, self._time_index_fd):
            if fd >= 0:
                try:
                    self._files.close(fd)
                except OSError:
                    continue  # fsync has told whether data is safe; the descriptor is gone either way


class OpenSegments:
    """The bounded cache. `size_max` segments, each at most DESCRIPTORS_PER_SEGMENT descriptors."""

    def __init__(self, files: FileSystem, *, size_max: int = SEGMENTS_MAX) -> None:
        self.files = files
        self._size_max = size_max
        self._lock = threading.RLock()
        self._open: dict[Segment, OpenSegment] = {}
        files.release_descriptors = self.close_half

    def __len__(self) -> int:
        return len(self._open)

    def open(self, segment: Segment) -> OpenSegment:
        """Open the segment's log file, or return it where another thread just has. Blocks. Raises OSError."""
        with self._lock:
            if segment.opened is not None:
                return segment.opened
            if segment.replaced:
                raise SegmentReplacedError(segment.stem + ".log")
            self._make_room(1)
            opened = OpenSegment(self.files, segment.stem)
            self._open[segment] = opened
            segment.opened = opened
            return opened

    def close(self, segment: Segment) -> None:
        """Forget the segment's descriptors: it is deleted or its log closes."""
        with self._lock:
            self._open.pop(segment, None)
            segment.opened = None

    def replace(self, segment: Segment) -> None:
        """A cleaned segment takes its place: whoever has files of it open may read on, nobody opens any."""
        with self._lock, _opening:
            segment.replaced = True
            opened = self._open.pop(segment, None)
            if opened is not None:
                opened.replaced = True
            segment.opened = None

    def close_half(self) -> bool:
        """Close half of what is open: others hold the descriptors that were counted on. False where none is open."""
        with self._lock:
            count = (len(self._open) + 1) // 2
            for segment in list(self._open)[:count]:
                del self._open[segment]
                segment.opened = None
            return count > 0

    def close_idle(self) -> int:
        """Close what was not used since the last call; return how many. Called now and then, on a thread."""
        closed = 0
        with self._lock:
            for segment, opened in list(self._open.items()):
                if opened.used:
                    opened.used = False
                else:
                    del self._open[segment]
                    segment.opened = None
                    closed += 1
        return closed

    def _make_room(self, places: int) -> None:
        tries = 2 * len(self._open)
        while self._open and len(self._open) + places > self._size_max:
            segment, opened = next(iter(self._open.items()))
            del self._open[segment]
            tries -= 1
            if opened.used and tries > 0:
                opened.used = False
                self._open[segment] = opened
            else:
                segment.opened = None
