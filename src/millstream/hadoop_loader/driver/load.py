"""run_load: one run of a job, from the claim to the report.

    1  open the destination, read its log               5  run the splits (`loading.py`)
    2  look what the topics hold (`source/`)            6  add up (`audit.py`), commit, apply
    3  nothing new: the run ends here, without a claim  7  tell others, clean up (`finishing.py`)
    4  claim, which repairs what a crash left; plan

Up to the commit a run may end anywhere, killed too, with nothing of it visible. From there on the next run's claim
finishes what was begun. What follows the commit is told where it fails, and no reason to take anything back. A run that
committed nothing is remembered at the destination (`failures.py`) until one ends well.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from millstream.hadoop_loader.commit import CommitError, CommitLog, Role, UnsettledError
from millstream.hadoop_loader.driver.attempts import Attempts
from millstream.hadoop_loader.driver.audit import Audit, audit_run
from millstream.hadoop_loader.driver.claim_keeper import ClaimKeeper
from millstream.hadoop_loader.driver.draft import draft_of
from millstream.hadoop_loader.driver.failures import forget_failure, remember_failure
from millstream.hadoop_loader.driver.finishing import Finishing
from millstream.hadoop_loader.driver.loading import Loading
from millstream.hadoop_loader.driver.observer import Observer, Phase
from millstream.hadoop_loader.driver.problems import MET, outcome_in
from millstream.hadoop_loader.driver.report import LoadReport, Outcome, TopicReport
from millstream.hadoop_loader.driver.reporting import describe
from millstream.hadoop_loader.driver.schemas import RunSchemas
from millstream.hadoop_loader.driver.surroundings import StoppedError, Surroundings, look_at_topics
from millstream.hadoop_loader.filesystem import FileSystem, FileSystemError, UnavailableError, UnknownOutcomeError
from millstream.hadoop_loader.planning import plan_splits, take_share
from millstream.hadoop_loader.source import Reconciled, Severity, SourceSnapshot, reconcile
from millstream.hadoop_loader.splits import TopicPartitionId
from millstream.hadoop_loader.tables.naming import why_no_tables

if TYPE_CHECKING:
    from millstream.hadoop_loader.commit import Claim, Position, TableState
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
        # Of the destination, once it is open; None again once it does not answer.
        self._filesystem: FileSystem | None = None
        # Whether the run failed by what the destination said, which then need not be said twice.
        self._is_destination_red = False
        # Where the log ended when the run looked.
        self._number = 0
        # Whether the claim brought the entry of another run to its end.
        self._finished_another = False
        self._report = LoadReport(
            surroundings.run_id(),
            job.name,
            job.destination.uri,
            engine=job.engine,
            started=datetime.fromtimestamp(surroundings.wall_clock(), UTC).isoformat(timespec="seconds"),
        )
        self._finishing = Finishing(job, surroundings, self._report, self._note, stop)

    def run(self) -> LoadReport:
        report = self._report
        # The destination stays open until the run's end is remembered there.
        with ExitStack() as stack:
            self._run(stack)
            if report.outcome not in (Outcome.STOPPED, Outcome.CLAIMED):
                self._remember()
        settings = self._job.compaction
        has_grown = bool(settings.open_directories or report.closed_directories)
        is_due = (report.number is not None and has_grown) or self._finished_another
        if settings.after_runs and is_due and not report.is_unapplied:
            self._finishing.compact()
        if self._job.destination.retention_s is not None and report.number is not None and not report.is_unapplied:
            self._finishing.expire()
        report.wall_s = self._world.monotonic() - self._started
        self._finishing.write_report()
        self._observer.handle_report(report)
        return report

    def _run(self, outer: ExitStack) -> None:
        with outcome_in(self._report):
            try:
                with ExitStack() as stack:
                    self._run_to_its_end(outer, stack)
            except MET as error:
                self._is_destination_red = isinstance(error, (FileSystemError, OSError))
                if isinstance(error, (UnavailableError, UnknownOutcomeError, UnsettledError)):
                    # Whoever does not answer need not be asked to remember that.
                    self._filesystem = None
                raise

    def _run_to_its_end(self, outer: ExitStack, stack: ExitStack) -> None:
        report, job = self._report, self._job
        with self._phase(Phase.OPENING):
            filesystem = self._filesystem = outer.enter_context(self._world.open_filesystem(job))
            log = self._world.commit_log(job, filesystem, stop=self._stop, tell=self._observer.handle_note)
            state = log.read()
            self._number = state.number
        with self._phase(Phase.LOOKING):
            snapshot = look_at_topics(job, state)
            found = self._reconciled(snapshot, state)
        unapplied = log.unapplied()
        if found.is_stopped or (not found.ranges and not found.moved and unapplied is None):
            self._describe(found, state)
            report.outcome = self._nothing_loaded(found)
            if not found.is_stopped:
                self._finishing.finish_without_entry(filesystem, log, state)
            return
        with self._phase(Phase.CLAIMING):
            claim = log.claim(Role.LOAD, owner=self._world.owner(), run_id=report.run_id)
            keeper = ClaimKeeper(claim, self._world.settings(job).renewal_interval_s)
            stack.callback(self._release, claim)
            stack.enter_context(keeper)
            self._finished_another = unapplied is not None
            self._finishing.clean(log, claim)
            if not claim.state.positions:
                # Nothing was loaded here before: see that files can be moved out of staging before any is written.
                claim.probe([_PROBE])
                filesystem.delete(_PROBE)
        if claim.state.positions != state.positions:
            # Another driver has moved on between the look at the log and the claim: its positions may lie behind the
            # ends that were seen, and would look as if the logs had been cut.
            snapshot = look_at_topics(job, claim.state)
        found = self._reconciled(snapshot, claim.state)
        if found.is_stopped:
            self._describe(found, claim.state)
            return
        if not found.ranges and not found.moved:
            # The claim has finished what another run began, and that is all there was to do.
            self._describe(found, claim.state)
            report.outcome = self._nothing_loaded(found)
            self._finishing.finish_without_entry(filesystem, log, claim.state, is_claimed=True)
            return
        self._load(stack, filesystem, log, claim, keeper, snapshot, found)

    def _remember(self) -> None:
        """Have the destination know that this run committed nothing, or that all is well again."""
        report, filesystem = self._report, self._filesystem
        if filesystem is None:
            return
        try:
            if report.number is None and report.errors:
                remember_failure(filesystem, report, self._number)
            else:
                forget_failure(filesystem, self._job.name)
        except (FileSystemError, OSError) as error:
            if not self._is_destination_red:
                self._note(f"how this run ended could not be remembered: {error}")

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
            for topic, reason in sorted(why_no_tables(coming, loaded, schemas.names).items()):
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
                monotonic=self._world.monotonic,
            )
            try:
                loading.run()
            finally:
                report.attempts = loading.attempts_made
                report.failed_attempts = attempts.failed_attempts
                report.peak_memory_bytes = loading.peak_memory_bytes
                report.splits_s = round(loading.splits_s, 4)
                report.cpu_s = sum(result.cpu_s for result in attempts.results())
                report.announcements += schemas.announcements
        with self._phase(Phase.COMMITTING):
            keeper.check()
            self._commit(log, claim, snapshot, found, attempts, schemas)
        if report.number is not None:
            with self._phase(Phase.FINISHING):
                self._finishing.finish(filesystem, log, claim)

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
            lagging=_lagging(end_offsets(found), audit, moved, state) | _withheld(found),
            report=self._summary(audit),
        )
        report.closed_directories = list(closed)
        self._is_committing = True
        try:
            report.number = log.commit(claim, draft).number
        except CommitError as error:
            if error.published is None:
                raise
            # It counts, though its files are not all where readers look: the next run sees to that.
            report.number, report.is_unapplied = error.published.number, True
            report.outcome = Outcome.PARTIAL
            report.errors.append(str(error))

    def _nothing_loaded(self, found: Reconciled, attempts: Attempts | None = None) -> Outcome:
        """How a run ends that commits nothing: well, or with what is wrong with some of its topics, or with all.

        A topic that is stopped beside others that are as far as they can be is the same as where those had more.
        """
        if not self._report.errors:
            return Outcome.NOTHING_NEW
        given_up = set() if attempts is None else set(attempts.given_up)
        return Outcome.PARTIAL if set(found.topics.values()) - given_up else Outcome.FAILED

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
    end_offsets: Mapping[TopicPartitionId, int],
    audit: Audit,
    moved: Mapping[TopicPartitionId, Position],
    state: TableState,
) -> frozenset[TopicPartitionId]:
    """The partitions that still have something to load after this run; one that never held anything has not."""
    return frozenset(
        key
        for key, end_offset in end_offsets.items()
        if (
            audit.partitions[key].lag
            if key in audit.partitions
            else (at := moved.get(key) or state.position(*key)) is None or at.offset < end_offset
        )
    )
