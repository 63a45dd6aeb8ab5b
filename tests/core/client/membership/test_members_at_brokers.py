"""Our members in groups of Millstream and of Apache Kafka: what one coordinator does with them, so does the other."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.support.our_member import OurMember, our_member, until

from millstream.core.client import (
    EARLIEST,
    Client,
    CommittedOffset,
    NewTopic,
    TopicPartition,
    create_partitions,
    create_topics,
    list_offsets,
)
from millstream.core.client.membership import (
    CommitFailedError,
    CustomProtocol,
    JoinedMember,
    MembershipState,
)
from millstream.core.wire import ErrorCode, KafkaError
from millstream.testing import broker
from millstream.testing.kafka import ApacheKafka

PARTITIONS = 6
KINDS: Mapping[str, dict[str, Any]] = {
    "range": {"partition_assignment_strategy": "range"},
    "roundrobin": {"partition_assignment_strategy": "roundrobin"},
    "sticky": {"partition_assignment_strategy": "sticky"},
    "cooperative": {"partition_assignment_strategy": "cooperative-sticky"},
    "consumer": {"group_protocol": "consumer"},
}
# The interval of the consumer protocol is the broker's, and 5 s by default: the tests would wait for little else.
PROPERTIES = {
    "group.initial.rebalance.delay.ms": "0",
    "group.consumer.min.heartbeat.interval.ms": "100",
    "group.consumer.heartbeat.interval.ms": "200",
}
by_kind = pytest.mark.parametrize("kind", KINDS)
by_protocol = pytest.mark.parametrize("kind", ["cooperative", "consumer"])


@pytest.fixture(scope="module", params=["millstream", pytest.param("kafka", marks=pytest.mark.java)])
def bootstrap(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A broker of this module's own, in which members hear of each other soon."""
    if request.param == "millstream":
        with broker(PROPERTIES) as running:
            yield running.bootstrap_servers
    else:
        jars: Path = request.getfixturevalue("jars")
        with ApacheKafka(tmp_path_factory.mktemp("kafka"), jars=jars, properties=PROPERTIES) as kafka:
            yield kafka.bootstrap_servers


@pytest.fixture
async def topic(bootstrap: str, topic_name: Callable[[], str]) -> AsyncIterator[str]:
    """A topic that is served."""
    async with Client(bootstrap) as client:
        yield await made(client, topic_name())


async def made(client: Client, name: str, partitions: int = PARTITIONS) -> str:
    assert await create_topics(client, [NewTopic(name, partitions)]) == {name: None}
    await list_offsets(client, {TopicPartition(name, index): EARLIEST for index in range(partitions)})
    return name


def every(topic: str, count: int = PARTITIONS) -> frozenset[TopicPartition]:
    return frozenset(TopicPartition(topic, index) for index in range(count))


async def shared(topic: str, *members: OurMember, count: int = PARTITIONS) -> None:
    """Wait until these members share the topic evenly."""

    def evenly() -> bool:
        held = [member.held for member in members]
        return (
            frozenset[TopicPartition]().union(*held) == every(topic, count)
            and [len(each) for each in held] == [count // len(members)] * len(members)
            and all(member.membership.state is MembershipState.STABLE for member in members)
        )

    await until(evenly, f"{len(members)} members to share {topic}: {[member.events for member in members]}")


@by_kind
async def test_members_come_commit_and_go(bootstrap: str, topic: str, kind: str) -> None:
    configs = KINDS[kind]
    async with our_member(bootstrap, topic, [topic], **configs) as first:
        await shared(topic, first)
        async with our_member(bootstrap, topic, [topic], **configs) as second:
            await shared(topic, first, second)
            for member in (first, second):
                await member.committer.commit({tp: CommittedOffset(10 + tp.partition, 0, "here") for tp in member.held})
            gave_up = set().union(*first.named("revoked"))
            assert len(gave_up) == (PARTITIONS if kind in ("range", "roundrobin", "sticky") else PARTITIONS // 2)
        await shared(topic, first)
        assert not first.named("lost")
        found = await first.committer.committed([*every(topic)], require_stable=True)
        assert found == {tp: CommittedOffset(10 + tp.partition, 0, "here") for tp in every(topic)}
    assert not first.held
    assert first.membership.state is MembershipState.OUTSIDE
    async with our_member(bootstrap, topic, [topic], **configs) as third:
        await shared(topic, third)


@by_protocol
async def test_a_static_member_comes_back_unnoticed(bootstrap: str, topic: str, kind: str) -> None:
    async with our_member(bootstrap, topic, [topic], **KINDS[kind], group_instance_id="one") as other:
        await shared(topic, other)
        async with our_member(bootstrap, topic, [topic], **KINDS[kind], group_instance_id="two") as gone:
            await shared(topic, other, gone)
            had = gone.held
        before = list(other.events)
        async with our_member(bootstrap, topic, [topic], **KINDS[kind], group_instance_id="two") as back:
            await shared(topic, other, back)
            assert back.held == had
            assert other.events == before


async def test_of_two_with_one_instance_id_the_later_has_it_in_a_classic_group(bootstrap: str, topic: str) -> None:
    async with our_member(bootstrap, topic, [topic], group_instance_id="one") as first:
        await shared(topic, first)
        async with our_member(bootstrap, topic, [topic], group_instance_id="one") as second:
            await shared(topic, second)
            await until(lambda: first.failures, "the first to be fenced")
            (error,) = first.failures
            assert isinstance(error, KafkaError)
            assert error.code is ErrorCode.FENCED_INSTANCE_ID
            assert "group.instance.id 'one'" in error.message
            await until(lambda: not first.held, "the first to lose what it had")
            assert first.named("lost") == [every(topic)]
            with pytest.raises(CommitFailedError):
                await first.committer.commit({TopicPartition(topic, 0): CommittedOffset(1)})


async def test_of_two_with_one_instance_id_the_former_has_it_in_a_consumer_group(bootstrap: str, topic: str) -> None:
    consumer = KINDS["consumer"]
    async with our_member(bootstrap, topic, [topic], **consumer, group_instance_id="one") as first:
        await shared(topic, first)
        async with our_member(bootstrap, topic, [topic], **consumer, group_instance_id="one") as second:
            await until(lambda: second.failures, "the second to be refused")
            (error,) = second.failures
            assert isinstance(error, KafkaError)
            assert error.code is ErrorCode.UNRELEASED_INSTANCE_ID
        assert first.held == every(topic)


@by_protocol
async def test_one_that_is_not_polled_leaves_and_comes_back(bootstrap: str, topic: str, kind: str) -> None:
    async with our_member(bootstrap, topic, [topic], **KINDS[kind]) as first:
        await shared(topic, first)
        # A time that a slow machine can poll in, too: its own polls are never over.
        async with our_member(bootstrap, topic, [topic], **KINDS[kind], max_poll_interval_ms=6_000) as second:
            await shared(topic, first, second)
            second.membership.end_poll()
            await shared(topic, first)
            await until(lambda: second.membership.state is MembershipState.STALE, "the second to be stale")
            assert len(second.named("lost")) == 1
            second.membership.begin_poll()
            await shared(topic, first, second)


@by_protocol
async def test_new_partitions_are_shared_too(bootstrap: str, topic: str, kind: str) -> None:
    async with (
        our_member(bootstrap, topic, [topic], **KINDS[kind]) as first,
        our_member(bootstrap, topic, [topic], **KINDS[kind]) as second,
    ):
        await shared(topic, first, second)
        async with Client(bootstrap) as client:
            assert await create_partitions(client, {topic: 8}) == {topic: None}
        await shared(topic, first, second, count=8)


@by_protocol
async def test_a_subscription_changes(bootstrap: str, topic: str, topic_name: Callable[[], str], kind: str) -> None:
    async with Client(bootstrap) as client:
        other = await made(client, topic_name())
    async with our_member(bootstrap, topic, [topic], **KINDS[kind]) as member:
        await shared(topic, member)
        member.membership.subscribe([topic, other])
        await until(lambda: member.held == every(topic) | every(other), "both topics")
        member.membership.subscribe([other])
        await shared(other, member)
        assert set().union(*member.named("revoked")) == every(topic)
        await member.membership.unsubscribe()
        assert not member.held
        member.membership.subscribe([topic])
        await shared(topic, member)


@by_protocol
async def test_topics_by_pattern(bootstrap: str, topic: str, topic_name: Callable[[], str], kind: str) -> None:
    async with our_member(bootstrap, f"{topic}-pattern", **KINDS[kind]) as member:
        member.membership.subscribe_pattern(f"{topic}(-more)?")
        await shared(topic, member)
        if kind == "cooperative":  # a broker looks for new topics only so often
            async with Client(bootstrap) as client:
                more = await made(client, f"{topic}-more")
            await until(lambda: member.held == every(topic) | every(more), "the topic that came")
            assert member.membership.topics == {topic, more}


@by_protocol
async def test_commits_end_in_order_and_the_last_one_counts(bootstrap: str, topic: str, kind: str) -> None:
    tp = TopicPartition(topic, 0)
    async with our_member(bootstrap, topic, [topic], **KINDS[kind]) as member:
        await shared(topic, member)
        ended: list[tuple[int, KafkaError | None]] = []
        for offset in range(200):
            member.committer.commit_soon(
                {tp: CommittedOffset(offset)}, lambda offsets, error: ended.append((offsets[tp].offset, error))
            )
        await member.committer.flush()
        assert ended == [(offset, None) for offset in range(200)]
        assert await member.committer.committed([tp, TopicPartition(topic, 1)]) == {tp: CommittedOffset(199)}
        member.consumed = {tp: CommittedOffset(500)}
        assert await member.committer.commit_consumed()
        assert await member.committer.committed([tp]) == {tp: CommittedOffset(500)}
        with pytest.raises(KafkaError) as refused:
            await member.committer.commit({tp: CommittedOffset(501, -1, "x" * 10_000)})
        assert refused.value.code is ErrorCode.OFFSET_METADATA_TOO_LARGE
        with pytest.raises(KafkaError) as unknown:
            await member.committer.commit({TopicPartition(topic, 99): CommittedOffset(1)}, timeout_ms=300)
        assert unknown.value.code is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


async def test_offsets_are_committed_without_a_group_of_members(bootstrap: str, topic: str) -> None:
    tp = TopicPartition(topic, 1)
    async with our_member(bootstrap, f"{topic}-by-hand", enable_auto_commit=True, auto_commit_interval_ms=50) as nobody:
        await nobody.committer.commit({tp: CommittedOffset(3)})
        assert await nobody.committer.committed([tp]) == {tp: CommittedOffset(3)}
        nobody.consumed = {tp: CommittedOffset(7)}
        nobody.committer.start_auto_commit()
        async with asyncio.timeout(45):
            while (await nobody.committer.committed([tp]))[tp].offset != 7:  # noqa: ASYNC110  a timer and a broker decide
                await asyncio.sleep(0.02)


async def test_a_removed_member_cannot_commit_and_joins_again(bootstrap: str, topic: str) -> None:
    """The coordinator forgets it: by LeaveGroup in its name, as an operator's removal does."""
    from millstream.core.wire.messages.leave_group import LeaveGroupRequest, MemberIdentity

    # It hears of nothing by its heartbeats.
    async with our_member(bootstrap, topic, [topic], heartbeat_interval_ms=29_000) as member:
        await shared(topic, member)
        identity = MemberIdentity(member_id=member.membership.member_id)
        async with Client(bootstrap) as client:
            await client.request(LeaveGroupRequest(group_id=topic, members=[identity]))
        with pytest.raises(CommitFailedError, match=r"max\.poll\.interval\.ms|not in group"):
            await member.committer.commit({TopicPartition(topic, 0): CommittedOffset(1)})
        await until(lambda: member.named("lost"), "the loss to be told")
        await shared(topic, member)


@pytest.mark.parametrize(
    ("theirs", "ours", "code"),
    [
        (KINDS["range"], KINDS["roundrobin"], ErrorCode.INCONSISTENT_GROUP_PROTOCOL),
        (KINDS["range"], {"session_timeout_ms": 2_000_000}, ErrorCode.INVALID_SESSION_TIMEOUT),
        (None, {"group_protocol": "consumer", "group_remote_assignor": "nobodys"}, ErrorCode.UNSUPPORTED_ASSIGNOR),
    ],
    ids=["assignors", "session", "server-assignor"],
)
async def test_what_only_a_person_can_mend_ends_membership(
    bootstrap: str, topic: str, theirs: dict[str, Any] | None, ours: dict[str, Any], code: ErrorCode
) -> None:
    async with our_member(bootstrap, topic, [topic] if theirs is not None else [], **(theirs or {})) as other:
        if theirs is not None:
            await shared(topic, other)
        async with our_member(bootstrap, topic, [topic], **ours) as member:
            await until(lambda: member.failures, "the failure")
            (error,) = member.failures
            assert isinstance(error, KafkaError)
            assert error.code is code
            assert member.membership.state is MembershipState.FAILED
            assert member.membership.failure is error


async def test_any_other_protocol_type(bootstrap: str, topic_name: Callable[[], str]) -> None:
    """Workers that share tasks; the leader deals them out, by what the workers say of themselves."""
    group = topic_name()

    def deal(name: str, members: Sequence[JoinedMember]) -> dict[str, bytes]:
        assert name == "tasks-1"
        shares: dict[str, list[int]] = {member.member_id: [] for member in members}
        order = sorted(members, key=lambda member: member.metadata)
        for task in range(4):
            shares[order[task % len(order)].member_id].append(task)
        return {member_id: json.dumps(tasks).encode() for member_id, tasks in shares.items()}

    def tasks(url: bytes) -> CustomProtocol:
        return CustomProtocol("workers", [("tasks-1", url)], deal)

    async with our_member(bootstrap, group, protocol=tasks(b"http://a")) as first:
        first.membership.start()
        await until(lambda: first.named("assigned") == [b"[0, 1, 2, 3]"], "all tasks")
        async with our_member(bootstrap, group, protocol=tasks(b"http://b")) as second:
            second.membership.start()
            await until(lambda: second.named("assigned")[-1:] == [b"[1, 3]"], "its tasks")
            await until(lambda: first.named("assigned")[-1:] == [b"[0, 2]"], "the other tasks")
            assert first.named("revoked") == [b"[0, 1, 2, 3]"]
        await until(lambda: first.named("assigned")[-1:] == [b"[0, 1, 2, 3]"], "all tasks again")


@by_protocol
async def test_a_member_that_breaks_says_so_and_ends_at_once(bootstrap: str, topic: str, kind: str) -> None:
    """Nothing may go wrong in a machine; if it does all the same, its owner hears of it instead of polling for ever."""
    async with our_member(bootstrap, f"breaks-{topic}", [topic], **KINDS[kind]) as member:
        await until(lambda: len(member.held) == PARTITIONS, "an assignment")

        def breaks(*_: object) -> None:
            raise ZeroDivisionError("unthinkable")

        member.membership._machine.handle_answer = breaks  # type: ignore[assignment, method-assign]
        await until(lambda: member.failures != [], "the failure")
        assert isinstance(member.failures[0], KafkaError)
        assert "unthinkable" in str(member.failures[0])
        assert member.membership.failure is member.failures[0]
        async with asyncio.timeout(5):
            await member.membership.close()
    assert len(member.failures) == 1
