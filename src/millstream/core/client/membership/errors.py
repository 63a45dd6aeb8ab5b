"""What goes wrong for a member that its user has to know apart."""

from __future__ import annotations

from millstream.core.wire import KafkaError


class CommitFailedError(KafkaError):
    """Offsets were not committed, and never will be by this member as it is: the partitions may be others' by now.

    What was read since the last commit is read again by whoever has the partition.
    """


class RebalanceInProgressError(CommitFailedError):
    """Offsets were not committed because the group is rebalancing: poll until that is over, then commit again."""
