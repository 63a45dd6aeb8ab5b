"""How long starts take: a fresh broker for a test, and a metadata store of 20,000 topics.

Run from the checkout: `python bench/start.py`. The start of a broker over many partitions, beside Apache Kafka's, is in
`bench/broker.py`.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

from millstream.core.cluster import (
    BrokerImage,
    ClusterMetadata,
    CreateTopic,
    EmbeddedStore,
    PartitionState,
    RegisterBroker,
    TopicImage,
)
from millstream.core.cluster.topics import TopicDefaults, plan_create_topic
from millstream.testing import broker

ROUNDS = 15
TOPICS_COUNT = 20_000


def fresh_broker_s() -> list[float]:
    """From the call of `millstream.testing.broker()` to a broker that answers."""
    taken = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        with broker():
            taken.append(time.perf_counter() - started)
    return taken


async def store_s(path: Path) -> tuple[float, list[float]]:
    """Loading a store of many topics, and creating one topic more, several times."""
    store = EmbeddedStore(path)
    state = PartitionState(1, 0, (1,), (1,), 0)
    topics = [TopicImage(f"topic-{n}", n.to_bytes(16, "big"), (state,), {}) for n in range(TOPICS_COUNT)]
    await store.commit(0, [RegisterBroker(BrokerImage(1, ())), *map(CreateTopic, topics)], token=b"")
    await store.close()
    metadata = ClusterMetadata(EmbeddedStore(path))
    started = time.perf_counter()
    await metadata.start()
    load_s = time.perf_counter() - started
    creations = []
    for number in range(ROUNDS):
        plan = partial(plan_create_topic, name=f"new.{number}", defaults=TopicDefaults(1, 1))
        started = time.perf_counter()
        await metadata.commit(plan)
        creations.append(time.perf_counter() - started)
    await metadata.close()
    return load_s, creations


def main() -> None:
    """Print medians and extremes."""
    fresh = fresh_broker_s()
    print(f"fresh broker: median {statistics.median(fresh):.3f} s, {min(fresh):.3f} to {max(fresh):.3f} (goal 0.3)")
    with tempfile.TemporaryDirectory() as folder:
        load_s, creations = asyncio.run(store_s(Path(folder) / "metadata.sqlite"))
    created_ms = statistics.median(creations) * 1e3
    print(f"metadata of {TOPICS_COUNT:,} topics: load {load_s:.3f} s, create one {created_ms:.2f} ms")


if __name__ == "__main__":
    main()
