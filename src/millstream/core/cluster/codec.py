"""Metadata as JSON text: how a store keeps topics, brokers and the operations of its change log.

    partitions   [[count, leader, leader_epoch, [replica...], [isr...], partition_epoch]...]   runs of equal states
    topic        {"name", "id": 32 hex digits, "partitions", "configs": {name: text}}
    broker       {"id", "endpoints": [[listener, protocol, host, port]...], "rack"}
    operation    {"op": its class's name, ...its fields}

Runs keep a topic of 10,000 equal partitions at 30 bytes, and equal texts are decoded once, so that 20,000 topics load
in a fraction of a second. Unknown keys are ignored, so that an older program reads what a newer one wrote.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, Final, TypeVar

from millstream.core.cluster import operations as ops
from millstream.core.cluster.image import BrokerImage, Endpoint, PartitionState, TopicImage, altered

States = tuple[PartitionState, ...]

_T = TypeVar("_T")
_encoder: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)


class CorruptMetadataError(ValueError):
    """Stored metadata cannot be read; the text names the piece."""


def partitions_text(partitions: Iterable[PartitionState]) -> str:
    """Return the partitions as text."""
    return _encoder.encode(_runs(partitions))


def partitions_from_text(text: str) -> States:
    """Return the partitions that `partitions_text` wrote."""
    return _reading("partitions", text, _states)


def configs_text(configs: Mapping[str, str]) -> str:
    """Return configs as text."""
    return _encoder.encode(configs)


def altered_configs_text(text: str, changes: Mapping[str, str | None]) -> str:
    """Return the configs of `text` with each change made, as text again."""
    return configs_text(altered(_reading("configs", text, dict), changes))


def broker_text(broker: BrokerImage) -> str:
    """Return a broker as text."""
    return _encoder.encode(_broker_json(broker))


def broker_from_text(text: str) -> BrokerImage:
    """Return the broker that `broker_text` wrote."""
    return _reading("broker", text, _broker)


def operations_text(operations: Iterable[ops.Operation]) -> str:
    """Return operations as text; made one by one, since a long call into JSON would hold the interpreter's lock."""
    return f"[{','.join(_encoder.encode(_operation_json(operation)) for operation in operations)}]"


def operations_from_text(text: str) -> tuple[ops.Operation, ...]:
    """Return the operations that `operations_text` wrote; raises CorruptMetadataError."""
    return _reading("operations", text, lambda value: tuple(_operation(item) for item in value))


class TopicReader:
    """Reads topics from their columns; equal texts become one shared object."""

    def __init__(self) -> None:
        self._partitions: dict[str, tuple[PartitionState, ...]] = {}
        self._configs: dict[str, dict[str, str]] = {}

    def topic(self, name: str, topic_id: bytes, partitions: str, configs: str) -> TopicImage:
        """Return the topic; raises CorruptMetadataError."""
        states = self._partitions.get(partitions)
        if states is None:
            states = self._partitions[partitions] = _reading(f"partitions of {name}", partitions, _states)
        settings = self._configs.get(configs)
        if settings is None:
            settings = self._configs[configs] = _reading(f"configs of {name}", configs, dict)
        return TopicImage(name, topic_id, states, settings)


def _reading(what: str, text: str, read: Callable[[Any], _T]) -> _T:
    try:
        return read(json.loads(text))
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise CorruptMetadataError(f"the stored {what} cannot be read ({error}): {text[:200]!r}") from error


def _runs(partitions: Iterable[PartitionState]) -> list[Any]:
    return [[len(list(run)), *state] for state, run in groupby(partitions)]


def _states(runs: Sequence[Any]) -> tuple[PartitionState, ...]:
    states: list[PartitionState] = []
    for count, leader, leader_epoch, replicas, isr, partition_epoch in runs:
        states += [PartitionState(leader, leader_epoch, tuple(replicas), tuple(isr), partition_epoch)] * count
    return tuple(states)


def _topic_json(topic: TopicImage) -> dict[str, Any]:
    return {
        "name": topic.name,
        "id": topic.topic_id.hex(),
        "partitions": _runs(topic.partitions),
        "configs": topic.configs,
    }


def _topic(value: Any) -> TopicImage:
    return TopicImage(value["name"], bytes.fromhex(value["id"]), _states(value["partitions"]), value["configs"])


def _broker_json(broker: BrokerImage) -> dict[str, Any]:
    return {"id": broker.node_id, "endpoints": broker.endpoints, "rack": broker.rack}


def _broker(value: Any) -> BrokerImage:
    return BrokerImage(value["id"], tuple(Endpoint(*endpoint) for endpoint in value["endpoints"]), value["rack"])


def _operation_json(operation: ops.Operation) -> dict[str, Any]:
    fields: dict[str, Any]
    match operation:
        case ops.CreateTopic(topic):
            fields = {"topic": _topic_json(topic)}
        case ops.DeleteTopic(topic_id):
            fields = {"id": topic_id.hex()}
        case ops.AddPartitions(topic_id, first_index, partitions):
            fields = {"id": topic_id.hex(), "first": first_index, "partitions": _runs(partitions)}
        case ops.ChangePartitions(topic_id, states):
            fields = {"id": topic_id.hex(), "partitions": [[index, _runs([state])] for index, state in states.items()]}
        case ops.AlterTopicConfigs(topic_id, changes):
            fields = {"id": topic_id.hex(), "changes": changes}
        case ops.AlterBrokerConfigs(broker, changes):
            fields = {"broker": broker, "changes": changes}
        case ops.AlterGroupConfigs(group_id, changes):
            fields = {"group": group_id, "changes": changes}
        case ops.AdvanceProducerIds(next_producer_id):
            fields = {"next": next_producer_id}
        case ops.RegisterBroker(image):
            fields = {"broker": _broker_json(image)}
        case ops.UnregisterBroker(node_id):
            fields = {"node": node_id}
        case ops.SetCluster(cluster_id, controller_id):
            fields = {"cluster": cluster_id, "controller": controller_id}
    return {"op": type(operation).__name__, **fields}


def _id(value: Any) -> bytes:
    return bytes.fromhex(value["id"])


_READERS: Final[Mapping[str, Callable[[Any], ops.Operation]]] = {
    "CreateTopic": lambda value: ops.CreateTopic(_topic(value["topic"])),
    "DeleteTopic": lambda value: ops.DeleteTopic(_id(value)),
    "AddPartitions": lambda value: ops.AddPartitions(_id(value), value["first"], _states(value["partitions"])),
    "ChangePartitions": lambda value: ops.ChangePartitions(
        _id(value), {index: _states(runs)[0] for index, runs in value["partitions"]}
    ),
    "AlterTopicConfigs": lambda value: ops.AlterTopicConfigs(_id(value), value["changes"]),
    "AlterBrokerConfigs": lambda value: ops.AlterBrokerConfigs(value["broker"], value["changes"]),
    "AlterGroupConfigs": lambda value: ops.AlterGroupConfigs(value["group"], value["changes"]),
    "AdvanceProducerIds": lambda value: ops.AdvanceProducerIds(value["next"]),
    "RegisterBroker": lambda value: ops.RegisterBroker(_broker(value["broker"])),
    "UnregisterBroker": lambda value: ops.UnregisterBroker(value["node"]),
    "SetCluster": lambda value: ops.SetCluster(value["cluster"], value["controller"]),
}


def _operation(value: Any) -> ops.Operation:
    return _READERS[value["op"]](value)
