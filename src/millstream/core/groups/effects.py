"""What a shard of the group coordinator asks its surroundings to do; `broker/coordinators.py` performs it.

A shard never waits and never calls out. Each event it is given ends in effects, in the order they are to happen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

# A record of the shard's partition; a value of None deletes what the key stands for.
KeyedRecord = tuple[bytes, bytes | None]


class Append(NamedTuple):
    """Write these records as one batch to the shard's partition, in the order of `number`.

    Ends in `GroupShard.handle_committed(number)` once the high watermark covers them, or in `GroupShard.close`: the
    shard's state is ahead of its log then, and is replayed from it.
    """

    number: int
    records: list[KeyedRecord]
    # What the records take in a batch, at most.
    size_bytes: int


class Respond(NamedTuple):
    """Give a request its answer. `reply` is what came with the request; the shard knows nothing of it."""

    reply: object
    response: object


Effect = Append | Respond
Emit = Callable[[Effect], None]
