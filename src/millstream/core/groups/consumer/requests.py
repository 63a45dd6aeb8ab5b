"""Requests of the consumer protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from millstream.core.wire import ErrorCode
from millstream.core.wire.messages.consumer_group_describe import DescribedGroup

if TYPE_CHECKING:
    from millstream.core.cluster import ClusterImage
    from millstream.core.groups.group import Caller
    from millstream.core.groups.shard import GroupShard


class ConsumerRequests:
    """Serves the groups of the consumer protocol of one shard."""

    def __init__(self, shard: GroupShard) -> None:
        self._shard = shard

    def replay(self, key: Any, value: Any) -> None:
        """Apply one record."""

    def handle_loaded(self, now_ms: int) -> None:
        """The log was replayed."""

    def handle_image(self, old: ClusterImage, new: ClusterImage, now_ms: int) -> None:
        """Topics came, went or grew."""

    def describe_group(self, group_id: str, caller: Caller) -> DescribedGroup:
        """Describe one group."""
        return DescribedGroup(group_id=group_id, error_code=ErrorCode.GROUP_ID_NOT_FOUND)
