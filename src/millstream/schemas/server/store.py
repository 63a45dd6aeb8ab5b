"""The topic `_schemas`: read from its start into the state, and written to; a write counts once it was read back.

One reader, a task, applies every record in the order of the log: what others wrote, what this instance wrote, at the
start and ever after. `write` appends records and waits until the reader has passed them; what the state made of each is
the answer. So an instance never answers from anything but what every other instance will come to as well.

States: NEW -> READING (start: the topic is there, its end is read) -> CLOSED. A reader that fails begins again from
where it was; when the log is another one (the topic was made anew, or cut) it begins with an empty state.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from millstream.core.client import Admin, Client, Producer, TopicPartition
from millstream.core.client.admin import ConfigResource, ConfigResourceType
from millstream.core.client.consumer import Consumer, LogTruncationError, OffsetOutOfRangeError
from millstream.core.config import ADMIN_CONFIGS, CONSUMER_CONFIGS, PRODUCER_CONFIGS, ClientConfig
from millstream.core.wire import ErrorCode, KafkaError
from millstream.schemas.error_codes import RegistryErrorCode
from millstream.schemas.server.errors import RegistryRefusal
from millstream.schemas.server.records import Key, Value, encode_value
from millstream.schemas.server.settings import RegistryConfig
from millstream.schemas.server.state import Applied, RegistryState
from millstream.schemas.server.term import Headers, read_mark

_logger: Final = logging.getLogger(__name__)

# Records applied before others have a turn of the loop.
RECORDS_PER_TURN: Final = 200
# Outcomes of records other than accepted that are remembered for those who wrote them.
OUTCOMES_MAX: Final = 1_000
_POLL_S: Final = 5.0
_RETRY_S: Final = 0.5
# A rejected record would be kept in place of the one before it, were the log cleaned before a leader has repaired it:
# so much time it has, where the topic is made here.
_TOPIC_CONFIGS: Final = {"cleanup.policy": "compact", "min.compaction.lag.ms": str(24 * 3600 * 1000)}
_TOO_LARGE: Final = (ErrorCode.MESSAGE_TOO_LARGE, ErrorCode.RECORD_LIST_TOO_LARGE)


class StoreError(Exception):
    """The topic can't be used as it is; the message says why and what to do."""


class Write(NamedTuple):
    """A record to be written."""

    key: Key
    value: Value
    headers: Headers = ()


class SchemaStore:
    """The topic of one registry; owned by the loop. One write at a time is the caller's affair."""

    def __init__(self, config: RegistryConfig, state: RegistryState) -> None:
        self._config = config
        self.state = state
        self._topic: Final = config.string("kafkastore.topic")
        self._partition: Final = TopicPartition(self._topic, 0)
        self._timeout_s: Final = config.seconds("kafkastore.timeout.ms")
        # The offset behind the last record applied.
        self.position = 0
        self.cluster_id = ""
        self._producer: Producer | None = None
        self._consumer: Consumer | None = None
        self._reader: asyncio.Task[None] | None = None
        # Set and replaced each time the position moves.
        self._moved = asyncio.Event()
        # What became of the last records that were not accepted, by offset.
        self._outcomes: OrderedDict[int, Applied] = OrderedDict()
        # Why the topic is not being read now; None while it is.
        self.failure: str | None = None
        # Called when the log turned out to be another one than was read.
        self.on_replaced: Callable[[], None] = lambda: None
        # Called when rejected records stand in front of what should be the newest of their keys.
        self.on_damaged: Callable[[], None] = lambda: None
        # Producers that failed, being closed.
        self._closing: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Make the topic if it is missing, and read all of it. Raises StoreError, KafkaError, TimeoutError."""
        async with asyncio.timeout(self._config.seconds("kafkastore.init.timeout.ms")):
            await self._prepare_topic()
            self._consumer = await self._new_consumer()
            end = (await self._consumer.end_offsets([self._partition]))[self._partition]
            self._reader = asyncio.create_task(self._read(), name="schema-reader")
            await self._reach(end)
            if unknown := self.state.passed_over[Applied.UNKNOWN]:
                _logger.warning("%d records of %s are passed over: %s", unknown, self._topic, Applied.UNKNOWN.value)
            self._producer = await self._new_producer()

    async def close(self) -> None:
        """Stop reading and writing."""
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
        if self._consumer is not None:
            await self._consumer.close()
        if self._producer is not None:
            await self._producer.close(self._timeout_s)
        await asyncio.gather(*self._closing, return_exceptions=True)

    async def write(self, writes: Sequence[Write]) -> list[tuple[int, Applied]]:
        """Append records, in order, and return where each lies and what it came to, once all were read back.

        Raises RegistryRefusal: the records may be in the log all the same, and count once they are read.
        """
        deadline = time.monotonic() + self._timeout_s
        encoded = [(each.key.encoded(), encode_value(each.key, each.value), each.headers) for each in writes]
        if self._producer is None:
            self._producer = await self._new_producer()
        producer = self._producer
        try:
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + self._timeout_s):
                handles = [
                    await producer.send_soon(self._topic, value, key=key, partition=0, headers=headers)
                    for key, value, headers in encoded
                ]
                offsets = [(await handle).offset for handle in handles]
                await self._reach(offsets[-1] + 1)
        except KafkaError as error:
            self._discard_producer(producer)
            if error.code in _TOO_LARGE:
                raise RegistryRefusal(
                    RegistryErrorCode.SCHEMA_TOO_LARGE, f"Write failed because schema is too large: {error.message}"
                ) from error
            code = (
                RegistryErrorCode.OPERATION_TIMEOUT
                if error.code is ErrorCode.REQUEST_TIMED_OUT
                else RegistryErrorCode.STORE_ERROR
            )
            raise RegistryRefusal(code, f"Write to the Kafka store failed: {error.message}") from error
        except TimeoutError as error:
            self._discard_producer(producer)
            waited = time.monotonic() - deadline + self._timeout_s
            raise RegistryRefusal(
                RegistryErrorCode.OPERATION_TIMEOUT,
                f"Write to the Kafka store timed out after {waited:.1f} s; it may have been done",
            ) from error
        return [(offset, self._outcomes.get(offset, Applied.ACCEPTED)) for offset in offsets]

    async def catch_up(self, position: int) -> None:
        """Wait until the records before `position` were read, for as long as a write may take and no longer."""
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._reach(position)
        except TimeoutError:
            _logger.warning("offset %d of %s was not read in %g s", position, self._topic, self._timeout_s)

    # Reading.

    async def _reach(self, position: int) -> None:
        while self.position < position:
            await self._moved.wait()

    async def _read(self) -> None:
        while True:
            try:
                await self._read_on()
            except (OffsetOutOfRangeError, LogTruncationError) as error:
                _logger.warning("the log of %s is another one than was read, it is read anew: %s", self._topic, error)
                self.state.clear()
                self._outcomes.clear()
                self._moved_to(0)
                self.on_replaced()
            except KafkaError as error:
                self.failure = error.message
                _logger.error("reading %s: %s", self._topic, error.message)  # noqa: TRY400  the sentence says it
            except Exception as error:
                self.failure = repr(error)
                _logger.exception("reading %s", self._topic)
            await asyncio.sleep(_RETRY_S)
            if self._consumer is not None:
                consumer, self._consumer = self._consumer, None
                await consumer.close()

    async def _read_on(self) -> None:
        if self._consumer is None:
            self._consumer = await self._new_consumer()
        consumer = self._consumer
        state, outcomes = self.state, self._outcomes
        while True:
            for record in await consumer.poll_records(_POLL_S, RECORDS_PER_TURN):
                mark = read_mark(record.headers)
                applied = state.apply_record(record.key, record.value, record.offset, record.timestamp, mark)
                if applied is not Applied.ACCEPTED:
                    outcomes[record.offset] = applied
                    if len(outcomes) > OUTCOMES_MAX:
                        outcomes.popitem(last=False)
                    # A topic may hold thousands that other registries wrote.
                    level = logging.DEBUG if applied is Applied.UNKNOWN else logging.WARNING
                    _logger.log(level, "record %d of %s is passed over: %s", record.offset, self._topic, applied.value)
            self.failure = None
            position = consumer.position(self._partition)
            if position is not None and position != self.position:
                self._moved_to(position)
            if self.state.damaged:
                self.on_damaged()
            # A topic of ten thousand schemas is read without a pause, which nobody else should have to wait for.
            await asyncio.sleep(0)

    def _moved_to(self, position: int) -> None:
        self.position = position
        self._moved.set()
        self._moved = asyncio.Event()

    # Kafka.

    async def _new_consumer(self) -> Consumer:
        configs: dict[str, str | int | bool] = {
            "auto.offset.reset": "none",
            "enable.auto.commit": False,
            "allow.auto.create.topics": False,
        }
        consumer = Consumer(self._config.client(CONSUMER_CONFIGS, **configs))
        await consumer.start()
        consumer.assign([self._partition])
        if self.position:
            consumer.seek(self._partition, self.position)
        else:
            consumer.seek_to_beginning(self._partition)
        return consumer

    async def _new_producer(self) -> Producer:
        timeout_ms = self._config.integer("kafkastore.timeout.ms")
        configs: dict[str, str | int | bool] = {
            "acks": "all",
            "linger.ms": 0,
            "delivery.timeout.ms": timeout_ms,
            "request.timeout.ms": timeout_ms,
            "max.block.ms": timeout_ms,
        }
        producer = Producer(self._config.client(PRODUCER_CONFIGS, **configs))
        await producer.start()
        return producer

    def _discard_producer(self, producer: Producer) -> None:
        """One that failed may go on trying; nothing it still holds is to be written later."""
        if self._producer is producer:
            self._producer = None
            closing = asyncio.create_task(producer.close(0), name="close-producer")
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def _prepare_topic(self) -> None:
        async with Client(ClientConfig.load(ADMIN_CONFIGS, self._config.client(ADMIN_CONFIGS))) as client:
            cluster = await client.metadata()
            self.cluster_id = cluster.cluster_id or ""
        async with Admin(self._config.client(ADMIN_CONFIGS)) as admin:
            if self._topic not in cluster.topics:
                wanted = self._config.integer("kafkastore.topic.replication.factor")
                replicas = min(wanted, len(cluster.brokers))
                if replicas < wanted:
                    _logger.warning(
                        "%s is made with %d replicas, not %d: there are no more brokers", self._topic, replicas, wanted
                    )
                try:
                    await admin.create_topic(
                        self._topic, partitions=1, replication_factor=replicas, configs=_TOPIC_CONFIGS
                    )
                except KafkaError as error:
                    if error.code is not ErrorCode.TOPIC_ALREADY_EXISTS:
                        raise
                else:
                    return
            described = await admin.describe_topic(self._topic)
            if len(described.partitions) != 1:
                raise StoreError(
                    f"topic {self._topic} has {len(described.partitions)} partitions; a registry's has one: "
                    "name another with kafkastore.topic"
                )
            configs = await admin.describe_config(ConfigResource(ConfigResourceType.TOPIC, self._topic))
            policy = configs["cleanup.policy"].value
            if policy != "compact":
                raise StoreError(
                    f"topic {self._topic} has cleanup.policy={policy}, which would lose schemas: set it to compact"
                )
