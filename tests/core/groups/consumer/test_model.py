"""Members come, go, fall silent, change their minds and lose answers, topics come and go, logs fail: what always holds.

A partition never has two owners; epochs never go back; who was fenced can't commit; what is in memory is what the log
says; and once all is quiet, every member has come to its target, which gives out every partition once.
"""

from __future__ import annotations

import random
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from tests.support.classic_groups import GROUP
from tests.support.consumer_groups import Consumer, ConsumerCoordinator
from tests.support.group_simulation import consumer_snapshot

from millstream.core.groups.consumer.group import ConsumerGroup
from millstream.core.wire import ErrorCode, KafkaError
from millstream.core.wire.messages.consumer_group_heartbeat import ConsumerGroupHeartbeatResponse

TOPICS = ["s", "t", "u-1"]
SESSION_MS = 45_000
FENCING = (
    ErrorCode.FENCED_MEMBER_EPOCH,
    ErrorCode.UNKNOWN_MEMBER_ID,
    ErrorCode.GROUP_ID_NOT_FOUND,
    ErrorCode.FENCED_INSTANCE_ID,
)


class Groups(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.coordinator = ConsumerCoordinator({"s": 3, "t": 5})
        self.topics = {"s": 3, "t": 5}
        self.clients: dict[str, Consumer] = {}
        self.seen_epochs: dict[str, int] = {}
        self.group_epoch = 0
        self.count = 0

    # Members

    @precondition(lambda self: len(self.clients) < 5)
    @rule(
        topics=st.lists(st.sampled_from(TOPICS), max_size=3, unique=True),
        regex=st.sampled_from([None, None, "", ".*", "[st]", "u-.*"]),
        instance=st.sampled_from([None, None, "i1", "i2"]),
        assignor=st.sampled_from([None, "uniform", "range"]),
    )
    def join(self, topics: list[str], regex: str | None, instance: str | None, assignor: str | None) -> None:
        self.count += 1
        client = Consumer(
            self.coordinator, f"m{self.count}", topics, regex=regex, instance_id=instance, assignor=assignor
        )
        answer = client.beat()
        if isinstance(answer, KafkaError):
            assert answer.code is ErrorCode.UNRELEASED_INSTANCE_ID, answer
            return
        self.clients[client.member_id] = client

    @precondition(lambda self: self.clients)
    @rule(data=st.data(), mode=st.sampled_from(["beat", "acknowledge", "full", "lost", "rejoin"]))
    def heartbeat(self, data: st.DataObject, mode: str) -> None:
        client = self.client(data)
        if mode == "acknowledge":
            self.check(client, client.acknowledge())
        elif mode == "lost":
            # The answer does not arrive: the client sends all of it again, in the epoch that it knows.
            self.coordinator.beat(client.request(full=True), client_id=client.member_id)
            self.check(client, client.beat(full=True))
        elif mode == "rejoin":
            client.epoch, client.owned, client.assigned = 0, {}, {}
            self.check(client, client.beat())
        else:
            self.check(client, client.beat(full=mode == "full"))

    @precondition(lambda self: self.clients)
    @rule(
        data=st.data(),
        topics=st.lists(st.sampled_from(TOPICS), max_size=3, unique=True),
        regex=st.sampled_from(["", ".*", "t"]),
    )
    def resubscribe(self, data: st.DataObject, topics: list[str], regex: str) -> None:
        client = self.client(data)
        client.topics, client.regex = topics, regex
        self.check(client, client.beat(subscribed_topic_names=topics, subscribed_topic_regex=regex))

    @precondition(lambda self: self.clients)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        client = self.client(data)
        del self.clients[client.member_id]
        is_static = client.instance_id is not None and data.draw(st.booleans())
        client.epoch = -2 if is_static else -1
        answer = client.beat()
        assert isinstance(answer, ConsumerGroupHeartbeatResponse) or answer.code in FENCING, answer
        if isinstance(answer, ConsumerGroupHeartbeatResponse) and not is_static:
            self.check_cannot_commit(client)

    @precondition(lambda self: self.clients)
    @rule(data=st.data())
    def stale_epoch(self, data: st.DataObject) -> None:
        client = self.client(data)
        answer = self.coordinator.beat(client.request(member_epoch=client.epoch + 1000), client_id=client.member_id)
        assert isinstance(answer, KafkaError), answer
        assert answer.code in FENCING, answer

    # Surroundings

    @rule(data=st.data())
    def change_topics(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(TOPICS))
        if name in self.topics and data.draw(st.booleans()):
            del self.topics[name]
        else:
            self.topics[name] = self.topics.get(name, 0) + data.draw(st.integers(1, 4))
        self.coordinator.set_topics(self.topics)

    @rule(duration_ms=st.sampled_from([50, 5_000, 11_000, 46_000, 70_000]))
    def pass_time(self, duration_ms: int) -> None:
        self.coordinator.pass_ms(duration_ms)

    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        """The coordinator ends; a heartbeat that it took in last is answered, and lost, or neither."""
        self.coordinator.holds = True
        if self.clients:
            client = self.client(data)
            client.has_lost_an_answer = True
            self.coordinator.beat(client.request(full=True), client_id=client.member_id)
        if data.draw(st.booleans()):
            self.coordinator.commit()
        self.coordinator.holds = False
        self.coordinator.fail()
        group = self.group
        self.group_epoch = 0 if group is None else group.group_epoch

    # What holds

    @property
    def group(self) -> ConsumerGroup | None:
        found = self.coordinator.shard.groups.get(GROUP)
        assert found is None or isinstance(found, ConsumerGroup)
        return found

    def client(self, data: st.DataObject) -> Consumer:
        return self.clients[data.draw(st.sampled_from(sorted(self.clients)))]

    def check(self, client: Consumer, answer: Any) -> None:
        if isinstance(answer, KafkaError):
            assert answer.code in (*FENCING, ErrorCode.UNRELEASED_INSTANCE_ID), answer
            self.check_cannot_commit(client)
            self.clients.pop(client.member_id, None)
            self.seen_epochs.pop(client.member_id, None)
            return
        before = self.seen_epochs.get(client.member_id, 0)
        assert answer.member_epoch >= before, f"{client.member_id} went from epoch {before} to {answer.member_epoch}"
        self.seen_epochs[client.member_id] = answer.member_epoch

    def check_cannot_commit(self, client: Consumer) -> None:
        group = self.group
        if group is None or not group.members:
            return
        epoch = self.seen_epochs.get(client.member_id, 1)
        member = group.members.get(client.member_id)
        if member is not None and member.member_epoch == epoch:
            return  # Its instance id is another's, or it spoke of the wrong epoch: it was not put out.
        try:
            check = group.check_offset_commit(
                client.member_id, client.instance_id, epoch, api_version=9, transactional=False
            )
        except KafkaError:
            return
        assert check is not None, f"{client.member_id} is fenced and may commit in epoch {epoch}"

    @invariant()
    def epochs_never_go_back(self) -> None:
        group = self.group
        if group is not None:
            assert group.group_epoch >= self.group_epoch
            assert group.assignment_epoch <= group.group_epoch
            self.group_epoch = group.group_epoch

    @invariant()
    def a_partition_has_one_owner(self) -> None:
        group = self.group
        owners: dict[tuple[bytes, int], str] = {}
        for member in () if group is None else group.members.values():
            for owned in (member.assigned, member.pending_revocation):
                for topic_id, partitions in owned.items():
                    for partition in partitions:
                        other = owners.setdefault((topic_id, partition), member.member_id)
                        assert other == member.member_id, f"{topic_id.hex()}-{partition}: {other}, {member.member_id}"
                        assert group is not None
                        assert group.owner_of(topic_id, partition) == member.member_id
        if group is not None:
            assert len(owners) == sum(map(len, group._owners.values()))

    @invariant()
    def the_log_says_the_same(self) -> None:
        group = self.group
        if group is None or self.coordinator.written:
            return
        again = ConsumerCoordinator(image=self.coordinator.image)
        again.log = self.coordinator.log
        loaded = again._load().groups[GROUP]
        assert isinstance(loaded, ConsumerGroup)
        assert consumer_snapshot(loaded) == consumer_snapshot(group)

    def teardown(self) -> None:
        coordinator = self.coordinator
        coordinator.holds = False
        coordinator.commit()
        # Static members that left for a while, and members whose client is gone, run out of their session.
        for _ in range(12):
            coordinator.pass_ms(11_000)
            for client in list(self.clients.values()):
                self.check(client, client.acknowledge())
        group = self.group
        if group is None:
            return
        assert group.members.keys() == self.clients.keys()
        assert group.state_name == ("Stable" if self.clients else "Empty")
        for member in group.members.values():
            assert {each: frozenset(owned) for each, owned in member.assigned.items()} == dict(
                group.targets.get(member.member_id, {})
            )
            client = self.clients[member.member_id]
            assert {each: owned for each, owned in client.owned.items() if owned} == {
                each: set(owned) for each, owned in member.assigned.items()
            }
        topics = coordinator.image.topics
        wanted = {
            (topics[name].topic_id, partition)
            for name in group.subscribed_topics()
            if name in topics
            for partition in range(len(topics[name].partitions))
        }
        owned = {
            (topic_id, partition)
            for member in group.members.values()
            for topic_id, partitions in member.assigned.items()
            for partition in partitions
        }
        assert owned == wanted


def test_whatever_clients_do(soak: bool) -> None:
    run_state_machine_as_test(
        Groups,
        settings=settings(
            max_examples=2_000 if soak else 60,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_a_thousand_steps_of_many_members() -> None:
    """Twelve members under a seed: members join and leave, and none ever has what another one has."""
    source = random.Random(848)
    coordinator = ConsumerCoordinator({"t": 40, "s": 7})
    clients: list[Consumer] = []
    for step in range(1_000):
        if len(clients) < 12 and source.random() < 0.1:
            clients.append(Consumer(coordinator, f"m{step}", source.sample(["s", "t"], source.randint(1, 2))))
            clients[-1].beat()
        elif clients and source.random() < 0.05:
            client = clients.pop(source.randrange(len(clients)))
            client.epoch = -1
            client.beat()
        elif clients:
            client = source.choice(clients)
            assert not isinstance(client.acknowledge() if source.random() < 0.7 else client.beat(), KafkaError)
        held = [
            (topic_id, partition)
            for client in clients
            for topic_id, partitions in client.owned.items()
            for partition in partitions
        ]
        assert len(held) == len(set(held)), f"step {step}: two clients have a partition"
