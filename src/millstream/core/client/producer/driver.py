"""The sender on an event loop: its effects carried out, its events and times brought to it. Owned by that loop.

Everything that happens ends in a turn: the sender is polled once, however much has happened, and its effects are
carried out in order. Requests are written in that order as well, without a task each: a connection's `post` writes at
once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from millstream.core._kernels.record_accumulator import RecordAccumulator
from millstream.core.client.client import Client
from millstream.core.client.cluster import TopicPartition
from millstream.core.client.connections import BrokerConnection
from millstream.core.client.producer.batch import Batch
from millstream.core.client.producer.effects import (
    AskMetadata,
    AskProducerId,
    Connect,
    Effect,
    GiveUp,
    Outcome,
    Prepare,
    SendRequest,
    Split,
)
from millstream.core.client.producer.ids import init_producer_id
from millstream.core.client.producer.preparing import compressed, split
from millstream.core.client.producer.produce_codec import ProduceCodec
from millstream.core.client.producer.requests import VERSION_MAX
from millstream.core.client.producer.sender import NEVER_MS, Sender
from millstream.core.client.producer.settings import ProducerSettings
from millstream.core.wire import ApiKey, Buffer, ErrorCode, KafkaError

_LANE: Final = "produce"
_COMPRESSORS_MAX: Final = 4

_logger: Final = logging.getLogger(__name__)


class SenderDriver:
    """See the module.

    `after_turn` is called at the end of each turn, `on_metadata` when metadata has come; `wants_turn` says whether an
    answer that leaves nothing to send needs a turn all the same.
    """

    def __init__(
        self,
        client: Client,
        sender: Sender,
        accumulator: RecordAccumulator,
        settings: ProducerSettings,
        *,
        after_turn: Callable[[], None],
        wants_turn: Callable[[], bool],
        on_metadata: Callable[[frozenset[str]], None],
    ) -> None:
        self._client = client
        self._sender = sender
        self._accumulator = accumulator
        self._settings = settings
        self._after_turn = after_turn
        self._wants_turn = wants_turn
        self._on_metadata = on_metadata
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        # The connection to each node, and the sender's generation of it.
        self._connections: dict[int, tuple[BrokerConnection, int]] = {}
        self._codecs: dict[int, ProduceCodec] = {}
        self._paused: set[int] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._executor: ThreadPoolExecutor | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ms = NEVER_MS
        # Whether the sender will be polled as soon as the loop gets to it.
        self.is_turn_due = False
        self._is_closed = False

    def now_ms(self) -> float:
        """The loop's time in ms; the sender's clock."""
        return time.monotonic() * 1000

    def turn_soon(self) -> None:
        """Have a turn taken; from any thread."""
        if self.is_turn_due or self._is_closed:
            return
        self.is_turn_due = True
        if threading.get_ident() == self._thread:
            self._loop.call_soon(self.turn_now)
        else:
            # A loop that was closed under its producer ends nothing any more.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self.turn_now)

    def call_soon(self, event: Callable[[], object]) -> None:
        """Have something happen on the loop, and a turn after it; from any thread."""

        def happen() -> None:
            event()
            self.turn_soon()

        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(happen)

    async def close(self) -> None:
        """Stop; every batch has ended."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)

    def turn_now(self) -> None:
        """Take the turn that is due, on the loop's thread: a caller there needn't wait for the loop to come to it."""
        if not self.is_turn_due or self._is_closed:
            return
        self.is_turn_due = False
        sender = self._sender
        try:
            self._look_at_connections()
            sender.poll(self.now_ms())
            for effect in sender.take_effects():
                self._carry_out(effect)
            self._after_turn()
        except Exception as error:  # noqa: BLE001  told below, and by every record
            self._break(error)
            self._after_turn()
        self._set_timer(sender.wake_at_ms)

    def _look_at_connections(self) -> None:
        """Have the sender know which connections are gone, or had better be opened anew, and which have room again."""
        for node, (connection, generation) in list(self._connections.items()):
            if not connection.is_open or connection.is_expiring:
                del self._connections[node]
                self._paused.discard(node)
                self._sender.node_lost(node, generation)
            elif node in self._paused and not connection.connection.is_paused:
                self._paused.discard(node)
                self._sender.set_paused(node, False)

    def _set_timer(self, wake_at_ms: float) -> None:
        if self._paused:
            wake_at_ms = min(wake_at_ms, self.now_ms() + 1)
        # One that rings too early costs a turn; setting it anew costs more, and happens with every batch.
        if self._timer_ms <= wake_at_ms and (self._timer is not None or wake_at_ms == NEVER_MS):
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_ms = wake_at_ms
        if wake_at_ms != NEVER_MS:
            delay_s = max(0.0, wake_at_ms - self.now_ms()) / 1000
            self._timer = self._loop.call_later(delay_s, self._timer_rang)

    def _timer_rang(self) -> None:
        self._timer = None
        self._timer_ms = NEVER_MS
        self.is_turn_due = True
        self.turn_now()

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case SendRequest():
                self._send(effect)
            case GiveUp(node):
                self._give_up(node)
            case Connect(node):
                self._start(self._connect(node))
            case Prepare(batch):
                self._start(self._compress(batch))
            case Split(batch):
                self._start(self._split(batch))
            case AskProducerId():
                self._start(self._ask_producer_id())
            case AskMetadata(topics):
                self._start(self._ask_metadata(topics))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._break(error)
        self.turn_soon()

    def _break(self, error: BaseException) -> None:
        """Nothing foresaw `error`: it is ours, and no record may wait for ever."""
        _logger.error("the producer failed", exc_info=error)
        self._sender.become_fatal(KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR, f"the producer failed: {error!r}"))

    # Requests.

    def _send(self, request: SendRequest) -> None:
        connection, _ = self._connections.get(request.node, (None, 0))
        settings = self._settings
        if connection is None or not connection.is_open:
            closed = f"the connection to broker {request.node} is closed"
            self.failed(request, KafkaError(ErrorCode.NETWORK_EXCEPTION, closed))
            return
        try:
            encoded = _Encoded(self, request, self._codec(request.node, connection))
            if settings.acks == 0:
                connection.connection.post_unanswered(encoded)
                self._sender.note_unanswered(request, self.now_ms())
                self.turn_soon()
            else:
                connection.connection.post(encoded, encoded)
        except KafkaError as error:
            self.failed(request, error)
            return
        if connection.connection.is_paused:
            self._paused.add(request.node)
            self._sender.set_paused(request.node, True)

    def _codec(self, node: int, connection: BrokerConnection) -> ProduceCodec:
        """Return what writes requests to a node. Raises KafkaError where it speaks no version of them."""
        codec = self._codecs.get(node)
        if codec is None:
            settings = self._settings
            codec = self._codecs[node] = ProduceCodec(
                connection.connection.client_id,
                connection.version(ApiKey.PRODUCE, version_max=VERSION_MAX),
                acks=settings.acks,
                timeout_ms=int(settings.request_timeout_ms),
            )
        return codec

    def answered(self, request: SendRequest, outcomes: Mapping[TopicPartition, Outcome], throttle_ms: int) -> None:
        """Take in the answer to a request."""
        sender = self._sender
        try:
            sender.handle_response(request, outcomes, throttle_ms, self.now_ms())
        except Exception as error:  # noqa: BLE001  told below, and by every record
            self._break(error)
        if not sender.is_idle or self._wants_turn():
            self.turn_soon()

    def failed(self, request: SendRequest, error: KafkaError) -> None:
        """Take in that a request will have no answer."""
        connection, generation = self._connections.get(request.node, (None, -1))
        if connection is None or (generation == request.generation and not connection.is_open):
            self._sender.node_lost(request.node, request.generation)
        self._sender.handle_failure(request, error, self.now_ms())
        self.turn_soon()

    def _give_up(self, node: int) -> None:
        connection, _ = self._connections.get(node, (None, 0))
        if connection is not None:
            timeout_ms = self._settings.request_timeout_ms
            connection.connection.close(f"broker {node} did not answer PRODUCE within {timeout_ms:g} ms")

    # What takes longer.

    async def _connect(self, node: int) -> None:
        try:
            connection = await self._client.connection(node, lane=_LANE)
        except KafkaError as error:
            _logger.debug("no connection to broker %d: %s", node, error)
            self._sender.node_failed(node, self.now_ms())
        else:
            self._codecs.pop(node, None)
            self._connections[node] = connection, self._sender.node_ready(node)

    async def _ask_producer_id(self) -> None:
        try:
            producer_id, epoch = await init_producer_id(self._client)
        except KafkaError as error:
            self._sender.producer_id_failed(error, self.now_ms())
        else:
            self._sender.handle_producer_id(producer_id, epoch)

    async def _ask_metadata(self, topics: frozenset[str]) -> None:
        try:
            cluster = await self._client.metadata(topics, auto_create=True)
        except KafkaError as error:
            _logger.debug("no metadata of %s: %s", ", ".join(sorted(topics)), error)
            self._sender.metadata_failed(self.now_ms())
        else:
            for topic in topics:
                info = cluster.topics.get(topic)
                if info is not None and info.partitions:
                    self._accumulator.set_partitions(topic, len(info.partitions))
            self._sender.note_cluster(cluster, topics)
            self._on_metadata(topics)

    async def _compress(self, batch: Batch) -> None:
        settings = self._settings
        try:
            payload = await self._on_thread(compressed, batch, settings.compression, settings.compression_level)
        except Exception as error:  # noqa: BLE001  whatever a codec raises, the batch's records are told
            self._sender.prepared(batch, None, self.now_ms(), _local_error("compressed", error))
        else:
            self._sender.prepared(batch, payload, self.now_ms())

    async def _split(self, batch: Batch) -> None:
        if batch.done:
            return
        try:
            halves = await self._on_thread(split, batch.stamped(), self._settings.compression_level)
        except Exception as error:  # noqa: BLE001  whatever it is, the batch's records are told
            self._sender.was_split(batch, [], _local_error("split", error), self.now_ms())
            return
        parts = []
        for data, records in halves:
            part = Batch(batch.topic, batch.partition, bytearray(data), batch.opened_ms, self._thread)
            part.size, part.count = len(data), len(records)
            part.base_timestamp = records[0].timestamp
            part.max_timestamp = max(record.timestamp for record in records)
            part.compression = batch.compression
            parts.append(part)
        self._sender.was_split(batch, parts, None, self.now_ms())

    async def _on_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        if self._executor is None:
            workers = min(_COMPRESSORS_MAX, os.cpu_count() or 1)
            self._executor = ThreadPoolExecutor(workers, thread_name_prefix="millstream-producer")
        return await self._loop.run_in_executor(self._executor, function, *arguments)


class _Encoded:
    """A request on a connection. Its answer comes to the driver at once, without a future and its way through the loop.

    A connection that is replaced has its answers read by the codec that wrote its requests.
    """

    __slots__ = ("_codec", "_driver", "_request")

    api_key: Final = ApiKey.PRODUCE

    def __init__(self, driver: SenderDriver, request: SendRequest, codec: ProduceCodec) -> None:
        self._driver = driver
        self._request = request
        self._codec = codec

    @property
    def version(self) -> int:
        return self._codec.version

    def frame(self, correlation_id: int, /) -> list[Buffer]:
        return self._codec.request(self._request.batches, correlation_id)

    def read(self, body: memoryview, /) -> tuple[Mapping[TopicPartition, Outcome], int]:
        return self._codec.answer(self._request.batches, body)

    def done(self) -> bool:
        return False

    def set_result(self, answer: tuple[Mapping[TopicPartition, Outcome], int], /) -> None:
        self._driver.answered(self._request, *answer)

    def set_exception(self, error: KafkaError, /) -> None:
        self._driver.failed(self._request, error)


def _local_error(done: str, error: Exception) -> KafkaError:
    return KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR, f"a batch could not be {done}: {error}")
