"""What a producer raises beyond the errors of the protocol."""

from __future__ import annotations

from millstream.core.wire import ErrorCode, KafkaError


class BufferFullError(KafkaError):
    """There is no room in `buffer_memory`, and waiting was not wanted or took longer than `max_block_ms`."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorCode.REQUEST_TIMED_OUT, message)


class DeliveryTimeoutError(KafkaError):
    """A record was not acknowledged within `delivery_timeout_ms`; the message says what was tried last."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorCode.REQUEST_TIMED_OUT, message)


class ProducerClosedError(KafkaError):
    """The producer is closed, or was before the record was acknowledged."""

    def __init__(self, message: str = "the producer is closed") -> None:
        super().__init__(ErrorCode.UNKNOWN_SERVER_ERROR, message)
