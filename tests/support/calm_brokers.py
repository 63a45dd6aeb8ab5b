"""A model cluster of one partition that does nothing of its own accord: tests say what goes wrong with it."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, TypeVar

from tests.support.model_broker import ModelBrokers, log_of
from tests.support.model_cluster import ModelCluster

from millstream.core.client.cluster import TopicPartition
from millstream.core.records import Compression

TP: Final = TopicPartition("t", 0)
Brokers = TypeVar("Brokers", bound=ModelBrokers)


class Calm(random.Random):
    """A source by which the model never errs of its own accord."""

    def random(self) -> float:
        return 0.99


@asynccontextmanager
async def calm(kind: type[Brokers]) -> AsyncIterator[Brokers]:
    """Run brokers of this kind; their one log is led by node 0 and empty."""
    cluster = ModelCluster(1, Calm(1))
    log_of(cluster).leader = 0
    async with kind(cluster) as running:
        yield running


def calm_brokers() -> AbstractAsyncContextManager[ModelBrokers]:
    """Run brokers that do nothing of their own accord."""
    return calm(ModelBrokers)


def fill(brokers: ModelBrokers, batches: int, codec: Compression = Compression.NONE) -> None:
    """Append batches of ten records."""
    log = log_of(brokers.cluster)
    for _ in range(batches):
        log.append([b"%d/%d" % (log.end_offset + index, log.epoch) for index in range(10)], codec)


def flip(position: int, length: int = 1) -> Callable[[bytes], bytes]:
    """Return what damages bytes there."""

    def damaged(data: bytes) -> bytes:
        changed = bytearray(data)
        for at in range(position, position + length):
            changed[at] ^= 0xFF
        return bytes(changed)

    return damaged
