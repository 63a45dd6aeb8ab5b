"""Fills a run's report from what it came to, and keeps it: beside the log, and where the job wants it.

    ROOT/_millstream/reports/NUMBER.json      one for each load, NUMBER as in the log; the last REPORTS_KEPT
    ROOT/_millstream/reports/failed+JOB.json, told+JOB.json       what `failures` and `telling` keep of each job
    report.directory/JOB-TIME-RUN.json        one for each run, also with nothing new; the last REPORTS_KEPT of a job

The entry in the log holds the totals; the whole report, with every partition, is for people. Nothing reads it to decide
anything, so it is written after the commit, and a run whose report could not be written has loaded all the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from millstream.hadoop_loader.commit.names import HOME, number_name
from millstream.hadoop_loader.driver.report import LoadReport, PartitionReport, TopicReport
from millstream.hadoop_loader.filesystem import FileSystemError
from millstream.hadoop_loader.splits import FileKind, RangeRead, StagedFile, TopicPartitionId

if TYPE_CHECKING:
    from millstream.hadoop_loader.commit import TableState
    from millstream.hadoop_loader.driver.audit import Audit
    from millstream.hadoop_loader.filesystem import FileSystem

REPORTS: Final = f"{HOME}/reports"
REPORTS_KEPT: Final = 500
_REPORT_NAME: Final = re.compile(r"\d+\.json$|\.")
# What `write_local` names a report of one job, behind its name: of another job whose name begins the same it is none.
_LOCAL_NAME: Final = re.compile(r"-\d{8}T\d{6}\S{5}-[^.]{1,8}\.json")


def describe(
    topics: Mapping[str, str],
    end_offsets: Mapping[TopicPartitionId, int],
    positions: Mapping[TopicPartitionId, int],
    reasons: Mapping[str, str],
    audit: Audit,
    reads: Iterable[RangeRead],
    files: Iterable[StagedFile],
    tables: Mapping[str, str],
) -> list[TopicReport]:
    """Return a report of each topic (`topics`: names by id), by name.

    `positions` are those before the run; `reasons` say why nothing of a topic is committed, and `tables` where it goes.
    """
    reports = {
        topic_id: TopicReport(name, topic_id, table=tables.get(name, ""), reason=reasons.get(name, ""))
        for topic_id, name in topics.items()
    }
    for read in reads:
        reports[read.topic_id].rows += read.rows
        reports[read.topic_id].late_rows += read.late
        reports[read.topic_id].bad += read.bad
        reports[read.topic_id].size_bytes += read.bytes
    for file in files:
        report = reports[file.topic_id]
        kind = "dead_letters" if file.kind is FileKind.DEAD_LETTERS else file.format
        report.files[kind] = report.files.get(kind, 0) + 1
        report.file_bytes[kind] = report.file_bytes.get(kind, 0) + file.length
    for key, end_offset in end_offsets.items():
        one = audit.partitions.get(key)
        if one is None:
            at = positions.get(key, end_offset)
            one = PartitionReport(key.partition, at, at, end_offset)
        report = reports[key.topic_id]
        report.lag += one.lag
        # A partition without anything new is told only where something is left to say of it.
        if key in audit.partitions or one.lag:
            report.partitions.append(one)
    for topic_id, gaps in audit.gaps.items():
        reports[topic_id].gaps = dict(gaps)
    for report in reports.values():
        report.partitions.sort(key=lambda one: one.partition)
    return sorted(reports.values(), key=lambda report: report.topic)


def keep_report(filesystem: FileSystem, report: LoadReport) -> None:
    """Write the report of a committed run beside the log, and delete those before the last REPORTS_KEPT.

    Raises FileSystemError, OSError.
    """
    assert report.number is not None, "a run without an entry has no report beside the log"
    keep(filesystem, f"{number_name(report.number)}.json", report.encoded(), report.run_id)
    # Those of runs, and what a crash left half written of any; what is kept of each job stays.
    there = [one for one in filesystem.list(REPORTS) if _REPORT_NAME.match(one.name)]
    for one in there[: max(0, len(there) - REPORTS_KEPT)]:
        with suppress(FileSystemError):
            filesystem.delete(one.path)


def keep(filesystem: FileSystem, name: str, data: bytes, run_id: str) -> None:
    """Write a file beside the log in the place of the last one of its name; a crash may leave neither, never half.

    Raises FileSystemError, OSError.
    """
    filesystem.make_directory(REPORTS)
    path, written = f"{REPORTS}/{name}", f"{REPORTS}/.{name}+{run_id}"
    with filesystem.create(written) as file:
        file.write(data)
        file.close()
    filesystem.delete(path)
    filesystem.rename(written, path)


def kept(filesystem: FileSystem, name: str) -> bytes | None:
    """What was kept under a name, or None. Raises FileSystemError, OSError."""
    try:
        with filesystem.open(f"{REPORTS}/{name}") as file:
            return file.read_at(0, file.size)
    except FileNotFoundError:
        return None


def last_run(state: TableState, job: str) -> Mapping[str, Any] | None:
    """What the log says of the last load of a job that was a run.

    Dead letters that were replayed and directories that were closed by hand are loads to the log too, and no runs.
    """
    return state.last_loads.get(job)


def write_local(directory: Path, report: LoadReport) -> Path:
    """Write the report into a local directory, in one step, and delete those before the job's last REPORTS_KEPT.

    Returns its path. Raises OSError.
    """
    directory.mkdir(parents=True, exist_ok=True)
    stamp = report.started.replace(":", "").replace("-", "")
    path = directory / f"{report.job}-{stamp}-{report.run_id[:8]}.json"
    written = path.with_name(f".{path.name}.new")
    written.write_bytes(report.encoded())
    written.replace(path)
    ours = [
        one
        for one in sorted(directory.glob(f"{report.job}-*.json"))
        if _LOCAL_NAME.fullmatch(one.name.removeprefix(report.job))
    ]
    for old in ours[:-REPORTS_KEPT]:
        old.unlink(missing_ok=True)
    return path
