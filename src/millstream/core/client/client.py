"""The client: finds the right broker for a request, and asks again where Kafka says that asking again helps.

Owned by one event loop. Every call has a deadline. An error the protocol calls retriable (a leader moved, a broker
went away) refreshes the metadata and is tried again until the deadline, with a growing pause; any other, and the last
one at the deadline, is raised as KafkaError with one sentence. Only the very first connection is not retried: an
address where nothing listens is most often a mistyped one, and its user should hear so at once.
"""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Final, TypeVar

import millstream
from millstream.core.client.backoff import Backoff
from millstream.core.client.cluster import NO_NODE, Cluster, TopicPartition
from millstream.core.client.connections import BrokerConnection, Connections
from millstream.core.client.security import ClientSecurity, TokenProvider
from millstream.core.config.client_config import ClientConfig, Given
from millstream.core.config.client_configs import ADMIN_CONFIGS
from millstream.core.config.definition import ConfigError
from millstream.core.net import Address, BufferPool, canonical_addresses, parse_bootstrap
from millstream.core.wire import ErrorCode, KafkaError
from millstream.core.wire.messages.metadata import MetadataRequest, MetadataRequestTopic

T = TypeVar("T")

_UNKNOWN_TOPIC_WAIT_S: Final = 1.0


class FinalKafkaError(KafkaError):
    """One that is not to be retried, though its code is called retriable: it was, for as long as that made sense."""


def bootstrap_addresses(config: ClientConfig) -> list[Address]:
    """Return where the cluster is to be found at first. Raises ConfigError for what is no address."""
    try:
        return parse_bootstrap(",".join(config.strings("bootstrap.servers")))
    except ValueError as error:
        raise ConfigError(f"bootstrap.servers: {error}", name="bootstrap.servers") from error


class Client:
    """A connection to a cluster; an async context manager.

    async with Client("127.0.0.1:9092") as client:
        cluster = await client.metadata(["flights"])
    """

    def __init__(
        self,
        bootstrap_servers: str | Sequence[Address] | ClientConfig,
        *,
        ssl_context: ssl.SSLContext | None = None,
        sasl_token_provider: TokenProvider | None = None,
        buffer_pool: BufferPool | None = None,
        **configs: Given,
    ) -> None:
        """Remember how to reach the cluster; the first request connects.

        `configs` are Kafka's, in snake_case; a ClientConfig has them all already. `buffer_pool` outlives the client.
        Raises ConfigError.
        """
        if isinstance(bootstrap_servers, ClientConfig):
            assert not configs, configs
            config = bootstrap_servers
        else:
            given = (
                bootstrap_servers if isinstance(bootstrap_servers, str) else [str(each) for each in bootstrap_servers]
            )
            config = ClientConfig.load(ADMIN_CONFIGS, given, configs)
        self.config = config
        self._bootstrap = bootstrap_addresses(config)
        self._canonical = config.string("client.dns.lookup") == "resolve_canonical_bootstrap_servers_only"
        self._rebootstraps = config.string("metadata.recovery.strategy").lower() == "rebootstrap"
        self._rebootstrap_after_s = config.seconds("metadata.recovery.rebootstrap.trigger.ms")
        # Since when metadata is asked for in vain, on the monotonic clock; None while the last answer came.
        self._lacking_since: float | None = None
        self.request_timeout_ms = config.integer("request.timeout.ms")
        self._metadata_max_age_s = config.seconds("metadata.max.age.ms")
        self.backoff = Backoff(config.seconds("retry.backoff.ms"), config.seconds("retry.backoff.max.ms"))
        self._random = random.Random()
        self._connections = Connections(
            config,
            ClientSecurity.load(config, ssl_context=ssl_context, token_provider=sasl_token_provider),
            software_version=millstream.__version__,
            buffer_pool=buffer_pool,
        )
        self._cluster = Cluster()
        # When each topic's metadata was last heard, on the monotonic clock; a topic not in it is asked for.
        self._heard_at: dict[str, float] = {}
        self._connected_once = False

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def is_open(self) -> bool:
        """Whether it has reached the cluster and was not closed."""
        return self._connected_once and not self._connections.is_closed

    async def close(self) -> None:
        """Close every connection; requests in flight fail."""
        await self._connections.close()

    @property
    def pool(self) -> BufferPool:
        """Buffers of this client's answers, for what is made of them as well."""
        return self._connections.pool

    @property
    def cluster(self) -> Cluster:
        """What is known now, without asking."""
        return self._cluster

    async def metadata(
        self, topics: Iterable[str] | None = None, *, auto_create: bool = False, timeout_ms: int | None = None
    ) -> Cluster:
        """Ask for the brokers and `topics` (None: every topic) and return the view with the answer taken in.

        A topic that does not exist is no error here: `Cluster.topic` raises for it.
        """
        names = None if topics is None else sorted(set(topics))
        timeout_s = self._timeout_s(timeout_ms)

        async def ask() -> Cluster:
            try:
                connection = await self._any_connection()
                # Metadata 0 has no request for "no topics", and below 4 topics may be created by asking.
                response = await connection.request(
                    MetadataRequest(
                        topics=None if names is None else [MetadataRequestTopic(name=name) for name in names],
                        allow_auto_topic_creation=auto_create,
                    ),
                    timeout_s=min(timeout_s, self.request_timeout_ms / 1000),
                    version_max=12,
                )
            except KafkaError:
                self._lacking_since = self._lacking_since or time.monotonic()
                raise
            self._lacking_since = None
            self._cluster = self._cluster.updated(response, all_topics=names is None)
            now = time.monotonic()
            if names is None:
                self._heard_at = dict.fromkeys(self._cluster.topics, now)
            else:
                self._heard_at.update(dict.fromkeys(names, now))
            return self._cluster

        return await self.retried(ask, timeout_ms=timeout_ms)

    async def leaders(
        self, partitions: Iterable[TopicPartition], *, auto_create: bool = False, timeout_ms: int | None = None
    ) -> dict[int, list[TopicPartition]]:
        """Return `partitions` by the node that leads them, asking where the metadata is missing or old.

        Raises KafkaError for the first one that does not exist or stays without a leader until the deadline.
        """
        wanted = list(partitions)
        started = time.monotonic()

        async def group() -> dict[int, list[TopicPartition]]:
            oldest = time.monotonic() - self._metadata_max_age_s
            stale = {tp.topic for tp in wanted if self._heard_at.get(tp.topic, 0.0) <= oldest}
            cluster = await self.metadata(stale, auto_create=auto_create) if stale else self._cluster
            grouped: dict[int, list[TopicPartition]] = {}
            try:
                for tp in wanted:
                    grouped.setdefault(cluster.leader(tp), []).append(tp)
            except KafkaError as error:
                self.forget({tp.topic for tp in wanted})
                # A topic just created is unknown to some brokers for a moment; one that nobody creates is a mistake.
                lacks = error.code is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION and not auto_create
                if lacks and time.monotonic() - started > _UNKNOWN_TOPIC_WAIT_S:
                    raise FinalKafkaError(error.code, error.message) from error
                raise
            return grouped

        return await self.retried(group, timeout_ms=timeout_ms)

    def forget(self, topics: Iterable[str]) -> None:
        """Have the metadata of `topics` asked for again at the next use: a broker said it has changed."""
        for topic in topics:
            self._heard_at.pop(topic, None)

    async def connection(self, node: int | None = None, *, lane: str = "") -> BrokerConnection:
        """Return an open connection to `node`, or to any broker. Raises KafkaError."""
        if node is None:
            return await self._any_connection()
        broker = self._cluster.brokers.get(node)
        if broker is None:
            raise KafkaError(ErrorCode.BROKER_NOT_AVAILABLE, f"the cluster has no broker {node} now")
        return await self._connections.get(broker.address, lane=lane)

    async def request(self, message: Any, *, node: int | None = None, timeout_ms: int | None = None) -> Any:
        """Send `message` to `node` (None: any broker) and return its answer; connection errors are retried."""

        async def ask() -> Any:
            connection = await self.connection(node)
            return await connection.request(message, timeout_s=self._timeout_s(timeout_ms))

        return await self.retried(ask, timeout_ms=timeout_ms)

    async def request_controller(self, message: Any, *, timeout_ms: int | None = None) -> Any:
        """Send `message` to the broker that takes cluster changes."""
        if self._cluster.controller_id == NO_NODE:
            await self.metadata([], timeout_ms=timeout_ms)
        controller = self._cluster.controller_id
        return await self.request(message, node=controller if controller != NO_NODE else None, timeout_ms=timeout_ms)

    async def retried(self, attempt: Callable[[], Awaitable[T]], *, timeout_ms: int | None = None) -> T:
        """Run `attempt` until it returns, raises what no retry mends, or the deadline is there."""
        deadline = time.monotonic() + self._timeout_s(timeout_ms)
        failures = 0
        while True:
            try:
                return await attempt()
            except FinalKafkaError:
                raise
            except KafkaError as error:
                failures += 1
                pause_s = self.backoff.pause_s(failures)
                if not error.code.retriable or not self._connected_once or time.monotonic() + pause_s >= deadline:
                    raise
            await asyncio.sleep(pause_s)

    async def _any_connection(self) -> BrokerConnection:
        """Return a connection to a broker: one that is open if there is, else any known one's, else a bootstrap one's.

        Asking those of `bootstrap.servers` last is what KIP-899 calls to rebootstrap: every broker known may be gone.
        They may also take connections and say nothing of use: after a while those of the bootstrap list go first
        (KIP-1102).
        """
        known = [broker.address for broker in self._cluster.brokers.values()]
        self._random.shuffle(known)
        known.sort(key=self._connections.is_connected, reverse=True)
        if self._rebootstraps or not known:
            first = await self._bootstrap_addresses()
            known = first + known if self._lacks_for_long() else known + first
        connection = await self._connections.first_of(list(dict.fromkeys(known)))
        self._connected_once = True
        return connection

    def _lacks_for_long(self) -> bool:
        since = self._lacking_since
        return since is not None and time.monotonic() - since >= self._rebootstrap_after_s

    async def _bootstrap_addresses(self) -> list[Address]:
        if not self._canonical:
            return self._bootstrap
        canonical: list[Address] = []
        for address in self._bootstrap:
            canonical += await canonical_addresses(address)
        return canonical

    def _timeout_s(self, timeout_ms: int | None) -> float:
        return (self.request_timeout_ms if timeout_ms is None else timeout_ms) / 1000
