"""Offsets of single partitions that a job names: where topics start that another loader left, and where a run ends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from millstream.hadoop_loader.job.problem import Problem

if TYPE_CHECKING:
    from millstream.hadoop_loader.job.source import SourceSettings


def parse_offsets(given: Any) -> dict[str, dict[int, int]]:
    """Return topic -> partition -> offset of a table of tables. Raises ValueError."""
    remedy = 'write a table for each topic, as in flights = { "0" = 1500, "1" = 1620 }'
    if not isinstance(given, Mapping) or not all(isinstance(each, Mapping) for each in given.values()):
        raise ValueError(remedy)
    offsets: dict[str, dict[int, int]] = {}
    for topic, partitions in given.items():
        for partition, offset in partitions.items():
            fine = isinstance(offset, int) and not isinstance(offset, bool) and offset >= 0
            if not fine or not str(partition).isdecimal():
                raise ValueError(remedy)
            offsets.setdefault(str(topic), {})[int(partition)] = offset
    return offsets


def check_offsets(source: SourceSettings) -> Iterator[Problem]:
    """Say which of the offsets would not be used: their topic would start, or end, elsewhere, unnoticed."""
    for name in ("start_offsets", "stop_offsets"):
        for topic in getattr(source, name):
            if not _is_loaded(source, topic):
                remedy = "name it as source.topics or source.topics_pattern do, or leave it out"
                yield Problem(f"source.{name}", f'"{topic}"', "the job loads no topic of that name", remedy)
    for topic, partitions in source.start_offsets.items():
        for partition, offset in partitions.items():
            stop = source.stop_offsets.get(topic, {}).get(partition)
            if stop is not None and stop < offset:
                what = f"partition {partition} starts at {offset} and stops at {stop}"
                yield Problem("source.start_offsets", f'"{topic}"', what, "give a later one to source.stop_offsets")


def _is_loaded(source: SourceSettings, topic: str) -> bool:
    """Whether the job's names or patterns have a topic; where it has none, or none that is one, another check tells."""
    import re2

    if topic in source.topics or source.topics_pattern is None:
        return topic in source.topics or not source.topics
    try:
        if source.exclude_pattern is not None and re2.fullmatch(source.exclude_pattern, topic):
            return False
        return re2.fullmatch(source.topics_pattern, topic) is not None
    except re2.error:
        return True
