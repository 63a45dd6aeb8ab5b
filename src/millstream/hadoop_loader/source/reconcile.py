"""Positions held against the topics as they are now: which offsets are to be loaded, and what does not fit.

Pure: a snapshot of the source and the state of the destination in, ranges and findings out. The rule for each
partition, first match wins:

    its topic has no id                                   the run stops: nothing tells a topic from its successor
    never loaded, and another id of that name was         TOPIC_RECREATED: stop, or load the new one from its start
    never loaded, nor the topic                           from where another loader left it, by the job or its group,
                                                          where the log reaches that far (START_REFUSED, as where the
                                                          group knows nothing of records that are there); else from
                                                          where the job starts; unless that is the earliest of all
                                                          partitions, only once every one says where that is
    never loaded, and other partitions of its topic were  it was added to the topic: from its own beginning
    begin > position                                      RECORDS_LOST: stop, or go on at begin and note the gap
    the position's epoch ended below the position         LOG_TRUNCATED: stop, or go on where the histories part
    high watermark < position                             LOG_TRUNCATED, where no epoch is known to compare
    otherwise                                             from the position

A position may lie beyond the last stable offset (the job read uncommitted records before): then there is nothing to
load until that has passed it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from millstream.core.wire import ErrorCode
from millstream.hadoop_loader.commit.entries import Position, Positions
from millstream.hadoop_loader.job import SourceSettings
from millstream.hadoop_loader.source.findings import Finding, FindingKind, Severity
from millstream.hadoop_loader.source.snapshot import NO_TOPIC_ID, MissingTopic, PartitionNow, SourceSnapshot, TopicNow
from millstream.hadoop_loader.splits import Gap, GapReason, OffsetRange

# Of a record, key and value and what is around them, where nobody tells how large they are.
RECORD_BYTES_GUESS: Final = 1000


@dataclass(slots=True)
class Reconciled:
    """What is to be loaded. Nothing in it is about topics that were stopped."""

    # Non-empty ranges, one for each partition that has something to load.
    ranges: list[OffsetRange] = field(default_factory=list)
    # Positions that differ from those committed although nothing was read: the first ones of new partitions, those
    # behind a gap, those after a truncation. They are committed with the run, or a later one would find the same again.
    moved: dict[str, dict[int, Position]] = field(default_factory=dict)
    # Offsets that were lost to retention.
    gaps: list[Gap] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    stopped_topics: set[str] = field(default_factory=set)
    # Topic id -> name of the topics that this run loads, and topic id -> partition -> what may be read up to now.
    topics: dict[str, str] = field(default_factory=dict)
    ends: dict[str, dict[int, int]] = field(default_factory=dict)
    # Partitions that did not answer, by topic id.
    unavailable: dict[str, set[int]] = field(default_factory=dict)
    # Partitions that may hold records which are not to be read yet, by topic id: unavailable ones, those with a
    # transaction that is open, and those that `stop_offsets` holds. They are not idle, although nothing comes of them.
    withheld: dict[str, set[int]] = field(default_factory=dict)

    @property
    def is_stopped(self) -> bool:
        """Whether nothing at all may be loaded."""
        return any(finding.severity is Severity.RUN_STOPPED for finding in self.findings)


def reconcile(
    snapshot: SourceSnapshot,
    source: SourceSettings,
    *,
    cluster_id: str,
    topics: Mapping[str, str],
    positions: Positions,
    record_bytes: Mapping[str, float] | None = None,
) -> Reconciled:
    """Hold what was committed (`cluster_id`, names of `topics` by id, `positions`) against `snapshot`.

    `record_bytes` is the average size of a topic's records in the log, by topic id, as earlier runs saw it: it stands
    in where the brokers do not tell sizes. The snapshot must be one that was read for these positions: held against an
    older one, a position that has moved on since would look as if its log had been cut.
    """
    for topic in snapshot.topics.values():
        asked, given = (held.get(topic.topic_id, {}) for held in (snapshot.positions, positions))
        assert dict(asked) == dict(given), f"{topic.name}: the snapshot was read for {asked}, and not for {given}"
    result = Reconciled()
    if cluster_id and snapshot.cluster_id and cluster_id != snapshot.cluster_id:
        sentence = (
            f"the destination was loaded from cluster {cluster_id}, and {source.bootstrap_servers} is"
            f" {snapshot.cluster_id}"
        )
        remedy = "mend source.bootstrap_servers, or load another cluster into another destination.uri"
        result.findings.append(Finding(FindingKind.OTHER_CLUSTER, Severity.RUN_STOPPED, sentence, remedy))
        return result
    nameless = sorted(name for name, topic in snapshot.topics.items() if topic.topic_id == NO_TOPIC_ID)
    if nameless:
        sentence = f"the brokers give no topic ids (of {nameless[0]}, for one): a recreated topic could not be noticed"
        remedy = "load from brokers of Kafka 2.8 or later"
        result.findings.append(Finding(FindingKind.NO_TOPIC_IDS, Severity.RUN_STOPPED, sentence, remedy))
        return result
    loaded_ids: dict[str, list[str]] = {}
    for topic_id, name in topics.items():
        if topic_id in positions:
            loaded_ids.setdefault(name, []).append(topic_id)
    result.findings += _missing(snapshot, source, loaded_ids)
    for topic in snapshot.topics.values():
        one = _TopicReconciler(topic, source, positions.get(topic.topic_id, {}), record_bytes or {})
        one.run(loaded_ids.get(topic.name, []))
        one.add_to(result)
    result.stopped_topics |= {
        finding.topic for finding in result.findings if finding.severity is Severity.TOPIC_STOPPED and finding.topic
    }
    return result


def _missing(
    snapshot: SourceSnapshot, source: SourceSettings, loaded_ids: Mapping[str, Sequence[str]]
) -> list[Finding]:
    """Findings about topics that the job wants and that cannot be read."""
    findings: list[Finding] = []
    for name, missing in sorted(snapshot.missing.items()):
        if name not in loaded_ids:
            kind, severity, topic_id = FindingKind.TOPIC_MISSING, Severity.TOPIC_STOPPED, ""
            sentence = f"topic {name}: {missing.reason}"
            remedy = "mend source.topics, or create it" if missing.is_gone else _remedy(missing)
        elif missing.is_gone:
            fails = source.deleted == "fail"
            kind, topic_id = FindingKind.TOPIC_DELETED, loaded_ids[name][-1]
            severity = Severity.TOPIC_STOPPED if fails else Severity.NOTE
            sentence = f"topic {name} was loaded before and cannot be read now: {missing.reason}; its rows stay"
            remedy = "leave it out of the job, or set source.deleted" if fails else ""
        else:
            kind, severity, topic_id = FindingKind.UNAVAILABLE, Severity.SKIPPED, loaded_ids[name][-1]
            sentence = f"topic {name} was loaded before and cannot be read now: {missing.reason}"
            remedy = f"{_remedy(missing)}; the next run loads it"
        findings.append(Finding(kind, severity, sentence, remedy, name, topic_id))
    return findings


def _remedy(missing: MissingTopic) -> str:
    if missing.code is ErrorCode.TOPIC_AUTHORIZATION_FAILED:
        return "give the job's principal the rights to describe and to read it, or leave it out of the job"
    return "see what the brokers' logs say of it"


class _TopicReconciler:
    """One topic; gathers what comes of it, so that a stopped topic leaves nothing but its findings."""

    def __init__(
        self,
        topic: TopicNow,
        source: SourceSettings,
        positions: Mapping[int, Position],
        record_bytes: Mapping[str, float],
    ) -> None:
        self._topic = topic
        self._source = source
        self._positions = positions
        self._record_bytes = record_bytes
        self._findings: list[Finding] = []
        self._ranges: list[OffsetRange] = []
        self._moved: dict[int, Position] = {}
        self._gaps: list[Gap] = []
        # Whether all of it is left for a later run, since some of its partitions did not answer in its first.
        self._waits = False

    def run(self, loaded_ids: Sequence[str]) -> None:
        """Go over the partitions; `loaded_ids` are the topics of this name that were loaded so far."""
        topic, source = self._topic, self._source
        is_new = not self._positions
        recreated = is_new and bool(loaded_ids)
        if recreated:
            severity = Severity.TOPIC_STOPPED if source.recreated == "fail" else Severity.NOTE
            sentence = (
                f"topic {topic.name} was deleted and created anew: its id was {loaded_ids[-1]} and is"
                f" {topic.topic_id}; what the old one held and was not loaded is gone"
            )
            remedy = (
                'set source.recreated = "continue" to load the new one beside the old one\'s rows, or give it a table'
                " of its own by `millstream load anew`"
                if source.recreated == "fail"
                else ""
            )
            self._find(FindingKind.TOPIC_RECREATED, severity, sentence, remedy)
        elif is_new and not self._may_begin():
            return
        added = [each.partition for each in topic.partitions if not is_new and each.partition not in self._positions]
        if added:
            sentence = f"topic {topic.name} has new partitions: {_listed(added)}; each is loaded from its beginning"
            self._find(FindingKind.PARTITIONS_ADDED, Severity.NOTE, sentence, "", added)
        lacking = [each for each in topic.partitions if each.error]
        # Where such a partition starts cannot be kept without its ends. A later run, which finds the others committed,
        # would take it for one that was added, and load all that the job leaves out.
        is_left = source.start_group is not None or topic.name in source.start_offsets
        self._waits = bool(lacking) and is_new and not recreated and (source.start != "earliest" or is_left)
        if lacking:
            numbers = [each.partition for each in lacking]
            sentence = f"topic {topic.name}, partitions {_listed(numbers)}: {lacking[0].error}"
            remedy = "see why their leaders are away; the next run loads them"
            if self._waits:
                sentence += "; none of the topic is loaded before all say where they start"
                remedy = "see why their leaders are away; the next run begins with the topic"
            self._find(FindingKind.UNAVAILABLE, Severity.SKIPPED, sentence, remedy, numbers)
        if self._waits:
            return
        lost: list[tuple[PartitionNow, Position]] = []
        truncated: list[tuple[PartitionNow, Position, int]] = []
        for now in topic.partitions:
            if now.error:
                continue
            position = self._positions.get(now.partition)
            if position is None and is_new and not recreated and now.left_offset is not None:
                position = self._moved[now.partition] = Position(now.left_offset, now.left_epoch)
            if position is None:
                start = now.start_offset if is_new and not recreated else now.begin_offset
                self._moved[now.partition] = Position(start)
                self._add(now, Position(start))
            elif now.begin_offset > position.offset:
                lost.append((now, position))
            elif (diverged := _divergence(now, position)) is not None:
                truncated.append((now, position, diverged))
            else:
                self._add(now, position)
        self._lost(lost)
        self._truncated(truncated)

    def _may_begin(self) -> bool:
        """Say where a topic starts that was never loaded; False where another loader cannot have left it there."""
        topic, source = self._topic, self._source
        where = source.start if isinstance(source.start, str) else f"{source.start} ms since 1970"
        left = [each for each in topic.partitions if each.left_offset is not None]
        others = [each for each in topic.partitions if each.left_offset is None and not each.error]
        if left:
            numbers = _listed([one.partition for one in left])
            rest = _listed([f"{one.partition} at {one.start_offset}" for one in others])
            where = f"offsets of another loader (partitions {numbers})" + (
                f", the others at {where} (partitions {rest})" if others else ""
            )
        given = source.start_offsets.get(topic.name, {})
        lacking = sorted(given.keys() - {each.partition for each in topic.partitions})
        beyond = [each for each in left if not each.error and (each.left_offset or 0) > each.high_watermark]
        # Where these start is not for source.start to say: the other loader may have loaded them, or not begun.
        unknown = [
            each for each in others if source.start_group is not None and each.begin_offset < each.high_watermark
        ]
        if lacking:
            sentence = f"topic {topic.name}: source.start_offsets names partitions that it lacks: {_listed(lacking)}"
            remedy = "mend source.start_offsets: offsets hold for the partitions of one topic in one cluster"
        elif topic.left_error:
            sentence = f"topic {topic.name} is new here, and what group {source.start_group} left is not known: "
            sentence += topic.left_error
            remedy = "mend that, or name all of its partitions in source.start_offsets"
        elif beyond:
            one = beyond[0]
            who = "source.start_offsets" if one.partition in given else f"what group {source.start_group} committed"
            sentence = (
                f"topic {topic.name}, partition {one.partition}: {who} is {one.left_offset}, and its log ends at"
                f" {one.high_watermark}"
            )
            remedy = "give source.start_offsets of this topic as it is now: it may have been created anew"
        elif unknown and not any(each.error for each in topic.partitions):
            of = f", partitions {_listed([one.partition for one in unknown])}: they have records" if left else ""
            sentence = f"group {source.start_group} has committed nothing of topic {topic.name}{of}"
            one = unknown[0]
            remedy = (
                f"name them in source.start_offsets, for this topic alone (the log of partition {one.partition} begins"
                f" at {one.begin_offset}), or mend source.start_group"
            )
        else:
            sentence = f"topic {topic.name} is new here: it starts at {where}"
            self._find(FindingKind.NEW_TOPIC, Severity.NOTE, sentence, "")
            return True
        self._find(FindingKind.START_REFUSED, Severity.TOPIC_STOPPED, sentence, remedy)
        return False

    def add_to(self, result: Reconciled) -> None:
        """Put what came of the topic into the result."""
        topic = self._topic
        result.findings += self._findings
        if any(finding.severity is Severity.TOPIC_STOPPED for finding in self._findings):
            return
        result.topics[topic.topic_id] = topic.name
        if self._waits:
            result.unavailable[topic.topic_id] = {each.partition for each in topic.partitions}
            return
        result.ends[topic.topic_id] = {each.partition: each.stop_offset for each in topic.partitions if not each.error}
        result.ranges += self._ranges
        result.gaps += self._gaps
        if self._moved:
            result.moved[topic.topic_id] = self._moved
        lacking = {each.partition for each in topic.partitions if each.error}
        if lacking:
            result.unavailable[topic.topic_id] = lacking
        held = self._source.stop_offsets.get(topic.name, {})
        withheld = lacking | {
            each.partition
            for each in topic.partitions
            if each.end_offset < each.high_watermark or (each.partition in held and each.stop_offset < each.end_offset)
        }
        if withheld:
            result.withheld[topic.topic_id] = withheld

    def _lost(self, lost: Sequence[tuple[PartitionNow, Position]]) -> None:
        if not lost:
            return
        topic, fails = self._topic, self._source.gaps == "fail"
        count = sum(now.begin_offset - position.offset for now, position in lost)
        now, position = lost[0]
        example = f"partition {now.partition} begins at {now.begin_offset} and was loaded up to {position.offset}"
        sentence = f"topic {topic.name}: {count} offsets were deleted before they were loaded ({example})"
        remedy = (
            'set source.gaps = "continue" to go on without them; load more often than retention.ms, or raise it'
            if fails
            else "load more often than retention.ms, or raise it"
        )
        severity = Severity.TOPIC_STOPPED if fails else Severity.NOTE
        numbers = [now.partition for now, _ in lost]
        self._find(FindingKind.RECORDS_LOST, severity, sentence, remedy, numbers)
        for now, position in lost:
            self._gaps.append(
                Gap(
                    topic.topic_id,
                    now.partition,
                    position.offset,
                    now.begin_offset - 1,
                    GapReason.RETENTION,
                    now.begin_offset - position.offset,
                )
            )
            self._moved[now.partition] = Position(now.begin_offset)
            self._add(now, Position(now.begin_offset))

    def _truncated(self, truncated: Sequence[tuple[PartitionNow, Position, int]]) -> None:
        if not truncated:
            return
        topic, fails = self._topic, self._source.truncated == "fail"
        now, position, diverged = truncated[0]
        example = (
            f"partition {now.partition} was loaded up to {position.offset}, and from {diverged} on its log is another"
        )
        sentence = f"topic {topic.name}: records that were loaded are no longer in the log ({example})"
        remedy = (
            'set source.truncated = "continue" to go on where the log changed; the rows of both histories are kept'
            if fails
            else "the rows of both histories are kept; see whether unclean.leader.election.enable is what you want"
        )
        severity = Severity.TOPIC_STOPPED if fails else Severity.NOTE
        numbers = [now.partition for now, _, _ in truncated]
        self._find(FindingKind.LOG_TRUNCATED, severity, sentence, remedy, numbers)
        for now, _, diverged in truncated:
            self._moved[now.partition] = Position(diverged)
            self._add(now, Position(diverged))

    def _add(self, now: PartitionNow, position: Position) -> None:
        """Add the range from `position` to where the run ends, if there is one."""
        offsets = now.stop_offset - position.offset
        if offsets <= 0:
            return
        self._ranges.append(
            OffsetRange(
                topic=self._topic.name,
                topic_id=self._topic.topic_id,
                partition=now.partition,
                leader_epoch=position.leader_epoch,
                start_offset=position.offset,
                end_offset=now.stop_offset,
                estimated_bytes=self._estimate(now, offsets),
            )
        )

    def _estimate(self, now: PartitionNow, offsets: int) -> int:
        held = now.high_watermark - now.begin_offset
        if now.size_bytes is not None and held > 0:
            return max(1, round(now.size_bytes * min(1.0, offsets / held)))
        average = self._record_bytes.get(self._topic.topic_id, RECORD_BYTES_GUESS)
        return max(1, round(average * offsets))

    def _find(
        self, kind: FindingKind, severity: Severity, sentence: str, remedy: str, partitions: Sequence[int] = ()
    ) -> None:
        self._findings.append(
            Finding(kind, severity, sentence, remedy, self._topic.name, self._topic.topic_id, tuple(partitions))
        )


def _divergence(now: PartitionNow, position: Position) -> int | None:
    """Return the offset from which on the log is not the one that was loaded, None where it is the same."""
    if now.epoch_end is not None:
        if now.epoch_end.reaches(position.offset):
            return None
        epoch, end = now.epoch_end
        if epoch < 0 or end < 0:
            # The leader knows of no epoch as late as that of the last record loaded: its log is an older one.
            end = min(position.offset, now.high_watermark)
        return max(now.begin_offset, end)
    if now.high_watermark < position.offset:
        return now.high_watermark
    return None


def _listed(given: Sequence[object]) -> str:
    shown = ", ".join(map(str, given[:10]))
    return f"{shown} and {len(given) - 10} more" if len(given) > 10 else shown
