"""InitProducerId: an id and an epoch for an idempotent producer (KIP-98), or the next epoch of one it has (KIP-360).

Transactions are not served: a transactional id is refused with a code that clients take for final.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from millstream.core.broker.context import Operation, RequestContext, ResourceType
from millstream.core.broker.delayed import Delayed
from millstream.core.wire import ErrorCode, KafkaError
from millstream.core.wire.messages.init_producer_id import InitProducerIdRequest, InitProducerIdResponse

if TYPE_CHECKING:
    from millstream.core.broker.broker import Broker


def init_producer_id(
    broker: Broker, request: InitProducerIdRequest, context: RequestContext
) -> InitProducerIdResponse | Delayed[InitProducerIdResponse]:
    """Give a fresh id with epoch 0, from the block in memory, or once the metadata gave another block."""
    if request.transactional_id is not None:
        code = (
            ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED if request.transactional_id else ErrorCode.INVALID_REQUEST
        )
        return _refusal(code)
    if not context.permits_cluster(Operation.IDEMPOTENT_WRITE) and not context.permits(
        Operation.WRITE, ResourceType.TOPIC, _ANY_TOPIC
    ):
        return _refusal(ErrorCode.CLUSTER_AUTHORIZATION_FAILED)
    if (request.producer_id == _NONE) != (request.producer_epoch == _NONE):
        return _refusal(ErrorCode.INVALID_REQUEST)
    # Without a transactional id Kafka ignores the id and the epoch that a client sends, and so do we.
    producer_id = broker.producer_ids.take_now()
    if producer_id is not None:
        return InitProducerIdResponse(producer_id=producer_id, producer_epoch=0)
    return Delayed.from_coroutine(broker.loop, _take(broker))


async def _take(broker: Broker) -> InitProducerIdResponse:
    try:
        producer_id = await broker.producer_ids.take()
    except KafkaError:
        # The metadata gives no block now; clients ask again after this error, as they do of Kafka.
        return _refusal(ErrorCode.COORDINATOR_LOAD_IN_PROGRESS)
    return InitProducerIdResponse(producer_id=producer_id, producer_epoch=0)


_ANY_TOPIC: Final = "*"
_NONE: Final = -1


def _refusal(code: ErrorCode) -> InitProducerIdResponse:
    return InitProducerIdResponse(error_code=code, producer_id=-1, producer_epoch=-1)
