"""run_load: one run of a job, from the claim to the report.

    1  open the destination, read its log               5  run the splits (`loading.py`)
    2  look what the topics hold (`source/`)            6  add up (`audit.py`), commit, apply
    3  nothing new: the run ends here, without a claim  7  offsets to a group; the report beside the log
    4  claim, which repairs what a crash left; plan

Up to the commit a run may end anywhere, killed too, with nothing of it visible. From there on the next run's claim
finishes what was begun. What follows the commit is told where it fails, and no reason to take anything back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from millstream.core.wire import KafkaError
from millstream.hadoop_loader.commit import ClaimedError, CommitError, CommitLog, Role
from millstream.hadoop_loader.driver.attempts import Attempts
from millstream.hadoop_loader.driver.audit import Audit, audit_run
from millstream.hadoop_loader.driver.claim_keeper import ClaimKeeper
from millstream.hadoop_loader.driver.compacting import run_compaction
from millstream.hadoop_loader.driver.draft import draft_of
from millstream.hadoop_loader.driver.loading import Loading, StoppedError
from millstream.hadoop_loader.driver.observer import Observer, Phase
from millstream.hadoop_loader.driver.report import LoadReport, Outcome, TopicReport
from millstream.hadoop_loader.driver.reporting import describe, keep_report, kept_problems, write_local
from millstream.hadoop_loader.driver.schemas import RunSchemas
from millstream.hadoop_loader.driver.surroundings import Surroundings
from millstream.hadoop_loader.engines import EngineError
from millstream.hadoop_loader.filesystem import FileSystem, FileSystemError
from millstream.hadoop_loader.job import JobError
from millstream.hadoop_loader.planning import plan_splits, take_share
from millstream.hadoop_loader.source import Reconciled, Severity, SourceSnapshot, read_source, reconcile
from millstream.hadoop_loader.splits import TopicPartitionId
from millstream.hadoop_loader.tables.naming import why_no_table

if TYPE_CHECKING:
    from millstream.hadoop_loader.commit import Claim, TableState
    from millstream.hadoop_loader.job import LoadJob

_PROBE: Final = "_probe"


def run_load(
    job: LoadJob,
    *,
    observer: Observer | None = None,
    stop: threading.Event | None = None,
    surroundings: Surroundings | None = None,
) -> LoadReport:
    """Load what the job's topics hold now and the destination does not, and return how it went.

    The job's secrets have been looked up (`LoadJob.resolved`). Setting `stop` ends the run soon with nothing of it
    committed; what it staged is deleted by the next one. Never raises for what a run may meet, be it the destination,
    the cluster, the registry or a worker: that is in the report.
    """
    return _Run(job, observer or Observer(), stop or threading.Event(), surroundings or Surroundings()).run()


class _Run:
    """One run; owned by the thread that calls `run`."""

    def __init__(self, job: LoadJob, observer: Observer, stop: threading.Event, surroundings: Surroundings) -> None:
        self._job = job
        self._observer = observer
        self._stop = stop
        self._world = surroundings
        self._started = surroundings.monotonic()
        # From here on the run is not stopped: what it does is visible, or about to be.
        self._is_committing = False
        self._report = LoadReport(
            surroundings.run_id(),
            job.name,
            job.destination.uri,
            engine=job.engine,
            started=datetime.fromtimestamp(surroundings.wall_clock(), UTC).isoformat(timespec="seconds"),
        )

    def run(self) -> LoadReport:
        report = self._report
        try:
            with ExitStack() as stack:
                self._run(stack)
        except StoppedError:
            report.outcome = Outcome.STOPPED
        except ClaimedError as error:
            report.outcome = Outcome.CLAIMED
            report.errors.append(str(error))
        except (KafkaError, FileSystemError, CommitError, EngineError, JobError, OSError) as error:
            # An error behind the commit leaves the run partly done, never undone.
            report.outcome = Outcome.FAILED if report.number is None else Outcome.PARTIAL
            report.errors.append(self._sentence(error))
        if report.number is not None and report.closed_directories and self._job.compaction.after_runs:
            self._compact()
        report.wall_s = self._world.monotonic() - self._started
        if self._job.report.directory is not None:
            try:
                write_local(Path(self._job.report.directory), report)
            except OSError as error:
                self._note(f"the report could not be written: {error}")
        self._observer.handle_report(report)
        return report

    def _run(self, stack: ExitStack) -> None:
        with self._phase(Phase.OPENING):
            filesystem = stack.enter_context(self._world.open_filesystem(self._job))
            log = self._world.commit_log(self._job, filesystem, wait=self._wait)
            state = log.read()
        with self._phase(Phase.LOOKING):
            snapshot = read_source(self._job.source, state.positions, state.topics)
            found = self._reconciled(snapshot, state)
        if found.is_stopped or (not found.ranges and not found.moved and log.unapplied() is None):
            self._describe(found, state)
            self._report.outcome = self._nothing_loaded(found)
            if not found.is_stopped and self._catalogs_lack(filesystem, state):
                self._tell_catalogs(filesystem, state)
            return
        with self._phase(Phase.CLAIMING):
            claim = log.claim(Role.LOAD, owner=self._world.owner(), run_id=self._report.run_id)
            keeper = ClaimKeeper(claim, self._world.settings(self._job).renewal_interval_s)
            stack.callback(self._release, claim)
            stack.enter_context(keeper)
            log.clean(claim)
            if not claim.state.positions:
                # Nothing was loaded here before: see that files can be moved out of staging before any is written.
                claim.probe([_PROBE])
                filesystem.delete(_PROBE)
        if claim.state.positions != state.positions:
            # Another driver has moved on between the look at the log and the claim: its positions may lie behind the
            # ends that were seen, and would look as if the logs had been cut.
            snapshot = read_source(self._job.source, claim.state.positions, claim.state.topics)
        found = self._reconciled(snapshot, claim.state)
        if found.is_stopped:
            self._describe(found, claim.state)
            return
        self._load(stack, filesystem, log, claim, keeper, snapshot, found)

    def _load(
        self,
        stack: ExitStack,
        filesystem: FileSystem,
        log: CommitLog,
        claim: Claim,
        keeper: ClaimKeeper,
        snapshot: SourceSnapshot,
        found: Reconciled,
    ) -> None:
        report, job = self._report, self._job
        with self._phase(Phase.PLANNING):
            engine = self._world.open_engine(job)
            stack.callback(engine.stop)
            ranges = (
                found.ranges if job.source.run_bytes_max is None else take_share(found.ranges, job.source.run_bytes_max)
            )
            splits = plan_splits(ranges, workers=engine.workers, split_bytes=job.split_bytes).splits
            report.splits, report.workers = len(splits), engine.workers
            attempts = Attempts.of(
                splits, failures_max=job.split_attempts, bad_records_max=job.bad_records.max_bad_records
            )
            registry = None if job.registry is None else stack.enter_context(job.registry.client())
            schemas = RunSchemas(job, claim.state.schemas, registry)
            # A topic that is empty gets a position, and with it a name among the loaded ones.
            coming = sorted({one.topic for one in found.ranges}.union(found.topics[one] for one in found.moved))
            loaded = set(claim.state.topics.values())
            for topic in coming:
                if reason := why_no_table(topic, loaded, coming):
                    attempts.give_up([topic], reason)
            for topic in sorted({one.topic for one in found.ranges} - attempts.given_up.keys()):
                try:
                    schemas.prepare(topic)
                except ValueError as error:
                    attempts.give_up([topic], str(error))
        with self._phase(Phase.LOADING):
            self._observer.handle_planned(splits, engine.workers)
            loading = Loading(
                job=job,
                claim=claim,
                keeper=keeper,
                engine=engine,
                attempts=attempts,
                schemas=schemas,
                observer=self._observer,
                stop=self._stop,
            )
            try:
                loading.run()
            finally:
                report.attempts = loading.attempts_made
                report.failed_attempts = attempts.failed_attempts
                report.peak_memory_bytes = loading.peak_memory_bytes
                report.cpu_s = sum(result.cpu_s for result in attempts.results())
                report.announcements += schemas.announcements
        with self._phase(Phase.COMMITTING):
            keeper.check()
            self._commit(log, claim, snapshot, found, attempts, schemas)
        with self._phase(Phase.FINISHING):
            self._finish(filesystem, log, claim)

    def _commit(
        self,
        log: CommitLog,
        claim: Claim,
        snapshot: SourceSnapshot,
        found: Reconciled,
        attempts: Attempts,
        schemas: RunSchemas,
    ) -> None:
        report, job, state = self._report, self._job, claim.state
        reads, files = attempts.reads(), attempts.files()
        audit = audit_run(
            attempts.ranges(),
            reads,
            attempts.gaps(),
            files,
            end_offsets(found),
            job.destination.formats,
            dead_letters_kept=job.bad_records.policy == "dead_letters",
        )
        audit.add_known_gaps(found.gaps)
        self._describe(found, state, attempts, schemas, audit)
        if audit.problems:
            report.errors += [f"the audit does not add up, so nothing is committed: {one}" for one in audit.problems]
            return
        moved = {
            TopicPartitionId(topic_id, partition): at
            for topic_id, positions in found.moved.items()
            if found.topics[topic_id] not in attempts.given_up
            for partition, at in positions.items()
        }
        if not reads and not moved:
            report.outcome = self._nothing_loaded(found, attempts)
            return
        report.outcome = Outcome.PARTIAL if report.errors else Outcome.LOADED if reads else Outcome.NOTHING_NEW
        kept = {read.topic for read in reads} | {found.topics[key.topic_id] for key in moved}
        draft, closed = draft_of(
            job,
            state,
            cluster_id=snapshot.cluster_id,
            reads=reads,
            files=files,
            tables=schemas.tables,
            schemas={topic: document for topic, document in schemas.changed.items() if topic in kept},
            moved=moved,
            topics=found.topics,
            lagging=_lagging(end_offsets(found), audit, state) | _withheld(found),
            report=self._summary(audit),
        )
        report.closed_directories = list(closed)
        self._is_committing = True
        entry = log.commit(claim, draft)
        report.number = entry.number

    def _finish(self, filesystem: FileSystem, log: CommitLog, claim: Claim) -> None:
        """What follows the commit: each part may fail, and is then told."""
        report, job = self._report, self._job
        if report.number is None:
            return
        if job.source.group is not None:
            self._commit_to_group()
        self._tell_catalogs(filesystem, claim.state)
        self._after_commit(partial(keep_report, filesystem, report))
        self._after_commit(partial(log.clean, claim))

    def _nothing_loaded(self, found: Reconciled, attempts: Attempts | None = None) -> Outcome:
        """How a run ends that commits nothing: well, or with what is wrong with some of its topics, or with all.

        A topic that is stopped beside others that are as far as they can be is the same as where those had more.
        """
        if not self._report.errors:
            return Outcome.NOTHING_NEW
        given_up = set() if attempts is None else set(attempts.given_up)
        return Outcome.PARTIAL if set(found.topics.values()) - given_up else Outcome.FAILED

    def _tell_catalogs(self, filesystem: FileSystem, state: TableState) -> None:
        """Tell Hive and Iceberg; what they could not be told the next run tells them."""
        if self._job.hive is None and self._job.iceberg is None:
            return
        # Loads Arrow, which a run with nothing new does without.
        from millstream.hadoop_loader.catalogs import CatalogError, tell_catalogs

        report = self._report
        try:
            report.catalog_problems = tell_catalogs(self._job, filesystem, state)
        except CatalogError as error:
            # As the job wants it: `hive.fail`.
            report.catalog_problems = [str(error)]
            report.errors.append(str(error))
            report.outcome = Outcome.PARTIAL
        except (FileSystemError, OSError) as error:
            report.catalog_problems = [self._sentence(error)]
        for problem in report.catalog_problems:
            self._note(problem)

    def _catalogs_lack(self, filesystem: FileSystem, state: TableState) -> bool:
        """Whether the last run could not tell them of all."""
        if self._job.hive is None and self._job.iceberg is None:
            return False
        last = next((one["number"] for one in reversed(state.reports) if one["kind"] == "load"), None)
        return last is not None and kept_problems(filesystem, last) != []

    def _sentence(self, error: Exception) -> str:
        if isinstance(error, OSError):
            reason = (error.strerror or str(error)).lower()
            where = f"{error.filename}: " if error.filename is not None else ""
            return f"{self._job.destination.uri}: {where}{reason}; see that the path can be made and written to"
        return str(error) or type(error).__name__

    def _compact(self) -> None:
        """Compact what this run closed, and what an earlier one left."""
        compacted = run_compaction(self._job, stop=self._stop, surroundings=self._world)
        self._report.phases_s["compacting"] = round(compacted.wall_s, 4)
        if compacted.done:
            self._note(
                f"compacted {compacted.files_before} files of {len(compacted.done)} directories into "
                f"{compacted.files_after}"
            )
        for error in compacted.errors:
            self._note(f"compaction: {error}")

    def _after_commit(self, act: Callable[[], None]) -> None:
        """Do what may fail now that the commit is made, and tell of it."""
        try:
            act()
        except (KafkaError, FileSystemError, CommitError, OSError) as error:
            self._note(f"after the commit: {error}")

    def _commit_to_group(self) -> None:
        from millstream.core.client import TopicPartition
        from millstream.hadoop_loader.driver.group_offsets import commit_group_offsets

        group = self._job.source.group
        assert group is not None, "the job names no group"
        offsets = {
            TopicPartition(topic.topic, one.partition): one.next_offset
            for topic in self._report.topics
            if not topic.reason
            for one in topic.partitions
        }
        try:
            commit_group_offsets(self._job.source, group, offsets)
        except KafkaError as error:
            self._note(f"the offsets were not committed to group {group!r}: {error.message}")

    def _describe(
        self,
        found: Reconciled,
        state: TableState,
        attempts: Attempts | None = None,
        schemas: RunSchemas | None = None,
        audit: Audit | None = None,
    ) -> None:
        """Fill the report with what is known of the topics."""
        report, sums, ends = self._report, audit or Audit(), end_offsets(found)
        given_up = {} if attempts is None else attempts.given_up
        stopped = {one.topic: str(one) for one in found.findings if one.severity is Severity.TOPIC_STOPPED}
        report.topics = describe(
            found.topics,
            ends,
            {
                key: at.offset
                for key in ends
                if (at := found.moved.get(key.topic_id, {}).get(key.partition) or state.position(*key)) is not None
            },
            given_up,
            sums,
            attempts.reads() if attempts is not None else (),
            attempts.files() if attempts is not None else (),
            {topic: version.name for topic, version in schemas.tables.items()} if schemas is not None else {},
        )
        report.topics += [TopicReport(topic, "", reason=reason) for topic, reason in sorted(stopped.items())]
        report.errors += [f"topic {topic}: {reason}" for topic, reason in sorted(given_up.items())]
        for finding in found.findings:
            (report.announcements if finding.severity is Severity.NOTE else report.errors).append(str(finding))
        report.audit = sums.as_json() | {"lag": sum(topic.lag for topic in report.topics)}

    def _reconciled(self, snapshot: SourceSnapshot, state: TableState) -> Reconciled:
        return reconcile(
            snapshot,
            self._job.source,
            cluster_id=state.cluster_id,
            topics=state.topics,
            positions=state.positions,
        )

    def _summary(self, audit: Audit) -> dict[str, object]:
        """What the entry in the log says of the run."""
        report = self._report
        return {
            "job": report.job,
            "outcome": report.outcome.value,
            "started": report.started,
            "wall_s": round(self._world.monotonic() - self._started, 3),
            "audit": audit.as_json(),
            "topics": {
                topic.topic: {"rows": topic.rows, "bad": topic.bad, "lag": topic.lag, "reason": topic.reason}
                for topic in report.topics
                if topic.rows or topic.bad or topic.lag or topic.reason
            },
            "announcements": report.announcements,
        }

    def _wait(self, seconds: float) -> None:
        """Wait as the log asks, unless the run is told to stop; a commit that has begun is brought to its end."""
        if self._is_committing:
            threading.Event().wait(seconds)
        elif self._stop.wait(seconds):
            raise StoppedError

    def _release(self, claim: Claim) -> None:
        # One that cannot be given back is waited for by the next driver, and then taken.
        with suppress(CommitError, FileSystemError, OSError):
            claim.release()

    def _note(self, sentence: str) -> None:
        self._report.announcements.append(sentence)
        self._observer.handle_note(sentence)

    @contextmanager
    def _phase(self, phase: Phase) -> Iterator[None]:
        if self._stop.is_set() and not self._is_committing:
            raise StoppedError
        self._observer.handle_phase(phase)
        began = self._world.monotonic()
        try:
            yield
        finally:
            self._report.phases_s[phase.value] = round(self._world.monotonic() - began, 4)


def end_offsets(found: Reconciled) -> dict[TopicPartitionId, int]:
    """What may be read up to now, of every partition of the topics that are loaded."""
    return {
        TopicPartitionId(topic_id, partition): end
        for topic_id, ends in found.ends.items()
        for partition, end in ends.items()
    }


def _withheld(found: Reconciled) -> frozenset[TopicPartitionId]:
    return frozenset(TopicPartitionId(topic_id, each) for topic_id, those in found.withheld.items() for each in those)


def _lagging(
    end_offsets: Mapping[TopicPartitionId, int], audit: Audit, state: TableState
) -> frozenset[TopicPartitionId]:
    """The partitions that still have something to load after this run."""
    return frozenset(
        key
        for key, end_offset in end_offsets.items()
        if (
            audit.partitions[key].lag
            if key in audit.partitions
            else (at := state.position(*key)) is None or at.offset < end_offset
        )
    )
