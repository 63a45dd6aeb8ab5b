"""Telling catalogs of what a destination has, and remembering up to which entry of the log they were told of all of it.

    ROOT/_millstream/reports/told+JOB.json     {"number": N, "to": "..."}

N is that of the last load or compaction of which they know, `to` a sum of what the job says of them: others know
nothing. A load, a compaction and an expiry tell them of what they committed. Where one could not, or died before it
did, the number lies behind the log, and the job's next load tells them, be there anything to load or not. It is written
after the telling and says what was told then, so it may be too low, which costs a telling more, and is never too high.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from millstream.core._kernels.crc32c import crc32c
from millstream.hadoop_loader.commit import TableState
from millstream.hadoop_loader.commit.state import REPORTS_KEPT
from millstream.hadoop_loader.driver.reporting import keep, kept
from millstream.hadoop_loader.filesystem import FileSystem, FileSystemError

if TYPE_CHECKING:
    from millstream.hadoop_loader.job import LoadJob


class Told(NamedTuple):
    """What catalogs could not be told, and whether that is a failure to the job (`hive.fail`)."""

    problems: list[str]
    fails: bool = False


def bring_catalogs_up_to_date(job: LoadJob, filesystem: FileSystem, state: TableState, run_id: str) -> Told:
    """Tell Hive and Iceberg of all that `state` has, where the job names them. Raises what `problems.MET` names."""
    if not _has_catalogs(job):
        return Told([])
    # Loads Arrow, which a run with nothing new does without.
    from millstream.hadoop_loader.catalogs import CatalogError, tell_catalogs

    try:
        problems = tell_catalogs(job, filesystem, state)
    except CatalogError as error:
        return Told([str(error)], fails=True)
    if not problems and state.reports:
        document = json.dumps({"number": state.reports[-1]["number"], "to": _whom(job)}).encode()
        with suppress(FileSystemError, OSError):
            keep(filesystem, _name(job), document, run_id)
    return Told(problems)


def catalogs_lack(job: LoadJob, filesystem: FileSystem, state: TableState) -> bool:
    """Whether the log has a load or a compaction of the job's that they may not have been told of.

    Entries of other jobs at the root are none of theirs; those that the state no longer shows may be the job's.
    """
    if not _has_catalogs(job) or not state.reports:
        return False
    told = _told_up_to(job, filesystem)
    if told is None:
        return True
    first = state.reports[0]["number"]
    if len(state.reports) == REPORTS_KEPT and told < first:
        return True
    return any(one["number"] > told and one["report"].get("job", job.name) == job.name for one in state.reports)


def _has_catalogs(job: LoadJob) -> bool:
    return job.hive is not None or job.iceberg is not None


def _told_up_to(job: LoadJob, filesystem: FileSystem) -> int | None:
    try:
        data = kept(filesystem, _name(job))
        document = None if data is None else json.loads(data)
        return None if document is None or document["to"] != _whom(job) else int(document["number"])
    except (FileSystemError, OSError, ValueError, TypeError, KeyError):
        return None


def _whom(job: LoadJob) -> str:
    """A sum of what the job says of its catalogs: others know nothing of what these were told."""
    return f"{crc32c(repr((job.hive, job.iceberg)).encode()):08x}"


def _name(job: LoadJob) -> str:
    return f"told+{job.name}.json"
