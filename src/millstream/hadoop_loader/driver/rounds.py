"""Rounds: runs one after the other until nothing is left, each with a commit of its own.

`source.run_bytes_max` bounds what one run loads. So a first load of terabytes comes in rounds of that size: a crash, or
a signal, costs no more than the round it meets, and what a commit takes in time and memory is that of a round.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from millstream.hadoop_loader.driver.report import LoadReport
    from millstream.hadoop_loader.job import LoadJob


def has_more(job: LoadJob, report: LoadReport) -> bool:
    """Whether a run ended at its bound: it committed, and left something of the topics that it loads."""
    if job.source.run_bytes_max is None or report.number is None or report.is_unapplied:
        return False
    return any(topic.lag and not topic.reason for topic in report.topics)
