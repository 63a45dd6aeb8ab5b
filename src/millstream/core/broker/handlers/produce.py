"""Produce: append batches to partitions, and answer once as many replicas as asked have them.

Each partition is answered for itself; one that fails never fails the rest. A batch is accepted here, written by
`Appends.submit` with all others of its pass, and acknowledged when its partition says so. `fast_produce.py` does the
same for the requests that come by the thousand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from millstream.core.broker.context import Operation, RequestContext, ResourceType
from millstream.core.broker.delayed import Delayed
from millstream.core.broker.partitions import INTERNAL_TOPICS
from millstream.core.log import Reservation
from millstream.core.records import InvalidBatchError
from millstream.core.wire import ErrorCode, KafkaError
from millstream.core.wire.messages.produce import (
    BatchIndexAndErrorMessage,
    PartitionProduceData,
    PartitionProduceResponse,
    ProduceRequest,
    ProduceResponse,
    TopicProduceResponse,
)

if TYPE_CHECKING:
    from millstream.core.broker.broker import Broker
    from millstream.core.broker.partition import Partition

ACKS: Final = frozenset({0, 1, -1})
# Who may write to the broker's own topics all the same, as in Kafka: the name goes round among operators.
INTERNAL_CLIENT_ID: Final = "__admin_client"


def produce(broker: Broker, request: ProduceRequest, context: RequestContext) -> Delayed[ProduceResponse] | None:
    """Append what may be appended; with acks=0 there is no answer, and an error ends the connection instead.

    So a producer that hears nothing learns of it, and asks for metadata again, as with Kafka.
    """
    operation = _Produce(broker, request, context)
    operation.start()
    if request.acks == 0:
        operation.maybe_disconnect()
        return None
    return operation.delayed


class _Produce:
    """One request's way to its answer: `_open` counts the partitions whose end is not known yet."""

    def __init__(self, broker: Broker, request: ProduceRequest, context: RequestContext) -> None:
        self._broker = broker
        self._request = request
        self._context = context
        self._acks: int = request.acks
        self._now_ms = broker.clock.now_ms()
        self.delayed: Delayed[ProduceResponse] = Delayed()
        self._topics: list[TopicProduceResponse] = []
        # Accepted and not acknowledged: (response, partition, generation, offset behind the batch).
        self._accepted: list[tuple[PartitionProduceResponse, Partition, int, int]] = []
        self._opening_count = 0
        self._started = False

    def start(self) -> None:
        """Accept the batches of all partitions."""
        request, context = self._request, self._context
        refused_acks, refused_transaction = self._refusals()
        for topic in request.topic_data:
            allowed = context.permits(Operation.WRITE, ResourceType.TOPIC, topic.name)
            is_closed = topic.name in INTERNAL_TOPICS and context.client_id != INTERNAL_CLIENT_ID
            responses = []
            for data in topic.partition_data:
                response = PartitionProduceResponse(index=data.index, base_offset=-1)
                responses.append(response)
                if refused_transaction is not None:
                    _set_error(response, refused_transaction)
                elif not allowed:
                    _set_error(response, KafkaError(ErrorCode.TOPIC_AUTHORIZATION_FAILED, f"no write on {topic.name}"))
                elif is_closed:
                    response.error_code = ErrorCode.INVALID_TOPIC_EXCEPTION
                else:
                    self._append(topic.name, data, response, refused_acks)
            self._topics.append(TopicProduceResponse(name=topic.name, partition_responses=responses))
        self._started = True
        self._maybe_complete()

    def maybe_disconnect(self) -> None:
        """End the connection if a partition refused its batch."""
        for topic in self._topics:
            for response in topic.partition_responses:
                if response.error_code:
                    reason = f"{topic.name}-{response.index}: {response.error_message}"
                    self._context.disconnect(f"its acks=0 produce failed: {reason}")
                    return

    def _refusals(self) -> tuple[KafkaError | None, KafkaError | None]:
        """Return what stands against the request's acks (of partitions that are there), and against all of it."""
        request = self._request
        acks = transaction = None
        if request.acks not in ACKS:
            acks = KafkaError(ErrorCode.INVALID_REQUIRED_ACKS, f"acks is {request.acks}; use 0, 1 or -1")
        if request.transactional_id is not None:
            # Clients take this code for final; others they would ask again, for ever.
            transaction = KafkaError(
                ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, "this broker serves no transactions"
            )
        return acks, transaction

    def _append(
        self,
        topic: str,
        data: PartitionProduceData,
        response: PartitionProduceResponse,
        refused_acks: KafkaError | None,
    ) -> None:
        try:
            partition = self._broker.partitions.leader(topic, data.index)
            partition.metrics.produce_requests += 1
        except KafkaError as error:
            _set_error(response, error)
            return
        if refused_acks is not None:
            _set_error(response, refused_acks)
            return
        records = b"" if data.records is None else data.records
        copy = self._acks == 0 or not self._context.holds_frame
        try:
            result = partition.append(records, self._acks, self._now_ms, copy=copy)
        except KafkaError as error:
            partition.metrics.failed_produce_requests += 1
            partition.metrics.bytes_rejected += len(records)
            _set_append_error(response, error, partition)
            return
        if isinstance(result, Delayed):
            self._opening_count += 1
            result.on_complete(lambda delayed: self._opened(response, partition, delayed))
        else:
            self._accept(response, partition, result)

    def _opened(self, response: PartitionProduceResponse, partition: Partition, delayed: Delayed[Reservation]) -> None:
        """A batch came back from the thread that opened it, and is accepted or refused."""
        self._opening_count -= 1
        try:
            self._accept(response, partition, delayed.result())
        except KafkaError as error:
            partition.metrics.failed_produce_requests += 1
            _set_append_error(response, error, partition)
            if self._acks == 0:
                self.maybe_disconnect()
        self._maybe_complete()

    def _accept(self, response: PartitionProduceResponse, partition: Partition, reservation: Reservation) -> None:
        response.base_offset = reservation.first_offset
        response.log_append_time_ms = reservation.log_append_time_ms
        response.log_start_offset = reservation.log_start_offset
        if self._acks == 0:
            if self._context.connection is not None:
                partition.unanswered[self._context.connection] = reservation.last_offset + 1
            return
        self._accepted.append((response, partition, partition.generation, reservation.last_offset + 1))

    def _maybe_complete(self) -> None:
        """Answer once every partition's end is known."""
        if not self._started or self._acks == 0 or self.delayed.is_done:
            return
        waiting = []
        for item in self._accepted:
            response, partition, generation, end_offset = item
            if partition.generation != generation:
                response.base_offset = -1
                _set_error(response, KafkaError(partition.failure, "the batch was accepted, but could not be written"))
            elif not partition.is_acked(end_offset, self._acks):
                waiting.append(item)
        self._accepted = waiting
        if waiting:
            waiting[0][1].when_acked(self._maybe_complete)
        elif not self._opening_count:
            self.delayed.complete(ProduceResponse(responses=self._topics))


# Errors that say nothing of the log's start.
_WITHOUT_LOG_START: Final = frozenset(
    {
        ErrorCode.MESSAGE_TOO_LARGE,
        ErrorCode.RECORD_LIST_TOO_LARGE,
        ErrorCode.CORRUPT_MESSAGE,
        ErrorCode.KAFKA_STORAGE_ERROR,
        ErrorCode.NOT_LEADER_OR_FOLLOWER,
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    }
)


def _set_append_error(response: PartitionProduceResponse, error: KafkaError, partition: Partition) -> None:
    _set_error(response, error)
    if error.code not in _WITHOUT_LOG_START:
        response.log_start_offset = partition.log_start_offset


def _set_error(response: PartitionProduceResponse, error: KafkaError) -> None:
    response.error_code = error.code
    response.error_message = error.message
    if isinstance(error, InvalidBatchError):
        response.record_errors = [
            BatchIndexAndErrorMessage(batch_index=index, batch_index_error_message=message)
            for index, message in error.record_errors
        ]
