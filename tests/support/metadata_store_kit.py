"""What every metadata store must do: subclass `MetadataStoreConformance` and give it a way to open sessions."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from millstream.core.cluster import (
    AddPartitions,
    AdvanceProducerIds,
    AlterBrokerConfigs,
    AlterTopicConfigs,
    BrokerImage,
    ChangePartitions,
    ChangesGoneError,
    ClusterImage,
    CommitResult,
    CreateTopic,
    DeleteTopic,
    Endpoint,
    MetadataStore,
    Operation,
    PartitionState,
    RegisterBroker,
    SessionLostError,
    SetCluster,
    TopicImage,
    UnregisterBroker,
)

OpenStore = Callable[[], MetadataStore]


def topic(name: str, partitions: int = 1, **configs: str) -> TopicImage:
    """Return a topic led by broker 1, its id made of its name."""
    state = PartitionState(leader=1, leader_epoch=0, replicas=(1,), isr=(1,), partition_epoch=0)
    settings = {key.replace("_", "."): value for key, value in configs.items()}
    return TopicImage(name, name.encode().ljust(16, b".")[:16], (state,) * partitions, settings)


STORY: list[list[Operation]] = [
    [
        SetCluster("cluster-1", 1),
        RegisterBroker(BrokerImage(1, (Endpoint("PLAINTEXT", "PLAINTEXT", "h", 9092),), "r1")),
    ],
    [CreateTopic(topic("flights", 3, retention_ms="5")), CreateTopic(topic("täglich")), AdvanceProducerIds(1000)],
    [AddPartitions(topic("flights").topic_id, 3, topic("x", 2).partitions)],
    [ChangePartitions(topic("flights").topic_id, {1: PartitionState(-1, 7, (1, 2), (2,), 9)})],
    [AlterTopicConfigs(topic("flights").topic_id, {"retention.ms": None, "cleanup.policy": "compact,delete"})],
    [AlterBrokerConfigs("", {"log.retention.ms": "1"}), AlterBrokerConfigs("1", {"max.connections": "9"})],
    [AlterBrokerConfigs("1", {"max.connections": None}), RegisterBroker(BrokerImage(2, ()))],
    [DeleteTopic(topic("täglich").topic_id), UnregisterBroker(2), AdvanceProducerIds(3000)],
    [CreateTopic(topic("täglich", 2))],
]


class MetadataStoreConformance:
    """The promises of `millstream.core.cluster.store`, one test each."""

    @pytest_asyncio.fixture
    async def sessions(self, open_store: OpenStore) -> AsyncIterator[OpenStore]:
        """Open sessions on one store; those still open are closed at the end."""
        opened: list[MetadataStore] = []

        def open_session() -> MetadataStore:
            opened.append(open_store())
            return opened[-1]

        yield open_session
        for store in opened:
            if not store.session_lost:
                await store.close()

    async def test_an_empty_store_is_at_version_0(self, sessions: OpenStore) -> None:
        image, version = await sessions().load()
        assert (image, version) == (ClusterImage(), 0)

    async def test_what_was_committed_is_loaded_by_another_session(self, sessions: OpenStore) -> None:
        store = sessions()
        expected = ClusterImage()
        for version, operations in enumerate(STORY):
            assert await store.commit(version, operations, token=b"%d" % version) is CommitResult.COMMITTED
            expected = expected.apply(version + 1, operations)
            loaded, loaded_version = await sessions().load()
            assert loaded == expected
            assert loaded_version == version + 1
        assert loaded.topic_by_id(topic("flights").topic_id) == loaded.topics["flights"]
        assert loaded.topics["flights"].configs == {"cleanup.policy": "compact,delete"}
        assert list(loaded.deleted_topics) == [topic("täglich").topic_id]

    async def test_the_topics_deleted_last_are_remembered(
        self, sessions: OpenStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, module in list(sys.modules.items()):
            if name.startswith("millstream.") and hasattr(module, "DELETED_TOPICS_MAX"):
                monkeypatch.setattr(module, "DELETED_TOPICS_MAX", 3)
        store, names, expected = sessions(), ["a", "b", "c", "d", "e"], ClusterImage()
        for name in names:
            operations: list[Operation] = [CreateTopic(topic(name)), DeleteTopic(topic(name).topic_id)]
            await store.commit(expected.version, operations, token=b"")
            expected = expected.apply(expected.version + 1, operations)
        loaded, _ = await sessions().load()
        assert list(loaded.deleted_topics) == list(expected.deleted_topics)
        assert list(loaded.deleted_topics) == [topic(name).topic_id for name in names[2:]]

    async def test_changes_lead_from_any_version_to_the_newest(self, sessions: OpenStore) -> None:
        store = sessions()
        images = [ClusterImage()]
        for version, operations in enumerate(STORY):
            await store.commit(version, operations, token=b"%d" % version)
            images.append(images[-1].apply(version + 1, operations))

        for start, image in enumerate(images):
            changes = await sessions().changes(start)
            assert [(change.version, change.token) for change in changes] == [
                (version + 1, b"%d" % version) for version in range(start, len(STORY))
            ]
            for change in changes:
                image = image.apply(change.version, change.operations)
            assert image == images[-1]

    async def test_a_commit_on_an_older_version_changes_nothing(self, sessions: OpenStore) -> None:
        one, other = sessions(), sessions()
        await one.commit(0, [CreateTopic(topic("a"))], token=b"1")

        assert await other.commit(0, [CreateTopic(topic("b"))], token=b"2") is CommitResult.CONFLICT
        assert await other.commit(2, [CreateTopic(topic("b"))], token=b"3") is CommitResult.CONFLICT

        image, version = await other.load()
        assert (list(image.topics), version) == (["a"], 1)
        assert await other.commit(1, [CreateTopic(topic("b"))], token=b"4") is CommitResult.COMMITTED

    async def test_of_commits_at_the_same_time_one_wins(self, sessions: OpenStore) -> None:
        stores = [sessions() for _ in range(4)]

        results = await asyncio.gather(
            *(store.commit(0, [CreateTopic(topic(f"t{index}"))], token=b"") for index, store in enumerate(stores))
        )

        assert sorted(result.value for result in results) == ["committed", "conflict", "conflict", "conflict"]
        image, _ = await stores[0].load()
        assert list(image.topics) == [f"t{results.index(CommitResult.COMMITTED)}"]

    async def test_old_changes_go_and_the_whole_image_stays(self, sessions: OpenStore, changes_max: int) -> None:
        store = sessions()
        for version in range(changes_max + 5):
            await store.commit(version, [AdvanceProducerIds(version + 1)], token=b"")

        assert len(await store.changes(5)) == changes_max
        with pytest.raises(ChangesGoneError):
            await store.changes(4)
        image, _ = await store.load()
        assert image.next_producer_id == changes_max + 5

    async def test_after_its_end_a_session_says_so(self, sessions: OpenStore) -> None:
        store = sessions()
        await store.load()
        await store.close()

        assert store.session_lost
        with pytest.raises(SessionLostError):
            await store.commit(0, [AdvanceProducerIds(1)], token=b"")
        with pytest.raises(SessionLostError):
            await store.load()
        with pytest.raises(SessionLostError):
            await store.changes(0)
        assert await sessions().commit(0, [AdvanceProducerIds(1)], token=b"") is CommitResult.COMMITTED
