"""kill -9 of the broker while real clients read, commit and rebalance: no commit is lost, and the members come back.

Two groups, of the classic and of the consumer protocol, read one topic that records flow into; now and then a member
joins or leaves while the broker is down. `make test` runs a few rounds, `make soak` fifty.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import confluent_kafka
import pytest
from tests.support.group_members import KINDS, SESSION_MS, GroupMember, check_reading

from millstream.testing import broker
from millstream.testing.kafka import free_ports, wait_until
from millstream.testing.raw import RawConnection

SEED = 44
TOPIC = "killed-groups"
PARTITIONS = 4
WAIT_S = 150.0
PROPERTIES = {
    "group.min.session.timeout.ms": "1000",
    "group.consumer.min.session.timeout.ms": "1000",
    "group.consumer.session.timeout.ms": str(SESSION_MS),
    "group.consumer.min.heartbeat.interval.ms": "100",
    "group.consumer.heartbeat.interval.ms": "200",
    "auto.create.topics.enable": "false",
}
PROTOCOLS = [kind for kind in KINDS if kind.name in {"confluent-range", "confluent-consumer"}]


class Flow:
    """A producer that keeps records coming, in a thread."""

    def __init__(self, bootstrap: str) -> None:
        self._producer = confluent_kafka.Producer(
            {
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "linger.ms": 5,
                "message.timeout.ms": 600_000,
                "reconnect.backoff.ms": 10,
                "reconnect.backoff.max.ms": 100,
                "log_level": 0,
            }
        )
        self.ends = [0] * PARTITIONS
        self._errors: list[Any] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="flow")
        self._thread.start()

    def _delivered(self, error: Any, message: Any) -> None:
        if error is not None:
            self._errors.append(error)
        else:
            self.ends[message.partition()] = message.offset() + 1

    def _run(self) -> None:
        while not self._stop.wait(0.01):
            for partition in range(PARTITIONS):
                if len(self._producer) < 2000:
                    self._producer.produce(TOPIC, b"x", partition=partition, on_delivery=self._delivered)
            self._producer.poll(0)

    def finish(self) -> None:
        """Send no more; everything is acknowledged then."""
        self._stop.set()
        self._thread.join(WAIT_S)
        assert self._producer.flush(WAIT_S) == 0
        assert not self._errors, self._errors[:3]


def committed(members: list[GroupMember]) -> list[int]:
    """The highest offset of each partition whose commit was acknowledged."""
    reached = [0] * PARTITIONS
    for member in members:
        for _, partition, offset in member.commits():
            reached[partition] = max(reached[partition], offset)
    return reached


def await_committed(groups: Mapping[str, list[GroupMember]], goals: Mapping[str, int]) -> None:
    """Wait until each group has committed so many records."""
    try:
        wait_until(
            lambda: all(sum(committed(groups[name])) >= goal for name, goal in goals.items()),
            WAIT_S,
            "members to commit",
        )
    except TimeoutError as error:
        error.add_note("\n".join(member.told() for members in groups.values() for member in members))
        raise


@pytest.mark.java
@pytest.mark.timeout(3000)
def test_kill_nine_amid_groups(jars: Path, soak: bool) -> None:
    rounds = 50 if soak else 4
    draw = random.Random(SEED)
    with broker(PROPERTIES, port=free_ports(1)[0]) as running:
        bootstrap = running.bootstrap_servers
        with RawConnection(bootstrap) as raw:
            raw.create_topic(TOPIC, PARTITIONS)
        groups: dict[str, list[GroupMember]] = {kind.name: [] for kind in PROTOCOLS}

        def join(number: int) -> None:
            for kind in PROTOCOLS:
                groups[kind.name].append(GroupMember(kind, jars, bootstrap, kind.name, TOPIC, number))

        flow = Flow(bootstrap)
        try:
            join(0)
            join(1)
            for number in range(rounds):
                goals = {name: sum(committed(members)) + draw.randrange(1, 600) for name, members in groups.items()}
                await_committed(groups, goals)
                running.kill()
                if number % 4 == 1:
                    for members in groups.values():
                        members[-1].kill()
                running.start()
                if number % 4 == 1:
                    join(number)
            flow.finish()
            await_committed(groups, dict.fromkeys(groups, sum(flow.ends)))

            doubles = {name: check_reading(members, flow.ends) for name, members in groups.items()}
            print(f"{rounds} kills, {sum(flow.ends)} records, read twice: {doubles}; seed {SEED}")
        finally:
            flow.finish()
            for members in groups.values():
                for member in members:
                    member.close()
