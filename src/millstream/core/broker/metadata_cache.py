"""Encoded Metadata answers, kept for who asks the same while nothing has changed. Owned by the event loop."""

from __future__ import annotations

from typing import Final

# Answers kept, and the bytes of all of them.
CACHED_COUNT_MAX: Final = 256
CACHED_SIZE_BYTES_MAX: Final = 8 * 1024 * 1024

# (version, listener, topic names or None for all, with the topics' operations, with the cluster's operations)
CacheKey = tuple[int, str, tuple[str, ...] | None, bool, bool]


class MetadataCache:
    """Encoded answers of one image; all are dropped when the image or a partition's state changes."""

    def __init__(self) -> None:
        self._stamp: tuple[int, int] = (-1, -1)
        self._bodies: dict[CacheKey, bytes] = {}
        self._size_bytes = 0

    def get(self, key: CacheKey, stamp: tuple[int, int]) -> bytes | None:
        """Return the answer to a request like `key` at the version of everything that `stamp` says."""
        if stamp != self._stamp:
            self._bodies.clear()
            self._size_bytes = 0
            self._stamp = stamp
        return self._bodies.get(key)

    def put(self, key: CacheKey, body: bytes) -> None:
        """Keep an answer, within the bounds."""
        if len(self._bodies) >= CACHED_COUNT_MAX or self._size_bytes + len(body) > CACHED_SIZE_BYTES_MAX:
            self._bodies.clear()
            self._size_bytes = 0
        if len(body) <= CACHED_SIZE_BYTES_MAX and key not in self._bodies:
            self._bodies[key] = body
            self._size_bytes += len(body)
