"""Interceptors: code of the user that sees each record on its way out, and each acknowledgement (KIP-42)."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from millstream.core._kernels.record_accumulator import RecordHandle
from millstream.core.client.producer.batch import RecordMetadata
from millstream.core.wire import KafkaError

Content = bytes | bytearray | memoryview | None
Headers = Iterable[tuple[str, bytes | None]]

_logger: Final = logging.getLogger(__name__)


class OutgoingRecord(NamedTuple):
    """A record as it was given to `send`; `_replace` makes another of it."""

    topic: str
    value: Content
    key: Content
    partition: int | None
    timestamp_ms: int | None
    headers: Headers


class ProducerInterceptor:
    """Sees each record on its way out, and how it ended. An exception is logged and harms no record."""

    def on_send(self, record: OutgoingRecord) -> OutgoingRecord:
        """Return the record to send in place of `record`, or that itself; called on the sending thread."""
        return record

    def on_acknowledgement(self, metadata: RecordMetadata | None, error: KafkaError | None) -> None:
        """Hear how a record ended, one of both; called on the producer's loop, which it must not hold up."""

    def close(self) -> None:
        """The producer is closed."""


def intercepted(interceptors: Sequence[ProducerInterceptor], record: OutgoingRecord) -> OutgoingRecord:
    """Return what `interceptors`, one after the other, make of `record`."""
    for interceptor in interceptors:
        try:
            record = interceptor.on_send(record)
        except Exception:
            _logger.exception("interceptor %r failed on a record for %s", interceptor, record.topic)
    return record


def tell_refused(interceptors: Sequence[ProducerInterceptor], error: KafkaError) -> None:
    """Tell of a record that `send` did not take."""
    _tell(interceptors, None, error)


def tell_ended(interceptors: Sequence[ProducerInterceptor], handle: RecordHandle) -> None:
    """Tell how a record ended."""
    error = handle.exception()
    if error is None:
        _tell(interceptors, handle.result(), None)
    else:
        assert isinstance(error, KafkaError), error
        _tell(interceptors, None, error)


def _tell(
    interceptors: Sequence[ProducerInterceptor], metadata: RecordMetadata | None, error: KafkaError | None
) -> None:
    for interceptor in interceptors:
        try:
            interceptor.on_acknowledgement(metadata, error)
        except Exception:
            _logger.exception("interceptor %r failed on an acknowledgement", interceptor)


def close_all(interceptors: Sequence[ProducerInterceptor]) -> None:
    """Tell that there will be no more records."""
    for interceptor in interceptors:
        try:
            interceptor.close()
        except Exception:
            _logger.exception("interceptor %r failed to close", interceptor)
