"""Planning changes of configs, of topics and of brokers: AlterConfigs (all of a resource) and IncrementalAlterConfigs.

Pure functions from an image and a request to operations; checks and sentences are Apache Kafka 4.3's. A topic's whole
new set of settings is validated, not only what changes, so that two that conflict never meet. Broker configs are those
that may change while a broker runs; names that no table knows are kept for the program that knows them, as Kafka does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from typing import Final, NamedTuple

from millstream.core.cluster.image import CLUSTER_DEFAULT, ClusterImage, TopicImage
from millstream.core.cluster.operations import AlterBrokerConfigs, AlterGroupConfigs, AlterTopicConfigs
from millstream.core.cluster.topics import validate_topic_name
from millstream.core.config import (
    BROKER_CONFIGS,
    GROUP_CONFIGS,
    TOPIC_CONFIGS,
    BrokerConfig,
    ConfigDef,
    ConfigError,
    ConfigType,
    validate_dynamic_configs,
    validate_group_configs,
    validate_topic_configs,
)
from millstream.core.wire import ErrorCode, KafkaError

ConfigOperations = list[AlterTopicConfigs] | list[AlterBrokerConfigs] | list[AlterGroupConfigs]


class ResourceType(IntEnum):
    """What configs belong to, numbered as in the protocol."""

    TOPIC = 2
    BROKER = 4
    BROKER_LOGGER = 8
    CLIENT_METRICS = 16
    GROUP = 32


class AlterOperation(IntEnum):
    """What IncrementalAlterConfigs does with a config (KIP-339)."""

    SET = 0
    DELETE = 1
    APPEND = 2
    SUBTRACT = 3


class ConfigChange(NamedTuple):
    """One config of an IncrementalAlterConfigs request. `operation` is the number from the wire, checked here."""

    name: str
    operation: int
    value: str | None


_DEFINITIONS: Final[Mapping[int, ConfigDef]] = {ResourceType.TOPIC: TOPIC_CONFIGS, ResourceType.GROUP: GROUP_CONFIGS}


def plan_alter_configs(
    image: ClusterImage,
    resource_type: int,
    resource_name: str,
    configs: Iterable[tuple[str, str | None]],
    *,
    node_id: int,
    broker_config: BrokerConfig | None = None,
) -> ConfigOperations:
    """Plan that the resource has these configs and no others; `broker_config` bounds those of groups."""
    settings: dict[str, str] = {}
    pairs = list(configs)
    _refuse_duplicates([name for name, _ in pairs])
    _refuse_nulls([name for name, value in pairs if value is None])
    for name, value in pairs:
        assert value is not None
        settings[name] = value
    current = _current(image, resource_type, resource_name, node_id)
    return _plan(image, resource_type, resource_name, current, settings, broker_config)


def plan_incremental_alter_configs(
    image: ClusterImage,
    resource_type: int,
    resource_name: str,
    changes: Sequence[ConfigChange],
    *,
    node_id: int,
    broker_config: BrokerConfig | None = None,
) -> ConfigOperations:
    """Plan changes of single configs; APPEND and SUBTRACT work on lists, on the default where nothing is set.

    `broker_config` bounds the configs of groups.
    """
    _refuse_duplicates([change.name for change in changes])
    _refuse_nulls(
        [change.name for change in changes if change.value is None and change.operation != AlterOperation.DELETE]
    )
    current = _current(image, resource_type, resource_name, node_id)
    definition = _DEFINITIONS.get(resource_type, BROKER_CONFIGS)
    settings = dict(current)
    for name, operation, value in changes:
        match operation:
            case AlterOperation.DELETE:
                settings.pop(name, None)
            case AlterOperation.SET:
                assert value is not None
                settings[name] = value
            case AlterOperation.APPEND | AlterOperation.SUBTRACT:
                assert value is not None
                settings[name] = _list_changed(definition, settings, name, AlterOperation(operation), value)
            case _:
                raise KafkaError(ErrorCode.INVALID_REQUEST, f"Unknown operations type {operation}")
    return _plan(image, resource_type, resource_name, current, settings, broker_config)


def _plan(
    image: ClusterImage,
    resource_type: int,
    resource_name: str,
    current: Mapping[str, str],
    settings: dict[str, str],
    broker_config: BrokerConfig | None,
) -> ConfigOperations:
    changes = changed(current, settings)
    if resource_type == ResourceType.GROUP:
        assert broker_config is not None, "configs of groups are bounded by those of the broker"
        try:
            validate_group_configs(
                {name: text for name, text in settings.items() if name in GROUP_CONFIGS or name in changes},
                broker_config,
            )
        except ConfigError as error:
            raise KafkaError(ErrorCode.INVALID_CONFIG, str(error)) from error
        return [AlterGroupConfigs(resource_name, changes)] if changes else []
    if resource_type == ResourceType.TOPIC:
        try:
            # What is stored and left alone was valid for the program that stored it, a newer one perhaps.
            validate_topic_configs(
                {name: text for name, text in settings.items() if name in TOPIC_CONFIGS or name in changes}
            )
        except ConfigError as error:
            raise KafkaError(ErrorCode.INVALID_CONFIG, str(error)) from error
        topic = image.topics[resource_name]
        return [AlterTopicConfigs(topic.topic_id, changes)] if changes else []
    _validate_broker_configs(
        image,
        {name: text for name, text in changes.items() if text is not None},
        broker_config,
        per_broker=resource_name != CLUSTER_DEFAULT,
    )
    broker = CLUSTER_DEFAULT if resource_name == CLUSTER_DEFAULT else str(int(resource_name))
    return [AlterBrokerConfigs(broker, changes)] if changes else []


def changed(current: Mapping[str, str], wanted: Mapping[str, str]) -> dict[str, str | None]:
    """Return the changes that turn `current` into `wanted`."""
    changes: dict[str, str | None] = {name: None for name in current if name not in wanted}
    changes.update((name, value) for name, value in wanted.items() if current.get(name) != value)
    return changes


def _current(image: ClusterImage, resource_type: int, resource_name: str, node_id: int) -> Mapping[str, str]:
    if resource_type == ResourceType.TOPIC:
        return _topic(image, resource_name).configs
    if resource_type == ResourceType.BROKER:
        if resource_name == CLUSTER_DEFAULT:
            return image.broker_configs.get(CLUSTER_DEFAULT, {})
        return image.broker_configs.get(str(broker_id(resource_name, node_id)), {})
    if resource_type == ResourceType.GROUP:
        if not resource_name:
            raise KafkaError(ErrorCode.INVALID_REQUEST, "Default group resources are not allowed.")
        return image.group_configs.get(resource_name, {})
    if resource_type in (ResourceType.BROKER_LOGGER, ResourceType.CLIENT_METRICS):
        kind = ResourceType(resource_type).name
        raise KafkaError(ErrorCode.INVALID_REQUEST, f"Configs of {kind} resources do not exist here yet.")
    raise KafkaError(ErrorCode.INVALID_REQUEST, f"Unknown resource type {resource_type}")


def broker_id(resource_name: str, node_id: int) -> int:
    """Return the broker that a resource name stands for; it must be the one asked."""
    try:
        named = int(resource_name)
    except ValueError as error:
        raise KafkaError(
            ErrorCode.INVALID_REQUEST, f"Node id must be an integer, but it is: {resource_name}"
        ) from error
    if named != node_id:
        raise KafkaError(
            ErrorCode.INVALID_REQUEST, f"Unexpected broker id, expected {node_id}, but received {resource_name}"
        )
    return named


def _topic(image: ClusterImage, name: str) -> TopicImage:
    if not name:
        raise KafkaError(ErrorCode.INVALID_REQUEST, "Default topic resources are not allowed.")
    validate_topic_name(name)
    topic = image.topics.get(name)
    if topic is None:
        raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"The topic '{name}' does not exist.")
    return topic


def _list_changed(
    definition: ConfigDef, settings: Mapping[str, str], name: str, operation: AlterOperation, value: str
) -> str:
    key = definition.get(name)
    if key is None or key.type is not ConfigType.LIST:
        raise KafkaError(
            ErrorCode.INVALID_CONFIG, f"Can't {operation.name} to key {name} because its type is not LIST."
        )
    text = settings.get(name)
    entries = _entries(key.render(key.default) or "" if text is None else text)
    # An empty value appends an empty entry, which the config then refuses or takes; so it is in Kafka.
    for entry in _entries(value) if value else [""]:
        if operation is AlterOperation.SUBTRACT:
            entries = [kept for kept in entries if kept != entry]
        elif entry not in entries:
            entries.append(entry)
    return ",".join(entries)


def _entries(text: str) -> list[str]:
    return [entry for part in text.split(",") if (entry := part.strip())]


def _validate_broker_configs(
    image: ClusterImage, settings: Mapping[str, str], broker_config: BrokerConfig | None, *, per_broker: bool
) -> None:
    current = (broker_config or BrokerConfig()).with_dynamic(image.broker_configs)
    try:
        validate_dynamic_configs(settings, current=current, per_broker=per_broker)
    except ConfigError as error:
        raise KafkaError(ErrorCode.INVALID_REQUEST, str(error)) from error


def _refuse_duplicates(names: Sequence[str]) -> None:
    if len(set(names)) != len(names):
        raise KafkaError(ErrorCode.INVALID_REQUEST, "Error due to duplicate config keys")


def _refuse_nulls(names: Sequence[str]) -> None:
    if names:
        raise KafkaError(ErrorCode.INVALID_REQUEST, f"Null value not supported for : {', '.join(names)}")
