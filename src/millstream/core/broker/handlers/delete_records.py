"""DeleteRecords (key 21): moves the start of partitions' logs (KIP-107).

Versions  0 all of it   1 throttle time   2 flexible

Records before the offset are gone for readers at once; segments that hold nothing else are deleted by retention.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from millstream.core.broker.context import Operation, RequestContext, ResourceType
from millstream.core.broker.delayed import Delayed
from millstream.core.wire import ErrorCode, KafkaError
from millstream.core.wire.messages.delete_records import (
    DeleteRecordsPartition,
    DeleteRecordsPartitionResult,
    DeleteRecordsRequest,
    DeleteRecordsResponse,
    DeleteRecordsTopic,
    DeleteRecordsTopicResult,
)

if TYPE_CHECKING:
    from millstream.core.broker.broker import Broker

HIGH_WATERMARK: Final = -1  # an offset that stands for the high watermark
UNKNOWN_LOW_WATERMARK: Final = -1


def delete_records(
    broker: Broker, request: DeleteRecordsRequest, context: RequestContext
) -> Delayed[DeleteRecordsResponse]:
    """Answer per partition the offset its log now starts at."""
    return Delayed.from_coroutine(broker.loop, _delete_records(broker, request, context))


async def _delete_records(
    broker: Broker, request: DeleteRecordsRequest, context: RequestContext
) -> DeleteRecordsResponse:
    allowed, denied = context.authorize(
        Operation.DELETE, ResourceType.TOPIC, request.topics, name=lambda topic: topic.name
    )
    response = DeleteRecordsResponse()
    for topic in allowed:
        # The last one of a partition that stands twice counts, as in Kafka.
        items = {item.partition_index: item for item in topic.partitions}
        results = [await _partition(broker, topic.name, item) for item in items.values()]
        response.topics.append(DeleteRecordsTopicResult(name=topic.name, partitions=results))
    response.topics.extend(map(_denied, denied))
    return response


async def _partition(broker: Broker, topic: str, item: DeleteRecordsPartition) -> DeleteRecordsPartitionResult:
    try:
        low_watermark = await _delete_before(broker, topic, item.partition_index, item.offset)
    except KafkaError as error:
        return _result(item, UNKNOWN_LOW_WATERMARK, error.code)
    return _result(item, low_watermark, ErrorCode.NONE)


async def _delete_before(broker: Broker, topic: str, index: int, wanted_offset: int) -> int:
    """Move the log's start and return it; KafkaError where that may not be."""
    partition = broker.partitions.leader(topic, index)
    log = partition.check_leader()
    if log.config.cleanup_policy == {"compact"}:
        raise KafkaError(ErrorCode.POLICY_VIOLATION, f"{topic} is compacted; its records are not deleted by offset")
    high_watermark = partition.high_watermark
    offset = high_watermark if wanted_offset == HIGH_WATERMARK else wanted_offset
    if not 0 <= offset <= high_watermark:
        raise KafkaError(ErrorCode.OFFSET_OUT_OF_RANGE, f"{topic}-{index}: {offset} is outside 0..{high_watermark}")
    if offset > log.log_start_offset:
        await broker.loop.run_in_executor(broker.executor, log.move_log_start, offset)
    return log.log_start_offset


def _result(item: DeleteRecordsPartition, low_watermark: int, code: ErrorCode) -> DeleteRecordsPartitionResult:
    return DeleteRecordsPartitionResult(
        partition_index=item.partition_index, low_watermark=low_watermark, error_code=code
    )


def _denied(topic: DeleteRecordsTopic) -> DeleteRecordsTopicResult:
    code = ErrorCode.TOPIC_AUTHORIZATION_FAILED
    return DeleteRecordsTopicResult(
        name=topic.name, partitions=[_result(item, UNKNOWN_LOW_WATERMARK, code) for item in topic.partitions]
    )
