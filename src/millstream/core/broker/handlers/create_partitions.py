"""CreatePartitions (key 37): more partitions for topics (KIP-195).

Versions  0 all of it   1 throttle time   2 flexible   3 controller quota

An answer without an error means that every new partition is served: its log exists and takes records, or, where the
disk refused that, it is offline and tried again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from millstream.core.broker.context import Operation, RequestContext
from millstream.core.broker.delayed import Delayed
from millstream.core.broker.handlers._admin import (
    AUTHORIZATION_FAILED,
    DUPLICATE_TOPIC,
    TIMED_OUT,
    Fault,
    commit_applied,
    duplicates,
    may,
    walk,
)
from millstream.core.cluster import AddPartitions, ClusterImage
from millstream.core.cluster.topics import plan_create_partitions
from millstream.core.wire import ErrorCode, KafkaError
from millstream.core.wire.messages.create_partitions import (
    CreatePartitionsRequest,
    CreatePartitionsResponse,
    CreatePartitionsTopic,
    CreatePartitionsTopicResult,
)

if TYPE_CHECKING:
    from millstream.core.broker.broker import Broker


def create_partitions(
    broker: Broker, request: CreatePartitionsRequest, context: RequestContext
) -> Delayed[CreatePartitionsResponse]:
    """Grow the topics that can be; each has its own error."""
    return Delayed.from_coroutine(broker.loop, _create_partitions(broker, request, context))


async def _create_partitions(
    broker: Broker, request: CreatePartitionsRequest, context: RequestContext
) -> CreatePartitionsResponse:
    faults: dict[str, Fault] = {}
    accepted: list[CreatePartitionsTopic] = []
    repeated = duplicates(topic.name for topic in request.topics)
    for topic in request.topics:
        if topic.name in repeated:
            faults[topic.name] = Fault(ErrorCode.INVALID_REQUEST, DUPLICATE_TOPIC)
        elif not may(context, Operation.ALTER, topic.name):
            faults[topic.name] = Fault(ErrorCode.TOPIC_AUTHORIZATION_FAILED, AUTHORIZATION_FAILED)
        else:
            accepted.append(topic)

    def plan(image: ClusterImage) -> Iterator[AddPartitions]:
        for topic in accepted:
            assignments = topic.assignments
            given = None if assignments is None else [assignment.broker_ids for assignment in assignments]
            try:
                (operation,) = plan_create_partitions(image, topic.name, topic.count, given)
            except KafkaError as error:
                fault = Fault.of(error)
                if fault.code is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION:  # Kafka says nothing more of it
                    fault = Fault(fault.code, None)
                faults[topic.name] = fault
                continue
            faults.pop(topic.name, None)
            yield operation

    if request.validate_only:
        await walk(plan(broker.metadata.image))
    elif accepted:
        try:
            in_time = await commit_applied(broker, plan, request.timeout_ms)
        except KafkaError as error:
            faults |= {topic.name: Fault.of(error) for topic in accepted if topic.name not in faults}
        else:
            if not in_time:
                late = Fault(ErrorCode.REQUEST_TIMED_OUT, TIMED_OUT)
                faults |= {topic.name: late for topic in accepted if topic.name not in faults}
    return CreatePartitionsResponse(
        results=[
            CreatePartitionsTopicResult(
                name=name,
                error_code=faults[name].code if name in faults else ErrorCode.NONE,
                error_message=faults[name].message if name in faults else None,
            )
            for name in dict.fromkeys(topic.name for topic in request.topics)
        ]
    )
