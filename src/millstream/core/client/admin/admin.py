"""The admin client: what an operator or a tool asks of a cluster. For asyncio; `core.client.blocking` has its twin.

    async with Admin("127.0.0.1:9092") as admin:
        await admin.create_topic("flights", partitions=6)
        for name, result in (await admin.describe_topics(["flights", "weather"])).items():
            ...

A call for one item returns its result or raises. A call for many returns a mapping from each item to its result (None
where there is nothing to tell) or to its KafkaError, which is a value there: a broker does some and refuses others. A
call raises where all of it failed: no broker was reached, or the deadline was.

Each API's request and answer stand in the modules beside this one as functions of a Client.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Final, Self

from millstream.core.client import group_offsets
from millstream.core.client.admin import cluster, configs, groups, partitions, quotas, replicas, topics, users
from millstream.core.client.admin.configs import Changes, ConfigResource, ConfigResourceType, ConfigValue
from millstream.core.client.admin.groups import GroupDescription, GroupListing, GroupMember, GroupType
from millstream.core.client.admin.results import alone
from millstream.core.client.admin.topics import (
    DEFAULT_COUNT,
    PAGE_PARTITIONS,
    NewPartitions,
    NewTopic,
    TopicDescription,
)
from millstream.core.client.client import Client
from millstream.core.client.cluster import TopicInfo, TopicPartition
from millstream.core.client.group_offsets import CommittedOffset
from millstream.core.client.offsets import LogOffset
from millstream.core.client.security import TokenProvider
from millstream.core.client.unclosed import WarnsUnclosed
from millstream.core.config.client_config import ClientConfig, Given
from millstream.core.config.client_configs import ADMIN_CONFIGS
from millstream.core.wire import ApiKey, ErrorCode, KafkaError

Partitions = Iterable[TopicPartition | tuple[str, int]]
"""Partitions as callers name them."""

# Which method asks what: an API that a broker of ours serves and that no producer or consumer needs has one.
ADMIN_APIS: Final[Mapping[ApiKey, str]] = {
    ApiKey.METADATA: "list_topics",
    ApiKey.CREATE_TOPICS: "create_topics",
    ApiKey.DELETE_TOPICS: "delete_topics",
    ApiKey.DESCRIBE_TOPIC_PARTITIONS: "describe_topics",
    ApiKey.CREATE_PARTITIONS: "create_partitions",
    ApiKey.DESCRIBE_CONFIGS: "describe_configs",
    ApiKey.INCREMENTAL_ALTER_CONFIGS: "alter_configs",
    ApiKey.ALTER_CONFIGS: "replace_configs",
    ApiKey.LIST_CONFIG_RESOURCES: "list_config_resources",
    ApiKey.LIST_OFFSETS: "list_offsets",
    ApiKey.DELETE_RECORDS: "delete_records",
    ApiKey.DESCRIBE_PRODUCERS: "describe_producers",
    ApiKey.DESCRIBE_CLUSTER: "describe_cluster",
    ApiKey.DESCRIBE_LOG_DIRS: "describe_log_dirs",
    ApiKey.ALTER_REPLICA_LOG_DIRS: "alter_replica_log_dirs",
    ApiKey.ELECT_LEADERS: "elect_leaders",
    ApiKey.ALTER_PARTITION_REASSIGNMENTS: "alter_partition_reassignments",
    ApiKey.LIST_PARTITION_REASSIGNMENTS: "list_partition_reassignments",
    ApiKey.FIND_COORDINATOR: "describe_groups",
    ApiKey.LIST_GROUPS: "list_groups",
    ApiKey.DESCRIBE_GROUPS: "describe_groups",
    ApiKey.CONSUMER_GROUP_DESCRIBE: "describe_groups",
    ApiKey.DELETE_GROUPS: "delete_groups",
    ApiKey.LEAVE_GROUP: "remove_group_members",
    ApiKey.OFFSET_FETCH: "list_group_offsets",
    ApiKey.OFFSET_COMMIT: "alter_group_offsets",
    ApiKey.OFFSET_DELETE: "delete_group_offsets",
    ApiKey.DESCRIBE_CLIENT_QUOTAS: "describe_client_quotas",
    ApiKey.ALTER_CLIENT_QUOTAS: "alter_client_quotas",
    ApiKey.DESCRIBE_USER_SCRAM_CREDENTIALS: "describe_user_scram_credentials",
    ApiKey.ALTER_USER_SCRAM_CREDENTIALS: "alter_user_scram_credentials",
}


class Admin(WarnsUnclosed):
    """A cluster's admin client; an async context manager. Owned by one event loop; calls may run side by side.

    Configs are Kafka's, as keywords in snake_case or in a mapping by their own names. Every call takes `timeout_s`, in
    place of default_api_timeout_ms. Raises ConfigError.
    """

    def __init__(
        self,
        bootstrap_servers: str | Iterable[str] | Mapping[str, Given] | None = None,
        *,
        ssl_context: ssl.SSLContext | None = None,
        sasl_token_provider: TokenProvider | None = None,
        **configs: Given,
    ) -> None:
        """Read the configuration; the first call connects."""
        self.config = ClientConfig.load(ADMIN_CONFIGS, bootstrap_servers, configs)
        self._client = Client(self.config, ssl_context=ssl_context, sasl_token_provider=sasl_token_provider)
        self._api_timeout_s = self.config.seconds("default.api.timeout.ms")

    @property
    def is_open(self) -> bool:
        """Whether it has reached a cluster and was not closed."""
        client = getattr(self, "_client", None)
        return client is not None and client.is_open

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End every connection; calls under way fail."""
        await self._client.close()

    def __repr__(self) -> str:
        return f"<Admin of {','.join(self.config.strings('bootstrap.servers'))}>"

    # Topics.

    async def list_topics(self, *, internal: bool = False, timeout_s: float | None = None) -> dict[str, TopicInfo]:
        """Return the topics that this client may see, by name; the cluster's own ones only if `internal`."""
        async with self._deadline(timeout_s) as timeout_ms:
            found = (await self._client.metadata(None, timeout_ms=timeout_ms)).topics
            return {name: found[name] for name in sorted(found) if internal or not found[name].is_internal}

    async def describe_topics(
        self, names: Iterable[str], *, page_partitions: int = PAGE_PARTITIONS, timeout_s: float | None = None
    ) -> dict[str, TopicDescription | KafkaError]:
        """Describe topics with their partitions, asked for in pages of so many (KIP-966)."""
        async with self._deadline(timeout_s) as timeout_ms:
            return await topics.describe_topics(
                self._client, names, page_partitions=page_partitions, timeout_ms=timeout_ms
            )

    async def describe_topic(self, name: str, *, timeout_s: float | None = None) -> TopicDescription:
        """Describe one topic. Raises KafkaError."""
        return alone(await self.describe_topics([name], timeout_s=timeout_s), name)

    async def create_topics(
        self,
        new_topics: Iterable[NewTopic | str],
        *,
        validate_only: bool = False,
        timeout_s: float | None = None,
    ) -> dict[str, KafkaError | None]:
        """Create topics; a mere name leaves everything to the broker. With `validate_only` nothing is created."""
        wanted = [NewTopic(topic) if isinstance(topic, str) else topic for topic in new_topics]
        async with self._deadline(timeout_s) as timeout_ms:
            return await topics.create_topics(self._client, wanted, validate_only=validate_only, timeout_ms=timeout_ms)

    async def create_topic(
        self,
        name: str,
        partitions: int = DEFAULT_COUNT,
        replication_factor: int = DEFAULT_COUNT,
        *,
        configs: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> None:
        """Create one topic; counts of -1 leave the choice to the broker. Raises KafkaError."""
        topic = NewTopic(name, partitions, replication_factor, configs or {})
        return alone(await self.create_topics([topic], timeout_s=timeout_s), name)

    async def delete_topics(
        self, names: Iterable[str], *, timeout_s: float | None = None
    ) -> dict[str, KafkaError | None]:
        """Delete topics with all their records."""
        async with self._deadline(timeout_s) as timeout_ms:
            return await topics.delete_topics(self._client, names, timeout_ms=timeout_ms)

    async def delete_topic(self, name: str, *, timeout_s: float | None = None) -> None:
        """Delete one topic. Raises KafkaError."""
        return alone(await self.delete_topics([name], timeout_s=timeout_s), name)

    async def create_partitions(
        self,
        counts: Mapping[str, int | NewPartitions],
        *,
        validate_only: bool = False,
        timeout_s: float | None = None,
    ) -> dict[str, KafkaError | None]:
        """Raise topics to these numbers of partitions."""
        async with self._deadline(timeout_s) as timeout_ms:
            return await topics.create_partitions(
                self._client, counts, validate_only=validate_only, timeout_ms=timeout_ms
            )

    # Configs.

    async def describe_configs(
        self,
        resources: Iterable[ConfigResource],
        names: Sequence[str] | None = None,
        *,
        documentation: bool = False,
        timeout_s: float | None = None,
    ) -> dict[ConfigResource, list[ConfigValue] | KafkaError]:
        """Return the configs of resources, all of them or those named, by name."""
        async with self._deadline(timeout_s) as timeout_ms:
            return await configs.describe_resources(
                self._client, resources, names, documentation=documentation, timeout_ms=timeout_ms
            )

    async def describe_config(
        self, resource: ConfigResource, names: Sequence[str] | None = None, *, timeout_s: float | None = None
    ) -> dict[str, ConfigValue]:
        """Return the configs of one resource by name. Raises KafkaError."""
        found = alone(await self.describe_configs([resource], names, timeout_s=timeout_s), resource)
        return {config.name: config for config in found}

    async def alter_configs(
        self,
        changes: Mapping[ConfigResource, Changes],
        *,
        validate_only: bool = False,
        timeout_s: float | None = None,
    ) -> dict[ConfigResource, KafkaError | None]:
        """Change single configs (KIP-339), of each resource all or none."""
        async with self._deadline(timeout_s) as timeout_ms:
            return await configs.alter_resources(
                self._client, changes, validate_only=validate_only, timeout_ms=timeout_ms
            )

    async def set_config(
        self, resource: ConfigResource, name: str, value: str | None, *, timeout_s: float | None = None
    ) -> None:
        """Set one config, or (None) go back to its default. Raises KafkaError."""
        operation = configs.ConfigOperation.DELETE if value is None else configs.ConfigOperation.SET
        changes = {resource: [configs.ConfigChange(name, operation, value)]}
        return alone(await self.alter_configs(changes, timeout_s=timeout_s), resource)

    async def replace_configs(
        self,
        wanted: Mapping[ConfigResource, Mapping[str, str | None]],
        *,
        validate_only: bool = False,
        timeout_s: float | None = None,
    ) -> dict[ConfigResource, KafkaError | None]:
        """Give resources these configs and take away all others they had."""
        async with self._deadline(timeout_s) as timeout_ms:
            return await configs.replace_configs(
                self._client, wanted, validate_only=validate_only, timeout_ms=timeout_ms
            )

    async def list_config_resources(
        self, types: Iterable[ConfigResourceType] = (), *, timeout_s: float | None = None
    ) -> list[ConfigResource]:
        """Return what has configs, of these kinds or of all."""
        async with self._deadline(timeout_s) as timeout_ms:
            return await configs.list_config_resources(self._client, types, timeout_ms=timeout_ms)

    async def list_client_metrics_resources(self, *, timeout_s: float | None = None) -> list[str]:
        """Return the names of the subscriptions to clients' metrics (KIP-714)."""
        found = await self.list_config_resources([ConfigResourceType.CLIENT_METRICS], timeout_s=timeout_s)
        return [resource.name for resource in found]

    # Partitions.

    async def list_offsets(
        self,
        timestamps: Mapping[TopicPartition, int],
        *,
        read_committed: bool = False,
        timeout_s: float | None = None,
    ) -> dict[TopicPartition, LogOffset | KafkaError]:
        """Return the first offset at or after a time in ms since 1970, or at EARLIEST, LATEST, MAX_TIMESTAMP.

        Where no record is that young the offset is -1.
        """
        named = {TopicPartition.of(tp): timestamp for tp, timestamp in timestamps.items()}
        async with self._deadline(timeout_s) as timeout_ms:
            return await partitions.list_offsets(
                self._client, named, read_committed=read_committed, timeout_ms=timeout_ms
            )

    async def delete_records(
        self, offsets: Mapping[TopicPartition, int], *, timeout_s: float | None = None
    ) -> dict[TopicPartition, int | KafkaError]:
        """Drop every record before an offset (LATEST: every record); return where each log starts now."""
        named = {TopicPartition.of(tp): offset for tp, offset in offsets.items()}
        async with self._deadline(timeout_s) as timeout_ms:
            return await partitions.delete_records(self._client, named, timeout_ms=timeout_ms)

    async def describe_producers(
        self, of: Partitions, *, timeout_s: float | None = None
    ) -> dict[TopicPartition, tuple[partitions.ActiveProducer, ...] | KafkaError]:
        """Return the producers that partitions remember, with their open transactions."""
        async with self._deadline(timeout_s) as timeout_ms:
            return await partitions.describe_producers(self._client, _named(of), timeout_ms=timeout_ms)

    # Brokers and replicas.

    async def describe_cluster(self, *, timeout_s: float | None = None) -> cluster.ClusterDescription:
        """Return the cluster's id, controller and brokers."""
        async with self._deadline(timeout_s) as timeout_ms:
            return await cluster.describe_cluster(self._client, timeout_ms=timeout_ms)

    async def describe_log_dirs(
        self,
        brokers: Iterable[int] | None = None,
        of: Partitions | None = None,
        *,
        timeout_s: float | None = None,
    ) -> dict[int, dict[str, replicas.LogDirDescription | KafkaError] | KafkaError]:
        """Return, by broker and path, the log directories of brokers (None: all) with the replicas in them."""
        wanted = None if of is None else _named(of)
        async with self._deadline(timeout_s) as timeout_ms:
            return await replicas.describe_log_dirs(self._client, brokers, wanted, timeout_ms=timeout_ms)

    async def alter_replica_log_dirs(
        self, moves: Mapping[replicas.Replica, str], *, timeout_s: float | None = None
    ) -> dict[replicas.Replica, KafkaError | None]:
        """Have replicas moved to other log directories of their brokers; None means that the move has begun."""
        async with self._deadline(timeout_s) as timeout_ms:
            return await replicas.alter_replica_log_dirs(self._client, moves, timeout_ms=timeout_ms)

    async def elect_leaders(
        self, of: Partitions | None = None, *, unclean: bool = False, timeout_s: float | None = None
    ) -> dict[TopicPartition, KafkaError | None]:
        """Have the preferred replicas lead, of these partitions or of all; `unclean`: any where none in sync is left.

        Where nothing has to change the error is ELECTION_NOT_NEEDED; of all partitions these are not told.
        """
        wanted = None if of is None else _named(of)
        async with self._deadline(timeout_s) as timeout_ms:
            return await replicas.elect_leaders(self._client, wanted, unclean=unclean, timeout_ms=timeout_ms)

    async def alter_partition_reassignments(
        self, brokers: Mapping[TopicPartition, Sequence[int] | None], *, timeout_s: float | None = None
    ) -> dict[TopicPartition, KafkaError | None]:
        """Have partitions moved to these brokers, or (None) a move that is under way given up."""
        named = {TopicPartition.of(tp): listed for tp, listed in brokers.items()}
        async with self._deadline(timeout_s) as timeout_ms:
            return await replicas.alter_partition_reassignments(self._client, named, timeout_ms=timeout_ms)

    async def list_partition_reassignments(
        self, of: Partitions | None = None, *, timeout_s: float | None = None
    ) -> dict[TopicPartition, replicas.Reassignment]:
        """Return the moves that are under way, of these partitions or of all."""
        wanted = None if of is None else _named(of)
        async with self._deadline(timeout_s) as timeout_ms:
            return await replicas.list_partition_reassignments(self._client, wanted, timeout_ms=timeout_ms)

    # Groups.

    async def list_groups(
        self,
        *,
        states: Iterable[str] = (),
        types: Iterable[GroupType] = (),
        timeout_s: float | None = None,
    ) -> list[GroupListing]:
        """Return the groups of every broker by name; only those in these states or of these types, if given."""
        async with self._deadline(timeout_s) as timeout_ms:
            return await groups.list_groups(self._client, states=states, types=types, timeout_ms=timeout_ms)

    async def describe_groups(
        self, group_ids: Iterable[str], *, timeout_s: float | None = None
    ) -> dict[str, GroupDescription | KafkaError]:
        """Return state and members of groups of either protocol."""
        async with self._deadline(timeout_s) as timeout_ms:
            return await groups.describe_groups(self._client, group_ids, timeout_ms=timeout_ms)

    async def describe_group(self, group_id: str, *, timeout_s: float | None = None) -> GroupDescription:
        """Return state and members of one group. Raises KafkaError."""
        return alone(await self.describe_groups([group_id], timeout_s=timeout_s), group_id)

    async def delete_groups(
        self, group_ids: Iterable[str], *, timeout_s: float | None = None
    ) -> dict[str, KafkaError | None]:
        """Delete groups that have no members, with their offsets."""
        async with self._deadline(timeout_s) as timeout_ms:
            return await groups.delete_groups(self._client, group_ids, timeout_ms=timeout_ms)

    async def remove_group_members(
        self,
        group_id: str,
        members: Iterable[GroupMember | str] | None = None,
        *,
        reason: str | None = None,
        timeout_s: float | None = None,
    ) -> dict[str, KafkaError | None]:
        """Have members leave a group; a text is a static member's group.instance.id, None means all members.

        The result is by group.instance.id, or by member id where there is none.
        """
        async with self._deadline(timeout_s) as timeout_ms:
            return await groups.remove_members(self._client, group_id, members, reason=reason, timeout_ms=timeout_ms)

    async def list_group_offsets(
        self,
        wanted: Mapping[str, Partitions | None] | Iterable[str],
        *,
        require_stable: bool = False,
        timeout_s: float | None = None,
    ) -> dict[str, dict[TopicPartition, CommittedOffset] | KafkaError]:
        """Return what groups have committed, for these partitions or (None, or a mere name) for all.

        A partition without a commit is left out, and a group that is not there has committed nothing.
        """
        asked = wanted if isinstance(wanted, Mapping) else dict.fromkeys(wanted)
        named = {group_id: None if tps is None else _named(tps) for group_id, tps in asked.items()}
        async with self._deadline(timeout_s) as timeout_ms:
            try:
                return {**await self._fetch_offsets(named, require_stable, timeout_ms)}
            except KafkaError as error:
                if len(named) == 1:
                    return dict.fromkeys(named, error)
            # Some failed: each is asked for by itself, to tell which.
            results: dict[str, dict[TopicPartition, CommittedOffset] | KafkaError] = {}
            for group_id, tps in named.items():
                try:
                    results |= await self._fetch_offsets({group_id: tps}, require_stable, timeout_ms)
                except KafkaError as error:
                    results[group_id] = error
            return results

    async def alter_group_offsets(
        self,
        group_id: str,
        offsets: Mapping[TopicPartition, CommittedOffset | int],
        *,
        timeout_s: float | None = None,
    ) -> dict[TopicPartition, KafkaError | None]:
        """Set what a group without members has committed."""
        named = {
            TopicPartition.of(tp): at if isinstance(at, CommittedOffset) else CommittedOffset(at)
            for tp, at in offsets.items()
        }
        async with self._deadline(timeout_s) as timeout_ms:
            return await group_offsets.alter_offsets(self._client, group_id, named, timeout_ms=timeout_ms)

    async def delete_group_offsets(
        self, group_id: str, of: Partitions, *, timeout_s: float | None = None
    ) -> dict[TopicPartition, KafkaError | None]:
        """Forget what a group has committed for partitions that none of its members reads (KIP-496)."""
        async with self._deadline(timeout_s) as timeout_ms:
            return await group_offsets.delete_offsets(self._client, group_id, _named(of), timeout_ms=timeout_ms)

    # Quotas and users.

    async def describe_client_quotas(
        self, entity: quotas.QuotaEntity | None = None, *, strict: bool = False, timeout_s: float | None = None
    ) -> dict[quotas.QuotaEntity, dict[str, float]]:
        """Return the limits of those that match `entity`, whose parts may be ANY; None: all there are.

        With `strict` those with further parts are left out.
        """
        async with self._deadline(timeout_s) as timeout_ms:
            return await quotas.describe_client_quotas(
                self._client, entity or quotas.QuotaEntity(), strict=strict, timeout_ms=timeout_ms
            )

    async def alter_client_quotas(
        self,
        changes: Mapping[quotas.QuotaEntity, Mapping[str, float | None]],
        *,
        validate_only: bool = False,
        timeout_s: float | None = None,
    ) -> dict[quotas.QuotaEntity, KafkaError | None]:
        """Set limits as producer_byte_rate, or (None) take them away."""
        async with self._deadline(timeout_s) as timeout_ms:
            return await quotas.alter_client_quotas(
                self._client, changes, validate_only=validate_only, timeout_ms=timeout_ms
            )

    async def describe_user_scram_credentials(
        self, names: Iterable[str] | None = None, *, timeout_s: float | None = None
    ) -> dict[str, tuple[users.ScramCredential, ...] | KafkaError]:
        """Return for which SCRAM mechanisms users have passwords; None: of all users that have any."""
        async with self._deadline(timeout_s) as timeout_ms:
            return await users.describe_user_scram_credentials(self._client, names, timeout_ms=timeout_ms)

    async def alter_user_scram_credentials(
        self,
        changes: Iterable[users.ScramPassword | users.ScramDeletion],
        *,
        timeout_s: float | None = None,
    ) -> dict[str, KafkaError | None]:
        """Give users passwords for SCRAM, or take them away."""
        async with self._deadline(timeout_s) as timeout_ms:
            return await users.alter_user_scram_credentials(self._client, changes, timeout_ms=timeout_ms)

    # Inside.

    async def _fetch_offsets(
        self, named: Mapping[str, list[TopicPartition] | None], require_stable: bool, timeout_ms: int
    ) -> dict[str, dict[TopicPartition, CommittedOffset]]:
        return await group_offsets.fetch_offsets(
            self._client, named, require_stable=require_stable, timeout_ms=timeout_ms
        )

    @asynccontextmanager
    async def _deadline(self, timeout_s: float | None) -> AsyncIterator[int]:
        """Give the block its time, in milliseconds. Raises KafkaError where it takes longer."""
        limit_s = self._api_timeout_s if timeout_s is None else timeout_s
        try:
            async with asyncio.timeout(limit_s):
                yield max(1, int(limit_s * 1000))
        except TimeoutError as error:
            raise KafkaError(ErrorCode.REQUEST_TIMED_OUT, f"the cluster did not answer within {limit_s:g} s") from error


def _named(given: Partitions) -> list[TopicPartition]:
    return [TopicPartition.of(tp) for tp in given]
