"""ClusterMetadata on stores that are raced, break and forget: what callers and subscribers see."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
from tests.support.metadata_store_kit import topic

from millstream.core.cluster import (
    AdvanceProducerIds,
    AlterBrokerConfigs,
    Change,
    ChangesGoneError,
    ClusterImage,
    ClusterMetadata,
    CommitResult,
    CreateTopic,
    Operation,
    SessionLostError,
    StoreWriteError,
)
from millstream.core.wire import ErrorCode, KafkaError


@dataclass
class Cluster:
    """What the stores of a test share: the committed changes, and what goes wrong at the next commits."""

    image: ClusterImage = field(default_factory=ClusterImage)
    log: list[Change] = field(default_factory=list)
    held_from: int = 0
    commits: int = 0
    # One per commit to come: called instead of the commit, which it may perform.
    mishaps: list[Callable[[Callable[[], CommitResult]], CommitResult]] = field(default_factory=list)

    def commit(self, operations: Sequence[Operation], token: bytes) -> CommitResult:
        """Make the operations true."""
        version = self.image.version + 1
        self.image = self.image.apply(version, operations)
        self.log.append(Change(version, token, tuple(operations)))
        return CommitResult.COMMITTED


class MemoryStore:
    """A session on a `Cluster`."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.session_lost = False

    async def load(self) -> tuple[ClusterImage, int]:
        return self.cluster.image, self.cluster.image.version

    async def commit(self, expected_version: int, operations: Sequence[Operation], *, token: bytes) -> CommitResult:
        await asyncio.sleep(0)
        if self.session_lost:
            raise SessionLostError("gone")
        self.cluster.commits += 1

        def perform() -> CommitResult:
            if self.cluster.image.version != expected_version:
                return CommitResult.CONFLICT
            return self.cluster.commit(operations, token)

        return self.cluster.mishaps.pop(0)(perform) if self.cluster.mishaps else perform()

    async def changes(self, from_version: int) -> Sequence[Change]:
        if from_version < self.cluster.held_from:
            raise ChangesGoneError
        return [change for change in self.cluster.log if change.version > from_version]

    async def close(self) -> None:
        self.session_lost = True


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def unknown(store: MemoryStore, *, happens: bool, lost: bool = False) -> Callable[..., CommitResult]:
    """Return a mishap: the answer is lost, whether or not the commit happened."""

    def mishap(perform: Callable[[], CommitResult]) -> CommitResult:
        if happens:
            perform()
        store.session_lost = lost
        return CommitResult.UNKNOWN

    return mishap


async def test_plans_made_at_once_share_commits_and_see_each_other(cluster: Cluster) -> None:
    metadata = ClusterMetadata(MemoryStore(cluster))
    await metadata.start()
    seen: list[tuple[int, int]] = []
    metadata.subscribe(lambda old, new: seen.append((old.version, new.version)))

    blocks = await asyncio.gather(*(metadata.allocate_producer_ids(10) for _ in range(50)))

    assert [block.first_id for block in blocks] == list(range(0, 500, 10))
    assert cluster.commits <= 2
    assert seen == [(version, version + 1) for version in range(cluster.commits)]
    assert metadata.image == cluster.image
    await metadata.close()


async def test_a_plan_that_fails_fails_alone(cluster: Cluster) -> None:
    metadata = ClusterMetadata(MemoryStore(cluster))
    await metadata.start()

    def refuse(image: ClusterImage) -> list[Operation]:
        raise KafkaError(ErrorCode.TOPIC_ALREADY_EXISTS, "no")

    results = await asyncio.gather(
        metadata.commit(lambda image: [CreateTopic(topic("a"))]),
        metadata.commit(refuse),
        metadata.commit(lambda image: [CreateTopic(topic("b"))] if "a" in image.topics else []),
        metadata.commit(lambda image: []),
        return_exceptions=True,
    )

    assert isinstance(results[1], KafkaError)
    assert results[1].code is ErrorCode.TOPIC_ALREADY_EXISTS
    assert sorted(metadata.image.topics) == ["a", "b"]
    assert results[0] is results[2] is results[3] is metadata.image


async def test_a_conflict_plans_again_on_what_won(cluster: Cluster) -> None:
    metadata = ClusterMetadata(MemoryStore(cluster))
    await metadata.start()
    other = ClusterMetadata(MemoryStore(cluster))
    await other.start()
    await other.allocate_producer_ids(1000)

    block = await metadata.allocate_producer_ids(1000)

    assert block == (1000, 1000)
    assert metadata.image.version == 2


@pytest.mark.parametrize("happens", [True, False])
@pytest.mark.parametrize("lost", [True, False])
async def test_an_unknown_outcome_is_found_out(cluster: Cluster, happens: bool, lost: bool) -> None:
    store = MemoryStore(cluster)
    metadata = ClusterMetadata(store, reopen=lambda: MemoryStore(cluster))
    await metadata.start()
    cluster.mishaps = [unknown(store, happens=happens, lost=lost)]

    block = await metadata.allocate_producer_ids(1000)

    assert block == (0, 1000)
    assert cluster.image.next_producer_id == 1000, "committed twice, or not at all"
    assert metadata.image == cluster.image


async def test_an_outcome_that_cannot_be_found_out_is_told(cluster: Cluster) -> None:
    store = MemoryStore(cluster)
    metadata = ClusterMetadata(store)
    await metadata.start()
    cluster.mishaps = [unknown(store, happens=True)]
    cluster.held_from = 1

    with pytest.raises(KafkaError, match="does not say") as raised:
        await metadata.allocate_producer_ids(1000)

    assert raised.value.code is ErrorCode.REQUEST_TIMED_OUT
    assert metadata.image.next_producer_id == 1000


async def test_a_session_that_was_lost_before_is_opened_again(cluster: Cluster) -> None:
    store = MemoryStore(cluster)
    metadata = ClusterMetadata(store, reopen=lambda: MemoryStore(cluster))
    await metadata.start()
    store.session_lost = True

    assert await metadata.allocate_producer_ids() == (0, 1000)


async def test_without_a_way_to_reopen_a_lost_session_fails_every_commit(cluster: Cluster) -> None:
    store = MemoryStore(cluster)
    metadata = ClusterMetadata(store)
    await metadata.start()
    store.session_lost = True

    for _ in range(2):
        with pytest.raises(KafkaError, match="restart") as raised:
            await metadata.allocate_producer_ids()
        assert raised.value.code is ErrorCode.KAFKA_STORAGE_ERROR


async def test_a_refused_write_fails_and_the_next_commit_works(cluster: Cluster) -> None:
    metadata = ClusterMetadata(MemoryStore(cluster))
    await metadata.start()

    def full(perform: Callable[[], CommitResult]) -> CommitResult:
        raise StoreWriteError("the disk is full")

    cluster.mishaps = [full]
    with pytest.raises(KafkaError, match="full") as raised:
        await metadata.allocate_producer_ids()
    assert raised.value.code is ErrorCode.KAFKA_STORAGE_ERROR
    assert await metadata.allocate_producer_ids() == (0, 1000)


async def test_a_subscriber_that_fails_keeps_nothing_from_the_others(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    metadata = ClusterMetadata(MemoryStore(cluster))
    await metadata.start()
    seen: list[int] = []

    def broken(old: ClusterImage, new: ClusterImage) -> None:
        raise RuntimeError("broken")

    metadata.subscribe(broken)
    end = metadata.subscribe(lambda old, new: seen.append(new.version))
    await metadata.commit(lambda image: [AlterBrokerConfigs("", {"a": "1"})])
    end()
    await metadata.commit(lambda image: [AdvanceProducerIds(5)])

    assert seen == [1]
    assert "a subscriber of the metadata failed at version 1" in caplog.text


async def test_who_gives_up_waiting_does_not_stop_the_commit(cluster: Cluster) -> None:
    metadata = ClusterMetadata(MemoryStore(cluster))
    await metadata.start()
    waiting = asyncio.create_task(metadata.allocate_producer_ids())
    await asyncio.sleep(0)
    waiting.cancel()

    assert (await metadata.allocate_producer_ids()).first_id in (0, 1000)
    await metadata.close()
    assert metadata.image == cluster.image
