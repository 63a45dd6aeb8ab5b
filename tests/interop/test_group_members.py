"""Real clients as members of groups: they share, join, leave, die, resume after restarts, and lose nothing.

The stories run on Millstream, and on Apache Kafka too where MILLSTREAM_INTEROP_BROKERS says so (`make soak` does).
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import confluent_kafka
import pytest
from tests.interop.conftest import BROKERS
from tests.support.group_members import KINDS, GroupMember, MemberKind, check_reading

from millstream.testing import TestBroker, broker
from millstream.testing.kafka import ApacheKafka, free_ports, wait_until
from millstream.testing.raw import RawConnection

pytestmark = [pytest.mark.java, pytest.mark.timeout(300)]

PARTITIONS = 6
WAIT_S = 45.0
SEED = 848
# A member that died is missed soon.
PROPERTIES = {
    "group.min.session.timeout.ms": "1000",
    "group.initial.rebalance.delay.ms": "0",
    "group.consumer.min.session.timeout.ms": "1000",
    "group.consumer.session.timeout.ms": "3000",
    "group.consumer.min.heartbeat.interval.ms": "100",
    "group.consumer.heartbeat.interval.ms": "200",
    "auto.create.topics.enable": "false",
}
Restart = Callable[[], None]
by_name = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


class Cluster:
    """The broker under test, with what can be done to it."""

    def __init__(self, running: TestBroker | ApacheKafka) -> None:
        self._running = running
        self.bootstrap = running.bootstrap_servers

    def restart(self) -> None:
        """Stop it in order and start it again, on the same port and data."""
        self._running.stop()
        self._running.start()


@pytest.fixture(scope="module", params=BROKERS.split(","))
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, jars: Path) -> Iterator[Cluster]:
    """A broker of this module's own."""
    if request.param == "kafka":
        with ApacheKafka(tmp_path_factory.mktemp("kafka"), jars=jars, properties=PROPERTIES) as kafka:
            yield Cluster(kafka)
    else:
        with broker(PROPERTIES, port=free_ports(1)[0]) as running:
            yield Cluster(running)


class Group:
    """A topic, the members of a group that reads it, and what was written."""

    def __init__(self, cluster: Cluster, kind: MemberKind, jars: Path, name: str) -> None:
        self.cluster = cluster
        self.kind = kind
        self.name = name
        self._jars = jars
        self.every: list[GroupMember] = []
        self.ends = [0] * PARTITIONS
        with RawConnection(cluster.bootstrap) as raw:
            raw.create_topic(name, PARTITIONS)
        self._producer = confluent_kafka.Producer(
            {"bootstrap.servers": cluster.bootstrap, "enable.idempotence": True, "linger.ms": 1, "log_level": 0}
        )

    def join(self, number: int = 0) -> GroupMember:
        member = GroupMember(self.kind, self._jars, self.cluster.bootstrap, self.name, self.name, number)
        self.every.append(member)
        return member

    def produce(self, count: int) -> None:
        """Write `count` records to each partition."""
        for partition in range(PARTITIONS):
            for number in range(count):
                self._producer.produce(self.name, b"%d" % number, partition=partition)
            self.ends[partition] += count
        assert self._producer.flush(60) == 0

    def await_shares(self, *members: GroupMember) -> None:
        """Wait until these share all partitions evenly, each partition with one."""

        def shared() -> bool:
            for member in members:
                member.check()
            held = [member.assigned for member in members]
            return set().union(*held) == set(range(PARTITIONS)) and all(
                len(each) == PARTITIONS // len(members) for each in held
            )

        wait_until(shared, WAIT_S, f"{len(members)} members to share the partitions")

    def await_read(self) -> None:
        """Wait until everything that was written has been read and committed."""

        def committed() -> bool:
            reached = [0] * PARTITIONS
            for member in self.every:
                for _, partition, offset in member.commits():
                    reached[partition] = max(reached[partition], offset)
            return reached == self.ends

        wait_until(committed, WAIT_S, "all records to be read and committed")

    def committed(self) -> dict[int, int]:
        """As an outsider is told."""
        consumer = confluent_kafka.Consumer({"bootstrap.servers": self.cluster.bootstrap, "group.id": self.name})
        try:
            wanted = [confluent_kafka.TopicPartition(self.name, partition) for partition in range(PARTITIONS)]
            return {one.partition: one.offset for one in consumer.committed(wanted, 30)}
        finally:
            consumer.close()

    def close(self) -> None:
        for member in self.every:
            member.close()


@pytest.fixture
def group(cluster: Cluster, kind: MemberKind, jars: Path, request: pytest.FixtureRequest) -> Iterator[Group]:
    """A group without members, on a topic of its own."""
    made = Group(cluster, kind, jars, f"{request.function.__name__[5:25]}-{kind.name}")
    yield made
    made.close()


@by_name
def test_members_join_leave_die_and_resume(group: Group, kind: MemberKind) -> None:
    first = group.join(0)
    group.produce(50)
    group.await_shares(first)
    group.await_read()

    second = group.join(1)
    group.await_shares(first, second)
    group.produce(50)
    group.await_read()

    second.stop()
    if kind.is_static:
        second = group.join(1)  # the same instance comes back to its partitions, and nobody else notices
        group.await_shares(first, second)
        assert sum(event["name"] == "partitions_assigned" for event in first.events) == 2
        second.kill()
    group.await_shares(first)
    group.produce(50)
    group.await_read()

    third = group.join(2)
    group.await_shares(first, third)
    third.kill()
    group.await_shares(first)
    group.produce(50)
    group.await_read()

    first.stop()
    group.produce(50)
    fourth = group.join(0)
    group.await_shares(fourth)
    group.await_read()

    group.cluster.restart()
    group.produce(50)
    group.await_read()
    assert group.committed() == dict(enumerate(group.ends))
    # Every commit had been acknowledged when a member stopped or died: nothing is read twice.
    assert check_reading(group.every, group.ends) == 0


ROLLING = tuple(kind for kind in KINDS if kind.client == "confluent" or kind.name == "java-consumer")


@pytest.mark.parametrize("kind", ROLLING, ids=lambda kind: kind.name)
def test_rolling_restarts_lose_nothing(group: Group, soak: bool) -> None:
    """Five members, restarted in turn while records flow, some by kill -9, and the broker once."""
    count = 100_000 if soak else 12_000
    draw = random.Random(SEED)
    members = [group.join(number) for number in range(5)]
    wait_until(
        lambda: set().union(*(member.assigned for member in members)) == set(range(PARTITIONS)), WAIT_S, "assignments"
    )
    flowing = threading.Thread(target=_flow, args=(group, count, 25.0 if soak else 8.0), name="flow")
    flowing.start()
    killed = 0
    for turn in range(15 if soak else 5):
        number = turn % 5
        dies = draw.random() < 0.5
        killed += dies
        (members[number].kill if dies else members[number].stop)()
        members[number] = group.join(number)
        await_share(members[number])
        if turn == 2:
            group.cluster.restart()
    flowing.join(120)
    assert not flowing.is_alive()
    group.await_read()
    doubles = check_reading(group.every, group.ends)
    print(f"{sum(group.ends)} records, {killed} of the members killed, {doubles} read twice; seed {SEED}")


def await_share(member: GroupMember) -> None:
    """Wait until a member has taken part."""
    wait_until(lambda: member.assigned or member.count, WAIT_S, "the new member to have a share")


def _flow(group: Group, count: int, seconds: float) -> None:
    rounds = max(count // PARTITIONS // 50, 1)
    for _ in range(rounds):
        started = time.monotonic()
        group.produce(50)
        time.sleep(max(0.0, seconds / rounds - (time.monotonic() - started)))
