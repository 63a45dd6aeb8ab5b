"""Whose a table is: several jobs may write to one root, each of topics of its own and in a manner of its own.

What a job does with tables besides loading them (compaction, catalogs, closing, expiry) it does with its own alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from millstream.core.client.membership.topic_watch import compiled
from millstream.hadoop_loader.commit.names import LATE_SUFFIX
from millstream.hadoop_loader.tables.merging import all_tables

if TYPE_CHECKING:
    from millstream.hadoop_loader.commit import TableState
    from millstream.hadoop_loader.job import LoadJob, SourceSettings


def loads_topic(source: SourceSettings, topic: str) -> bool:
    """Return whether a job of this source loads a topic: by its name, or by the pattern."""
    if source.topics_pattern is None or topic in source.topics:
        return topic in source.topics
    excluded = source.exclude_pattern is not None and compiled(source.exclude_pattern).fullmatch(topic)
    return not excluded and compiled(source.topics_pattern).fullmatch(topic) is not None


def tables_of(job: LoadJob, state: TableState, *, with_late: bool = False) -> Mapping[str, str]:
    """Return the topic of each table of a job's topics, all generations; `with_late` those of late records as well."""
    topics = sorted({topic for topic in state.topics.values() if loads_topic(job.source, topic)})
    suffixes = ("", LATE_SUFFIX) if with_late else ("",)
    return {
        table.name + suffix: topic
        for topic in topics
        for table in all_tables(state.schemas.get(topic), topic)
        for suffix in suffixes
    }
