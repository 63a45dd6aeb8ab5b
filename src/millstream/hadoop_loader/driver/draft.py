"""What a run wants to commit, put together from what its splits came to; pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from millstream.hadoop_loader.commit import LoadDraft, Position, table_directory
from millstream.hadoop_loader.commit.state import split_directory
from millstream.hadoop_loader.driver.closing import Closing, directories_to_close, watermarks_after
from millstream.hadoop_loader.driver.sharing import cut_documents
from millstream.hadoop_loader.splits import FileKind, RangeRead, StagedFile, TopicPartitionId

if TYPE_CHECKING:
    from millstream.hadoop_loader.commit import TableState
    from millstream.hadoop_loader.job import LoadJob
    from millstream.hadoop_loader.tables import TableVersion


class Drafted(NamedTuple):
    """A draft, and the directories it closes, relative to the root."""

    draft: LoadDraft
    closed: tuple[str, ...]


def draft_of(
    job: LoadJob,
    state: TableState,
    *,
    cluster_id: str,
    reads: Iterable[RangeRead],
    files: Iterable[StagedFile],
    tables: Mapping[str, TableVersion],
    schemas: Mapping[str, Any],
    moved: Mapping[TopicPartitionId, Position],
    topics: Mapping[str, str],
    lagging: frozenset[TopicPartitionId],
    report: Mapping[str, Any],
) -> Drafted:
    """Put together a load's draft.

    `topics` are names by topic id; `moved` are positions that are set without a record having been read (a start at the
    end, a gap that retention made, a log that was cut), `lagging` the partitions that still have something to load
    after this.
    """
    all_reads, all_files = tuple(reads), tuple(files)
    positions: dict[str, dict[int, Position]] = defaultdict(dict)
    for key, position in moved.items():
        positions[key.topic_id][key.partition] = position
    for read in sorted(all_reads, key=lambda one: one.start_offset):
        # An epoch that is not known stays so: the last one known may have ended before the position.
        positions[read.topic_id][read.partition] = Position(read.next_offset, read.leader_epoch)
    closing = watermarks_after(state.watermarks, all_reads, lagging, job.late)
    # A table that takes no values any more has directories all the same, and they close with the others'.
    names = {
        topic: _table_names(version, schemas.get(topic, state.schemas.get(topic))) for topic, version in tables.items()
    }
    closed = _closed(job, state, all_files, names, topics, closing)
    draft = LoadDraft(
        cluster_id=cluster_id,
        topics={one: name for one, name in topics.items() if one in positions and state.topics.get(one) != name},
        positions=positions,
        watermarks=closing.watermarks,
        files=all_files,
        closed=closed,
        marks_success=job.destination.success_files,
        schemas={**schemas, **cut_documents(state, moved, topics)},
        report=report,
    )
    return Drafted(draft, closed)


def _table_names(version: TableVersion, document: Any) -> frozenset[str]:
    """Return the names of all of a topic's tables."""
    from millstream.hadoop_loader.tables import all_tables

    every = [*version.tables(), *(all_tables(document, version.topic) if document is not None else ())]
    return frozenset(table.name for table in every)


def _closed(
    job: LoadJob,
    state: TableState,
    files: Iterable[StagedFile],
    tables: Mapping[str, frozenset[str]],
    topics: Mapping[str, str],
    closing: Closing,
) -> tuple[str, ...]:
    """The directories, relative to the root and one for each format, whose time is over with this commit."""
    if job.partitioning.kind != "time":
        return ()
    times: dict[str, int] = {}
    for topic_id, time in closing.topics.items():
        times |= dict.fromkeys(tables.get(topics[topic_id], ()), time)
    # (table, directory below table/format) -> the formats it is in.
    formats: dict[tuple[str, str], set[str]] = defaultdict(set)
    for file in files:
        if file.kind is FileKind.DATA:
            formats[file.table, file.directory].add(file.format)
    for path in state.open_directories():
        table, name, directory = split_directory(path)
        if table in times:
            formats[table, directory].add(name)
    candidates: dict[str, list[str]] = defaultdict(list)
    for table, directory in formats:
        candidates[table].append(directory)
    from millstream.hadoop_loader.partitioning import partitioner

    end_ms = partitioner(job.partitioning).end_ms
    return tuple(
        table_directory(table, name, directory)
        for table, directory in directories_to_close(candidates, times, job.late, end_ms)
        for name in sorted(formats[table, directory])
        if not state.is_closed(table_directory(table, name, directory))
    )
