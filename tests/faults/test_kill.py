"""kill -9 in a loop under idempotent load: every acknowledged record is there once, in order.

librdkafka's idempotent producer writes on while the broker is killed and started again on the same port. Its counters
say whether requests were in flight at each kill. At the end all partitions are read by assignment. `make test` runs
a few rounds, `make soak` fifty.
"""

import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import confluent_kafka
import pytest
from tests.support.clients import by_assignment
from tests.support.faulty_broker import UnsyncedDiskBroker

from millstream.testing import broker
from millstream.testing.kafka import free_ports
from millstream.testing.raw import RawConnection

PARTITIONS = 3
SEED = 11
Restart = Callable[[], None]


class Load:
    """An idempotent producer in a thread; each partition gets the numbers 0, 1, 2, ... in order."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._topic = topic
        self._producer = confluent_kafka.Producer(
            {
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "linger.ms": 1,
                "batch.num.messages": 100,
                "message.timeout.ms": 600_000,
                "reconnect.backoff.ms": 10,
                "reconnect.backoff.max.ms": 100,
                "retry.backoff.ms": 20,
                "statistics.interval.ms": 5,
                "stats_cb": self._count,
                "log_level": 0,
            }
        )
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load")
        self.sent = [0] * PARTITIONS
        # Partition -> {offset: value}, as acknowledged.
        self.acknowledged: list[dict[int, int]] = [{} for _ in range(PARTITIONS)]
        self.errors: list[str] = []
        # Requests sent and not answered, as of librdkafka's last count.
        self.requests_in_flight = 0

    def _count(self, text: str) -> None:
        self.requests_in_flight = sum(b["waitresp_cnt"] for b in json.loads(text)["brokers"].values())

    def _delivered(self, error: Any, message: Any) -> None:
        if error is not None:
            self.errors.append(str(error))
        else:
            self.acknowledged[message.partition()][message.offset()] = int(message.value())

    def _run(self) -> None:
        while not self._stop.is_set():
            for partition in range(PARTITIONS):
                try:
                    self._producer.produce(
                        self._topic, b"%d" % self.sent[partition], partition=partition, on_delivery=self._delivered
                    )
                except BufferError:
                    self._producer.poll(0.01)
                else:
                    self.sent[partition] += 1
            # Some thousand waiting keep requests in flight all the time without filling the disk.
            self._producer.poll(0)
            while len(self._producer) > 3000 and not self._stop.is_set():
                self._producer.poll(0.002)

    @property
    def count(self) -> int:
        """Records acknowledged so far."""
        return sum(map(len, self.acknowledged))

    def start(self) -> None:
        self._thread.start()

    def wait_acknowledged(self, more: int) -> None:
        goal, deadline = self.count + more, time.monotonic() + 150
        while self.count < goal:
            assert not self.errors, self.errors[:3]
            assert time.monotonic() < deadline, f"{self.count} records acknowledged, {goal} wanted"
            time.sleep(0.002)

    def wait_in_flight(self) -> bool:
        """Wait until a request is unanswered; return whether one is, since none may come any more."""
        deadline = time.monotonic() + 20
        while not self.requests_in_flight and time.monotonic() < deadline:
            time.sleep(0.0005)
        return self.requests_in_flight > 0

    def finish(self) -> None:
        """Send no more and wait until everything is acknowledged."""
        self._stop.set()
        self._thread.join(90)
        assert self._producer.flush(150) == 0, "records were never acknowledged"
        assert not self.errors, self.errors[:3]


def values_of(bootstrap: str, topic: str, partition: int) -> list[int]:
    """All values of a partition, by assignment; their offsets go from 0 on without a hole."""
    with RawConnection(bootstrap) as raw:
        end = raw.offset(topic, partition)
    consumer = by_assignment(bootstrap)
    values: list[int] = []
    try:
        consumer.assign([confluent_kafka.TopicPartition(topic, partition, 0)])
        while len(values) < end:
            messages: list[Any] = list(consumer.consume(min(10_000, end - len(values)), 90))
            assert messages, f"{topic}-{partition} ends at {end}, {len(values)} records came"
            for message in messages:
                assert message.error() is None, message.error()
                assert message.offset() == len(values)
                values.append(int(message.value()))
    finally:
        consumer.close()
    return values


def kill_loop(bootstrap: str, restart: Restart, rounds: int, topic: str, **configs: Any) -> None:
    draw = random.Random(SEED)
    with RawConnection(bootstrap) as raw:
        raw.create_topic(topic, PARTITIONS, **configs)
    load = Load(bootstrap, topic)
    load.start()
    in_flight = 0
    try:
        for _ in range(rounds):
            load.wait_acknowledged(draw.randrange(1, 3000))
            in_flight += load.wait_in_flight()
            restart()
        load.wait_acknowledged(100)
    finally:
        load.finish()
    print(f"{rounds} kills, {in_flight} with requests in flight, {load.count} records acknowledged; seed {SEED}")
    assert in_flight >= 0.8 * rounds
    for partition in range(PARTITIONS):
        values = values_of(bootstrap, topic, partition)
        assert values == list(range(load.sent[partition])), f"partition {partition}: lost, doubled or reordered"
        for offset, value in load.acknowledged[partition].items():
            assert values[offset] == value, f"offset {offset} was acknowledged for {value}"


@pytest.fixture
def rounds(soak: bool) -> int:
    """How often the broker is killed."""
    return 50 if soak else 5


def test_kill_nine_loses_and_doubles_nothing(rounds: int) -> None:
    with broker({"auto.create.topics.enable": "false"}, port=free_ports(1)[0]) as running:

        def restart() -> None:
            running.kill()
            running.start()

        kill_loop(running.bootstrap_servers, restart, rounds, "killed")


@pytest.fixture
def unsynced(tmp_path: Path) -> Iterator[UnsyncedDiskBroker]:
    """A broker on a disk that forgets, when the machine dies, everything that was not synced."""
    with UnsyncedDiskBroker(tmp_path / "data") as running:
        yield running


def test_power_loss_with_flush_messages_1_loses_and_doubles_nothing(rounds: int, unsynced: UnsyncedDiskBroker) -> None:
    kill_loop(unsynced.bootstrap_servers, unsynced.lose_power_and_restart, rounds, "unplugged", flush_messages=1)
