"""What `millstream load` says to people: a run in a few lines, tables of topics and partitions, what is red and why."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from rich.markup import escape

from millstream.cli.output import done, duration_text, err, note, out, print_table, progress, rate_text, size_text
from millstream.hadoop_loader.driver.report import LoadReport, Outcome, TopicReport

if TYPE_CHECKING:
    from millstream.hadoop_loader.driver.compacting import CompactionRun
    from millstream.hadoop_loader.driver.dry_run import PlannedLoad
    from millstream.hadoop_loader.driver.replay import Replay, ReplayedTopic
    from millstream.hadoop_loader.driver.status import DestinationStatus
    from millstream.hadoop_loader.driver.verify import Verified

_SENTENCES: Final = {
    Outcome.LOADED: "loaded",
    Outcome.NOTHING_NEW: "nothing new",
    Outcome.PARTIAL: "partly loaded",
    Outcome.FAILED: "not loaded",
    Outcome.CLAIMED: "not loaded",
    Outcome.STOPPED: "stopped, nothing of this run was committed",
}
_TOPICS_SHOWN: Final = 40
_PARTITIONS_SHOWN: Final = 200
_REASONS_SHOWN: Final = 10


def print_report(report: LoadReport, *, quiet: bool = False, told: Collection[str] = ()) -> None:
    """Print how a run went: results to standard output, what is wrong to standard error.

    `told` are notes that were printed while it ran.
    """
    if not quiet:
        for sentence in report.announcements:
            if sentence not in told:
                note(sentence)
        _print_result(report)
    if not quiet or report.outcome is not Outcome.CLAIMED:
        # Another run at work is no failure: whoever mails what a quiet one prints, as cron does, has nothing to mail.
        print_errors(report.errors)


def counted(count: int, one: str, many: str | None = None) -> str:
    """Return a number of things: `1 file`, `2,000 files`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def print_errors(errors: Iterable[str]) -> None:
    """Print what has to be looked at, a line each."""
    console = err()
    for sentence in errors:
        line = " ".join(sentence.split())
        console.print(
            f"[red]millstream:[/red] {escape(line)}" if console.is_terminal else f"millstream: {line}",
            markup=console.is_terminal,
            soft_wrap=not console.is_terminal,
            highlight=False,
        )


def _print_result(report: LoadReport) -> None:
    where = "" if report.number is None else f", entry {report.number}"
    told = [topic for topic in report.topics if topic.rows or topic.bad or topic.reason or topic.lag]
    if report.rows or report.file_count:
        seconds = report.phases_s.get("loading", report.wall_s)
        done(
            f"{_SENTENCES[report.outcome]}: {rate_text(report.rows, report.size_bytes, seconds)} into "
            f"{counted(report.file_count, 'file')}, {size_text(report.file_bytes)}, at {report.destination}{where}"
        )
    else:
        topics = f"{counted(len(report.topics), 'topic')}, " if report.topics else ""
        done(f"{_SENTENCES[report.outcome]}: {topics}{report.destination}{where}")
    if told:
        _print_topics(told)
    audit = report.audit
    if report.number is not None and audit:
        lost = f", of which {audit['lost_offsets']:,} were lost to retention" if audit["lost_offsets"] else ""
        done(
            f"audit: {audit['offsets']:,} offsets = {audit['rows']:,} rows + {audit['bad']:,} bad + "
            f"{audit['tombstones_left_out']:,} tombstones left out + {audit['gap_offsets']:,} in gaps{lost}; "
            f"{audit['lag']:,} left for the next run"
        )
    if report.closed_directories:
        done(f"closed {counted(len(report.closed_directories), 'directory', 'directories')}")
    if report.splits:
        retried = f", {report.failed_attempts} of {report.attempts} attempts failed" if report.failed_attempts else ""
        # Workers tell what they took when they are through with a split.
        took = f"{report.cpu_s:.2f} s of CPU, " if report.peak_memory_bytes else ""
        held = f"; a worker held up to {size_text(report.peak_memory_bytes)}" if report.peak_memory_bytes else ""
        note(
            f"{counted(report.splits, 'split')} on {counted(report.workers, 'worker')}, {took}"
            f"{report.wall_s:.2f} s in all{retried}{held}"
        )
    bad = sum(topic.bad for topic in report.topics if not topic.reason)
    if report.number is not None and bad and any(report.dead_letters.values()):
        note(f"{counted(bad, 'record')} could not be read: `millstream load replay-dead-letters --dry-run` says why")


def _print_topics(topics: list[TopicReport]) -> None:
    print_table(
        ("TOPIC", "TABLE", "ROWS", "LATE", "BAD", "IN GAPS", "LEFT", "FILES", "SIZE"),
        (
            (
                topic.topic,
                topic.table or None,
                "none" if topic.reason else f"{topic.rows:,}",
                f"{topic.late_rows:,}",
                f"{topic.bad:,}",
                f"{sum(topic.gaps.values()):,}",
                f"{topic.lag:,}",
                ", ".join(f"{count:,} {name}" for name, count in sorted(topic.files.items())) or None,
                size_text(sum(topic.file_bytes.values())),
            )
            for topic in topics[:_TOPICS_SHOWN]
        ),
        numbers=("ROWS", "LATE", "BAD", "IN GAPS", "LEFT", "SIZE"),
    )
    if len(topics) > _TOPICS_SHOWN:
        note(f"and {len(topics) - _TOPICS_SHOWN:,} more topics; --json shows all")


def print_plan(planned: PlannedLoad, *, partitions: bool = False) -> None:
    """Print what a run would load."""
    if not planned.ranges:
        done("a run would load nothing")
    else:
        done(
            f"a run would load {counted(planned.offsets, 'offset')}, about {size_text(planned.estimated_bytes)}, of "
            f"{counted(len(planned.ranges), 'partition')} in {counted(len(planned.splits), 'split')} on "
            f"{counted(planned.workers, 'worker')}"
        )
    if partitions and planned.ranges:
        print_table(
            ("TOPIC", "PARTITION", "FROM", "TO", "OFFSETS", "ABOUT"),
            (
                (
                    one.topic,
                    one.partition,
                    one.start_offset,
                    one.end_offset,
                    f"{one.end_offset - one.start_offset:,}",
                    size_text(one.estimated_bytes),
                )
                for one in planned.ranges
            ),
            numbers=("PARTITION", "FROM", "TO", "OFFSETS", "ABOUT"),
        )
    elif planned.ranges:
        print_table(
            ("TOPIC", "PARTITIONS", "OFFSETS", "ABOUT"),
            (
                (one.topic, one.partitions, f"{one.offsets:,}", size_text(one.estimated_bytes))
                for one in planned.by_topic()
            ),
            numbers=("PARTITIONS", "OFFSETS", "ABOUT"),
        )
    for sentence in planned.notes:
        note(sentence)
    print_errors(planned.errors)


def print_status(status: DestinationStatus, *, partitions: bool = False) -> None:
    """Print how a destination stands."""
    out().print(escape(status.headline), highlight=False, soft_wrap=True)
    if status.runs:
        print_table(
            ("RUN", "ENTRY", "WHEN", "OUTCOME", "ROWS", "BAD", "TOOK"),
            (
                (
                    run.kind,
                    run.number if run.entries == 1 else f"{run.number - run.entries + 1} to {run.number}",
                    run.at,
                    run.outcome,
                    f"{run.rows:,}",
                    f"{run.bad:,}",
                    "-" if run.wall_s is None else f"{run.wall_s:.1f} s",
                )
                for run in status.runs
            ),
            numbers=("ENTRY", "ROWS", "BAD", "TOOK"),
        )
    if status.tables:
        print_table(
            ("TABLE", "FORMAT", "FILES", "ROWS", "SIZE", "CLOSED"),
            (
                (
                    one.table,
                    one.format,
                    f"{one.files:,}",
                    f"{one.rows:,}",
                    size_text(one.bytes),
                    f"{one.closed_directories:,}",
                )
                for one in status.tables
            ),
            numbers=("FILES", "ROWS", "SIZE", "CLOSED"),
        )
    if partitions:
        shown = status.partitions[:_PARTITIONS_SHOWN]
        print_table(
            ("TOPIC", "PARTITION", "LOADED UP TO", "END", "LEFT", "WATERMARK"),
            (
                (
                    one.topic,
                    one.partition,
                    one.position,
                    one.end,
                    None if one.lag is None else f"{one.lag:,}",
                    one.watermark,
                )
                for one in shown
            ),
            numbers=("PARTITION", "LOADED UP TO", "END", "LEFT"),
        )
        if len(status.partitions) > len(shown):
            note(f"and {len(status.partitions) - len(shown):,} more partitions; --json shows all")
    elif status.topics:
        print_table(
            ("TOPIC", "PARTITIONS", "LEFT", "MOST IN ONE", "BEHIND", "WATERMARK"),
            (
                (
                    f"{one.topic} (deleted since)" if one.is_former else one.topic,
                    one.partitions,
                    None if one.lag is None else f"{one.lag:,}",
                    None if one.lag_max is None else f"{one.lag_max:,}",
                    None if one.lag_age_s is None else duration_text(one.lag_age_s),
                    one.watermark,
                )
                for one in status.topics
            ),
            numbers=("PARTITIONS", "LEFT", "MOST IN ONE", "BEHIND"),
        )
    for sentence in status.notes:
        note(sentence)
    for finding in status.red:
        print_errors([f"{finding.what}; {finding.remedy}"])
    if not status.red:
        done("nothing is red")


class CompactionProgress:
    """Shows how much of what is to be compacted was read."""

    def __init__(self, *, shown: bool = True) -> None:
        self._shown = shown
        self._read = 0
        self._stack = ExitStack()
        self._advance: Callable[[int], None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def handle_read(self, read: int, total: int) -> None:
        """So many bytes of all have been read."""
        if self._advance is None:
            self._advance = self._stack.enter_context(progress("compacting", total, unit="bytes", shown=self._shown))
        self._advance(read - self._read)
        self._read = read


def print_compaction(compacted: CompactionRun, *, quiet: bool = False) -> None:
    """Print how a compaction went."""
    if not quiet:
        for sentence in compacted.notes:
            note(sentence)
    if not quiet and compacted.done:
        replaced = f", {compacted.rows_replaced:,} rows replaced" if compacted.rows_replaced else ""
        seconds = max(compacted.wall_s, 1e-6)
        done(
            f"compacted {counted(len(compacted.done), 'directory', 'directories')}: {compacted.files_before:,} files, "
            f"{size_text(compacted.bytes_before)} into {compacted.files_after:,} files, "
            f"{size_text(compacted.bytes_after)}{replaced}, in {seconds:.2f} s "
            f"({size_text(compacted.bytes_before / seconds)}/s)"
        )
    elif not quiet:
        nothing = compacted.outcome is Outcome.NOTHING_NEW
        said = "nothing to compact" if nothing else _SENTENCES[compacted.outcome].replace("loaded", "compacted")
        done(f"{said}: {compacted.destination}")
    print_errors(compacted.errors)


def _most_frequent(topic: ReplayedTopic) -> list[str]:
    """The most frequent reasons of a topic, a line each, and how many letters have others."""
    by_count = sorted(topic.errors.items(), key=lambda one: -one[1])
    shown, others = by_count[:_REASONS_SHOWN], by_count[_REASONS_SHOWN:]
    lines = [f"{count:,}: {error} (one is {topic.places[error]})" for error, count in shown]
    return [*lines, f"{sum(count for _, count in others):,} for other reasons; --json has all"] if others else lines


def print_replay(replay: Replay, *, dry_run: bool) -> None:
    """Print how a replay of dead letters went."""
    if not replay.topics and not replay.errors:
        done("there are no dead letters to replay")
    for topic in replay.topics:
        if dry_run:
            done(f"{topic.topic}: {counted(topic.letters, 'dead letter')}")
            for line in _most_frequent(topic):
                done(f"  {line}")
            looked_at = sum(topic.errors.values())
            if looked_at < topic.letters:
                note(f"{topic.topic}: {looked_at:,} of them were looked into")
            continue
        where = f"its table, entry {replay.number}" if replay.target == "table" else f"topic {replay.target}"
        went = f"went to {where}" if topic.replayed else "went anywhere"
        done(f"{topic.topic}: {topic.replayed or 'none'} of {counted(topic.letters, 'dead letter')} {went}")
        for line in _most_frequent(topic):
            note(f"{topic.topic}: still cannot be read: {line}")
    for sentence in replay.notes:
        note(sentence)
    print_errors(replay.errors)


def print_findings(verified: Verified) -> None:
    """Print what a verification found."""
    done(verified.headline)
    for path in verified.repaired:
        done(f"made anew: {path}")
    for finding in verified.findings:
        print_errors([f"{finding.what}; {finding.remedy}"])
    if not verified.findings:
        done("nothing to mend")
