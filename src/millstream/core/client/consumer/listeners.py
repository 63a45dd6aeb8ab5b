"""What an application may hang into a consumer: a rebalance listener, and interceptors."""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Mapping, Sequence
from typing import Any

from millstream.core.client.cluster import TopicPartition
from millstream.core.client.group_offsets import CommittedOffset


class RebalanceListener:
    """Is told of a group's assignments from inside poll, unsubscribe and close. Methods may be plain or async.

    Within them the consumer may be used, but for poll; what is committed in on_revoked is committed under the
    generation that ends. An exception is raised by the poll that ran it; the assignment goes on.
    """

    def on_assigned(self, partitions: Collection[TopicPartition]) -> Awaitable[None] | None:
        """`partitions` are new here: seek in them if reading is to begin elsewhere than at the committed offset."""

    def on_revoked(self, partitions: Collection[TopicPartition]) -> Awaitable[None] | None:
        """`partitions` are about to be taken away: finish what was begun with them, and commit."""

    def on_lost(self, partitions: Collection[TopicPartition]) -> Awaitable[None] | None:
        """`partitions` are others' already: nothing can be committed for them. As on_revoked unless overridden."""
        return self.on_revoked(partitions)


class ConsumerInterceptor:
    """Sees what is handed over and what is committed. An exception is logged and changes nothing."""

    def on_consume(self, records: Sequence[Any]) -> Sequence[Any]:
        """Return what the application gets instead of `records`: FetchedRecords from poll, else ConsumerRecords."""
        return records

    def on_commit(self, offsets: Mapping[TopicPartition, CommittedOffset]) -> None:
        """`offsets` have been committed."""

    def close(self) -> None:
        """The consumer is closed."""
