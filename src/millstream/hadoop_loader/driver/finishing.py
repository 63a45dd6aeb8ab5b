"""What a run does once its entry is made, or once it is clear that there is nothing to load.

    group         positions of all partitions, so that lag tools see them, and the group does not expire
    catalogs      Hive and Iceberg: what they could not be told by the run before, too
    report        beside the log, and in a directory of this machine
    cleaning      what earlier runs left, and trash past its time
    compaction    of the directories that are closed, where the job wants that after runs
    expiry        of those that are older than the job keeps them

The entry stands whatever comes of this. So each part may fail, is then told, and keeps none of the others; what no run
should ever meet makes this one a partial one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from millstream.hadoop_loader.commit import ClaimedError, Role
from millstream.hadoop_loader.driver.claim_keeper import claimed
from millstream.hadoop_loader.driver.compacting import run_compaction
from millstream.hadoop_loader.driver.letters import waiting_letters
from millstream.hadoop_loader.driver.problems import MET, sentence_of
from millstream.hadoop_loader.driver.report import LoadReport, Outcome, lag_age_s
from millstream.hadoop_loader.driver.reporting import keep_report, write_local
from millstream.hadoop_loader.driver.surroundings import StoppedError, Surroundings
from millstream.hadoop_loader.driver.telling import bring_catalogs_up_to_date, catalogs_lack

if TYPE_CHECKING:
    from millstream.hadoop_loader.commit import Claim, CommitLog, TableState
    from millstream.hadoop_loader.filesystem import FileSystem
    from millstream.hadoop_loader.job import LoadJob


@dataclass(slots=True)
class Finishing:
    """See the module; owned by the run's thread."""

    job: LoadJob
    world: Surroundings
    report: LoadReport
    note: Callable[[str], None]
    stop: threading.Event

    def finish(self, filesystem: FileSystem, log: CommitLog, claim: Claim) -> None:
        """What follows a commit. Of an entry that could not be applied yet readers are not told."""
        self._describe_state(claim.state)
        self._commit_to_group(claim.state)
        if not self.report.is_unapplied:
            self._tell_catalogs(filesystem, claim.state)
        self._guarded("the report beside the log", lambda: keep_report(filesystem, self.report))
        if not self.report.is_unapplied:
            self.clean(log, claim)

    def finish_without_entry(
        self, filesystem: FileSystem, log: CommitLog, state: TableState, *, is_claimed: bool = False
    ) -> None:
        """What a run does that had nothing to load: what others could not be told, or is due to be deleted."""
        self._describe_state(state)
        self._commit_to_group(state)
        if catalogs_lack(self.job, filesystem, state):
            self._tell_catalogs(filesystem, state)
        if not is_claimed:
            self._guarded("cleaning", lambda: self._clean_if_due(log))

    def clean(self, log: CommitLog, claim: Claim) -> None:
        """Delete what earlier runs left, and tell what could not be."""
        for sentence in log.clean(claim):
            self.note(f"cleaning: {sentence}")

    def compact(self) -> None:
        """Compact what this run closed, and what an earlier one left."""
        self._guarded("compaction", self._compact)

    def expire(self) -> None:
        """Empty the directories that are older than the job keeps them."""
        self._guarded("expiry", self._expire)

    def write_report(self) -> None:
        """Write the report where the job wants it."""
        directory = self.job.report.directory
        if directory is None:
            return
        try:
            write_local(Path(directory), self.report)
        except OSError as error:
            self.note(f"the report was not written: {sentence_of(error, 'report.directory')}")

    def _describe_state(self, state: TableState) -> None:
        """Say what is red for longer than one run: letters that wait, and how old what is not loaded may be."""
        report = self.report
        self._guarded("dead letters", lambda: report.dead_letters.update(waiting_letters(state, self.job)))
        now_s = self.world.wall_clock()
        for topic in report.topics:
            watermarks = state.watermarks.get(topic.topic_id, {})
            topic.lag_age_s = lag_age_s(
                (watermarks.get(one.partition, -1) for one in topic.partitions if one.lag), now_s
            )

    def _commit_to_group(self, state: TableState) -> None:
        group = self.job.source.group
        if group is None:
            return
        from millstream.core.client import TopicPartition
        from millstream.hadoop_loader.driver.group_offsets import commit_group_offsets

        offsets = {
            TopicPartition(topic.topic, partition): position.offset
            for topic in self.report.topics
            for partition, position in state.positions.get(topic.topic_id, {}).items()
        }
        self._guarded(f"the offsets for group {group!r}", lambda: commit_group_offsets(self.job.source, group, offsets))

    def _tell_catalogs(self, filesystem: FileSystem, state: TableState) -> None:
        """Tell Hive and Iceberg; what they could not be told the next run tells them."""
        self._guarded("catalogs", lambda: self._call_catalogs(filesystem, state))

    def _call_catalogs(self, filesystem: FileSystem, state: TableState) -> None:
        report = self.report
        try:
            told = bring_catalogs_up_to_date(self.job, filesystem, state, report.run_id)
        except Exception as error:
            report.catalog_problems = [sentence_of(error, report.destination)]
            if not isinstance(error, MET):
                raise
        else:
            report.catalog_problems = told.problems
            if told.fails:
                report.errors += told.problems
                report.outcome = Outcome.PARTIAL
        for problem in report.catalog_problems:
            self.note(problem)

    def _clean_if_due(self, log: CommitLog) -> None:
        if not log.cleaning_is_due(Role.LOAD):
            return
        # Whose claim it is cleans, or the next run.
        with (
            suppress(ClaimedError, StoppedError),
            claimed(self.world, self.job, log, Role.LOAD, self.report.run_id) as claim,
        ):
            self.clean(log, claim)

    def _compact(self) -> None:
        report = self.report
        compacted = run_compaction(self.job, stop=self.stop, surroundings=self.world)
        report.phases_s["compacting"] = round(compacted.wall_s, 4)
        report.compaction = compacted.totals()
        if compacted.done:
            self.note(
                f"compacted {compacted.files_before} files of {len(compacted.done)} directories into "
                f"{compacted.files_after}"
            )
        self._take("compaction", compacted.outcome, compacted.errors, compacted.notes)

    def _expire(self) -> None:
        from millstream.hadoop_loader.driver.directories import expire_directories

        expired = expire_directories(self.job, stop=self.stop, surroundings=self.world)
        if expired.number is not None:
            count = len(expired.directories)
            directories = "1 directory" if count == 1 else f"{count:,} directories"
            self.note(f"expired {directories} with {expired.rows:,} rows")
        self._take("expiry", expired.outcome, expired.errors, expired.notes)

    def _take(self, what: str, outcome: Outcome, errors: list[str], notes: list[str]) -> None:
        """Make what a part met, which is a run of its own, one of this run's errors and notes."""
        told = [f"{what}: {error}" for error in errors]
        for sentence in notes:
            self.note(f"{what}: {sentence}")
        if outcome is Outcome.CLAIMED:
            # Another process is at it: no failure, and done with the next run.
            for sentence in told:
                self.note(sentence)
        elif told:
            self.report.errors += told
            self.report.outcome = Outcome.PARTIAL

    def _guarded(self, what: str, act: Callable[[], object]) -> None:
        """Do what may fail now that nothing is to be taken back, and tell of it."""
        report = self.report
        try:
            act()
        except MET as error:
            self.note(f"{what}: {sentence_of(error, report.destination)}")
        except Exception as error:  # noqa: BLE001  whatever it is, the entry stands and the rest is done
            report.errors.append(f"{what}: {type(error).__name__}: {error}")
            if report.outcome in (Outcome.LOADED, Outcome.NOTHING_NEW):
                report.outcome = Outcome.PARTIAL
