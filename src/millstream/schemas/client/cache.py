"""BoundedCache: what a client remembers, up to a number of entries; the oldest goes first.

No lock, so that none can be held by another thread at the moment a process forks: every step is one operation of a
dict. Two threads that miss together both ask the registry and both store the same.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class BoundedCache(Generic[K, V]):
    """At most `entries_max` values by key; for any thread."""

    __slots__ = ("_entries", "_entries_max", "get")

    def __init__(self, entries_max: int) -> None:
        self._entries_max = entries_max
        self._entries: dict[K, V] = {}
        # The dict's own, since it is asked once per record: the value, or None.
        self.get: Callable[[K], V | None] = self._entries.get

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, key: K, value: V) -> V:
        """Remember `value`; return it."""
        entries = self._entries
        entries[key] = value
        while len(entries) > self._entries_max:
            try:
                entries.pop(next(iter(entries)), None)
            except (RuntimeError, StopIteration):
                # Another thread added or removed one just now.
                continue
        return value

    def drop(self, wanted: Callable[[K], bool]) -> None:
        """Forget each key that is `wanted`."""
        for key in [key for key in list(self._entries) if wanted(key)]:
            self._entries.pop(key, None)

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
