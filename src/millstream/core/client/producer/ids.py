"""Producer ids: what the broker tells an idempotent producer's batches apart by (KIP-98)."""

from __future__ import annotations

from millstream.core.client.client import Client
from millstream.core.wire import ErrorCode, KafkaError, error_code
from millstream.core.wire.messages.init_producer_id import InitProducerIdRequest, InitProducerIdResponse


async def init_producer_id(client: Client, *, timeout_ms: int | None = None) -> tuple[int, int]:
    """Return a fresh producer id and its epoch. Raises KafkaError."""
    request = InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=60_000)

    async def ask() -> tuple[int, int]:
        response: InitProducerIdResponse = await client.request(request, timeout_ms=timeout_ms)
        code = error_code(response.error_code)
        if code is not ErrorCode.NONE:
            raise KafkaError(code, f"no producer id: {code.sentence}")
        return response.producer_id, response.producer_epoch

    return await client.retried(ask, timeout_ms=timeout_ms)
