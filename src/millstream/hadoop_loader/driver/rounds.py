"""Rounds: runs one after the other until nothing is left, each with a commit of its own.

`source.run_bytes_max` bounds what one run loads. So a first load of terabytes comes in rounds of that size: a crash, or
a signal, costs no more than the round it meets, and what a commit takes in time and memory is that of a round.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from millstream.hadoop_loader.driver.report import LoadReport, Outcome

if TYPE_CHECKING:
    from millstream.hadoop_loader.job import LoadJob


def has_more(job: LoadJob, report: LoadReport) -> bool:
    """Whether a run ended at its bound: it committed, and left something of the topics that it loads."""
    if job.source.run_bytes_max is None or report.number is None or report.is_unapplied:
        return False
    return any(topic.lag and not topic.reason for topic in report.topics)


@dataclass(slots=True)
class Rounds:
    """What rounds came to in all, one after the other."""

    # Of the last one.
    last: Outcome = Outcome.NOTHING_NEW
    has_committed: bool = False
    is_partial: bool = False

    def add(self, report: LoadReport) -> None:
        """Take in a round that has ended."""
        self.last = report.outcome
        self.has_committed |= report.number is not None
        self.is_partial |= report.outcome is Outcome.PARTIAL

    @property
    def outcome(self) -> Outcome:
        """That of the last, but partly where an earlier one told of errors, or committed and this one failed."""
        ended_well = self.last in (Outcome.LOADED, Outcome.NOTHING_NEW)
        if (ended_well and self.is_partial) or (self.last is Outcome.FAILED and self.has_committed):
            return Outcome.PARTIAL
        return self.last
