"""The bound on what a consumer holds: bytes buffered, and in the hands of the application.

A lease stands for the records of one answer, or for one decompressed piece. An answer's bytes lie in one piece of
memory, so all of it stays held until the last view of it is dropped; that is what is counted. Leases end on any thread
and inside garbage collection, since the application's arrays do; so nothing here takes a lock: each step that other
threads can see is one operation on a deque, a set or a list.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable


class FetchMemory:
    """Bytes held, against a bound that pauses fetching. Leases end on any thread; the rest belongs to the loop.

    An answer may bring one batch more than was asked for, as Kafka sends a batch larger than the limit whole; so the
    bound can be passed by one batch per broker.
    """

    def __init__(self, bound_bytes: int, on_room: Callable[[], None] | None = None) -> None:
        self.bound_bytes = bound_bytes
        # Called on whatever thread ends a lease.
        self.on_room = on_room
        self._held_bytes = 0
        # What leases added and gave back since `held_bytes` was last asked for.
        self._changes: deque[int] = deque()

    @property
    def held_bytes(self) -> int:
        """Bytes of what was fetched and is still in use."""
        changes = self._changes
        while changes:
            self._held_bytes += changes.popleft()
        return self._held_bytes

    def lease(self, size_bytes: int) -> Lease:
        """Count `size_bytes` until the lease ends."""
        self._changes.append(size_bytes)
        return Lease(self, size_bytes)

    def _give_back(self, size_bytes: int) -> None:
        self._changes.append(-size_bytes)
        if self.on_room is not None:
            self.on_room()


class Lease:
    """Memory in use: until the last of the views it is shared with is dropped, or it is released outright."""

    __slots__ = ("__weakref__", "_owed", "_views", "memory", "size_bytes")

    def __init__(self, memory: FetchMemory, size_bytes: int) -> None:
        self.memory = memory
        self.size_bytes = size_bytes
        # What is to be given back; empty once that was done.
        self._owed = [size_bytes]
        # Ids of the views that hold it.
        self._views: set[int] = set()

    def share(self, view: memoryview) -> None:
        """Hold the memory for `view` as well, until it is dropped or nothing refers to it any more."""
        self._views.add(id(view))
        weakref.finalize(view, self._forget, id(view)).atexit = False

    def drop(self, view: memoryview) -> None:
        """Stop holding for `view`."""
        self._forget(id(view))

    def release(self) -> None:
        """End the lease. Does nothing the second time."""
        try:
            owed = self._owed.pop()
        except IndexError:
            return
        self.memory._give_back(owed)

    def _forget(self, key: int) -> None:
        try:
            self._views.remove(key)
        except KeyError:
            return
        if not self._views:
            self.release()

    def release_unshared(self) -> None:
        """End the lease if no view holds it: nothing of the answer was of use."""
        if not self._views:
            self.release()
