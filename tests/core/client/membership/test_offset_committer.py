"""Commits: their order, their ends, and as whom they are made; in virtual time, before a scripted coordinator."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.support.member_simulation import refusal, run_virtual

from millstream.core.client import CommittedOffset, TopicPartition
from millstream.core.client.backoff import Backoff
from millstream.core.client.membership import (
    CommitFailedError,
    CommitsAs,
    Identity,
    OffsetCommitter,
    RebalanceInProgressError,
)
from millstream.core.client.membership.offset_committer import COMMITS_WAITING_MAX
from millstream.core.config.client_config import ClientConfig
from millstream.core.config.client_configs import CONSUMER_CONFIGS
from millstream.core.wire import ApiKey, ErrorCode, KafkaError
from millstream.core.wire.messages.offset_fetch import (
    OffsetFetchResponse,
    OffsetFetchResponseGroup,
    OffsetFetchResponsePartitions,
    OffsetFetchResponseTopics,
)

T0, T1 = TopicPartition("t", 0), TopicPartition("t", 1)


class Coordinator:
    """Answers with the codes it was given, in turn, and NONE when there are no more."""

    group_id = "g"

    def __init__(self, *codes: ErrorCode | Exception) -> None:
        self.codes = list(codes)
        self.requests: list[Any] = []
        self.lookups = 0
        self.fetch_version = 9

    def forget(self) -> None:
        self.lookups += 1

    async def version(self, _key: ApiKey, *, timeout_s: float) -> int:
        del timeout_s
        return self.fetch_version

    async def request(self, message: Any, *, timeout_s: float, lane: str = "") -> Any:
        del timeout_s, lane
        self.requests.append(message)
        await asyncio.sleep(0.01)
        code = self.codes.pop(0) if self.codes else ErrorCode.NONE
        if isinstance(code, Exception):
            raise code
        key = ApiKey(message.__wire__.key)
        if key is ApiKey.OFFSET_FETCH and code is ErrorCode.NONE:
            found = OffsetFetchResponsePartitions(partition_index=0, committed_offset=5, committed_leader_epoch=2)
            topic = OffsetFetchResponseTopics(
                name="t",
                partitions=[found, OffsetFetchResponsePartitions(partition_index=1, committed_offset=-1)],
            )
            return OffsetFetchResponse(groups=[OffsetFetchResponseGroup(group_id="g", topics=[topic])])
        return refusal(key, message, code)

    @property
    def offsets(self) -> list[list[int]]:
        """What the commits say, request by request."""
        return [
            [each.committed_offset for topic in request.topics for each in topic.partitions]
            for request in self.requests
        ]


class Member(CommitsAs):
    """A member whose identity the test moves."""

    def __init__(self, *, is_consumer_group: bool = False) -> None:
        self.is_consumer_group = is_consumer_group
        self.now_as: Identity | KafkaError = Identity(3, "m")
        self.held = {T0, T1}
        self.refusals: list[ErrorCode] = []

    def identity(self) -> Identity | KafkaError:
        return self.now_as

    def holds(self, partitions: Any) -> bool:
        return self.held >= set(partitions)

    def refused(self, code: ErrorCode, identity: Identity) -> None:
        self.refusals.append(code)


def at(offset: int) -> CommittedOffset:
    return CommittedOffset(offset)


Story = Callable[[OffsetCommitter], Awaitable[None]]


def run(coordinator: Coordinator, member: CommitsAs, story: Story, **configs: Any) -> None:
    """Run a story with a committer of its own."""

    async def told() -> None:
        config = ClientConfig.load(
            CONSUMER_CONFIGS, "b:1", {"group_id": "g", "default_api_timeout_ms": 5_000, **configs}
        )
        committer = OffsetCommitter(
            coordinator,  # type: ignore[arg-type]
            config,
            commits_as=member,
            consumed=lambda: {T0: at(77)},
            backoff=Backoff(0.1, 1.0, generator=random.Random(1)),
        )
        await story(committer)
        await committer.close(timeout_ms=0)

    run_virtual(told())


def test_what_waits_goes_together_and_callbacks_come_in_order() -> None:
    coordinator = Coordinator()
    ended: list[int] = []

    async def story(committer: OffsetCommitter) -> None:
        for offset in range(5):
            committer.commit_soon({T0: at(offset)}, lambda offsets, _: ended.append(offsets[T0].offset))
        await committer.commit({T1: at(9)})
        assert ended == [0, 1, 2, 3, 4]

    run(coordinator, Member(), story)
    assert coordinator.offsets == [[4, 9]]


@pytest.mark.parametrize(
    "code",
    [
        ErrorCode.NOT_COORDINATOR,
        ErrorCode.COORDINATOR_NOT_AVAILABLE,
        ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        KafkaError(ErrorCode.NETWORK_EXCEPTION, "gone"),
        KafkaError(ErrorCode.REQUEST_TIMED_OUT, "late"),
    ],
    ids=str,
)
def test_what_asking_again_mends_is_asked_again(code: ErrorCode | KafkaError) -> None:
    coordinator = Coordinator(code, code)

    async def story(committer: OffsetCommitter) -> None:
        await committer.commit({T0: at(1)})

    run(coordinator, Member(), story)
    assert len(coordinator.requests) == 3
    moved = code not in (ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
    assert coordinator.lookups == (2 if moved else 0)


def test_an_older_offset_never_comes_after_a_newer_one() -> None:
    """The first commit is asked again while a second one waits."""
    coordinator = Coordinator(ErrorCode.COORDINATOR_LOAD_IN_PROGRESS)

    async def story(committer: OffsetCommitter) -> None:
        committer.commit_soon({T0: at(1)})
        await asyncio.sleep(0.001)
        await committer.commit({T0: at(2)})

    run(coordinator, Member(), story)
    assert coordinator.offsets == [[1], [1], [2]]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (ErrorCode.REBALANCE_IN_PROGRESS, RebalanceInProgressError),
        (ErrorCode.ILLEGAL_GENERATION, CommitFailedError),
        (ErrorCode.UNKNOWN_MEMBER_ID, CommitFailedError),
        (ErrorCode.FENCED_INSTANCE_ID, CommitFailedError),
        (ErrorCode.GROUP_AUTHORIZATION_FAILED, KafkaError),
        (ErrorCode.OFFSET_METADATA_TOO_LARGE, KafkaError),
    ],
)
def test_what_nothing_mends_is_raised_and_the_member_hears_of_what_is_its(
    code: ErrorCode, kind: type[KafkaError]
) -> None:
    member = Member()

    async def story(committer: OffsetCommitter) -> None:
        with pytest.raises(kind) as raised:
            await committer.commit({T0: at(1)})
        assert raised.value.code is code
        assert type(raised.value) is kind

    run(Coordinator(code), member, story)
    assert member.refusals == ([code] if kind is not KafkaError else [])


def test_a_commit_of_a_former_generation_is_not_sent_in_a_later_one() -> None:
    coordinator = Coordinator(ErrorCode.COORDINATOR_LOAD_IN_PROGRESS)
    member = Member()

    async def story(committer: OffsetCommitter) -> None:
        committing = asyncio.create_task(committer.commit({T0: at(1)}))
        await asyncio.sleep(0.02)
        member.now_as = Identity(4, "m")
        with pytest.raises(RebalanceInProgressError):
            await committing

    run(coordinator, member, story)
    assert len(coordinator.requests) == 1


def test_in_a_consumer_group_the_epoch_moves_on_under_a_commit() -> None:
    coordinator = Coordinator(ErrorCode.STALE_MEMBER_EPOCH, ErrorCode.NONE, ErrorCode.STALE_MEMBER_EPOCH)
    member = Member(is_consumer_group=True)

    async def story(committer: OffsetCommitter) -> None:
        committing = asyncio.create_task(committer.commit({T0: at(1)}))
        await asyncio.sleep(0.02)
        member.now_as = Identity(4, "m")
        await committing
        assert [request.generation_id_or_member_epoch for request in coordinator.requests] == [3, 4]
        # And where the partition went with the epoch, the commit is over.
        committing = asyncio.create_task(committer.commit({T0: at(2)}))
        await asyncio.sleep(0.02)
        member.now_as, member.held = Identity(5, "m"), {T1}
        with pytest.raises(CommitFailedError):
            await committing

    run(coordinator, member, story)
    assert len(coordinator.requests) == 3


def test_in_a_rebalance_nothing_is_sent_and_order_is_kept() -> None:
    coordinator = Coordinator()
    member = Member()
    ended: list[tuple[int, bool]] = []

    async def story(committer: OffsetCommitter) -> None:
        for offset in (1, 2, 3):
            if offset == 2:
                member.now_as = RebalanceInProgressError(ErrorCode.REBALANCE_IN_PROGRESS)
            committer.commit_soon(
                {T0: at(offset)}, lambda offsets, error: ended.append((offsets[T0].offset, error is None))
            )
            member.now_as = Identity(3, "m")
        await committer.flush()

    run(coordinator, member, story)
    assert ended == [(1, True), (2, False), (3, True)]


def test_a_deadline_ends_what_does_not_end() -> None:
    coordinator = Coordinator(*[ErrorCode.COORDINATOR_NOT_AVAILABLE] * 1_000)

    async def story(committer: OffsetCommitter) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(KafkaError) as raised:
            await committer.commit({T0: at(1)}, timeout_ms=2_000)
        assert raised.value.code is ErrorCode.COORDINATOR_NOT_AVAILABLE
        assert 2 <= loop.time() - began < 3.5
        committer.commit_soon({T0: at(2)})
        await committer.flush(timeout_ms=1_000)
        assert loop.time() - began < 5
        with pytest.raises(KafkaError):
            await committer.committed([T0], timeout_ms=1_000)

    run(coordinator, Member(), story)


def test_close_ends_every_commit() -> None:
    coordinator = Coordinator(*[ErrorCode.COORDINATOR_NOT_AVAILABLE] * 1_000)
    ended: list[KafkaError | None] = []

    async def story(committer: OffsetCommitter) -> None:
        for offset in range(3):
            committer.commit_soon({T0: at(offset)}, lambda _, error: ended.append(error))
            await asyncio.sleep(0.001)
        await committer.close(timeout_ms=500)
        assert len(ended) == 3
        assert all(isinstance(error, CommitFailedError) for error in ended)

    run(coordinator, Member(), story)


def test_the_queue_has_a_bound() -> None:
    coordinator = Coordinator()
    refused: list[KafkaError] = []

    async def story(committer: OffsetCommitter) -> None:
        def end(_: Any, error: KafkaError | None) -> None:
            if error is not None:
                refused.append(error)

        for offset in range(COMMITS_WAITING_MAX + 3):
            committer.commit_soon({T0: at(offset)}, end)
        await committer.flush()

    run(coordinator, Member(), story)
    assert len(refused) == 3


def test_auto_commit_commits_what_was_consumed_and_only_logs_failures() -> None:
    coordinator = Coordinator(ErrorCode.ILLEGAL_GENERATION)

    async def story(committer: OffsetCommitter) -> None:
        committer.start_auto_commit()
        await asyncio.sleep(3.5)
        assert coordinator.offsets == [[77]] * 3
        assert await committer.commit_consumed()
        committer.stop_auto_commit()
        await asyncio.sleep(5)
        assert len(coordinator.requests) == 4

    run(coordinator, Member(), story, auto_commit_interval_ms=1_000)


@pytest.mark.parametrize(
    "code", [ErrorCode.UNSTABLE_OFFSET_COMMIT, ErrorCode.NOT_COORDINATOR, ErrorCode.STALE_MEMBER_EPOCH]
)
def test_committed_offsets_are_read_again_until_they_can_be(code: ErrorCode) -> None:
    coordinator = Coordinator(code, code)

    async def story(committer: OffsetCommitter) -> None:
        assert await committer.committed([T0, T1]) == {T0: CommittedOffset(5, 2)}
        assert await committer.committed([]) == {}

    run(coordinator, Member(is_consumer_group=True), story, isolation_level="read_committed")
    assert len(coordinator.requests) == 3
    request = coordinator.requests[0]
    assert request.require_stable
    assert (request.groups[0].member_id, request.groups[0].member_epoch) == ("m", 3)


def test_an_old_broker_cannot_wait_for_transactions() -> None:
    coordinator = Coordinator()
    coordinator.fetch_version = 6

    async def story(committer: OffsetCommitter) -> None:
        with pytest.raises(KafkaError) as raised:
            await committer.committed([T0], require_stable=True)
        assert raised.value.code is ErrorCode.UNSUPPORTED_VERSION
        assert await committer.committed([T0], require_stable=False) == {T0: CommittedOffset(5, 2)}

    run(coordinator, Member(), story)


def test_what_nobody_foresaw_ends_the_commit_and_not_those_behind_it() -> None:
    coordinator = Coordinator(ZeroDivisionError("unthinkable"))

    async def story(committer: OffsetCommitter) -> None:
        with pytest.raises(KafkaError, match="unthinkable") as raised:
            await committer.commit({T0: at(1)})
        assert raised.value.code is ErrorCode.UNKNOWN_SERVER_ERROR
        await committer.commit({T0: at(2)})

    run(coordinator, Member(), story)
    assert coordinator.offsets == [[1], [2]]


def test_a_commit_ends_by_its_own_deadline_behind_one_that_has_longer() -> None:
    coordinator = Coordinator(*[ErrorCode.COORDINATOR_NOT_AVAILABLE] * 1_000)

    async def story(committer: OffsetCommitter) -> None:
        loop = asyncio.get_running_loop()
        committer.commit_soon({T0: at(1)})
        await asyncio.sleep(0.05)
        began = loop.time()
        with pytest.raises(KafkaError, match="in time") as raised:
            await committer.commit({T1: at(2)}, timeout_ms=500)
        assert raised.value.code is ErrorCode.REQUEST_TIMED_OUT
        assert 0.4 < loop.time() - began < 1
        # What goes on is the other one, alone.
        assert not committer._waiting
        assert coordinator.offsets[-1] == [1]

    run(coordinator, Member(), story)
