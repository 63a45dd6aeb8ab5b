"""DescribeConfigs (key 32): every config of topics, of this broker, of all brokers, and its loggers' levels.

Versions  1 sources and synonyms (KIP-226)   3 type and documentation (KIP-569)   4 flexible
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from millstream.core.broker.context import Operation, RequestContext
from millstream.core.broker.delayed import Delayed
from millstream.core.broker.handlers._admin import Fault, may
from millstream.core.broker.handlers._groups import permits_group
from millstream.core.broker.handlers.encoded import Encoded, encoded_in_slices
from millstream.core.broker.log_levels import log_levels
from millstream.core.cluster import CLUSTER_DEFAULT
from millstream.core.cluster.configs import ResourceType
from millstream.core.cluster.topics import validate_topic_name
from millstream.core.config import (
    BROKER_CONFIGS,
    ConfigEntry,
    ConfigError,
    ConfigSource,
    ConfigSynonym,
    UpdateMode,
    effective_group_config,
)
from millstream.core.wire import ErrorCode, KafkaError
from millstream.core.wire.messages.describe_configs import (
    DescribeConfigsRequest,
    DescribeConfigsResource,
    DescribeConfigsResourceResult,
    DescribeConfigsResponse,
    DescribeConfigsResult,
    DescribeConfigsSynonym,
)

if TYPE_CHECKING:
    from millstream.core.broker.broker import Broker

DYNAMIC_BROKER_LOGGER_CONFIG: Final = 6  # a source that only loggers have


def describe_configs(broker: Broker, request: DescribeConfigsRequest, context: RequestContext) -> Delayed[Encoded]:
    """Answer per resource; one that is unknown or hidden never fails the rest."""
    results = (_result(broker, request, item, context) for item in request.resources)
    answer = encoded_in_slices(DescribeConfigsResponse(), "results", results, context.api_version)
    return Delayed.from_coroutine(broker.loop, answer)


def _result(
    broker: Broker, request: DescribeConfigsRequest, resource: DescribeConfigsResource, context: RequestContext
) -> DescribeConfigsResult:
    result = DescribeConfigsResult(resource_type=resource.resource_type, resource_name=resource.resource_name)
    try:
        configs = list(_configs(broker, resource, context))
    except KafkaError as error:
        fault = Fault.of(error)
        result.error_code = fault.code
        # Kafka says nothing more of a topic that is not there.
        result.error_message = "" if fault.code is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION else fault.message
        return result
    wanted = set(resource.configuration_keys or ())
    for config in configs:
        if not wanted or config.name in wanted:
            if not request.include_synonyms:
                config.synonyms = []
            if not request.include_documentation:
                config.documentation = None
            result.configs.append(config)
    return result


def _configs(
    broker: Broker, resource: DescribeConfigsResource, context: RequestContext
) -> Iterable[DescribeConfigsResourceResult]:
    name = resource.resource_name
    if resource.resource_type == ResourceType.TOPIC:
        if not may(context, Operation.DESCRIBE_CONFIGS, name):
            raise KafkaError(ErrorCode.TOPIC_AUTHORIZATION_FAILED, "Topic authorization failed.")
        return _topic_configs(broker, name)
    if resource.resource_type == ResourceType.GROUP:
        if not permits_group(context, Operation.DESCRIBE_CONFIGS, name):
            raise KafkaError(ErrorCode.GROUP_AUTHORIZATION_FAILED, "Group authorization failed.")
        return _group_configs(broker, name)
    if not context.permits_cluster(Operation.DESCRIBE_CONFIGS):
        raise KafkaError(ErrorCode.CLUSTER_AUTHORIZATION_FAILED, "Cluster authorization failed.")
    if resource.resource_type == ResourceType.BROKER:
        return _broker_configs(broker, name)
    if resource.resource_type == ResourceType.BROKER_LOGGER:
        return _logger_configs(broker, name)
    if resource.resource_type == ResourceType.CLIENT_METRICS:
        # Kafka answers defaults here; ours would be of configs that nothing obeys.
        kind = ResourceType(resource.resource_type).name
        raise KafkaError(ErrorCode.INVALID_REQUEST, f"Configs of {kind} resources do not exist here yet.")
    raise KafkaError(ErrorCode.INVALID_REQUEST, f"Unknown resource type {resource.resource_type}")


def _topic_configs(broker: Broker, name: str) -> Iterable[DescribeConfigsResourceResult]:
    validate_topic_name(name)
    topic = broker.metadata.image.topics.get(name)
    if topic is None:
        raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"topic {name} does not exist")
    for entry in broker.control.applier.topic_config(topic.configs).values():
        yield _shown(entry, read_only=False)


def _group_configs(broker: Broker, group_id: str) -> Iterable[DescribeConfigsResourceResult]:
    # A group need not exist to have configs.
    if not group_id:
        raise KafkaError(ErrorCode.INVALID_REQUEST, "Group name must not be empty")
    own = broker.metadata.image.group_configs.get(group_id, {})
    for entry in effective_group_config(own, broker.config).values():
        yield _shown(entry, read_only=False)


def _broker_configs(broker: Broker, name: str) -> Iterable[DescribeConfigsResourceResult]:
    if name == CLUSTER_DEFAULT:
        yield from _default_broker_configs(broker)
        return
    node_id = broker.config.node_id
    if _broker_id(name) != node_id:
        raise KafkaError(
            ErrorCode.INVALID_REQUEST,
            f"Unexpected broker id, expected {node_id} or empty string, but received {name}",
        )
    for entry in broker.control.applier.broker_config().values():
        yield _shown(entry, read_only=entry.key.dynamic is UpdateMode.READ_ONLY)
    yield from _unknown_broker_configs(broker)


def _unknown_broker_configs(broker: Broker) -> Iterable[DescribeConfigsResourceResult]:
    """Stored configs that no table here knows: whether they are secrets is not known either, so none is shown."""
    own, every = broker.metadata.image.dynamic_configs(broker.config.node_id)
    for name in sorted({*own, *every} - set(BROKER_CONFIGS)):
        source = ConfigSource.DYNAMIC_BROKER_CONFIG if name in own else ConfigSource.DYNAMIC_DEFAULT_BROKER_CONFIG
        yield DescribeConfigsResourceResult(
            name=name,
            value=None,
            read_only=True,
            config_source=source,
            is_sensitive=True,
            synonyms=[DescribeConfigsSynonym(name=name, value=None, source=source)],
        )


def _default_broker_configs(broker: Broker) -> Iterable[DescribeConfigsResourceResult]:
    """The dynamic configs set for every broker, and nothing inherited."""
    source = ConfigSource.DYNAMIC_DEFAULT_BROKER_CONFIG
    for config_name, text in broker.metadata.image.broker_configs.get(CLUSTER_DEFAULT, {}).items():
        key = BROKER_CONFIGS.get(config_name)
        if key is None:
            continue
        try:
            value = key.parse(text)
        except ConfigError:  # written by another program; it has no effect, so it is not shown as if it had
            continue
        shown = key.render(value)
        yield _shown(
            ConfigEntry(key, value, shown, source, (ConfigSynonym(config_name, shown, source),)), read_only=False
        )


def _logger_configs(broker: Broker, name: str) -> Iterable[DescribeConfigsResourceResult]:
    if name == "":
        raise KafkaError(ErrorCode.INVALID_REQUEST, "Broker id must not be empty")
    node_id = broker.config.node_id
    if _broker_id(name) != node_id:
        raise KafkaError(ErrorCode.INVALID_REQUEST, f"Unexpected broker id, expected {node_id} but received {name}")
    for logger, level in log_levels().items():
        yield DescribeConfigsResourceResult(
            name=logger, value=level, config_source=DYNAMIC_BROKER_LOGGER_CONFIG, documentation=""
        )


def _broker_id(name: str) -> int:
    digits = name.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 10):
        raise KafkaError(ErrorCode.INVALID_REQUEST, f"Broker id must be an integer, but it is: {name}")
    return int(name)


def _shown(entry: ConfigEntry, *, read_only: bool) -> DescribeConfigsResourceResult:
    return DescribeConfigsResourceResult(
        name=entry.key.name,
        value=entry.text,
        read_only=read_only,
        config_source=entry.source,
        is_sensitive=entry.key.sensitive,
        synonyms=[
            DescribeConfigsSynonym(name=synonym.name, value=synonym.text, source=synonym.source)
            for synonym in entry.synonyms
        ],
        config_type=entry.key.type,
        documentation=entry.key.doc,
    )
