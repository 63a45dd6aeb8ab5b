"""What a run would load now: the same look and the same plan, and nothing after it."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from millstream.hadoop_loader.driver.report import Outcome
from millstream.hadoop_loader.driver.surroundings import Surroundings, look_at_topics
from millstream.hadoop_loader.planning import plan_splits, take_share
from millstream.hadoop_loader.source import Severity, reconcile
from millstream.hadoop_loader.splits import OffsetRange, Split

if TYPE_CHECKING:
    from millstream.hadoop_loader.job import LoadJob


@dataclass(slots=True)
class PlannedTopic:
    """Of one topic: partitions with something to load, and how much."""

    topic: str
    partitions: int = 0
    offsets: int = 0
    estimated_bytes: int = 0


@dataclass(slots=True)
class PlannedLoad:
    """What a run would do; `errors` is what it would refuse."""

    ranges: list[OffsetRange]
    splits: tuple[Split, ...]
    workers: int
    notes: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def offsets(self) -> int:
        """Offsets to load, gaps among them."""
        return sum(one.end_offset - one.start_offset for one in self.ranges)

    @property
    def estimated_bytes(self) -> int:
        """About how many bytes of the log they are."""
        return sum(one.estimated_bytes for one in self.ranges)

    @property
    def exit_code(self) -> int:
        """0; 3 where a run would refuse something; 1 where it would refuse all."""
        if not self.errors:
            return 0
        return Outcome.PARTIAL.exit_code if self.ranges else Outcome.FAILED.exit_code

    def by_topic(self) -> list[PlannedTopic]:
        """The same by topic."""
        topics: dict[str, PlannedTopic] = {}
        for one in self.ranges:
            topic = topics.setdefault(one.topic, PlannedTopic(one.topic))
            topic.partitions += 1
            topic.offsets += one.end_offset - one.start_offset
            topic.estimated_bytes += one.estimated_bytes
        return sorted(topics.values(), key=lambda topic: topic.topic)

    def as_json(self) -> dict[str, Any]:
        """Return the plan as JSON values."""
        splits_of: dict[tuple[str, int], list[int]] = defaultdict(list)
        for split in self.splits:
            for part in split.ranges:
                splits_of[part.topic, part.partition].append(split.number)
        return {
            "offsets": self.offsets,
            "estimated_bytes": self.estimated_bytes,
            "workers": self.workers,
            "splits": len(self.splits),
            "partitions": [
                {
                    "topic": one.topic,
                    "topic_id": one.topic_id,
                    "partition": one.partition,
                    "start_offset": one.start_offset,
                    "end_offset": one.end_offset,
                    "estimated_bytes": one.estimated_bytes,
                    "splits": splits_of[one.topic, one.partition],
                }
                for one in self.ranges
            ],
            "notes": self.notes,
            "errors": self.errors,
        }


def plan_load(job: LoadJob, surroundings: Surroundings | None = None) -> PlannedLoad:
    """Plan a run without claiming anything. Raises KafkaError, CommitError, FileSystemError, JobError."""
    world = surroundings or Surroundings()
    with world.open_filesystem(job) as filesystem:
        state = world.commit_log(job, filesystem).read()
        snapshot = look_at_topics(job, state)
    found = reconcile(snapshot, job.source, cluster_id=state.cluster_id, topics=state.topics, positions=state.positions)
    ranges = [] if found.is_stopped else found.ranges
    if job.source.run_bytes_max is not None:
        ranges = take_share(ranges, job.source.run_bytes_max)
    # What Spark has is known to a session only, which a plan does not start.
    workers = job.workers or len(os.sched_getaffinity(0))
    planned = PlannedLoad(ranges, plan_splits(ranges, workers=workers, split_bytes=job.split_bytes).splits, workers)
    for finding in found.findings:
        (planned.notes if finding.severity is Severity.NOTE else planned.errors).append(str(finding))
    return planned
