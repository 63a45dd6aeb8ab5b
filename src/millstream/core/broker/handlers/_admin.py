"""What the administrative handlers share: errors as fields of an answer, duplicates, commits that are waited for."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

from millstream.core.broker.context import Operation, RequestContext, ResourceType
from millstream.core.cluster import ClusterImage
from millstream.core.cluster.metadata import Plan
from millstream.core.cluster.slices import Slices
from millstream.core.wire import ErrorCode, KafkaError

if TYPE_CHECKING:
    from millstream.core.broker.broker import Broker

logger = logging.getLogger(__name__)

# Kafka's own sentences, where clients and operators search for them.
AUTHORIZATION_FAILED: Final = "Authorization failed."
CLUSTER_AUTHORIZATION_FAILED: Final = "Cluster authorization failed."
DUPLICATE_TOPIC: Final = "Duplicate topic name."
UNKNOWN_TOPIC: Final = "This server does not host this topic-partition."
UNKNOWN_TOPIC_ID: Final = "This server does not host this topic ID."
TIMED_OUT: Final = "The request timed out: the change may be made yet; look before you ask again."

PARTITIONS_PER_REQUEST_MAX: Final = 10_000  # partitions that one request may create, as in Kafka

CLUSTER_OPERATIONS: Final = (
    Operation.CREATE,
    Operation.ALTER,
    Operation.DESCRIBE,
    Operation.CLUSTER_ACTION,
    Operation.DESCRIBE_CONFIGS,
    Operation.ALTER_CONFIGS,
    Operation.IDEMPOTENT_WRITE,
)


_TOPIC_OPERATIONS: Final = (
    Operation.READ,
    Operation.WRITE,
    Operation.CREATE,
    Operation.DELETE,
    Operation.ALTER,
    Operation.DESCRIBE,
    Operation.DESCRIBE_CONFIGS,
    Operation.ALTER_CONFIGS,
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
    return sum(1 << operation for operation in CLUSTER_OPERATIONS if context.permits_cluster(operation))


def topic_operations(name: str, context: RequestContext) -> int:
    """The operations on a topic that the one who asks may do, as the protocol's bit field."""
    return sum(
        1 << operation for operation in _TOPIC_OPERATIONS if context.permits(operation, ResourceType.TOPIC, name)
    )


async def commit_applied(broker: Broker, plan: Plan, timeout_ms: int) -> bool:
    """Commit a plan and wait until this broker serves what it made; False where that outlasts the client's patience.

    What the client does not wait for is done all the same. Raises what the commit raises: KafkaError.
    """
    deadline = broker.loop.time() + max(timeout_ms, 0) / 1000
    commit = broker.loop.create_task(broker.metadata.commit(plan))
    done, _ = await asyncio.wait([commit], timeout=deadline - broker.loop.time())
    if not done:
        commit.add_done_callback(_note_late)
        return False
    version = commit.result().version
    try:
        async with asyncio.timeout_at(deadline):
            await broker.partitions.applied(version)
    except TimeoutError:
        return broker.partitions.applied_version >= version
    return True


def _note_late(commit: asyncio.Task[ClusterImage]) -> None:
    if not commit.cancelled() and (error := commit.exception()) is not None:
        logger.warning("a change of the metadata, whose client no longer waits, failed: %s", error)


async def walk(plan: Iterable[object]) -> None:
    """Run through a plan that is only to be validated, as long as it may be."""
    slices = Slices()
    for _ in plan:
        await slices.pause()
