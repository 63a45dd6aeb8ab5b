"""Our members against our coordinator in virtual time, with lost answers, reloads, crashes and slow applications.

A failing seed is replayed by `MILLSTREAM_SEED=N pytest tests/core/client/membership/test_simulation.py`.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Mapping

import pytest
from tests.support.member_simulation import NODES, SimCluster, SimMember, World, is_settled, run_virtual

from millstream.core.wire import ErrorCode, KafkaError

KINDS: Mapping[str, dict[str, object]] = {
    "range": {"partition_assignment_strategy": "range"},
    "roundrobin": {"partition_assignment_strategy": "roundrobin"},
    "sticky": {"partition_assignment_strategy": "sticky"},
    "cooperative": {"partition_assignment_strategy": "cooperative-sticky"},
    "default": {},
    "consumer": {"group_protocol": "consumer"},
    "static": {"partition_assignment_strategy": "cooperative-sticky"},
    "static-consumer": {"group_protocol": "consumer"},
    "pattern": {"partition_assignment_strategy": "sticky"},
}
SEEDS = [int(os.environ["MILLSTREAM_SEED"])] if "MILLSTREAM_SEED" in os.environ else [1]
by_kind = pytest.mark.parametrize("kind", KINDS)


async def await_settled(world: World, topics: list[str], seconds: float = 120) -> None:
    """Let virtual time pass until the group is at rest."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not is_settled(world, topics):
        for member in world.members:
            member.check()
        assert asyncio.get_running_loop().time() < deadline, (
            f"not at rest after {seconds} s: {[(each, sorted(each.held)) for each in world.members]}"
        )
        await asyncio.sleep(0.1)


class Story:
    """A world with time running, and what is done to it."""

    def __init__(self, seed: int, kind: str) -> None:
        self.kind = kind
        self.random = random.Random(f"{seed}/{kind}")
        self.topics = {"a": 7, "b": 5}
        self.sim = SimCluster(seed, self.topics)
        self.world = World(self.sim)
        self._number = 0
        self._seed = seed

    def join(self) -> SimMember:
        self._number += 1
        configs = dict(KINDS[self.kind])
        if self.kind.startswith("static"):
            # An instance comes back under its name as soon as it is not there any more.
            running = {member.instance_id for member in self.world.members}
            configs["group_instance_id"] = next(name for name in map(str, range(10)) if name not in running)
        name = f"m{self._seed}-{self._number}"
        pattern = "a|b" if self.kind == "pattern" else None
        member = SimMember(self.world, name, ["a", "b"], pattern=pattern, **configs)
        member.start()
        return member

    async def disturb(self, seconds: float) -> None:
        """Have things go wrong for so long."""
        deadline = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(self.random.uniform(0.05, 3))
            await self.random.choice(
                [self.come, self.go, self.crash, self.reload, self.move, self.lose, self.doze, self.grow, self.turn]
            )()
            for member in self.world.members:
                member.check()

    async def come(self) -> None:
        if len(self.world.members) < 6:
            self.join()

    async def go(self) -> None:
        if len(self.world.members) > 1:
            await self.random.choice(self.world.members).close()

    async def crash(self) -> None:
        if len(self.world.members) > 1:
            await self.random.choice(self.world.members).crash()

    async def reload(self) -> None:
        self.sim.fail()

    async def move(self) -> None:
        self.sim.move(None)
        await asyncio.sleep(self.random.uniform(0, 2))
        self.sim.move(self.random.choice(NODES))

    async def lose(self) -> None:
        self.sim.loss = self.random.choice([0, 0.05, 0.3])

    async def doze(self) -> None:
        """An application does not poll, at times for longer than it may."""
        member = self.random.choice(self.world.members)
        member.work_s = self.random.choice([0.05, 0.05, 1, 15])

    async def grow(self) -> None:
        """A topic gets a partition more."""
        topic = self.random.choice(["a", "b"])
        if self.sim.topics[topic] < 10:
            self.sim.add_partitions(topic, self.sim.topics[topic] + 1)

    async def turn(self) -> None:
        """A member wants to read something else."""
        member = self.random.choice(self.world.members)
        if member.pattern is None:
            member.membership.subscribe(self.random.choice([["a"], ["b"], ["a", "b"]]))
        else:
            member.membership.subscribe_pattern(self.random.choice(["a", "b", "[ab]"]))

    async def calm(self) -> None:
        """Nothing goes wrong any more."""
        self.sim.loss = 0
        if self.sim.node is None:
            self.sim.move(NODES[0])
        for member in self.world.members:
            member.work_s = 0.05
            if member.pattern is None:
                member.membership.subscribe(["a", "b"])
            else:
                member.membership.subscribe_pattern(member.pattern)

        if self.kind == "static":
            # A static leader that came back does not know what the topics were like when its group was assigned, so it
            # notices what grew meanwhile with the next change only (KIP-814; Kafka's consumer does the same).
            await asyncio.sleep(45)  # for the longest doze to be over
            for topic, count in self.sim.topics.items():
                self.sim.add_partitions(topic, count + 1)

    async def end(self) -> None:
        for member in list(self.world.members):
            member.check()
            await member.close()
            assert not member.held
            # A coordinator that failed between an instance's join under a new member id and the group's next assignment
            # knows its old id only, and fences the new one, as Kafka's does: the application starts again.
            fenced = KafkaError if self.kind == "static" else ()
            assert all(
                isinstance(each, fenced) and each.code is ErrorCode.FENCED_INSTANCE_ID for each in member.failures
            ), member.failures


@pytest.mark.parametrize("seed", SEEDS)
@by_kind
def test_whatever_goes_wrong_partitions_have_one_member_and_offsets_only_grow(kind: str, seed: int, soak: bool) -> None:
    async def story(seed: int) -> int:
        told = Story(seed, kind)
        ticking = asyncio.create_task(told.sim.tick())
        for _ in range(3):
            told.join()
        await told.disturb(90)
        await told.calm()
        await await_settled(told.world, ["a", "b"])
        before = told.world.commits
        await asyncio.sleep(10)
        assert told.world.commits > before, "nothing is committed in peace"
        await told.end()
        ticking.cancel()
        return told.world.commits

    for more in range(40 if soak else 1):
        print(f"seed {seed + 100 * more}")
        assert run_virtual(story(seed + 100 * more)) > 0
