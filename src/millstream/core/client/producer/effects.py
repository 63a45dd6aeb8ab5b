"""What the sender asks of its surroundings, and what a broker's answer is to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from millstream.core.client.cluster import NO_NODE
from millstream.core.client.producer.batch import NO_OFFSET, Batch
from millstream.core.wire import KafkaError


class Outcome(NamedTuple):
    """What a broker answered about one batch."""

    error: KafkaError | None
    base_offset: int = NO_OFFSET
    log_append_time_ms: int = -1
    # The leader it knows of, and its epoch (KIP-951); NO_NODE where it says nothing.
    leader: int = NO_NODE
    leader_epoch: int = -1


@dataclass(slots=True, eq=False)
class SendRequest:
    """Effect: send these batches, one of each partition, to a node over the connection of `generation`."""

    node: int
    generation: int
    batches: list[Batch]
    sent_ms: float


@dataclass(frozen=True, slots=True)
class Connect:
    """Effect: have a connection to the node; `node_ready` or `node_failed` answers."""

    node: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Effect: close the connection to a node that does not answer; its requests come back as failures."""

    node: int


@dataclass(frozen=True, slots=True, eq=False)
class Prepare:
    """Effect: compress a batch on a worker thread; `prepared` answers."""

    batch: Batch


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Effect: split a batch that is too large on a worker thread; `was_split` answers."""

    batch: Batch


@dataclass(frozen=True, slots=True)
class AskProducerId:
    """Effect: get a producer id; `handle_producer_id` answers."""


@dataclass(frozen=True, slots=True)
class AskMetadata:
    """Effect: ask for the metadata of topics; `note_cluster` or `metadata_failed` answers."""

    topics: frozenset[str]


Effect = SendRequest | Connect | GiveUp | Prepare | Split | AskProducerId | AskMetadata
