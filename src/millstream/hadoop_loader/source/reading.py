"""read_source: what the topics of a job hold now, asked of the cluster over our own client.

The questions, each of all partitions at once: which topics there are, both ends of each log, the end as seen by the
job's isolation level, the offsets of the job's times, where the epochs of committed positions end, what the group from
which new topics are taken over has committed, and how large the logs are on disk. Sizes are only asked for, never
needed: a principal may not be allowed to see them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from millstream.core.client import EARLIEST, LATEST, Client, TopicInfo, TopicPartition
from millstream.core.client.admin.replicas import LogDirDescription, describe_log_dirs
from millstream.core.client.blocking import background_loop
from millstream.core.client.group_offsets import fetch_offsets
from millstream.core.config.client_config import ClientConfig
from millstream.core.config.client_configs import ADMIN_CONFIGS
from millstream.core.wire import ErrorCode, KafkaError, uuid_text
from millstream.hadoop_loader.commit.entries import Position, Positions
from millstream.hadoop_loader.job import SourceSettings
from millstream.hadoop_loader.source.leaders import Asked, ask_epoch_ends, ask_offsets
from millstream.hadoop_loader.source.snapshot import MissingTopic, PartitionNow, SourceSnapshot, TopicNow
from millstream.hadoop_loader.source.topics import loads_topic

# Asking for sizes may take so long; then the planner does without.
SIZES_TIMEOUT_S: Final = 5.0


def read_source(source: SourceSettings, positions: Positions, loaded: Mapping[str, str]) -> SourceSnapshot:
    """Ask the cluster what the job's topics hold; `positions` are those committed, `loaded` their names, by topic id.

    Waits for the answers, from any thread, also where an event loop runs. Raises KafkaError where the cluster cannot be
    reached or does not let this principal in; a single partition without an answer has that as its `error`.
    """

    async def read() -> SourceSnapshot:
        config = ClientConfig.load(ADMIN_CONFIGS, source.client_configs())
        async with Client(config) as client:
            return await read_snapshot(client, source, positions, loaded)

    return background_loop().run(read())


async def read_snapshot(
    client: Client, source: SourceSettings, positions: Positions, loaded: Mapping[str, str]
) -> SourceSnapshot:
    """As `read_source`, over a client that is open."""
    names, missing = await _discover(client, source, {name for one, name in loaded.items() if one in positions})
    cluster = client.cluster
    topics = {name: cluster.topics[name] for name in names}
    tps = [TopicPartition(name, each.partition) for name, info in topics.items() for each in info.partitions]
    committed = source.isolation_level == "read_committed"
    timeout_s = source.timeout_s

    async def offsets(timestamp: int, *, read_committed: bool = committed) -> Asked[int]:
        return await ask_offsets(
            client, dict.fromkeys(tps, timestamp), read_committed=read_committed, timeout_s=timeout_s
        )

    async def nothing() -> Asked[int]:
        return Asked()

    new = [tp for tp in tps if not positions.get(uuid_text(topics[tp.topic].topic_id))]
    # Before the ends: a loader that still runs commits what these do not reach.
    left, left_errors = await _left(client, source, new)
    epochs = _epochs(topics, positions)
    epochs |= {tp: position.leader_epoch for tp, position in left.items() if position.leader_epoch >= 0}
    (begins, ends, high_watermarks, starts, stops), epoch_ends, sizes = await asyncio.gather(
        asyncio.gather(
            offsets(EARLIEST),
            offsets(LATEST),
            offsets(LATEST, read_committed=False) if committed else nothing(),
            offsets(source.start) if isinstance(source.start, int) else nothing(),
            offsets(source.stop) if isinstance(source.stop, int) else nothing(),
        ),
        ask_epoch_ends(client, epochs, timeout_s=timeout_s),
        _sizes(client, tps, min(SIZES_TIMEOUT_S, timeout_s)),
    )
    needed = [begins, ends, *([high_watermarks] if committed else [])]
    needed += [asked for asked, at in ((starts, source.start), (stops, source.stop)) if isinstance(at, int)]

    def partition_now(name: str, number: int, leader_epoch: int) -> PartitionNow:
        tp = TopicPartition(name, number)
        errors = [asked.errors[tp] for asked in needed if tp in asked.errors]
        if tp in epoch_ends.errors and epoch_ends.errors[tp].code is not ErrorCode.UNSUPPORTED_VERSION:
            errors.append(epoch_ends.errors[tp])
        if errors or any(tp not in asked.found for asked in needed):
            return PartitionNow(number, leader_epoch, error=str(errors[0]) if errors else "its leader did not answer")
        begin, end = begins.found[tp], ends.found[tp]
        # The questions are asked at the same time, and answered while the log grows and is cut.
        end = max(begin, end)
        high_watermark = max(end, high_watermarks.found.get(tp, end))
        left_at = left.get(tp)
        return PartitionNow(
            number,
            leader_epoch,
            begin_offset=begin,
            end_offset=end,
            high_watermark=high_watermark,
            start_offset=_start(source, begin, end, starts.found.get(tp)),
            left_offset=None if left_at is None else left_at.offset,
            left_epoch=-1 if left_at is None else left_at.leader_epoch,
            stop_offset=_stop(source, tp, end, stops.found.get(tp)),
            size_bytes=sizes.get(tp),
            epoch_end=epoch_ends.found.get(tp),
        )

    return SourceSnapshot(
        cluster_id=cluster.cluster_id or "",
        topics={
            name: TopicNow(
                name,
                uuid_text(info.topic_id),
                tuple(partition_now(name, each.partition, each.leader_epoch) for each in info.partitions),
                left_errors.get(name, ""),
            )
            for name, info in topics.items()
        },
        missing=missing,
        positions={topic_id: dict(held) for topic_id, held in positions.items()},
    )


async def _discover(
    client: Client, source: SourceSettings, loaded: Collection[str]
) -> tuple[list[str], dict[str, MissingTopic]]:
    """Return the topics that the job wants and that are there, and those that cannot be read, with what was said.

    Brokers leave out of all topics those that this principal may not see: those `loaded` before are asked for by name.
    """
    timeout_ms = round(source.timeout_s * 1000)
    wanted = dict.fromkeys(source.topics)
    if source.topics_pattern is None:
        cluster = await client.metadata(wanted, timeout_ms=timeout_ms)
    else:
        cluster = await client.metadata(None, timeout_ms=timeout_ms)
        shown = {name for name, info in cluster.topics.items() if not info.is_internal}
        for name in sorted(shown.union(loaded)):
            if loads_topic(source, name):
                wanted.setdefault(name)
        if lacking := wanted.keys() - cluster.topics.keys():
            cluster = await client.metadata(lacking, timeout_ms=timeout_ms)
    names: list[str] = []
    missing: dict[str, MissingTopic] = {}
    for name in wanted:
        try:
            info = cluster.topic(name)
        except KafkaError as error:
            # A pattern's match that went away while it was described is no topic of the job any more.
            if name in source.topics or name in loaded:
                missing[name] = MissingTopic(error.code, error.message)
            continue
        if info.partitions:
            names.append(name)
        elif name in loaded:
            missing[name] = MissingTopic(ErrorCode.LEADER_NOT_AVAILABLE, f"topic {name!r} is shown without partitions")
    return names, missing


def _epochs(topics: Mapping[str, TopicInfo], positions: Positions) -> dict[TopicPartition, int]:
    """Return the leader epochs of committed positions, by partition."""
    return {
        TopicPartition(name, partition): position.leader_epoch
        for name, info in topics.items()
        for partition, position in positions.get(uuid_text(info.topic_id), {}).items()
        if position.leader_epoch >= 0 and partition < len(info.partitions)
    }


async def _left(
    client: Client, source: SourceSettings, new: Collection[TopicPartition]
) -> tuple[dict[TopicPartition, Position], dict[str, str]]:
    """Return where another loader left partitions of topics that are new here, and by topic why nobody knows.

    Topics that were loaded before do not need the group: what it says keeps nothing from them.
    """
    given = {tp: source.start_offsets.get(tp.topic, {}).get(tp.partition) for tp in new}
    left = {tp: Position(offset) for tp, offset in given.items() if offset is not None}
    asked = [tp for tp in new if tp not in left]
    if source.start_group is None or not asked:
        return left, {}
    timeout_ms = round(source.timeout_s * 1000)
    try:
        found = await fetch_offsets(client, {source.start_group: asked}, require_stable=True, timeout_ms=timeout_ms)
    except KafkaError as error:
        return left, {tp.topic: str(error) for tp in asked}
    committed = found[source.start_group]
    return left | {tp: Position(one.offset, one.leader_epoch) for tp, one in committed.items()}, {}


async def _sizes(client: Client, tps: Iterable[TopicPartition], timeout_s: float) -> dict[TopicPartition, int]:
    """Return the bytes that logs take on their leaders, as far as brokers tell."""
    wanted = set(tps)
    sizes: dict[TopicPartition, int] = {}
    try:
        async with asyncio.timeout(timeout_s):
            found = await describe_log_dirs(client, None, wanted, timeout_ms=round(timeout_s * 1000))
    except (KafkaError, TimeoutError):
        return {}
    for directories in found.values():
        if isinstance(directories, KafkaError):
            continue
        for directory in directories.values():
            if isinstance(directory, LogDirDescription):
                for tp, replica in directory.replicas.items():
                    # Followers hold the same; one that lags holds less.
                    if tp in wanted and not replica.is_future:
                        sizes[tp] = max(sizes.get(tp, 0), replica.size_bytes)
    return sizes


def _start(source: SourceSettings, begin: int, end: int, at_time: int | None) -> int:
    if source.start == "earliest":
        return begin
    if at_time is None or at_time < 0:
        return end
    return min(max(at_time, begin), end)


def _stop(source: SourceSettings, tp: TopicPartition, end: int, at_time: int | None) -> int:
    stop = end if at_time is None or at_time < 0 else min(at_time, end)
    given = source.stop_offsets.get(tp.topic, {}).get(tp.partition)
    return stop if given is None else min(stop, given)
