"""Topics and configurations: what an operator asks of a cluster. Each call is one request to the controller.

Calls on several topics return what failed per topic, since a broker changes some and refuses others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, NamedTuple

from millstream.core.client.client import Client
from millstream.core.wire import ErrorCode, KafkaError, error_code
from millstream.core.wire.messages.create_partitions import (
    CreatePartitionsRequest,
    CreatePartitionsResponse,
    CreatePartitionsTopic,
)
from millstream.core.wire.messages.create_topics import (
    CreatableTopic,
    CreatableTopicConfig,
    CreateTopicsRequest,
    CreateTopicsResponse,
)
from millstream.core.wire.messages.delete_topics import DeleteTopicsRequest, DeleteTopicsResponse, DeleteTopicState
from millstream.core.wire.messages.describe_configs import (
    DescribeConfigsRequest,
    DescribeConfigsResource,
    DescribeConfigsResourceResult,
    DescribeConfigsResponse,
)
from millstream.core.wire.messages.incremental_alter_configs import (
    AlterableConfig,
    AlterConfigsResource,
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
)

DEFAULT_COUNT: Final = -1  # the broker's own num.partitions or default.replication.factor


class ConfigResource(NamedTuple):
    """What a configuration belongs to; a broker's name is its id, the empty one the default of all brokers.

    A group need not be there to have one.
    """

    type: ConfigResourceType
    name: str

    def __str__(self) -> str:
        kind = self.type.name.lower().replace("_", " ")
        return f"{kind} {self.name}" if self.name else f"default of every {kind}"


class ConfigResourceType(IntEnum):
    """Kafka's numbers for kinds of resources that have configurations."""

    TOPIC = 2
    BROKER = 4
    BROKER_LOGGER = 8
    GROUP = 32


class ConfigSource(IntEnum):
    """Where a value comes from."""

    UNKNOWN = 0
    DYNAMIC_TOPIC_CONFIG = 1
    DYNAMIC_BROKER_CONFIG = 2
    DYNAMIC_DEFAULT_BROKER_CONFIG = 3
    STATIC_BROKER_CONFIG = 4
    DEFAULT_CONFIG = 5
    DYNAMIC_BROKER_LOGGER_CONFIG = 6
    CLIENT_METRICS_CONFIG = 7
    GROUP_CONFIG = 8

    @classmethod
    def _missing_(cls, _value: object) -> ConfigSource:
        return cls.UNKNOWN


class ConfigOperation(IntEnum):
    """What to do with a config (KIP-339)."""

    SET = 0
    DELETE = 1
    APPEND = 2
    SUBTRACT = 3


@dataclass(frozen=True, slots=True)
class NewTopic:
    """A topic to create; counts of -1 leave the choice to the broker."""

    name: str
    partitions: int = DEFAULT_COUNT
    replication_factor: int = DEFAULT_COUNT
    configs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ConfigValue:
    """One config of a resource; `value` is None where it is unset or secret."""

    name: str
    value: str | None
    source: ConfigSource
    is_read_only: bool
    is_sensitive: bool
    synonyms: tuple[tuple[str, str | None, ConfigSource], ...]
    documentation: str | None

    @property
    def is_default(self) -> bool:
        return self.source is ConfigSource.DEFAULT_CONFIG


async def create_topics(
    client: Client, topics: Sequence[NewTopic], *, validate_only: bool = False, timeout_ms: int | None = None
) -> dict[str, KafkaError | None]:
    """Create topics; return per name None or why it was not created."""
    request = CreateTopicsRequest(
        topics=[
            CreatableTopic(
                name=topic.name,
                num_partitions=topic.partitions,
                replication_factor=topic.replication_factor,
                configs=[CreatableTopicConfig(name=name, value=value) for name, value in topic.configs.items()],
            )
            for topic in topics
        ],
        timeout_ms=_timeout_ms(client, timeout_ms),
        validate_only=validate_only,
    )
    response: CreateTopicsResponse = await client.request_controller(request, timeout_ms=timeout_ms)
    client.forget(topic.name for topic in topics)
    return {
        result.name: _error(
            result.error_code, result.error_message, f"topic {result.name!r} was not created", result.name
        )
        for result in response.topics
    }


async def delete_topics(
    client: Client, names: Iterable[str], *, timeout_ms: int | None = None
) -> dict[str, KafkaError | None]:
    """Delete topics; return per name None or why it was not deleted."""
    listed = list(names)
    request = DeleteTopicsRequest(
        topics=[DeleteTopicState(name=name) for name in listed],
        topic_names=listed,
        timeout_ms=_timeout_ms(client, timeout_ms),
    )
    response: DeleteTopicsResponse = await client.request_controller(request, timeout_ms=timeout_ms)
    client.forget(listed)
    return {
        result.name or "": _error(
            result.error_code, result.error_message, f"topic {result.name!r} was not deleted", result.name
        )
        for result in response.responses
    }


async def create_partitions(
    client: Client, counts: Mapping[str, int], *, validate_only: bool = False, timeout_ms: int | None = None
) -> dict[str, KafkaError | None]:
    """Raise topics to the given numbers of partitions; return per name None or why it was refused."""
    request = CreatePartitionsRequest(
        topics=[CreatePartitionsTopic(name=name, count=count, assignments=None) for name, count in counts.items()],
        timeout_ms=_timeout_ms(client, timeout_ms),
        validate_only=validate_only,
    )
    response: CreatePartitionsResponse = await client.request_controller(request, timeout_ms=timeout_ms)
    client.forget(counts)
    return {
        result.name: _error(
            result.error_code, result.error_message, f"topic {result.name!r} was not altered", result.name
        )
        for result in response.results
    }


async def describe_configs(
    client: Client,
    resource: ConfigResource,
    names: Sequence[str] | None = None,
    *,
    documentation: bool = False,
    timeout_ms: int | None = None,
) -> list[ConfigValue]:
    """Return the configs of `resource` (all, or those named), by name. Raises KafkaError."""
    request = DescribeConfigsRequest(
        resources=[
            DescribeConfigsResource(
                resource_type=resource.type,
                resource_name=resource.name,
                configuration_keys=None if names is None else list(names),
            )
        ],
        include_synonyms=True,
        include_documentation=documentation,
    )
    node = await _node_of(client, resource, timeout_ms)
    topic = resource.name if resource.type is ConfigResourceType.TOPIC else None
    response: DescribeConfigsResponse = await client.request(request, node=node, timeout_ms=timeout_ms)
    for result in response.results:
        if error := _error(result.error_code, result.error_message, f"configs of {resource}", topic):
            raise error
        return sorted(map(_config_value, result.configs), key=lambda config: config.name)
    raise KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR, f"the broker described no configs of {resource}")


async def alter_configs(
    client: Client,
    resource: ConfigResource,
    changes: Iterable[tuple[str, ConfigOperation, str | None]],
    *,
    validate_only: bool = False,
    timeout_ms: int | None = None,
) -> None:
    """Change configs of `resource`, each (name, operation, value); all or none. Raises KafkaError."""
    request = IncrementalAlterConfigsRequest(
        resources=[
            AlterConfigsResource(
                resource_type=resource.type,
                resource_name=resource.name,
                configs=[
                    AlterableConfig(name=name, config_operation=operation, value=value)
                    for name, operation, value in changes
                ],
            )
        ],
        validate_only=validate_only,
    )
    node = await _node_of(client, resource, timeout_ms)
    topic = resource.name if resource.type is ConfigResourceType.TOPIC else None
    response: IncrementalAlterConfigsResponse = await client.request(request, node=node, timeout_ms=timeout_ms)
    for result in response.responses:
        if error := _error(result.error_code, result.error_message, f"configs of {resource} were not altered", topic):
            raise error


async def _node_of(client: Client, resource: ConfigResource, timeout_ms: int | None) -> int | None:
    """Return the broker to ask: a broker's own configs are known to itself alone."""
    if resource.type not in {ConfigResourceType.BROKER, ConfigResourceType.BROKER_LOGGER} or not resource.name:
        return None
    if not resource.name.isdigit():
        raise KafkaError(ErrorCode.INVALID_REQUEST, f"{resource.name!r} is no broker id: it is a number")
    cluster = await client.metadata([], timeout_ms=timeout_ms)
    node = int(resource.name)
    if node not in cluster.brokers:
        known = ", ".join(map(str, sorted(cluster.brokers)))
        raise KafkaError(ErrorCode.INVALID_REQUEST, f"the cluster has no broker {node}; it has {known}")
    return node


def _config_value(config: DescribeConfigsResourceResult) -> ConfigValue:
    return ConfigValue(
        name=config.name,
        value=config.value,
        source=ConfigSource(config.config_source),
        is_read_only=config.read_only,
        is_sensitive=config.is_sensitive,
        synonyms=tuple((one.name, one.value, ConfigSource(one.source)) for one in config.synonyms),
        documentation=config.documentation,
    )


def _error(code: int, message: str | None, what: str, name: str | None = None) -> KafkaError | None:
    if code == ErrorCode.NONE:
        return None
    known = error_code(code)
    if name and known is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION:
        return KafkaError(known, f"there is no topic {name!r}; `millstream topics list` shows those there are")
    if message and name and name in message:
        return KafkaError(known, message.rstrip("."))
    return KafkaError(known, f"{what}: {(message or known.sentence).rstrip('.')}")


def _timeout_ms(client: Client, timeout_ms: int | None) -> int:
    return client.request_timeout_ms if timeout_ms is None else timeout_ms
