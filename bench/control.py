"""How long requests about many topics take, and how long they hold the event loop.

Run from the checkout: `python bench/control.py [topics]`. The broker runs in this process on a loop of its own; a
callback that is due again at once measures the longest pass of the loop during each request.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import tempfile
import threading
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import uvloop

from millstream.core.broker import Broker
from millstream.core.broker.broker import GC_THRESHOLDS, SWITCH_INTERVAL_S
from millstream.core.cluster.configs import ResourceType
from millstream.core.config import BrokerConfig
from millstream.core.wire.messages.create_topics import CreatableTopic, CreateTopicsRequest
from millstream.core.wire.messages.delete_topics import DeleteTopicsRequest, DeleteTopicState
from millstream.core.wire.messages.describe_configs import DescribeConfigsRequest, DescribeConfigsResource
from millstream.core.wire.messages.metadata import MetadataRequest
from millstream.testing.raw import RawConnection

TOPICS_COUNT = 2000
LARGE_TOPIC_PARTITIONS_COUNT = 10_000
TIMEOUT_MS = 300_000


class Lag:
    """The longest pass of a loop since it was last asked."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._last = time.perf_counter()
        self._longest_s = 0.0
        loop.call_soon_threadsafe(self._tick)

    def _tick(self) -> None:
        now = time.perf_counter()
        self._longest_s = max(self._longest_s, now - self._last)
        self._last = now
        # A timer and not call_soon: a loop that never waits would leave worker threads no time.
        self._loop.call_later(0.0005, self._tick)

    def take_ms(self) -> float:
        """Return the longest, and begin again."""
        longest_s, self._longest_s = self._longest_s, 0.0
        return longest_s * 1000


def main() -> None:
    """Print a line per request: its time, and the longest pass of the loop in it."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else TOPICS_COUNT
    names = [f"topic-{number}" for number in range(count)]
    created = [CreatableTopic(name=name, num_partitions=1, replication_factor=1) for name in names]
    large = CreatableTopic(name="large", num_partitions=LARGE_TOPIC_PARTITIONS_COUNT, replication_factor=1)
    resources = [
        DescribeConfigsResource(resource_type=ResourceType.TOPIC, resource_name=name, configuration_keys=None)
        for name in names
    ]
    deleted = [DeleteTopicState(name=name) for name in names]
    requests: dict[str, Any] = {
        f"CreateTopics, {count:,} topics": CreateTopicsRequest(topics=created, timeout_ms=TIMEOUT_MS),
        f"DescribeConfigs of {count:,} topics": DescribeConfigsRequest(resources=resources),
        f"CreateTopics, 1 topic of {LARGE_TOPIC_PARTITIONS_COUNT:,} partitions": CreateTopicsRequest(
            topics=[large], timeout_ms=TIMEOUT_MS
        ),
        f"Metadata of {count + LARGE_TOPIC_PARTITIONS_COUNT:,} partitions": MetadataRequest(topics=None),
        f"DeleteTopics, {count:,} topics": DeleteTopicsRequest(topics=deleted, timeout_ms=TIMEOUT_MS),
    }
    loop = uvloop.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result()

    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with tempfile.TemporaryDirectory() as folder:
        settings = {"listeners": "PLAINTEXT://127.0.0.1:0", "log.dirs": str(Path(folder) / "data")}
        broker = run(Broker.start(BrokerConfig(settings)))
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        host, port = next(iter(broker.addresses.values()))
        lag = Lag(loop)
        with RawConnection(f"{host}:{port}", timeout_s=TIMEOUT_MS / 1000) as raw:
            for what, request in requests.items():
                frame = raw.encode(request)
                lag.take_ms()
                started = time.perf_counter()
                raw.send(frame)
                size = len(raw.receive())
                taken_s = time.perf_counter() - started
                print(f"{what:48} {taken_s:7.3f} s, {size:12,} bytes, longest pass {lag.take_ms():6.1f} ms", flush=True)
        run(broker.stop())
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


if __name__ == "__main__":
    main()
