"""Watermarks of the time that names directories, and the directories they close; pure.

That is the records' own time in Kafka, or a field's. Each partition has a watermark: the latest that was loaded of it.
A topic's watermark is the least of those of its partitions; one that brought nothing new in a run and has nothing left
to load does not hold it back, unless the job says so (`late.idle_partitions`); one that is away, or has a transaction
open, does. A time directory whose end lies `late.close_after_s` behind the topic's watermark is closed with the commit
that moves the watermark there: it gets `_SUCCESS`, and what still comes for it is late. No wall clock is asked, so the
same records close the same directories whenever they are loaded.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from millstream.hadoop_loader.splits import RangeRead, TopicPartitionId

if TYPE_CHECKING:
    from millstream.hadoop_loader.commit.entries import Watermarks
    from millstream.hadoop_loader.job import LateSettings

NO_TIME = -1


@dataclass(slots=True)
class Closing:
    """What a commit moves and closes."""

    # Only those that moved.
    watermarks: dict[str, dict[int, int]] = field(default_factory=dict)
    # Topic id -> what its time has come to; absent where no record had a time, every partition was idle, or nobody
    # knows the time of one that is not.
    topics: dict[str, int] = field(default_factory=dict)


def watermarks_after(
    before: Watermarks,
    reads: Iterable[RangeRead],
    lagging: Collection[TopicPartitionId],
    settings: LateSettings,
) -> Closing:
    """Return how far record time has come with these reads.

    `lagging` partitions have records that are not loaded yet, or may have: they hold back in any case, and all of their
    topic where none of theirs ever was.
    """
    closing = Closing()
    active: dict[str, set[int]] = defaultdict(set)
    for read in reads:
        if read.max_timestamp_ms == NO_TIME:
            continue
        active[read.topic_id].add(read.partition)
        moved = closing.watermarks.setdefault(read.topic_id, {})
        known = moved.get(read.partition, before.get(read.topic_id, {}).get(read.partition, NO_TIME))
        moved[read.partition] = max(known, read.max_timestamp_ms)
    unknown: set[str] = set()
    for key in lagging:
        active[key.topic_id].add(key.partition)
        # A topic that is loaded anew has partitions without a time, as if nothing of them had been loaded.
        held = (times.get(key.topic_id, {}).get(key.partition, NO_TIME) for times in (before, closing.watermarks))
        if all(time == NO_TIME for time in held):
            # Of what time its records are is not known: they may be of any.
            unknown.add(key.topic_id)
    for topic_id, partitions in active.items():
        if topic_id in unknown:
            continue
        now = {**before.get(topic_id, {}), **closing.watermarks.get(topic_id, {})}
        with_time = {partition for partition, time in now.items() if time != NO_TIME}
        counted = with_time if settings.idle_partitions == "wait" else with_time & partitions
        if counted:
            closing.topics[topic_id] = min(now[partition] for partition in counted)
    return closing


def directories_to_close(
    candidates: Mapping[str, Iterable[str]],
    table_times: Mapping[str, int],
    settings: LateSettings,
    end_ms: Callable[[str], int | None],
) -> list[tuple[str, str]]:
    """Return (table, directory) of those whose time is over; `candidates` are open directories by table.

    `table_times` is what record time has come to for the tables' topics; `end_ms` says when a directory's time ends,
    None for one that has none and is never closed.
    """
    closed: list[tuple[str, str]] = []
    for table, directories in candidates.items():
        time = table_times.get(table)
        if time is None:
            continue
        limit = time - round(settings.close_after_s * 1000)
        for directory in sorted(set(directories)):
            end = end_ms(directory)
            if end is not None and end <= limit:
                closed.append((table, directory))
    return closed
