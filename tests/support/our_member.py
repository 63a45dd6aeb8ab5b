"""Our own member of a group in a test's loop, with an owner that takes whatever it is given."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, Final

from millstream.core.client import Client, TopicPartition
from millstream.core.client.membership import CustomProtocol, Membership
from millstream.core.config.client_config import ClientConfig, Given
from millstream.core.config.client_configs import CONSUMER_CONFIGS

WAIT_S: Final = 45.0
# What a rebalance waits for goes by quickly, and nobody is taken for dead on a slow machine.
QUICK: Final[dict[str, Given]] = {
    "heartbeat_interval_ms": 200,
    "session_timeout_ms": 30_000,
    "metadata_max_age_ms": 300,
    "retry_backoff_max_ms": 300,
}


class OurMember:
    """A Membership and what its owner was told."""

    def __init__(self, client: Client, config: ClientConfig, protocol: CustomProtocol | None) -> None:
        self.events: list[tuple[str, Any]] = []
        self.held: frozenset[TopicPartition] = frozenset()
        self.failures: list[Exception] = []
        # Partitions that auto commit finds consumed.
        self.consumed: dict[TopicPartition, Any] = {}
        self.membership = Membership(client, config, self, protocol=protocol, consumed=lambda: self.consumed)
        self.committer = self.membership.committer

    async def on_assigned(self, assigned: Any) -> None:
        self.events.append(("assigned", assigned))
        if isinstance(assigned, frozenset):
            assert not assigned & self.held
            self.held |= assigned

    async def on_revoked(self, revoked: Any) -> None:
        self.events.append(("revoked", revoked))
        if isinstance(revoked, frozenset):
            self.held -= revoked

    async def on_lost(self, lost: Any) -> None:
        self.events.append(("lost", lost))
        if isinstance(lost, frozenset):
            self.held -= lost

    def on_failed(self, error: Exception) -> None:
        self.failures.append(error)

    def named(self, kind: str) -> list[Any]:
        """What it was told in callbacks of this kind."""
        return [what for name, what in self.events if name == kind]


@asynccontextmanager
async def our_member(
    bootstrap: str,
    group: str,
    topics: Iterable[str] = (),
    *,
    protocol: CustomProtocol | None = None,
    **configs: Given,
) -> AsyncIterator[OurMember]:
    """A member that reads `topics`, with a connection of its own; it leaves at the end."""
    config = ClientConfig.load(CONSUMER_CONFIGS, bootstrap, {"group_id": group, **QUICK, **configs})
    async with Client(config) as client:
        member = OurMember(client, config, protocol)
        member.membership.begin_poll()
        if topics:
            member.membership.subscribe(topics)
        try:
            yield member
        finally:
            await member.membership.close(timeout_ms=10_000)


async def until(condition: Callable[[], object], what: str) -> None:
    """Wait until a condition holds."""
    try:
        async with asyncio.timeout(WAIT_S):
            while not condition():  # noqa: ASYNC110  brokers and other processes decide when
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"not within {WAIT_S:g} s: {what}") from None
