"""The state that a Kafka metadata log makes, record after record, and what one node takes over of it (KIP-631).

Pure: `adoption` reads the files and calls `read` with each batch in order. Records of a controller's transaction
(KIP-868) count when it ends; those of one that was aborted, or that the log ends in, never were.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from millstream.core.cluster.adoption import AdoptedMetadata, AdoptionError
from millstream.core.cluster.configs import ResourceType
from millstream.core.cluster.image import NO_LEADER, PartitionState, TopicImage, altered
from millstream.core.cluster.kraft_records import (
    FRAME_VERSION,
    KINDS,
    LEADER_UNCHANGED,
    UNKEPT,
    AbortTransactionRecord,
    BeginTransactionRecord,
    ConfigRecord,
    EndTransactionRecord,
    FeatureLevelRecord,
    PartitionChangeRecord,
    PartitionRecord,
    ProducerIdsRecord,
    RegisterBrokerRecord,
    RemoveTopicRecord,
    TopicRecord,
    UnregisterBrokerRecord,
)
from millstream.core.records import BatchHeader, iter_records
from millstream.core.wire import WireError, decode, unsigned_varint
from millstream.core.wire import uuid_text as topic_id_text


class Replay:
    """The state that the records make, one after the other."""

    def __init__(self) -> None:
        self._names: dict[bytes, str] = {}
        self._partitions: dict[bytes, dict[int, PartitionState]] = {}
        # Replicas outside the ISR that hold every committed record (KIP-966), as a clean stop leaves the last one.
        self._eligible: dict[tuple[bytes, int], list[int]] = {}
        self._configs: dict[tuple[int, str], dict[str, str]] = {}
        self._brokers: set[int] = set()
        self._features: dict[str, int] = {}
        self._next_producer_id = 0
        # Kinds of UNKEPT that were met.
        self._unkept: set[str] = set()
        # The records since BeginTransaction; None outside a transaction. What is left here at the end never happened.
        self._transaction: list[Any] | None = None

    def read(self, path: Path, header: BatchHeader, batch: memoryview, *, from_offset: int) -> None:
        """Take in a batch's records from `from_offset` on; control batches (a leader was elected) say nothing here."""
        if header.is_control:
            return
        for record in iter_records(batch):
            if record.offset < from_offset or record.value is None:
                continue
            try:
                message = self._parse(record.value)
            except (WireError, IndexError, ValueError) as error:
                raise AdoptionError(f"{path}: the record at offset {record.offset} cannot be read: {error}") from error
            if message is not None:
                self._take(message)

    def _parse(self, value: bytes) -> Any:
        frame, position = unsigned_varint(value, 0)
        kind, position = unsigned_varint(value, position)
        version, position = unsigned_varint(value, position)
        if frame != FRAME_VERSION:
            raise ValueError(f"its frame has version {frame}, known is {FRAME_VERSION}")
        declared = KINDS.get(kind)
        if declared is None:
            if kind in UNKEPT:
                self._unkept.add(UNKEPT[kind])
            return None
        if version not in declared.__wire__.versions:
            raise ValueError(f"a newer Kafka wrote it: {declared.__name__} of version {version}")
        return decode(declared, version, value, position)[0]

    def _take(self, message: Any) -> None:
        match message:
            case BeginTransactionRecord():
                self._transaction = []
            case EndTransactionRecord():
                held, self._transaction = self._transaction or [], None
                for earlier in held:
                    self._apply(earlier)
            case AbortTransactionRecord():
                self._transaction = None
            case _ if self._transaction is not None:
                self._transaction.append(message)
            case _:
                self._apply(message)

    def _apply(self, message: Any) -> None:
        match message:
            case TopicRecord():
                self._names[message.topic_id] = message.name
                self._partitions[message.topic_id] = {}
            case PartitionRecord():
                self._eligible[message.topic_id, message.partition_id] = message.eligible_leader_replicas or []
                self._partitions[message.topic_id][message.partition_id] = PartitionState(
                    message.leader,
                    message.leader_epoch,
                    tuple(message.replicas),
                    tuple(message.isr),
                    message.partition_epoch,
                )
            case PartitionChangeRecord():
                if message.eligible_leader_replicas is not None:
                    self._eligible[message.topic_id, message.partition_id] = message.eligible_leader_replicas
                states = self._partitions[message.topic_id]
                states[message.partition_id] = _changed(states[message.partition_id], message)
            case RemoveTopicRecord():
                name = self._names.pop(message.topic_id)
                del self._partitions[message.topic_id]
                self._configs.pop((ResourceType.TOPIC, name), None)
            case ConfigRecord():
                resource = (message.resource_type, message.resource_name)
                self._configs[resource] = altered(self._configs.get(resource, {}), {message.name: message.value})
            case ProducerIdsRecord():
                self._next_producer_id = max(self._next_producer_id, message.next_producer_id)
            case RegisterBrokerRecord():
                self._brokers.add(message.broker_id)
            case UnregisterBrokerRecord():
                self._brokers.discard(message.broker_id)
            case FeatureLevelRecord():
                self._features[message.name] = message.feature_level

    def result(self, node_id: int, end_offset: int) -> AdoptedMetadata:
        """Return what the records made, as node `node_id` takes it over."""
        topics = tuple(
            TopicImage(
                name,
                topic_id,
                self._taken_over(name, topic_id, node_id),
                self._configs.get((ResourceType.TOPIC, name), {}),
            )
            for topic_id, name in sorted(self._names.items(), key=lambda item: item[1])
        )
        broker_configs = {
            name: configs for (kind, name), configs in self._configs.items() if kind == ResourceType.BROKER and configs
        }
        group_configs = {
            name: configs for (kind, name), configs in self._configs.items() if kind == ResourceType.GROUP and configs
        }
        return AdoptedMetadata(
            node_id,
            end_offset,
            topics,
            broker_configs,
            group_configs,
            self._next_producer_id,
            tuple(self._notes(topics, node_id)),
        )

    def _taken_over(self, name: str, topic_id: bytes, node_id: int) -> tuple[PartitionState, ...]:
        states = self._partitions[topic_id]
        if not states or sorted(states) != list(range(len(states))):
            raise AdoptionError(f"topic {name} ({topic_id_text(topic_id)}) has the partitions {sorted(states)}")
        return tuple(_led_by(states[index], node_id) for index in range(len(states)))

    def _notes(self, topics: tuple[TopicImage, ...], node_id: int) -> Iterator[str]:
        for kind in sorted(self._unkept):
            yield f"the cluster had {kind}; they are not taken over and nothing here obeys them"
        if node_id not in self._brokers:
            yield f"the cluster never had a broker {node_id}, only {sorted(self._brokers)}; is node.id right?"
        elif len(self._brokers) > 1:
            yield f"the cluster had the brokers {sorted(self._brokers)}; only what broker {node_id} holds is served"
        elsewhere = sum(state.leader == NO_LEADER for topic in topics for state in topic.partitions)
        if elsewhere:
            yield f"{elsewhere} partitions have no replica on broker {node_id} and stay without a leader"
        behind = sum(
            node_id in state.replicas and node_id not in (*state.isr, *self._eligible[topic_id, index])
            for topic_id, states in self._partitions.items()
            for index, state in states.items()
        )
        if behind:
            yield f"{behind} partitions were not in sync on broker {node_id}: acknowledged records may be missing"
        kinds = {kind for kind, _ in self._configs} - {ResourceType.TOPIC, ResourceType.BROKER, ResourceType.GROUP}
        if kinds:
            yield f"configs of resource types {sorted(kinds)} are not taken over (16: client metrics)"
        if self._transaction is not None:
            yield "the log ends within a transaction of the controller; its records never held and are left out"


def _changed(state: PartitionState, record: PartitionChangeRecord) -> PartitionState:
    leader, leader_epoch = state.leader, state.leader_epoch
    if record.leader != LEADER_UNCHANGED:
        leader, leader_epoch = record.leader, leader_epoch + 1
    replicas = state.replicas if record.replicas is None else tuple(record.replicas)
    isr = state.isr if record.isr is None else tuple(record.isr)
    return PartitionState(leader, leader_epoch, replicas, isr, state.partition_epoch + 1)


def _led_by(state: PartitionState, node_id: int) -> PartitionState:
    epochs = state.leader_epoch + 1, state.partition_epoch + 1
    if node_id not in state.replicas:
        return PartitionState(NO_LEADER, epochs[0], state.replicas, state.isr, epochs[1])
    return PartitionState(node_id, epochs[0], (node_id,), (node_id,), epochs[1])
