"""ListOffsets: the offset at a timestamp, or at either end of the log. Each partition is answered for itself.

Special timestamps:  -1 latest   -2 earliest   -3 the record with the greatest timestamp (KIP-734)   -4 earliest local
(KIP-405)
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from millstream.core.broker.context import Operation, RequestContext, ResourceType
from millstream.core.broker.delayed import Delayed
from millstream.core.wire import ErrorCode, KafkaError
from millstream.core.wire.messages.list_offsets import (
    ListOffsetsPartition,
    ListOffsetsPartitionResponse,
    ListOffsetsRequest,
    ListOffsetsResponse,
    ListOffsetsTopicResponse,
)

if TYPE_CHECKING:
    from millstream.core.broker.broker import Broker
    from millstream.core.broker.partition import Partition

READ_COMMITTED: Final = 1
CONSUMER: Final = -1
DEBUGGING_CONSUMER: Final = -2

LATEST: Final = -1
EARLIEST: Final = -2
MAX_TIMESTAMP: Final = -3
EARLIEST_LOCAL: Final = -4
# The first version that knows a special timestamp.
_SINCE_VERSION: Final = {LATEST: 0, EARLIEST: 0, MAX_TIMESTAMP: 7, EARLIEST_LOCAL: 8}


def list_offsets(
    broker: Broker, request: ListOffsetsRequest, context: RequestContext
) -> ListOffsetsResponse | Delayed[ListOffsetsResponse]:
    """Answer the ends of logs at once; looking for a timestamp reads the log, on a thread."""
    searches: list[tuple[ListOffsetsPartitionResponse, Partition, int, int]] = []
    topics = []
    for topic in request.topics:
        responses: list[ListOffsetsPartitionResponse] = []
        counts = Counter(asked.partition_index for asked in topic.partitions)
        for asked in topic.partitions:
            if counts[asked.partition_index] != 1:
                if counts[asked.partition_index]:
                    counts[asked.partition_index] = 0
                    code = ErrorCode.INVALID_REQUEST
                    responses.append(
                        ListOffsetsPartitionResponse(partition_index=asked.partition_index, error_code=code)
                    )
                continue
            response = ListOffsetsPartitionResponse(partition_index=asked.partition_index)
            responses.append(response)
            try:
                context.require(
                    Operation.DESCRIBE, ResourceType.TOPIC, topic.name, ErrorCode.TOPIC_AUTHORIZATION_FAILED
                )
                partition = broker.partitions.leader(topic.name, asked.partition_index, asked.current_leader_epoch)
                end_offset = _end_offset(partition, request)
                if not _answer_end(response, asked, partition, end_offset, context.api_version):
                    searches.append((response, partition, asked.timestamp, end_offset))
            except KafkaError as error:
                response.error_code = error.code
        topics.append(ListOffsetsTopicResponse(name=topic.name, partitions=responses))
    answer = ListOffsetsResponse(topics=topics)
    if not searches:
        return answer
    delayed: Delayed[ListOffsetsResponse] = Delayed()

    def search() -> None:
        for response, partition, timestamp, end_offset in searches:
            _search(response, partition, timestamp, end_offset)

    def finished(_: None, error: BaseException | None) -> None:
        if error is None:
            delayed.complete(answer)
        else:
            delayed.fail(error)

    broker.appends.run_on_thread(search, finished)
    return delayed


def _end_offset(partition: Partition, request: ListOffsetsRequest) -> int:
    """Return the offset behind the last record that the one who asks may see."""
    if request.replica_id not in {CONSUMER, DEBUGGING_CONSUMER}:
        return partition.log_end_offset
    return partition.last_stable_offset if request.isolation_level == READ_COMMITTED else partition.high_watermark


def _answer_end(
    response: ListOffsetsPartitionResponse,
    asked: ListOffsetsPartition,
    partition: Partition,
    end_offset: int,
    version: int,
) -> bool:
    """Answer what needs no search; false where one is needed."""
    timestamp = asked.timestamp
    if timestamp < 0 and version < _SINCE_VERSION.get(timestamp, 2**15):
        raise KafkaError(ErrorCode.UNSUPPORTED_VERSION, f"timestamp {timestamp} means nothing in version {version}")
    if timestamp == LATEST:
        response.offset = end_offset
        response.leader_epoch = partition.leader_epoch
    elif timestamp in {EARLIEST, EARLIEST_LOCAL}:
        response.offset = partition.log_start_offset
        log = partition.log
        assert log is not None, f"{partition} leads without a log"
        response.leader_epoch = log.leader_epochs.epoch_for_offset(partition.log_start_offset)
        if response.leader_epoch < 0 and partition.log_start_offset == partition.log_end_offset:
            response.leader_epoch = partition.leader_epoch
    else:
        return False
    return True


def _search(response: ListOffsetsPartitionResponse, partition: Partition, timestamp: int, end_offset: int) -> None:
    """Find a record by its timestamp; runs on a worker thread."""
    log = partition.log
    assert log is not None, f"{partition} leads without a log"
    try:
        found = log.max_timestamp_offset() if timestamp == MAX_TIMESTAMP else log.offset_for_timestamp(timestamp)
        if found is None or found.offset >= end_offset:
            return
        response.timestamp = found.timestamp
        response.offset = found.offset
        response.leader_epoch = log.leader_epochs.epoch_for_offset(found.offset)
    except KafkaError as error:
        response.error_code = error.code
