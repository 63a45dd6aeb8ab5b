"""The producer without await. `send` runs wholly on the caller's thread; the rest crosses to the background loop.

with Producer("127.0.0.1:9092") as producer:
    handle = producer.send("flights", b"value", key=b"key")
    producer.send_batch("flights", table, key="carrier", value="body")
    print(handle.result(10))
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Mapping, Sequence
from ssl import SSLContext
from types import TracebackType
from typing import Any, Self

from millstream.core._kernels.record_accumulator import RecordHandle
from millstream.core.client.blocking import BlockingClient, ForkedError
from millstream.core.client.cluster import PartitionInfo
from millstream.core.client.producer.interceptors import Content, Headers, ProducerInterceptor
from millstream.core.client.producer.producer import Partitioner, ProducerState
from millstream.core.client.security import TokenProvider
from millstream.core.columns.producer import Producer as AsyncProducer
from millstream.core.columns.sent_table import TableHandle
from millstream.core.config.client_config import Given


class Producer(BlockingClient):
    """Sends records and tables; a context manager, for any thread, several at once too.

    Configs are Kafka's, as keywords with underscores or in a mapping by their own names. The first use connects.
    States are those of `core.client.producer`. Raises ConfigError.
    """

    def __init__(
        self,
        bootstrap_servers: str | Sequence[str] | Mapping[str, Given] | None = None,
        *,
        interceptors: Sequence[ProducerInterceptor] = (),
        partitioner: Partitioner | None = None,
        ssl_context: SSLContext | None = None,
        sasl_token_provider: TokenProvider | None = None,
        **configs: Given,
    ) -> None:
        """Read the configs; callbacks of handles and interceptors run on the background loop's thread."""
        self._producer = AsyncProducer(
            bootstrap_servers,
            interceptors=interceptors,
            partitioner=partitioner,
            ssl_context=ssl_context,
            sasl_token_provider=sasl_token_provider,
            **configs,
        )
        super().__init__(self._producer)
        self._starting = threading.Lock()
        _producers.add(self)

    @property
    def state(self) -> ProducerState:
        """Where it stands."""
        return self._producer.state

    def start(self) -> None:
        """Reach the cluster; done by itself on first use. Raises KafkaError where no bootstrap server answers."""
        self._thread.check()
        with self._starting:
            if self._producer.state is ProducerState.NEW:
                self._thread.run(self._producer.start())
                # From now on the compiled method itself.
                self.send = self._producer.send_blocking  # type: ignore[method-assign]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def send(
        self,
        topic: str,
        value: Content = None,
        *,
        key: Content = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
        headers: Headers = (),
    ) -> RecordHandle:
        """Take a record, and return its handle: a future that always ends in its metadata or in an error.

        Waits up to max_block_ms for room in buffer_memory and for metadata, then raises BufferFullError, KafkaError.
        Raises TypeError for content that is not bytes, and KafkaError for a record larger than max_request_size.
        """
        self.start()
        return self._producer.send_blocking(
            topic, value, key=key, partition=partition, timestamp_ms=timestamp_ms, headers=headers
        )

    def send_batch(
        self,
        topic: str,
        data: Any,
        *,
        key: Any = None,
        value: Any = None,
        timestamp: Any = None,
        partition: Any = None,
        headers: Any = None,
    ) -> TableHandle:
        """Send each row of a table as a record; see `core.columns.producer.Producer.send_batch`.

        Encodes on the caller's thread, and returns when the last row is in buffer_memory.
        """
        from millstream.core.columns.outgoing import Choice

        self.start()
        producer = self._producer
        if not producer.partition_count(topic):
            self.partitions_for(topic)
        batches = producer.encoded(topic, data, Choice(key, value, timestamp, partition, headers))
        return TableHandle(
            topic,
            [(batch.topic_partition.partition, producer.send_encoded_blocking(*batch)) for batch in batches],
        )

    def flush(self, timeout_s: float | None = None) -> None:
        """Send everything now and wait until all of it has ended, well or not. Raises KafkaError at the timeout."""
        if self._producer.state is not ProducerState.NEW:
            self._thread.run(self._producer.flush(timeout_s))

    def close(self, timeout_s: float | None = None) -> None:
        """Take no more, send what is left, and stop; what has not ended within `timeout_s` fails.

        Does nothing in a forked child: what it inherited is the parent's to send.
        """
        if self._thread.is_ours:
            self._thread.run(self._producer.close(timeout_s))

    def partitions_for(self, topic: str) -> Sequence[PartitionInfo]:
        """Return the partitions of a topic with their leaders and replicas. Raises KafkaError."""
        self.start()
        return self._thread.run(self._producer.partitions_for(topic))

    def metrics(self) -> Mapping[str, float]:
        """Return what is counted, by Kafka's names in snake_case; totals since the start."""
        if self._producer.state is ProducerState.NEW:
            return {}
        return self._thread.call(self._producer.metrics)


_producers: weakref.WeakSet[Producer] = weakref.WeakSet()


def _refuse_in_child() -> None:
    # A record given to an inherited producer would lie in memory that no sender looks at.
    for producer in list(_producers):
        producer._producer.refuse(ForkedError())


os.register_at_fork(after_in_child=_refuse_in_child)
