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
from typing import Final, NamedTuple

from millstream.core.cluster.image import ClusterImage, TopicImage
from millstream.core.cluster.operations import (
    AdvanceProducerIds,
    AlterBrokerConfigs,
    AlterGroupConfigs,
    CreateTopic,
    Operation,
)
from millstream.core.records import (
    HEADER_SIZE,
    BatchHeader,
    CorruptRecordError,
    crc32c,
    iter_batches,
    read_header,
)

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
    group_configs: Mapping[str, Mapping[str, str]]
    next_producer_id: int
    notes: tuple[str, ...]

    def operations(self, image: ClusterImage) -> list[Operation]:
        """Return what makes an image of no topics hold all of this; commit it together with the cluster's id."""
        assert not image.topics, f"the image has {len(image.topics)} topics"
        operations: list[Operation] = [CreateTopic(topic) for topic in self.topics]
        operations += [AlterBrokerConfigs(broker, dict(configs)) for broker, configs in self.broker_configs.items()]
        operations += [AlterGroupConfigs(group_id, dict(configs)) for group_id, configs in self.group_configs.items()]
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
    # Only a directory of Kafka's pays for the declarations of its records.
    from millstream.core.cluster.kraft_replay import Replay

    replay = Replay()
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
