"""Real clients as members of groups: they share, join, leave, die, resume after restarts, and lose nothing.

The stories run on Millstream, and on Apache Kafka too where MILLSTREAM_INTEROP_BROKERS says so (`make soak` does).
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import confluent_kafka
import pytest
from tests.interop.conftest import BROKERS
from tests.support.group_members import (
    JAVA_STATIC_SESSION_MS,
    KINDS,
    SESSION_MS,
    GroupMember,
    MemberKind,
    check_reading,
)

from millstream.core.wire.messages.incremental_alter_configs import (
    AlterableConfig,
    AlterConfigsResource,
    IncrementalAlterConfigsRequest,
)
from millstream.testing import TestBroker, broker
from millstream.testing.kafka import ApacheKafka, free_ports, wait_until
from millstream.testing.raw import RawConnection

pytestmark = [pytest.mark.java, pytest.mark.timeout(1200)]

PARTITIONS = 6
WAIT_S = 120.0
SEED = 848
# A member that died is missed soon.
PROPERTIES = {
    "group.min.session.timeout.ms": "1000",
    "group.initial.rebalance.delay.ms": "0",
    "group.consumer.min.session.timeout.ms": "1000",
    "group.consumer.session.timeout.ms": str(SESSION_MS),
    "group.consumer.min.heartbeat.interval.ms": "100",
    "group.consumer.heartbeat.interval.ms": "200",
    "auto.create.topics.enable": "false",
}
Restart = Callable[[], None]
# The long story is told of one client's static members; the others' only where it is about them.
SHORT = tuple(kind for kind in KINDS if kind.is_static and kind.client != "confluent")
by_name = pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in SHORT], ids=lambda kind: kind.name)


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
        assert self._producer.flush(WAIT_S) == 0

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Wait; where it comes to nothing, the error has what the members said last."""
        try:
            wait_until(condition, WAIT_S, what)
        except TimeoutError as error:
            error.add_note("\n".join(member.told() for member in self.every))
            raise

    def await_shares(self, *members: GroupMember) -> None:
        """Wait until these share all partitions evenly, each partition with one."""

        def shared() -> bool:
            for member in members:
                member.check()
            held = [member.assigned for member in members]
            return set().union(*held) == set(range(PARTITIONS)) and all(
                len(each) == PARTITIONS // len(members) for each in held
            )

        self.wait(shared, f"{len(members)} members to share the partitions")

    def await_read(self) -> None:
        """Wait until everything that was written has been read and committed."""

        def committed() -> bool:
            reached = [0] * PARTITIONS
            for member in self.every:
                for _, partition, offset in member.commits():
                    reached[partition] = max(reached[partition], offset)
            return reached == self.ends

        self.wait(committed, "all records to be read and committed")

    def set_session(self, session_ms: int) -> None:
        """Give the group, of the consumer protocol, sessions of its own."""
        config = AlterableConfig(name="consumer.session.timeout.ms", config_operation=0, value=str(session_ms))
        resource = AlterConfigsResource(resource_type=32, resource_name=self.name, configs=[config])
        with RawConnection(self.cluster.bootstrap) as raw:
            answer = raw.call(IncrementalAlterConfigsRequest(resources=[resource]))
            assert [each.error_code for each in answer.responses] == [0], answer

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


@pytest.mark.parametrize("kind", SHORT, ids=lambda kind: kind.name)
def test_a_static_member_comes_back_to_its_partitions(group: Group) -> None:
    """It stops, and starts again as the same instance within its session: nobody else's partitions change."""
    if group.kind.protocol == "consumer":  # of which the broker says how long a session is
        group.set_session(JAVA_STATIC_SESSION_MS)
    first, second = group.join(0), group.join(1)
    group.await_shares(first, second)
    group.produce(50)
    group.await_read()
    held, told = second.assigned, len(first.events)
    second.stop()
    group.produce(50)
    second = group.join(1)
    group.await_shares(first, second)
    group.await_read()
    assert second.assigned == held
    assert not [event for event in first.events[told:] if event["name"].startswith("partitions_")]
    assert group.committed() == dict(enumerate(group.ends))
    assert check_reading(group.every, group.ends) == 0


ROLLING = tuple(kind for kind in KINDS if kind.client == "confluent" or kind.name == "java-consumer")


@pytest.mark.parametrize("kind", ROLLING, ids=lambda kind: kind.name)
def test_rolling_restarts_lose_nothing(group: Group, soak: bool) -> None:
    """Five members, restarted in turn while records flow, some by kill -9, and the broker once."""
    count = 100_000 if soak else 12_000
    draw = random.Random(SEED)
    members = [group.join(number) for number in range(5)]
    group.wait(lambda: set().union(*(member.assigned for member in members)) == set(range(PARTITIONS)), "assignments")
    flowing = threading.Thread(target=_flow, args=(group, count, 25.0 if soak else 8.0), name="flow")
    flowing.start()
    killed = 0
    for turn in range(15 if soak else 5):
        number = turn % 5
        dies = draw.random() < 0.5
        killed += dies
        (members[number].kill if dies else members[number].stop)()
        members[number] = group.join(number)
        group.wait(partial(has_taken_part, members[number]), "the new member to have a share")
        if turn == 2:
            group.cluster.restart()
    flowing.join(WAIT_S)
    assert not flowing.is_alive()
    group.await_read()
    doubles = check_reading(group.every, group.ends)
    print(f"{sum(group.ends)} records, {killed} of the members killed, {doubles} read twice; seed {SEED}")


def has_taken_part(member: GroupMember) -> bool:
    return bool(member.assigned or member.count)


def _flow(group: Group, count: int, seconds: float) -> None:
    rounds = max(count // PARTITIONS // 50, 1)
    for _ in range(rounds):
        started = time.monotonic()
        group.produce(50)
        time.sleep(max(0.0, seconds / rounds - (time.monotonic() - started)))
