"""Adopting a data directory of Apache Kafka (KRaft): its topics, configs and producer ids from `__cluster_metadata-0`.

The folder holds an ordinary log of metadata records and snapshots of it:

    00000000000000001234-0000000005.checkpoint    the state up to offset 1234 (epoch 5) as records of their own
    00000000000000000000.log ...                  the log; records before the snapshot's offset are in the snapshot

Reading is: the newest snapshot, then each log record behind it, transactions of records taken whole or not at all. A
last batch that a crash tore off ends the log; damage before that is an error, since what follows it would be guesswork.

The node becomes leader of every partition that it holds a replica of, alone, in a new leader epoch. Partitions that
only other brokers hold stay known and without a leader. Nothing in the folder is changed. Reads files, so it blocks:
call it on a thread.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from millstream.core.cluster.configs import ResourceType
from millstream.core.cluster.image import NO_LEADER, ClusterImage, PartitionState, TopicImage, altered
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
from millstream.core.cluster.operations import AdvanceProducerIds, AlterBrokerConfigs, CreateTopic, Operation
from millstream.core.records import (
    HEADER_SIZE,
    BatchHeader,
    CorruptRecordError,
    crc32c,
    iter_batches,
    iter_records,
    read_header,
)
from millstream.core.wire import WireError, decode, unsigned_varint
from millstream.core.wire import uuid_text as topic_id_text

FOLDER_NAME: Final = "__cluster_metadata-0"

_SNAPSHOT: Final = re.compile(r"(?P<offset>[0-9]{20})-(?P<epoch>[0-9]{10})\.checkpoint\Z")
_SEGMENT: Final = re.compile(r"(?P<offset>[0-9]{20})\.log\Z")
_CRC_START: Final = 21  # where the bytes that a batch's CRC covers begin


class AdoptionError(Exception):
    """The metadata folder cannot be understood; the text says which file, where, and what to do."""


class AdoptedMetadata(NamedTuple):
    """What a metadata folder says, as of `end_offset`, for one node. `notes` are sentences for the operator."""

    node_id: int
    end_offset: int
    topics: tuple[TopicImage, ...]
    broker_configs: Mapping[str, Mapping[str, str]]
    next_producer_id: int
    notes: tuple[str, ...]

    def operations(self, image: ClusterImage) -> list[Operation]:
        """Return what makes an image of no topics hold all of this; commit it together with the cluster's id."""
        assert not image.topics, f"the image has {len(image.topics)} topics"
        operations: list[Operation] = [CreateTopic(topic) for topic in self.topics]
        operations += [AlterBrokerConfigs(broker, dict(configs)) for broker, configs in self.broker_configs.items()]
        if self.next_producer_id > image.next_producer_id:
            operations.append(AdvanceProducerIds(self.next_producer_id))
        return operations


def read_kafka_metadata(directory: Path, node_id: int) -> AdoptedMetadata | None:
    """Read the metadata of the Kafka node `node_id` from a log directory; None if the directory holds none.

    Raises AdoptionError, OSError.
    """
    folder = directory / FOLDER_NAME
    if not folder.is_dir():
        return None
    replay = _Replay()
    snapshots = sorted(file for file in folder.iterdir() if _SNAPSHOT.match(file.name))
    segments = sorted(file for file in folder.iterdir() if _SEGMENT.match(file.name))
    next_offset = 0
    if snapshots:
        match = _SNAPSHOT.match(snapshots[-1].name)
        assert match is not None
        next_offset = int(match["offset"])
        for header, batch in _batches(snapshots[-1], is_last=False):
            replay.read(snapshots[-1], header, batch, from_offset=0)
    for segment in segments:
        for header, batch in _batches(segment, is_last=segment is segments[-1]):
            if header.last_offset < next_offset:
                continue
            if header.base_offset > next_offset:
                raise AdoptionError(
                    f"{segment}: the log continues at offset {header.base_offset}, but what is known ends at "
                    f"{next_offset}; a segment or snapshot is missing from {folder}"
                )
            replay.read(segment, header, batch, from_offset=next_offset)
            next_offset = header.last_offset + 1
    if not snapshots and not segments:
        return None
    return replay.result(node_id, next_offset)


def _batches(path: Path, *, is_last: bool) -> Iterator[tuple[BatchHeader, memoryview]]:
    """Yield the intact batches of a file; only the last file may end within one, where a crash stopped its writer."""
    data = path.read_bytes()
    position = 0
    try:
        for header, batch in iter_batches(data):
            if crc32c(batch[_CRC_START:]) != header.crc:
                break
            yield header, batch
            position += len(batch)
    except CorruptRecordError:
        pass  # `position` is where it lies, and is looked at below
    rest = data[position:]
    if rest and not (is_last and _is_torn(rest)):
        raise AdoptionError(
            f"{path}: the batch at byte {position} is damaged; restore the file, or begin with an empty directory"
        )


def _is_torn(rest: bytes) -> bool:
    """Return whether these bytes are what a crash leaves of a batch: too few of them, the last of all, or zeros."""
    if len(rest) < HEADER_SIZE or not any(rest):
        return True
    try:
        return read_header(rest).size_bytes >= len(rest)
    except CorruptRecordError:
        return False


class _Replay:
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
        return AdoptedMetadata(
            node_id, end_offset, topics, broker_configs, self._next_producer_id, tuple(self._notes(topics, node_id))
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
        kinds = {kind for kind, _ in self._configs} - {ResourceType.TOPIC, ResourceType.BROKER}
        if kinds:
            yield f"configs of resource types {sorted(kinds)} are not taken over (16: client metrics, 32: groups)"
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
