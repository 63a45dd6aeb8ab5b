"""What the administrative handlers share: errors as fields of an answer, duplicates, waiting for what was committed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

from millstream.core.broker.context import Operation, RequestContext, ResourceType
from millstream.core.wire import ErrorCode, KafkaError

if TYPE_CHECKING:
    from millstream.core.broker.broker import Broker

# Kafka's own sentences, where clients and operators search for them.
AUTHORIZATION_FAILED: Final = "Authorization failed."
CLUSTER_AUTHORIZATION_FAILED: Final = "Cluster authorization failed."
DUPLICATE_TOPIC: Final = "Duplicate topic name."
UNKNOWN_TOPIC: Final = "This server does not host this topic-partition."
UNKNOWN_TOPIC_ID: Final = "This server does not host this topic ID."
TIMED_OUT: Final = "The request timed out: the change is committed, and this broker has not applied it yet."

PARTITIONS_PER_REQUEST_MAX: Final = 10_000  # partitions that one request may create, as in Kafka

_CLUSTER_OPERATIONS: Final = (
    Operation.CREATE,
    Operation.ALTER,
    Operation.DESCRIBE,
    Operation.CLUSTER_ACTION,
    Operation.DESCRIBE_CONFIGS,
    Operation.ALTER_CONFIGS,
    Operation.IDEMPOTENT_WRITE,
)


class Fault(NamedTuple):
    """An error as an answer carries it."""

    code: ErrorCode
    message: str | None

    @classmethod
    def of(cls, error: KafkaError) -> Fault:
        """The code and the message of an exception."""
        return cls(error.code, error.message)


NO_FAULT: Final = Fault(ErrorCode.NONE, None)


def duplicates(names: Iterable[str]) -> set[str]:
    """The names that stand more than once."""
    return {name for name, count in Counter(names).items() if count > 1}


def may(context: RequestContext, operation: Operation, topic: str) -> bool:
    """Whether the one who asks may do this to a topic."""
    return context.permits(operation, ResourceType.TOPIC, topic)


def cluster_operations(context: RequestContext) -> int:
    """The operations on the cluster that the one who asks may do, as the protocol's bit field."""
    return sum(1 << operation for operation in _CLUSTER_OPERATIONS if context.permits_cluster(operation))


async def wait_applied(broker: Broker, version: int, timeout_ms: int) -> bool:
    """Wait until this broker serves the image of `version`; False where that takes longer than the client waits."""
    try:
        async with asyncio.timeout(max(timeout_ms, 0) / 1000):
            await broker.partitions.applied(version)
    except TimeoutError:
        return broker.partitions.applied_version >= version
    return True
