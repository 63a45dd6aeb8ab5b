"""How a destination stands: what is loaded, what is left, who is at it, and what is red with what to do about it.

Only reads, so it may be asked beside a running load; what it shows is as of one entry of the log.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from millstream.core.wire import KafkaError
from millstream.hadoop_loader.commit import Role
from millstream.hadoop_loader.commit.names import DEAD_LETTERS
from millstream.hadoop_loader.driver.failures import Failure, failure_of
from millstream.hadoop_loader.driver.letters import waiting_letters
from millstream.hadoop_loader.driver.report import Outcome, lag_age_s
from millstream.hadoop_loader.driver.reporting import last_run
from millstream.hadoop_loader.driver.surroundings import Surroundings, look_at_topics
from millstream.hadoop_loader.job import JobError
from millstream.hadoop_loader.source import Severity, reconcile
from millstream.hadoop_loader.source.topics import loads_topic
from millstream.hadoop_loader.tables.naming import former_tables

if TYPE_CHECKING:
    from millstream.hadoop_loader.commit import TableState
    from millstream.hadoop_loader.job import LoadJob
    from millstream.hadoop_loader.source import SourceSnapshot


class Red(NamedTuple):
    """Something that somebody has to look at, and what to do."""

    what: str
    remedy: str


class RunLine(NamedTuple):
    """One of the last runs that committed something."""

    kind: str
    number: int
    at: str
    outcome: str
    rows: int
    bad: int
    wall_s: float | None
    entries: int = 1  # compactions and replays commit part by part: so many entries up to `number`, of one run


class TableLine(NamedTuple):
    """What one table has in one format."""

    table: str
    format: str
    files: int
    rows: int
    bytes: int
    closed_directories: int


class PartitionLine(NamedTuple):
    """One partition: None where it is not known (`--offline`, never loaded, no record with a time)."""

    topic: str
    topic_id: str
    partition: int
    position: int | None
    end: int | None
    lag: int | None
    watermark: str | None


class TopicLine(NamedTuple):
    """One topic over its partitions."""

    topic: str
    partitions: int
    lag: int | None
    lag_max: int | None
    watermark: str | None
    # How long ago the newest record was written that is loaded of the partition farthest behind; None without lag.
    lag_age_s: float | None = None
    # Whether another topic has its name now.
    is_former: bool = False


@dataclass(slots=True)
class DestinationStatus:
    """See the module."""

    destination: str
    job: str
    number: int
    headline: str
    runs: list[RunLine] = field(default_factory=list)
    tables: list[TableLine] = field(default_factory=list)
    topics: list[TopicLine] = field(default_factory=list)
    partitions: list[PartitionLine] = field(default_factory=list)
    claims: dict[str, str] = field(default_factory=dict)
    red: list[Red] = field(default_factory=list)
    # Nothing to be done at once.
    notes: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0, or 3 where something is red."""
        return Outcome.PARTIAL.exit_code if self.red else 0

    def as_json(self) -> dict[str, Any]:
        """Return the status as JSON values."""
        document = asdict(self)
        for name in ("runs", "tables", "topics", "partitions", "red"):
            document[name] = [line._asdict() for line in getattr(self, name)]
        return document


def status_of(job: LoadJob, *, offline: bool = False, surroundings: Surroundings | None = None) -> DestinationStatus:
    """Look at the destination, and unless `offline` at the topics. Raises CommitError, FileSystemError."""
    world = surroundings or Surroundings()
    with world.open_filesystem(job) as filesystem:
        log = world.commit_log(job, filesystem)
        state, unapplied = log.read(), log.unapplied()
        unchecked = log.entries_without_checkpoint(state)
        letters = waiting_letters(state)
        failure = failure_of(filesystem, job.name)
        held = log.held_claims(state)
    status = DestinationStatus(job.destination.uri, job.name, state.number, _headline(job, state, held))
    status.claims = {
        role.value: f"{claim.owner} (entry {claim.number}{', not given back' if role in held else ''})"
        for role, claim in state.claims.items()
    }
    status.tables = _tables(state, letters)
    status.notes = [
        f"dead letters of {topic} wait ({count:,}): `millstream load replay-dead-letters --dry-run` says why"
        for topic, count in letters.items()
        if count
    ]
    status.notes += [
        f"{table} is a former table of topic {topic}, which is loaded anew: `millstream load drop --table {table}`"
        " once nobody reads it"
        for topic in sorted(set(state.topics.values()))
        if loads_topic(job.source, topic)
        for table in former_tables(state.schemas, topic)
        if any(held.files for key, held in state.totals.items() if key.rpartition("/")[0] == table)
    ]
    status.runs = _runs(state)
    if unapplied is not None:
        status.red.append(
            Red(
                f"entry {unapplied.number} ({unapplied.kind.value}, run {unapplied.run_id}) is not fully applied: some "
                "of its files are not where readers look",
                "unless that run is still at it, mend what stopped it (quota, permissions, HDFS itself) and run the "
                "job again, which finishes it first",
            )
        )
    if unchecked:
        status.red.append(
            Red(
                f"the last {unchecked:,} entries are in no checkpoint: every run reads them all, and nothing of the log"
                " is deleted",
                "the notes of each run say why, and what to do (`cleaning: the checkpoint that is due ...`)",
            )
        )
    _look_at_last_load(state, status)
    if failure is not None:
        _look_at_failure(failure, state, status)
    ends: dict[str, dict[int, int]] = {}
    if not offline:
        try:
            snapshot = look_at_topics(job, state)
        except KafkaError as error:
            status.red.append(Red(f"the cluster was not reached: {error.message}", "see that its brokers run"))
        except JobError as error:
            status.red.append(Red(str(error), "mend the job"))
        else:
            ends = _look_at_topics(job, state, snapshot, status)
    _add_partitions(state, ends, status, world.wall_clock())
    return status


def _headline(job: LoadJob, state: TableState, held: Collection[Role]) -> str:
    if not state.number:
        return f"{job.destination.uri}: nothing was ever loaded here"
    claim = state.claims.get(Role.LOAD)
    by = "" if claim is None else f", last claimed by {claim.owner}"
    if claim is not None and Role.LOAD in held:
        by = f", claimed by {claim.owner} since {_time(claim.at_ms)}: a run is at work, or was killed"
    return f"{job.destination.uri}: entry {state.number}{by}"


def _tables(state: TableState, letters: Mapping[str, int]) -> list[TableLine]:
    lines = []
    for key, totals in sorted(state.totals.items()):
        table, _, name = key.rpartition("/")
        if table == DEAD_LETTERS:
            # Those that were replayed are history.
            lines.append(TableLine(key, "avro", totals.files, letters.get(name, 0), totals.bytes, 0))
            continue
        lines.append(TableLine(table, name, totals.files, totals.rows, totals.bytes, len(state.closed.get(key, ()))))
    return lines


def _runs(state: TableState) -> list[RunLine]:
    lines: list[RunLine] = []
    last = ""
    # The last load of each job is told of, however many entries compactions have made since.
    first = state.reports[0]["number"] if state.reports else 0
    older = sorted((one for one in state.last_loads.values() if one["number"] < first), key=lambda one: one["number"])
    for report in (*older, *state.reports):
        line = _run(report)
        if report["run_id"] == last:
            before = lines.pop()
            line = line._replace(entries=before.entries + 1, rows=before.rows + line.rows, bad=before.bad + line.bad)
        lines.append(line)
        last = report["run_id"]
    return lines


def _run(report: Mapping[str, Any]) -> RunLine:
    said = report["report"]
    audit = said.get("audit", {})
    return RunLine(
        report["kind"],
        report["number"],
        _time(report["at_ms"]) or "",
        str(said.get("outcome", "done")),
        audit.get("rows", said.get("rows", 0)),
        audit.get("bad", 0),
        said.get("wall_s"),
    )


def _look_at_last_load(state: TableState, status: DestinationStatus) -> None:
    """Say what the job's last load that committed something had to leave out."""
    last = last_run(state, status.job)
    if last is None:
        return
    for topic, said in last["report"].get("topics", {}).items():
        if said.get("reason"):
            status.red.append(
                Red(
                    f"entry {last['number']} left topic {topic} out: {said['reason']}",
                    "mend that and run the job again; nothing of the topic was lost or loaded",
                )
            )


def _look_at_failure(failure: Failure, state: TableState, status: DestinationStatus) -> None:
    """Say that runs committed nothing, unless one of the job has since."""
    last = last_run(state, status.job)
    if last is not None and last["number"] > failure.number:
        return
    runs = "the last run" if failure.runs == 1 else f"the last {failure.runs:,} runs, since {failure.since},"
    told = f" {'; '.join(failure.errors)}" if failure.errors else ""
    status.red.append(
        Red(
            f"{runs} of {status.job} committed nothing ({failure.started}):{told}",
            "mend that and run the job again; nothing was lost, and the next run that ends well takes this away",
        )
    )


def _look_at_topics(
    job: LoadJob, state: TableState, snapshot: SourceSnapshot, status: DestinationStatus
) -> dict[str, dict[int, int]]:
    """Say what does not fit, and return where each partition ends now, by topic id."""
    found = reconcile(snapshot, job.source, cluster_id=state.cluster_id, topics=state.topics, positions=state.positions)
    status.red += [
        Red(finding.sentence, finding.remedy or "see the sentence")
        for finding in found.findings
        if finding.severity is not Severity.NOTE
    ]
    names = {topic.topic_id: topic.name for topic in snapshot.topics.values()}
    positions = {topic_id: {**found.moved.get(topic_id, {}), **state.positions.get(topic_id, {})} for topic_id in names}
    status.partitions = [
        PartitionLine(
            topic.name,
            topic.topic_id,
            now.partition,
            None if (at := positions[topic.topic_id].get(now.partition)) is None else at.offset,
            None if now.error else now.stop_offset,
            None if now.error or at is None else max(0, now.stop_offset - at.offset),
            _time(state.watermarks.get(topic.topic_id, {}).get(now.partition, -1)),
        )
        for topic in snapshot.topics.values()
        for now in topic.partitions
    ]
    return {
        topic.topic_id: {now.partition: now.stop_offset for now in topic.partitions if not now.error}
        for topic in snapshot.topics.values()
    }


def _add_partitions(
    state: TableState, ends: Mapping[str, Mapping[int, int]], status: DestinationStatus, now_s: float
) -> None:
    """Add partitions that were loaded and that the cluster did not tell of, and sum up by topic."""
    for topic_id, positions in state.positions.items():
        if topic_id not in ends:
            status.partitions += [
                PartitionLine(
                    state.topics.get(topic_id, topic_id),
                    topic_id,
                    partition,
                    position.offset,
                    None,
                    None,
                    _time(state.watermarks.get(topic_id, {}).get(partition, -1)),
                )
                for partition, position in positions.items()
            ]
    status.partitions.sort(key=lambda line: (line.topic, line.topic_id, line.partition))
    topics: dict[tuple[str, str], list[PartitionLine]] = {}
    for line in status.partitions:
        topics.setdefault((line.topic, line.topic_id), []).append(line)
    now = {topic for topic, topic_id in topics if topic_id in ends}
    for (topic, topic_id), lines in topics.items():
        newest_ms = state.watermarks.get(topic_id, {})
        lags = [line.lag for line in lines if line.lag is not None]
        times = [line.watermark for line in lines if line.watermark is not None]
        status.topics.append(
            TopicLine(
                topic,
                len(lines),
                sum(lags) if lags else None,
                max(lags) if lags else None,
                min(times) if times else None,
                lag_age_s((newest_ms.get(line.partition, -1) for line in lines if line.lag), now_s),
                is_former=topic_id not in ends and topic in now,
            )
        )


def _time(timestamp_ms: int) -> str | None:
    if timestamp_ms < 0:
        return None
    try:
        return datetime.fromtimestamp(timestamp_ms / 1000, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return str(timestamp_ms)
