"""Configs of topics, brokers, their loggers, groups and client metrics: described, changed, listed.

A broker's own configs are known to itself alone, so they are asked of it; any broker answers for the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from millstream.core.client.admin.results import alone, check, error_of
from millstream.core.client.client import Client
from millstream.core.wire import ErrorCode, KafkaError
from millstream.core.wire.messages import alter_configs as replace_wire
from millstream.core.wire.messages.describe_configs import (
    DescribeConfigsRequest,
    DescribeConfigsResource,
    DescribeConfigsResourceResult,
    DescribeConfigsResponse,
)
from millstream.core.wire.messages.incremental_alter_configs import (
    AlterableConfig,
    AlterConfigsResource,
    AlterConfigsResourceResponse,
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
)
from millstream.core.wire.messages.list_config_resources import (
    ListConfigResourcesRequest,
    ListConfigResourcesResponse,
)


class ConfigResource(NamedTuple):
    """What a configuration belongs to; a broker's name is its id, the empty one the default of all brokers.

    A group need not be there to have one.
    """

    type: ConfigResourceType
    name: str

    @classmethod
    def topic(cls, name: str) -> ConfigResource:
        """Return a topic's."""
        return cls(ConfigResourceType.TOPIC, name)

    @classmethod
    def broker(cls, broker_id: int | None = None) -> ConfigResource:
        """Return a broker's, or what holds for all brokers."""
        return cls(ConfigResourceType.BROKER, "" if broker_id is None else str(broker_id))

    @classmethod
    def broker_logger(cls, broker_id: int) -> ConfigResource:
        """Return the log levels of a broker."""
        return cls(ConfigResourceType.BROKER_LOGGER, str(broker_id))

    @classmethod
    def group(cls, group_id: str) -> ConfigResource:
        """Return a group's."""
        return cls(ConfigResourceType.GROUP, group_id)

    @classmethod
    def client_metrics(cls, name: str) -> ConfigResource:
        """Return those of a subscription to clients' metrics (KIP-714)."""
        return cls(ConfigResourceType.CLIENT_METRICS, name)

    def __str__(self) -> str:
        kind = self.type.name.lower().replace("_", " ")
        return f"{kind} {self.name}" if self.name else f"default of every {kind}"


class ConfigResourceType(IntEnum):
    """Kafka's numbers for kinds of resources that have configurations."""

    TOPIC = 2
    BROKER = 4
    BROKER_LOGGER = 8
    CLIENT_METRICS = 16
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


class ConfigChange(NamedTuple):
    """One change: `ConfigChange("retention.ms", value="60000")`, `ConfigChange("retention.ms", DELETE)`."""

    name: str
    operation: ConfigOperation = ConfigOperation.SET
    value: str | None = None


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


Changes = Iterable[ConfigChange | tuple[str, ConfigOperation, str | None]]


async def describe_configs(
    client: Client,
    resource: ConfigResource,
    names: Sequence[str] | None = None,
    *,
    documentation: bool = False,
    timeout_ms: int | None = None,
) -> list[ConfigValue]:
    """Return the configs of `resource` (all, or those named), by name. Raises KafkaError."""
    results = await describe_resources(client, [resource], names, documentation=documentation, timeout_ms=timeout_ms)
    return alone(results, resource)


async def describe_resources(
    client: Client,
    resources: Iterable[ConfigResource],
    names: Sequence[str] | None = None,
    *,
    documentation: bool = False,
    timeout_ms: int | None = None,
) -> dict[ConfigResource, list[ConfigValue] | KafkaError]:
    """Return the configs of each resource (all, or those named), by name, or why there are none."""
    found, by_node = await _by_node(client, resources, timeout_ms)
    results: dict[ConfigResource, list[ConfigValue] | KafkaError] = dict(found)
    for node, asked in by_node.items():
        request = DescribeConfigsRequest(
            resources=[
                DescribeConfigsResource(
                    resource_type=resource.type,
                    resource_name=resource.name,
                    configuration_keys=None if names is None else list(names),
                )
                for resource in asked
            ],
            include_synonyms=True,
            include_documentation=documentation,
        )
        response: DescribeConfigsResponse = await client.request(request, node=node, timeout_ms=timeout_ms)
        for result in response.results:
            resource = _resource(result.resource_type, result.resource_name)
            error = error_of(result.error_code, result.error_message, f"configs of {resource}", _topic(resource))
            values = sorted(map(_config_value, result.configs), key=lambda config: config.name)
            results[resource] = values if error is None else error
    return results


async def alter_configs(
    client: Client,
    resource: ConfigResource,
    changes: Changes,
    *,
    validate_only: bool = False,
    timeout_ms: int | None = None,
) -> None:
    """Change configs of `resource`, all or none. Raises KafkaError."""
    results = await alter_resources(client, {resource: changes}, validate_only=validate_only, timeout_ms=timeout_ms)
    return alone(results, resource)


async def alter_resources(
    client: Client,
    changes: Mapping[ConfigResource, Changes],
    *,
    validate_only: bool = False,
    timeout_ms: int | None = None,
) -> dict[ConfigResource, KafkaError | None]:
    """Change configs of resources, of each all or none; return per resource None or why not."""
    found, by_node = await _by_node(client, changes, timeout_ms)
    results: dict[ConfigResource, KafkaError | None] = dict(found)
    for node, asked in by_node.items():
        request = IncrementalAlterConfigsRequest(
            resources=[
                AlterConfigsResource(
                    resource_type=resource.type,
                    resource_name=resource.name,
                    configs=[
                        AlterableConfig(name=name, config_operation=operation, value=value)
                        for name, operation, value in changes[resource]
                    ],
                )
                for resource in asked
            ],
            validate_only=validate_only,
        )
        response: IncrementalAlterConfigsResponse = await client.request(request, node=node, timeout_ms=timeout_ms)
        results.update(_altered(response.responses))
    return results


async def replace_configs(
    client: Client,
    configs: Mapping[ConfigResource, Mapping[str, str | None]],
    *,
    validate_only: bool = False,
    timeout_ms: int | None = None,
) -> dict[ConfigResource, KafkaError | None]:
    """Give resources these configs and no others (AlterConfigs, KIP-133); return per resource None or why not."""
    found, by_node = await _by_node(client, configs, timeout_ms)
    results: dict[ConfigResource, KafkaError | None] = dict(found)
    for node, asked in by_node.items():
        request = replace_wire.AlterConfigsRequest(
            resources=[
                replace_wire.AlterConfigsResource(
                    resource_type=resource.type,
                    resource_name=resource.name,
                    configs=[
                        replace_wire.AlterableConfig(name=name, value=value)
                        for name, value in configs[resource].items()
                    ],
                )
                for resource in asked
            ],
            validate_only=validate_only,
        )
        response: replace_wire.AlterConfigsResponse = await client.request(request, node=node, timeout_ms=timeout_ms)
        results.update(_altered(response.responses))
    return results


async def list_config_resources(
    client: Client, types: Iterable[ConfigResourceType] = (), *, timeout_ms: int | None = None
) -> list[ConfigResource]:
    """Return what has configs, of these kinds or of all (KIP-1142)."""
    response: ListConfigResourcesResponse = await client.request(
        ListConfigResourcesRequest(resource_types=list(types)), timeout_ms=timeout_ms
    )
    check(response.error_code, None, "resources with configs were not listed")
    return sorted(_resource(one.resource_type, one.resource_name) for one in response.config_resources)


async def _by_node(
    client: Client, resources: Iterable[ConfigResource], timeout_ms: int | None
) -> tuple[dict[ConfigResource, KafkaError], dict[int | None, list[ConfigResource]]]:
    """Return the resources by the broker to ask, and those for which there is none."""
    refused: dict[ConfigResource, KafkaError] = {}
    by_node: dict[int | None, list[ConfigResource]] = {}
    for resource in dict.fromkeys(resources):
        try:
            node = await _node_of(client, resource, timeout_ms)
        except KafkaError as error:
            if error.code is not ErrorCode.INVALID_REQUEST:
                raise
            refused[resource] = error
        else:
            by_node.setdefault(node, []).append(resource)
    return refused, by_node


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


def _altered(
    responses: Iterable[AlterConfigsResourceResponse | replace_wire.AlterConfigsResourceResponse],
) -> dict[ConfigResource, KafkaError | None]:
    """Both requests that change configs have this answer."""
    results: dict[ConfigResource, KafkaError | None] = {}
    for one in responses:
        resource = _resource(one.resource_type, one.resource_name)
        results[resource] = error_of(
            one.error_code, one.error_message, f"configs of {resource} were not altered", _topic(resource)
        )
    return results


def _resource(kind: int, name: str) -> ConfigResource:
    return ConfigResource(ConfigResourceType(kind), name)


def _topic(resource: ConfigResource) -> str | None:
    return resource.name if resource.type is ConfigResourceType.TOPIC else None


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
