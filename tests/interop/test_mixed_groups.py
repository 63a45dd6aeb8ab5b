"""Our members in one group with Java's, librdkafka's and kafka-python's: whoever leads, all partitions are shared.

One story for each client and assignor: they are there first and lead, ours comes; ours stays alone; they come again,
and ours leads.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.interop.conftest import BROKERS
from tests.support.group_members import GroupMember, MemberKind
from tests.support.our_member import OurMember, our_member, until

from millstream.core.client import TopicPartition
from millstream.testing import broker
from millstream.testing.kafka import ApacheKafka, free_ports
from millstream.testing.raw import RawConnection

pytestmark = [pytest.mark.java, pytest.mark.timeout(300)]

PARTITIONS = 6
PROPERTIES = {
    "group.min.session.timeout.ms": "1000",
    "group.initial.rebalance.delay.ms": "0",
    "group.consumer.min.heartbeat.interval.ms": "100",
    "group.consumer.heartbeat.interval.ms": "200",
}


class Mixture(NamedTuple):
    """A foreign member, and how ours is configured to go with it."""

    theirs: MemberKind
    ours: dict[str, Any]
    is_incremental: bool = False


def strategy(name: str) -> dict[str, Any]:
    return {"partition_assignment_strategy": name}


MIXTURES = {
    "java-range": Mixture(MemberKind("java-range", "java", assignor="RangeAssignor"), strategy("range")),
    "java-roundrobin": Mixture(
        MemberKind("java-roundrobin", "java", assignor="RoundRobinAssignor"), strategy("range,roundrobin")
    ),
    "java-sticky": Mixture(MemberKind("java-sticky", "java", assignor="StickyAssignor"), strategy("sticky")),
    "java-cooperative": Mixture(
        MemberKind("java-cooperative", "java", assignor="CooperativeStickyAssignor"),
        strategy("cooperative-sticky"),
        is_incremental=True,
    ),
    "java-consumer": Mixture(
        MemberKind("java-consumer", "java", protocol="consumer"), {"group_protocol": "consumer"}, is_incremental=True
    ),
    "confluent-cooperative": Mixture(
        MemberKind("confluent-cooperative", "confluent", assignor="cooperative-sticky"),
        strategy("cooperative-sticky"),
        is_incremental=True,
    ),
    "confluent-consumer": Mixture(
        MemberKind("confluent-consumer", "confluent", protocol="consumer"),
        {"group_protocol": "consumer"},
        is_incremental=True,
    ),
    "kafka-python": Mixture(MemberKind("kafka-python", "kafka-python"), strategy("roundrobin,range")),
    # A group of the consumer protocol takes members of the classic one, and the reverse (KIP-848).
    "java-consumer-and-our-classic": Mixture(
        MemberKind("java-consumer", "java", protocol="consumer"), strategy("cooperative-sticky"), is_incremental=True
    ),
}


@pytest.fixture(scope="module", params=BROKERS.split(","))
def address(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, jars: Path) -> Iterator[str]:
    """A broker of this module's own."""
    if request.param == "kafka":
        with ApacheKafka(tmp_path_factory.mktemp("kafka"), jars=jars, properties=PROPERTIES) as kafka:
            yield kafka.bootstrap_servers
    else:
        with broker(PROPERTIES, port=free_ports(1)[0]) as running:
            yield running.bootstrap_servers


class Theirs:
    """The foreign members of one group, one after the other."""

    def __init__(self, jars: Path, address: str, name: str, kind: MemberKind) -> None:
        self._jars, self._address, self._name, self._kind = jars, address, name, kind
        self.every: list[GroupMember] = []

    def join(self) -> GroupMember:
        member = GroupMember(self._kind, self._jars, self._address, self._name, self._name)
        self.every.append(member)
        return member


@pytest.fixture
async def theirs(jars: Path, address: str, mixture: str) -> AsyncIterator[Theirs]:
    """A topic, and the foreign members that read it in a group of the same name."""
    name = f"mixed-{mixture}"
    with RawConnection(address) as raw:
        raw.create_topic(name, PARTITIONS)
    made = Theirs(jars, address, name, MIXTURES[mixture].theirs)
    yield made
    for member in made.every:
        await asyncio.to_thread(member.close)


async def shared(foreign: GroupMember, ours: OurMember | None) -> None:
    """Wait until the two, or they alone, have all partitions in even shares."""

    def evenly() -> bool:
        foreign.check()
        mine = set() if ours is None else {tp.partition for tp in ours.held}
        size = PARTITIONS if ours is None else PARTITIONS // 2
        return foreign.assigned | mine == set(range(PARTITIONS)) and len(foreign.assigned) == size

    await until(evenly, "the partitions to be shared")


@pytest.mark.parametrize("mixture", MIXTURES)
async def test_whoever_leads_all_is_shared(address: str, theirs: Theirs, mixture: str) -> None:
    name = f"mixed-{mixture}"
    foreign = theirs.join()
    await shared(foreign, None)
    async with our_member(address, name, [name], **MIXTURES[mixture].ours) as ours:
        await shared(foreign, ours)
        await asyncio.to_thread(foreign.stop)
        await until(lambda: len(ours.held) == PARTITIONS, "all for ours")
        second = theirs.join()
        await shared(second, ours)
        if MIXTURES[mixture].is_incremental:
            # What ours kept was never taken from it on the way.
            gave_up = set[TopicPartition]().union(*ours.named("revoked"))
            assert len(gave_up) == PARTITIONS // 2
            assert not gave_up & ours.held
        assert not ours.failures
    await shared(second, None)
