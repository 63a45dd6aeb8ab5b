"""What was found when positions were held against topics: nothing is skipped without one of these saying so."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class FindingKind(StrEnum):
    """What does not go together with what was loaded before."""

    OTHER_CLUSTER = "other cluster"  # the destination was loaded from another one
    NO_TOPIC_IDS = "no topic ids"  # the brokers are older than topic ids
    TOPIC_MISSING = "topic missing"  # the job names it, and it was never there
    TOPIC_DELETED = "topic deleted"  # it was loaded, and is gone
    TOPIC_RECREATED = "topic recreated"  # its id is another one than that which was loaded
    START_REFUSED = "start refused"  # it was to start where another loader left it, and that cannot be
    LOG_TRUNCATED = "log truncated"  # records that were loaded are no longer in the log
    RECORDS_LOST = "records lost"  # retention, or an operator, deleted records before they were loaded
    PARTITIONS_ADDED = "partitions added"  # the topic has more partitions than before
    NEW_TOPIC = "new topic"  # its first load
    UNAVAILABLE = "unavailable"  # a partition's leader does not answer


class Severity(StrEnum):
    """What follows from a finding."""

    NOTE = "note"  # told in the report
    SKIPPED = "skipped"  # these partitions are left for the next run; the run is not whole
    TOPIC_STOPPED = "topic stopped"  # nothing of this topic is loaded; the run is not whole
    RUN_STOPPED = "run stopped"  # nothing is loaded at all


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found: about a topic ("" for the whole source) and some of its partitions (none: all of it)."""

    kind: FindingKind
    severity: Severity
    sentence: str
    remedy: str
    topic: str = ""
    topic_id: str = ""
    partitions: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.sentence}; {self.remedy}" if self.remedy else self.sentence
