"""Groups through the client, against Millstream and against Apache Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest
from tests.support.topic_contents import made_topic

from millstream.core.client import (
    Client,
    CommittedOffset,
    GroupDescription,
    GroupType,
    TopicPartition,
    commit_offsets,
    delete_groups,
    delete_offsets,
    describe_groups,
    fetch_offsets,
    find_coordinators,
    list_groups,
)
from millstream.core.wire import ErrorCode, KafkaError

T = TypeVar("T")


def with_client(bootstrap: str, work: Callable[[Client], Awaitable[T]]) -> T:
    async def run() -> T:
        async with Client(bootstrap) as client:
            return await work(client)

    return asyncio.run(run())


def test_offsets_of_several_groups(bootstrap: str, topic_name: Callable[[], str]) -> None:
    name = topic_name()
    first, second, third = (f"{name}-{number}" for number in range(3))
    tps = [TopicPartition(name, index) for index in range(3)]
    kept = {tps[0]: CommittedOffset(5, 3, "by hand"), tps[2]: CommittedOffset(7)}

    async def work(client: Client) -> None:
        await made_topic(client, name)
        await commit_offsets(client, first, kept)
        await commit_offsets(client, second, {tps[1]: CommittedOffset(9)})
        wanted = {first: None, second: [tps[0], tps[1]], third: None}
        found = await fetch_offsets(client, wanted)
        assert found == {first: kept, second: {tps[1]: CommittedOffset(9)}, third: {}}
        assert await fetch_offsets(client, {}) == {}
        assert await delete_offsets(client, first, [tps[0], tps[1]]) == {tps[0]: None, tps[1]: None}
        assert (await fetch_offsets(client, {first: None}))[first] == {tps[2]: kept[tps[2]]}

    with_client(bootstrap, work)


def test_groups_without_members(bootstrap: str, topic_name: Callable[[], str]) -> None:
    name = topic_name()

    async def work(client: Client) -> None:
        await made_topic(client, name, 1)
        await commit_offsets(client, name, {TopicPartition(name, 0): CommittedOffset(1)})
        (node,) = await find_coordinators(client, [name, name])
        (listed,) = [one for one in await list_groups(client) if one.group_id == name]
        assert listed == (name, GroupType.CLASSIC, "", "Empty", node)
        described = await describe_groups(client, [name, f"no-{name}"])
        group, missing = described[name], described[f"no-{name}"]
        assert isinstance(group, GroupDescription)
        assert (group.state, group.members, group.is_active, group.coordinator) == ("Empty", (), False, node)
        assert isinstance(missing, KafkaError)
        assert missing.code is ErrorCode.GROUP_ID_NOT_FOUND
        results = await delete_groups(client, [name, f"no-{name}"])
        assert results[name] is None
        refused = results[f"no-{name}"]
        assert refused is not None
        assert refused.message.startswith(f"there is no group 'no-{name}'")

    with_client(bootstrap, work)


def test_what_cannot_be_committed_is_said_at_once(bootstrap: str, topic_name: Callable[[], str]) -> None:
    name = topic_name()

    async def work(client: Client) -> None:
        started = asyncio.get_running_loop().time()
        with pytest.raises(KafkaError, match="was not committed") as raised:
            await commit_offsets(client, name, {TopicPartition(name, 0): CommittedOffset(1)})
        assert raised.value.code is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        # Not asked again until the deadline of 30 s, as the code alone would have it.
        assert asyncio.get_running_loop().time() - started < 20

    with_client(bootstrap, work)
