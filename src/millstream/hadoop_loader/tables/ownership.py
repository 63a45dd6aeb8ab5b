"""Whose a table is: several jobs may write to one root, each of topics of its own and in a manner of its own.

What a job does with tables besides loading them (compaction, catalogs, closing, expiry) it does with its own alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from millstream.hadoop_loader.commit.names import LATE_SUFFIX
from millstream.hadoop_loader.source.topics import loads_topic
from millstream.hadoop_loader.tables.merging import all_tables

if TYPE_CHECKING:
    from millstream.hadoop_loader.commit import TableState
    from millstream.hadoop_loader.job import LoadJob


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
