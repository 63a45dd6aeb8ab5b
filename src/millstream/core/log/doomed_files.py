"""What has left its log and waits to be unlinked: segments' files renamed `.deleted`, folders renamed `-delete`.

file.delete.delay.ms lies between, for readers that still have them open by name. Unlinking gigabytes takes long, so it
is done on a thread of its own. Any thread may add; one unlinks.
"""

from __future__ import annotations

import errno
import heapq
import threading
from collections.abc import Callable
from typing import Final

from millstream.core.log.files import FileSystem

UNLINK_AGAIN_MS: Final = 1000


class DoomedFiles:
    """Files and folders by when their time comes."""

    def __init__(self, files: FileSystem) -> None:
        self._files = files
        self._lock = threading.Lock()
        # (when, a number that keeps the order, paths): a heap.
        self._waiting: list[tuple[int, int, tuple[str, ...]]] = []
        self._count = 0

    def add(self, due_ms: int, paths: tuple[str, ...]) -> None:
        """Unlink these when `due_ms` has come."""
        with self._lock:
            self._count += 1
            heapq.heappush(self._waiting, (due_ms, self._count, paths))

    def unlink_due(self, now_ms: int, on_error: Callable[[OSError, str], object]) -> int:
        """Unlink what is due; return how many files and folders. `on_error` is told what failed, and the path."""
        count = 0
        while True:
            with self._lock:
                if not self._waiting or self._waiting[0][0] > now_ms:
                    return count
                _, _, paths = heapq.heappop(self._waiting)
            for path in paths:
                count += 1
                try:
                    self._unlink(path)
                except FileNotFoundError:
                    continue  # its folder went first
                except OSError as error:
                    if error.errno == errno.ENOTEMPTY:  # somebody ended a file in it just now
                        self.add(now_ms + UNLINK_AGAIN_MS, (path,))
                    else:
                        on_error(error, path)

    def _unlink(self, path: str) -> None:
        try:
            entries = self._files.list_names(path)
        except NotADirectoryError:
            self._files.unlink(path)
            return
        for name, is_folder in entries:
            if is_folder:
                self._unlink(f"{path}/{name}")
            else:
                self._files.unlink(f"{path}/{name}")
        self._files.remove_directory(path)
