"""Long work lets others run, and the clock says when."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.metadata_store_kit import topic

from millstream.core.cluster import ClusterImage, ClusterMetadata, CreateTopic, EmbeddedStore, slices
from millstream.core.cluster.slices import SLICE_S, Slices
from millstream.core.wire import ErrorCode, KafkaError


async def test_a_slice_ends_by_the_clock() -> None:
    now = 0.0
    work = Slices(lambda: now)
    passes = 0

    async def others() -> None:
        nonlocal passes
        while True:
            passes += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    seen = []
    for _ in range(9):
        now += SLICE_S * 0.4
        await work.pause()
        seen.append(passes)
    task.cancel()
    # Every third item ends a slice: 0.4, 0.8 and 1.2 of it.
    assert seen == [0, 0, 1, 1, 1, 2, 2, 2, 3]


async def test_others_run_between_the_operations_of_a_long_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slices, "SLICE_S", 0.0)
    metadata = ClusterMetadata(EmbeddedStore(tmp_path / "metadata.sqlite"))
    await metadata.start()
    passes = 0
    at: list[int] = []

    async def others() -> None:
        nonlocal passes
        while True:
            passes += 1
            await asyncio.sleep(0)

    ticking = asyncio.create_task(others())

    def plan(_image: ClusterImage) -> Iterator[CreateTopic]:
        for number in range(5):
            at.append(passes)
            yield CreateTopic(topic(f"t{number}"))

    def failing(image: ClusterImage) -> Iterator[CreateTopic]:
        yield from plan(image)
        raise KafkaError(ErrorCode.POLICY_VIOLATION, "after all")

    with pytest.raises(KafkaError, match="after all"):
        await metadata.commit(failing)
    assert not metadata.image.topics, "a plan that fails at its end changed something"
    image = await metadata.commit(plan)
    ticking.cancel()
    await metadata.close()
    assert sorted(image.topics) == [f"t{number}" for number in range(5)]
    assert len(set(at)) == 10, "two operations were planned in one pass of the loop"
