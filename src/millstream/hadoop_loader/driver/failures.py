"""What is remembered of runs that committed nothing, so that `status` knows of them.

    ROOT/_millstream/reports/failed+JOB.json     of each job the last run, while it is one that failed

The log has entries of what was done only. This is beside it, for people: written where the destination can be written
to, gone with the first run that ends well, and nothing is ever decided by it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from millstream.hadoop_loader.driver.reporting import REPORTS, keep, kept

if TYPE_CHECKING:
    from millstream.hadoop_loader.driver.report import LoadReport
    from millstream.hadoop_loader.filesystem import FileSystem

_ERRORS_KEPT: Final = 20


@dataclass(frozen=True, slots=True)
class Failure:
    """Runs of a job, one after the other, that committed nothing."""

    run_id: str
    started: str  # ISO 8601, UTC; of the last of them
    since: str  # of the first
    runs: int
    number: int  # where the log ended when the last of them looked
    errors: list[str]


def failure_of(filesystem: FileSystem, job: str) -> Failure | None:
    """The failure that is remembered of a job. Raises FileSystemError, OSError."""
    data = kept(filesystem, _name(job))
    try:
        return None if data is None else Failure(**json.loads(data))
    except (ValueError, TypeError):
        # Half of one, or one of another version, is as good as none.
        return None


def remember_failure(filesystem: FileSystem, report: LoadReport, number: int) -> None:
    """Remember a run that committed nothing; `number` is where the log ended. Raises FileSystemError, OSError."""
    before = failure_of(filesystem, report.job)
    failure = Failure(
        report.run_id,
        report.started,
        report.started if before is None else before.since,
        1 if before is None else before.runs + 1,
        number,
        report.errors[:_ERRORS_KEPT],
    )
    data = json.dumps(asdict(failure), ensure_ascii=False, indent=1).encode()
    keep(filesystem, _name(report.job), data, report.run_id)


def forget_failure(filesystem: FileSystem, job: str) -> None:
    """Forget it after a run that ended well. Raises FileSystemError, OSError."""
    path = f"{REPORTS}/{_name(job)}"
    if filesystem.status(path) is not None:
        filesystem.delete(path)


def _name(job: str) -> str:
    return f"failed+{job}.json"
