"""One shard of the group coordinator: the groups of one partition of `__consumer_offsets` in one leader epoch.

Event-sourced: what must survive is in records, and whatever changes state by a record does so in `replay`, at the start
and later alike. Requests, timers and metadata come in as calls with the time; effects go out (`effects.py`), answers
only once what they show is committed (`outbox.py`).

    load      replay(record) for each of the partition's records, in order, then handle_loaded
    unload    close: the partition has another leader, or an append failed; a new shard replays the log

What is not in the log - who waits in a rebalance, sessions - ends with the shard: members find the new one and join
again, as they do when a Kafka broker hands over its coordinator. Owned by the event loop.
"""

from __future__ import annotations

import random
from enum import Enum
from typing import TYPE_CHECKING

from millstream.core.groups.outbox import Outbox

if TYPE_CHECKING:
    from millstream.core.cluster import ClusterImage
    from millstream.core.groups.configs import GroupConfigs
    from millstream.core.groups.effects import Emit
    from millstream.core.groups.group import Group
    from millstream.core.groups.timer_wheel import TimerWheel


class ShardState(Enum):
    """See GroupShard."""

    LOADING = "loading"
    ACTIVE = "active"
    CLOSED = "closed"


class GroupShard:
    """States: LOADING -> ACTIVE (handle_loaded) -> CLOSED (close: resigned, or an append failed)."""

    def __init__(
        self,
        index: int,
        *,
        configs: GroupConfigs,
        image: ClusterImage,
        timers: TimerWheel,
        random_source: random.Random,
        emit: Emit,
    ) -> None:
        self.index = index
        self.state = ShardState.LOADING
        self.configs = configs
        # The cluster's metadata as last told by handle_image: which topics there are, with how many partitions.
        self.image = image
        self.timers = timers
        self.random = random_source
        self.outbox = Outbox(emit)
        self.groups: dict[str, Group] = {}
