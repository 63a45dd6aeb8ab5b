"""What Prometheus hears of loads: counters over all runs, and how the last run of each job went.

    millstream_loader_rows_total{job, topic}       rows committed          ..._bytes_total, ..._files_total{format}
    millstream_loader_bad_records_total            dead letters            ..._gap_offsets_total{reason}
    millstream_loader_runs_total{job, outcome}     runs                    ..._failed_attempts_total
    millstream_loader_lag_offsets{job, topic}      what is not loaded yet, as of the last run, ..._lag_age_seconds
    millstream_loader_dead_letters_waiting{job, topic}, ..._unapplied_entry{job}      as of the last run
    millstream_loader_compactions_total{job, outcome}   after runs     ..._compacted_directories_total, ..._bytes_total
    millstream_loader_last_run_timestamp_seconds, ..._last_success_timestamp_seconds, ..._last_run_duration_seconds
    millstream_loader_last_run_exit_code{job}, millstream_loader_committed_number{job}
    millstream_loader_run_offsets{job}, ..._run_offsets_read, ..._run_rows_read, ..._run_bytes_read, ..._run_seconds
                                                   of runs that are at work now

`millstream load serve` answers them over HTTP; runs of whichever process are added to the job's `metrics_file`
(`metrics_file.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from millstream.core.metrics import Counter, Family, Gauge, Registry, render, samples_of
from millstream.hadoop_loader.driver.observer import Observer
from millstream.hadoop_loader.driver.progress import RunProgress
from millstream.hadoop_loader.driver.report import LoadReport, Outcome
from millstream.hadoop_loader.splits import GapReason


class LoadMetrics(Observer):
    """Counts runs in a registry; for any number of jobs, one run at a time."""

    def __init__(self, registry: Registry | None = None, *, wall_clock: Callable[[], float] = time.time) -> None:
        """Register the families in `registry`, or in a new one."""
        self.registry = registry or Registry()
        # Of runs at work, which is over by the time that somebody reads it in a file.
        self.at_work = Registry()
        self._wall_clock = wall_clock
        add, name = self.registry, "millstream_loader"
        self._rows = add.counter(f"{name}_rows_total", "Rows committed.", "job", "topic")
        self._bytes = add.counter(f"{name}_bytes_total", "Bytes of keys and values committed.", "job", "topic")
        self._files = add.counter(f"{name}_files_total", "Files committed.", "job", "topic", "format")
        self._file_bytes = add.counter(
            f"{name}_file_bytes_total", "Bytes of files committed.", "job", "topic", "format"
        )
        self._bad = add.counter(f"{name}_bad_records_total", "Records that could not be read.", "job", "topic")
        self._gaps = add.counter(f"{name}_gap_offsets_total", "Offsets without a record.", "job", "topic", "reason")
        self._late = add.counter(f"{name}_late_rows_total", "Rows for closed directories.", "job", "topic")
        self._runs = add.counter(f"{name}_runs_total", "Runs, by how they ended.", "job", "outcome")
        self._failed = add.counter(f"{name}_failed_attempts_total", "Attempts of splits that failed.", "job")
        self._cpu = add.counter(f"{name}_cpu_seconds_total", "CPU seconds of workers that ran splits.", "job")
        self._lag = add.gauge(
            f"{name}_lag_offsets", "Offsets that were there at the last run and are not loaded.", "job", "topic"
        )
        self._lag_age = add.gauge(
            f"{name}_lag_age_seconds",
            "Since the newest record loaded of the partition farthest behind; 0 where nothing is left.",
            "job",
            "topic",
        )
        self._letters = add.gauge(
            f"{name}_dead_letters_waiting", "Dead letters that were not replayed.", "job", "topic"
        )
        self._unapplied = add.gauge(
            f"{name}_unapplied_entry", "Number of an entry that readers do not see all of yet; 0 if none is.", "job"
        )
        self._compactions = add.counter(
            f"{name}_compactions_total", "Compactions after runs, by how they ended.", "job", "outcome"
        )
        self._compacted = add.counter(f"{name}_compacted_directories_total", "Directories compacted.", "job")
        self._compacted_bytes = add.counter(f"{name}_compacted_bytes_total", "Bytes of files compacted.", "job")
        self._last = add.gauge(f"{name}_last_run_timestamp_seconds", "When the last run ended.", "job")
        self._success = add.gauge(f"{name}_last_success_timestamp_seconds", "When one last ended well.", "job")
        self._duration = add.gauge(f"{name}_last_run_duration_seconds", "How long the last run took.", "job")
        self._exit_code = add.gauge(f"{name}_last_run_exit_code", "Exit code of the last run; 0 is well.", "job")
        self._number = add.gauge(f"{name}_committed_number", "Number of the last entry committed.", "job")
        self._memory = add.gauge(f"{name}_worker_peak_memory_bytes", "Most memory of a worker in the last run.", "job")

    def show_runs(self, at_work: Callable[[], Mapping[str, RunProgress]]) -> None:
        """Have each scrape ask which jobs' runs are at work, and how far they are. Once at most."""

        def show(name: str, help_text: str, of: Callable[[RunProgress], float]) -> None:
            self.at_work.computed(
                f"millstream_loader_{name}",
                help_text,
                "gauge",
                ("job",),
                lambda: [((job,), of(progress)) for job, progress in at_work().items()],
            )

        show("run_offsets", "Offsets that the run at work has to read.", lambda run: run.offsets)
        show("run_offsets_read", "Offsets that it has read so far.", lambda run: run.offsets_read)
        show("run_rows_read", "Rows that it has read so far, none of which is committed yet.", lambda run: run.rows)
        show("run_bytes_read", "Bytes of keys and values that it has read so far.", lambda run: run.bytes)
        show("run_seconds", "Since it gave out the first split.", lambda run: run.seconds)

    def handle_report(self, report: LoadReport) -> None:
        job, now = report.job, self._wall_clock()
        self._ended(job, report.outcome.value, report.exit_code, now)
        self._failed.labels(job).value += report.failed_attempts
        self._cpu.labels(job).value += report.cpu_s
        self._duration.labels(job).value = report.wall_s
        self._memory.labels(job).value = report.peak_memory_bytes
        if report.outcome in (Outcome.LOADED, Outcome.NOTHING_NEW):
            self._success.labels(job).value = now
        elif report.outcome is not Outcome.CLAIMED:
            # Of a job that never ended well there is a time as well, or no alert by it would find anything.
            self._success.labels(job)
        if report.number is not None:
            self._number.labels(job).value = report.number
        if report.is_unapplied or report.number is not None or report.outcome is Outcome.NOTHING_NEW:
            # A run that came to nothing applied nothing either.
            self._unapplied.labels(job).value = (report.number or 0) if report.is_unapplied else 0
            # All that there are were told; those of a deleted topic of the job wait on.
            self._forget(job, {*report.dead_letters, *(topic.topic for topic in report.topics)}, self._letters)
        for name, letters in report.dead_letters.items():
            self._letters.labels(job, name).value = letters
        if compaction := report.compaction:
            self._compactions.labels(job, compaction["outcome"]).value += 1
            self._compacted.labels(job).value += compaction["compacted_directories"]
            self._compacted_bytes.labels(job).value += compaction["bytes_before"]
        if report.topics:
            self._forget(job, {topic.topic for topic in report.topics}, self._lag, self._lag_age)
        for topic in report.topics:
            # Of one that was stopped nobody has looked at what is left: what was last known of it stays.
            if topic.topic_id:
                self._lag.labels(job, topic.topic).value = topic.lag
                # Of partitions that nothing was loaded of yet nobody knows how old what is left is.
                if topic.lag_age_s is not None or not topic.lag:
                    self._lag_age.labels(job, topic.topic).value = topic.lag_age_s or 0.0
            # At 0 before there is anything to count: `increase()` knows nothing of what a series begins with.
            for counter in (self._rows, self._late, self._bytes, self._bad):
                counter.labels(job, topic.topic)
            self._gaps.labels(job, topic.topic, GapReason.RETENTION.value)
            if topic.reason or report.number is None:
                continue
            self._rows.labels(job, topic.topic).value += topic.rows
            self._late.labels(job, topic.topic).value += topic.late_rows
            self._bytes.labels(job, topic.topic).value += topic.size_bytes
            self._bad.labels(job, topic.topic).value += topic.bad
            for reason, offsets in topic.gaps.items():
                self._gaps.labels(job, topic.topic, reason).value += offsets
            for name, count in topic.files.items():
                self._files.labels(job, topic.topic, name).value += count
                self._file_bytes.labels(job, topic.topic, name).value += topic.file_bytes.get(name, 0)

    def handle_no_report(self, job: str, outcome: str, exit_code: int) -> None:
        """A run came to nothing that reports: its job file is wrong, say."""
        self._ended(job, outcome, exit_code, self._wall_clock())
        self._success.labels(job)

    def _ended(self, job: str, outcome: str, exit_code: int, now: float) -> None:
        self._runs.labels(job, outcome).value += 1
        self._last.labels(job).value = now
        self._exit_code.labels(job).value = exit_code

    def _forget(self, job: str, topics: Collection[str], *families: Family[Gauge]) -> None:
        """Forget how others than these topics stand, which the job has no more: nothing would ever change that."""
        for family in families:
            for values in [one for one in family.children() if one[0] == job and one[1] not in topics]:
                family.remove(*values)

    def text(self) -> str:
        """Return all of it in Prometheus's text format."""
        now_ms = round(self._wall_clock() * 1000)
        return render(self.registry, now_ms) + render(self.at_work, now_ms)

    def has(self, job: str) -> bool:
        """Whether anything is known of a job."""
        return any(values[0] == job for family in self._families() for values in family.children())

    def forget(self, job: str) -> None:
        """Forget all of a job."""
        for family in self._families():
            for values in [one for one in family.children() if one[0] == job]:
                family.remove(*values)

    def take_over(self, path: Path, job: str | None = None) -> None:
        """Begin where another process ended that wrote `path`, for one job or for all, not counted here yet.

        A file that is not there, or is none of ours, says nothing. Raises OSError for one that cannot be read.
        """
        try:
            said = path.read_text()
        except (FileNotFoundError, UnicodeDecodeError):
            return
        families = {family.name: family for family in self.registry.families()}
        for sample in samples_of(said):
            family, labels = families.get(sample.name), dict(sample.labels)
            is_wanted = "job" in labels and job in (None, labels["job"])
            if isinstance(family, Family) and is_wanted and labels.keys() == {*family.label_names}:
                child = family.labels(*(labels[name] for name in family.label_names))
                assert isinstance(child, Counter | Gauge), f"{family.name} is a {family.kind}"
                child.value = sample.value

    def write(self, path: Path) -> None:
        """Write the text to `path` in one step: a collector that reads meanwhile sees the former text, or this one.
        Runs at work are left out.
        """
        written = path.with_name(f".{path.name}.new")
        written.write_text(render(self.registry, round(self._wall_clock() * 1000)))
        written.replace(path)

    def _families(self) -> Iterator[Family[Any]]:
        """All that have children, whose first label is the job."""
        for family in self.registry.families():
            assert isinstance(family, Family), family.name
            assert family.label_names[0] == "job", family.name
            yield family
