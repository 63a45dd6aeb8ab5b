"""Which topics are a job's: by their names, or by its patterns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from millstream.core.client.membership.topic_watch import compiled

if TYPE_CHECKING:
    from millstream.hadoop_loader.job import SourceSettings


def loads_topic(source: SourceSettings, topic: str) -> bool:
    """Return whether a job of this source loads a topic: by its name, or by the pattern."""
    if source.topics_pattern is None or topic in source.topics:
        return topic in source.topics
    excluded = source.exclude_pattern is not None and compiled(source.exclude_pattern).fullmatch(topic)
    return not excluded and compiled(source.topics_pattern).fullmatch(topic) is not None
