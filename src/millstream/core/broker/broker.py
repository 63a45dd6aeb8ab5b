"""One broker: its parts, the order in which they start and stop."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from millstream.core.broker.appends import Appends
from millstream.core.broker.broker_metrics import BrokerMetrics
from millstream.core.broker.partitions import Partitions

if TYPE_CHECKING:
    from millstream.core.cluster import ClusterMetadata
    from millstream.core.config import BrokerConfig
    from millstream.core.log import FileSystem, LogManager


class Broker:
    """A running broker; `start` makes one. Owned by the event loop it was started on."""

    config: BrokerConfig
    metadata: ClusterMetadata
    logs: LogManager
    partitions: Partitions
    metrics: BrokerMetrics
    loop: asyncio.AbstractEventLoop
    executor: ThreadPoolExecutor
    appends: Appends
    # (host, port) really bound, by listener name.
    addresses: dict[str, tuple[str, int]]

    @classmethod
    async def start(
        cls, config: BrokerConfig, *, files: FileSystem | None = None, clock: object | None = None
    ) -> Broker:
        """Lock and load the log directories, serve every partition, then listen."""
        raise SystemExit("the broker is being built")

    async def stop(self) -> None:
        """Stop accepting, drain what is in flight, close the logs cleanly."""


def run(config: BrokerConfig) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code."""
    raise SystemExit("the broker is being built")
