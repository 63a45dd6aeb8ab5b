"""The client behind a network that fails, on both brokers: what was promised is kept, whatever is dropped, cut or held.

A run is a seed: it draws the client's configs, the load and the faults. `make soak` runs many; what a failed one did is
in the error's notes (`RandomFaults(seed)` makes the same plan again, the timing is the machine's).
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import random
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, NamedTuple

import pytest
from tests.support.clients import ConfluentKafka

from millstream.core.client import TopicPartition
from millstream.core.client.consumer import Consumer, ConsumerRecord, FetchedRecords, RebalanceListener
from millstream.core.client.membership.errors import CommitFailedError
from millstream.core.client.producer import Producer, RecordHandle
from millstream.core.records import RecordColumns
from millstream.core.wire import KafkaError
from millstream.testing.fault_proxy import FaultProxy, RandomFaults
from millstream.testing.raw import RawConnection

pytestmark = [pytest.mark.timeout(900)]

DEADLINE_S: Final = 150.0
PARTITIONS: Final = 3
IS_SOAK: Final = os.environ.get("MILLSTREAM_SOAK") == "1"
# An answer that was swallowed is missed soon, and what failed is tried again soon.
IMPATIENT: Final[Mapping[str, Any]] = {
    "request_timeout_ms": 400,
    "retry_backoff_ms": 10,
    "retry_backoff_max_ms": 100,
    "reconnect_backoff_ms": 10,
    "reconnect_backoff_max_ms": 100,
    "socket_connection_setup_timeout_ms": 1_000,
}
_numbers = itertools.count()


def seeds(short: int, long: int) -> pytest.MarkDecorator:
    """Parametrize by seed: the first few, or many."""
    return pytest.mark.parametrize("seed", range(long if IS_SOAK else short))


@pytest.fixture(params=["millstream", pytest.param("kafka", marks=pytest.mark.java)])
def bootstrap(request: pytest.FixtureRequest) -> str:
    """A broker of either kind, spoken to directly."""
    fixture = "millstream_broker_session" if request.param == "millstream" else "apache_kafka"
    address: str = request.getfixturevalue(fixture).bootstrap_servers
    return address


@pytest.fixture
def topic(bootstrap: str) -> str:
    name = f"under-faults-{os.getpid()}-{next(_numbers)}"
    with RawConnection(bootstrap) as raw:
        raw.create_topic(name, PARTITIONS)
    return name


class Written(NamedTuple):
    """A record in the log."""

    offset: int
    number: int


async def in_the_log(bootstrap: str, topic: str) -> dict[int, list[Written]]:
    """Read every partition with another client, past the proxy."""

    def read() -> dict[int, list[Written]]:
        with RawConnection(bootstrap) as raw:
            ends = raw.offsets({topic: range(PARTITIONS)})[topic]
        found = ConfluentKafka().read(bootstrap, topic, ends)
        return {p: [Written(row.offset, int((row.row.value or b"-1")[:8])) for row in found[p]] for p in ends}

    return await asyncio.to_thread(read)


async def fill(bootstrap: str, topic: str, numbers: range, **configs: Any) -> None:
    """Write records past the proxy, in small batches."""
    async with Producer(bootstrap, batch_size=1_000, linger_ms=1, **configs) as producer:
        for number in numbers:
            await producer.send_soon(topic, b"%08d" % number, partition=number % PARTITIONS)


class Plan:
    """What a seed draws for a producer."""

    def __init__(self, seed: int) -> None:
        draw = self.draw = random.Random(f"producer/{seed}")
        self.idempotent = draw.random() < 0.75
        # Without idempotence one request at a time keeps the order.
        in_flight = draw.randint(1, 5) if self.idempotent else 1
        self.may_time_out = draw.random() < 0.3
        self.records = 400
        self.configs: dict[str, Any] = {
            **IMPATIENT,
            "enable_idempotence": self.idempotent,
            "acks": "all" if self.idempotent else draw.choice(["all", "1"]),
            "max_in_flight_requests_per_connection": in_flight,
            "compression_type": draw.choice(["none", "none", "lz4", "zstd", "snappy", "gzip"]),
            "batch_size": draw.choice([200, 1_000, 16_384]),
            "linger_ms": draw.choice([0, 1, 5]),
            "buffer_memory": draw.choice([20_000, 33_554_432]),
            "delivery_timeout_ms": 700 if self.may_time_out else 120_000,
            "max_block_ms": 120_000,
        }
        self.faults = RandomFaults(
            f"producer/{seed}", rate=draw.choice([0.03, 0.06, 0.12]), connection_rate=0.05, hold_s_max=0.05
        )

    def __repr__(self) -> str:
        return f"{self.faults!r} {self.configs!r}"


@seeds(3, 300)
async def test_what_a_producer_was_promised_is_kept(bootstrap: str, topic: str, seed: int) -> None:
    plan = Plan(seed)
    handles: list[tuple[int, int, RecordHandle]] = []
    sent_to: dict[int, int] = {}
    called_back: list[RecordHandle] = []
    with FaultProxy(bootstrap, plan.faults) as proxy:
        try:
            async with asyncio.timeout(DEADLINE_S):
                producer = await started(lambda: Producer(proxy.bootstrap_servers, **plan.configs))
                for number in range(plan.records):
                    partition = plan.draw.randrange(PARTITIONS)
                    value = b"%08d" % number + b"x" * plan.draw.choice([0, 0, 100, 500])
                    handle = await producer.send_soon(topic, value, partition=partition)
                    handle.add_done_callback(called_back.append)
                    handles.append((number, partition, handle))
                    sent_to[number] = partition
                    if plan.draw.random() < 0.03:
                        # With nothing in flight the next batch begins from idle, and is small.
                        await ended(handle)
                for _, _, handle in handles:
                    await ended(handle)
                proxy.heal()
                # Whatever happened, it goes on as if nothing had.
                for partition in range(PARTITIONS):
                    number = plan.records + partition
                    handle = await producer.send_soon(topic, b"%08d" % number, partition=partition)
                    handles.append((number, partition, handle))
                    sent_to[number] = partition
                    if not plan.may_time_out:
                        await handle
                await producer.flush(DEADLINE_S)
                metrics = producer.metrics()
                await producer.close()
        except BaseException as error:
            error.add_note(f"{plan!r}: {dict(proxy.counts)}, {sum(h.done() for *_, h in handles)} of {len(handles)}")
            raise
    assert metrics["buffer_available_bytes"] == metrics["buffer_total_bytes"], plan
    assert metrics["requests_in_flight"] == metrics["waiting_threads"] == 0, plan
    assert len(called_back) == plan.records, plan
    check_log(plan, handles, await in_the_log(bootstrap, topic))
    if not plan.may_time_out:
        assert all(handle.exception() is None for *_, handle in handles), plan


async def started(make: Callable[[], Producer]) -> Producer:
    """A producer that has reached the cluster; starting may fail as anything else may."""
    while True:
        producer = make()
        try:
            await producer.start()
        except KafkaError as error:
            if not error.code.retriable:
                raise
        else:
            return producer


async def ended(handle: RecordHandle) -> None:
    """Wait for a handle, whatever it ends in that may happen here."""
    try:
        await handle
    except KafkaError as error:
        if not error.code.retriable:
            raise


def check_log(
    plan: Plan, handles: Collection[tuple[int, int, RecordHandle]], log: Mapping[int, Collection[Written]]
) -> None:
    """No acknowledged record is lost, none is there twice with idempotence, and the order is that of sending."""
    offsets: dict[tuple[int, int], set[int]] = defaultdict(set)
    for partition, written in log.items():
        for one in written:
            offsets[partition, one.number].add(one.offset)
    for number, partition, handle in handles:
        found = offsets.pop((partition, number), set())
        if handle.exception() is None:
            metadata = handle.result()
            assert found, f"{plan}: record {number} was acknowledged at {metadata} and is not there"
            assert metadata.offset in found | {-1}, f"{plan}: {number} is at {found}, not at {metadata.offset}"
        if plan.idempotent:
            assert len(found) <= 1, f"{plan}: record {number} is there twice, at {found}"
    assert not offsets, f"{plan}: in other partitions than they were sent to: {list(offsets)[:5]}"
    for partition, written in log.items():
        if plan.idempotent:
            order = [one.number for one in written]
        else:
            # A record that was sent again may be there again, behind those that were sent with it.
            order = list(dict.fromkeys(one.number for one in written))
        assert order == sorted(order), f"{plan}: partition {partition} is out of order: {_first_fall(order)}"


def _first_fall(order: list[int]) -> str:
    at = next(at for at in range(1, len(order)) if order[at] < order[at - 1])
    return f"{order[max(0, at - 3) : at + 3]}"


@seeds(2, 200)
@pytest.mark.parametrize("face", ["poll", "records", "each"])
async def test_a_consumer_sees_every_record_once_and_in_order(bootstrap: str, topic: str, seed: int, face: str) -> None:
    draw = random.Random(f"consumer/{face}/{seed}")
    codec = draw.choice(["none", "lz4", "zstd"])
    total = 3_000
    await fill(bootstrap, topic, range(total // 2), compression_type=codec)
    faults = RandomFaults(f"consumer/{face}/{seed}", rate=draw.choice([0.05, 0.15]), connection_rate=0.1)
    configs: dict[str, Any] = {
        **IMPATIENT,
        "auto_offset_reset": "earliest",
        "fetch_max_wait_ms": 50,
        "max_partition_fetch_bytes": draw.choice([2_000, 20_000]),
        "buffer_memory": draw.choice([20_000, 1_000_000]),
        "max_poll_records": draw.choice([7, 500]),
    }
    next_offsets = dict.fromkeys(range(PARTITIONS), 0)
    seen: set[int] = set()

    def take(partition: int, offset: int, value: bytes | None) -> None:
        assert offset == next_offsets[partition], f"partition {partition}: {offset}, expected {next_offsets[partition]}"
        next_offsets[partition] = offset + 1
        seen.add(int(value or b"-1"))

    with FaultProxy(bootstrap, faults) as proxy:
        try:
            async with asyncio.timeout(DEADLINE_S), Consumer(proxy.bootstrap_servers, **configs) as consumer:
                consumer.assign(TopicPartition(topic, partition) for partition in range(PARTITIONS))
                writing = asyncio.create_task(fill(bootstrap, topic, range(total // 2, total)))
                await read_all(consumer, face, take, lambda: len(seen) >= total)
                await writing
                if draw.random() < 0.5:
                    again = TopicPartition(topic, draw.randrange(PARTITIONS))
                    next_offsets[again.partition] = offset = draw.randrange(total // PARTITIONS)
                    consumer.seek(again, offset)
                    await read_all(consumer, face, take, lambda: next_offsets[again.partition] == total // PARTITIONS)
                for partition, offset in next_offsets.items():
                    assert consumer.position(TopicPartition(topic, partition)) == offset
                held = await held_bytes(consumer)
        except BaseException as error:
            error.add_note(f"{faults!r} {configs!r}: {dict(proxy.counts)}, {len(seen)} of {total}, at {next_offsets}")
            raise
    assert seen == set(range(total))
    assert set(next_offsets.values()) == {total // PARTITIONS}
    assert held == 0


Take = Callable[[int, int, bytes | None], None]


async def read_all(consumer: Consumer, face: str, take: Take, is_done: Callable[[], bool]) -> None:
    """Read by one of the faces until there is enough; what a poll raises that may happen here is waited out."""
    columns = RecordColumns(16)
    while not is_done():
        try:
            if face == "each":
                async for record in consumer:
                    take(record.partition, record.offset, record.value)
                    if is_done():
                        break
            elif face == "records":
                for record in await consumer.poll_records(1.0):
                    take(record.partition, record.offset, record.value)
            else:
                for piece in await consumer.poll(1.0):
                    take_piece(piece, columns, take)
                    piece.release()
        except KafkaError as error:
            if not error.code.retriable:
                raise


def take_piece(piece: FetchedRecords, columns: RecordColumns, take: Take) -> None:
    """Take the records where they lie."""
    for buffer, located, start, end in piece.locate(columns):
        for row in range(start, end):
            at, size = located.value_positions[row], located.value_sizes[row]
            take(piece.partition, located.offsets[row], bytes(buffer[at : at + size]))


async def held_bytes(consumer: Consumer) -> float:
    """What the consumer counts as in use once everything was handed over and let go; waits for it to become nothing."""
    for _ in range(500):
        gc.collect()
        if not (held := consumer.metrics()["fetch_buffer_held_bytes"]):
            return 0
        assert not await consumer.poll(0.05)
    return held


class Reader(RebalanceListener):
    """A member of a group: it reads on, and notes what it was handed."""

    def __init__(self, consumer: Consumer, topic: str, delivered: dict[int, set[int]]) -> None:
        self.consumer = consumer
        self._delivered = delivered
        # Where each partition of this assignment has got to.
        self._next: dict[int, int] = {}
        consumer.subscribe([topic], self)

    def on_assigned(self, partitions: Collection[TopicPartition]) -> None:
        for tp in partitions:
            assert tp.partition not in self._next, f"{tp} was assigned twice"

    def on_revoked(self, partitions: Collection[TopicPartition]) -> None:
        for tp in partitions:
            self._next.pop(tp.partition, None)

    on_lost = on_revoked

    def take(self, record: ConsumerRecord) -> None:
        expected = self._next.get(record.partition, record.offset)
        assert record.offset == expected, f"{record.partition}: offset {record.offset}, expected {expected}"
        self._next[record.partition] = record.offset + 1
        self._delivered[record.partition].add(record.offset)

    async def read(self, is_over: Callable[[], bool], commits: bool) -> None:
        async with self.consumer:
            while not is_over():
                try:
                    for record in await self.consumer.poll_records(0.1):
                        self.take(record)
                    if commits:
                        await self.consumer.commit(timeout_s=5)
                except KafkaError as error:
                    # A rebalance came in between, or an answer did not.
                    if not (error.code.retriable or isinstance(error, CommitFailedError)):
                        raise


@seeds(1, 60)
@pytest.mark.parametrize("protocol", ["classic", "cooperative-sticky", "consumer"])
async def test_no_commit_goes_past_what_was_delivered(bootstrap: str, topic: str, seed: int, protocol: str) -> None:
    draw = random.Random(f"group/{protocol}/{seed}")
    total = 900
    await fill(bootstrap, topic, range(total))
    commits = draw.random() < 0.5
    configs: dict[str, Any] = {
        **IMPATIENT,
        "request_timeout_ms": 1_000,
        "group_id": topic,
        "group_protocol": "consumer" if protocol == "consumer" else "classic",
        "auto_offset_reset": "earliest",
        "fetch_max_wait_ms": 50,
        "max_poll_records": 20,
        "enable_auto_commit": not commits,
        "auto_commit_interval_ms": 50,
        "max_poll_interval_ms": 6_000,
        "default_api_timeout_ms": 5_000,
    }
    if protocol != "consumer":
        configs |= {"session_timeout_ms": 6_000, "heartbeat_interval_ms": 200}
    if protocol == "cooperative-sticky":
        configs["partition_assignment_strategy"] = protocol
    delivered: dict[int, set[int]] = defaultdict(set)
    is_over = asyncio.Event()
    faults = RandomFaults(f"group/{protocol}/{seed}", rate=0.04, connection_rate=0.05)
    everything = {partition: set(range(total // PARTITIONS)) for partition in range(PARTITIONS)}
    with FaultProxy(bootstrap, faults) as proxy:
        readers = [
            Reader(Consumer(proxy.bootstrap_servers, client_id=f"reader-{number}", **configs), topic, delivered)
            for number in range(2)
        ]
        try:
            async with (
                asyncio.timeout(DEADLINE_S),
                Consumer(bootstrap, group_id=topic, enable_auto_commit=False) as witness,
                asyncio.TaskGroup() as tasks,
            ):
                for reader in readers:
                    tasks.create_task(reader.read(is_over.is_set, commits))
                while delivered != everything:
                    await check_commits(witness, topic, delivered)
                proxy.heal()
                ends = {total // PARTITIONS}
                while await check_commits(witness, topic, delivered) != ends:
                    continue
                is_over.set()
        except BaseException as error:
            got = {partition: len(offsets) for partition, offsets in delivered.items()}
            error.add_note(f"{faults!r} {configs!r}: {dict(proxy.counts)}, delivered {got}")
            raise


async def check_commits(witness: Consumer, topic: str, delivered: Mapping[int, set[int]]) -> set[int]:
    """Ask past the proxy what is committed: all before it was handed to somebody. Returns the offsets, -1 for none."""
    found = await witness.committed(TopicPartition(topic, partition) for partition in range(PARTITIONS))
    for tp, committed in found.items():
        if committed is not None:
            missing = set(range(committed.offset)) - delivered[tp.partition]
            assert not missing, f"{tp}: {committed.offset} is committed, {sorted(missing)[:5]} were never delivered"
    return {committed.offset if committed is not None else -1 for committed in found.values()}
