"""Which partition a record goes to: by its key as Kafka's own clients choose it, else one partition per batch."""

from __future__ import annotations

from millstream.core._kernels.record_accumulator import murmur2, partition_of_key

__all__ = ["KeylessPartitioner", "murmur2", "partition_of_key"]


class KeylessPartitioner:
    """Gives records without a key to one partition until `bytes_each` went there, then to the next: full batches."""

    def __init__(self, partition_count: int, *, bytes_each: int) -> None:
        self._partition_count = partition_count
        self._bytes_each = bytes_each
        self._partition = 0
        self._bytes = 0

    def partition(self, size_bytes: int) -> int:
        """Return the partition for a record of `size_bytes`."""
        if self._bytes >= self._bytes_each:
            self._bytes = 0
            self._partition = (self._partition + 1) % self._partition_count
        self._bytes += size_bytes
        return self._partition
