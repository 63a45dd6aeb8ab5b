"""The aborted transactions that end in one segment (`.txnindex`), so that a read_committed consumer can leave them out.

Layout: entries of 34 bytes, big-endian, in the order of their abort markers; the file exists only where there is one.

    version             int16   0
    producer_id         int64
    first_offset        int64   first record of the transaction
    last_offset         int64   its abort marker
    last_stable_offset  int64   the first offset still undecided once this transaction was closed
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

ENTRY: Final = struct.Struct(">hqqqq")
ENTRY_SIZE: Final = ENTRY.size
VERSION: Final = 0

assert ENTRY_SIZE == 34, ENTRY_SIZE


class AbortedTransaction(NamedTuple):
    """One aborted transaction of one partition."""

    producer_id: int
    first_offset: int
    last_offset: int
    last_stable_offset: int

    def encode(self) -> bytes:
        """Return the entry in the file's form."""
        return ENTRY.pack(VERSION, *self)


class CorruptTransactionIndexError(Exception):
    """The file cannot be a transaction index; it is made again from the log."""


def read_entries(data: bytes, base_offset: int) -> Iterator[AbortedTransaction]:
    """Yield the entries of a `.txnindex` file. Raises CorruptTransactionIndexError at the first that cannot be one."""
    if len(data) % ENTRY_SIZE:
        raise CorruptTransactionIndexError(f"{len(data)} bytes are no whole number of {ENTRY_SIZE}-byte entries")
    for version, *fields in ENTRY.iter_unpack(data):
        aborted = AbortedTransaction(*fields)
        if version != VERSION:
            raise CorruptTransactionIndexError(f"version {version} where {VERSION} is the only one")
        if aborted.last_offset < base_offset or aborted.first_offset > aborted.last_offset:
            raise CorruptTransactionIndexError(f"{aborted} cannot end in the segment at {base_offset}")
        yield aborted
