"""What Prometheus hears of runs."""

from __future__ import annotations

from pathlib import Path

from millstream.hadoop_loader.driver import LoadReport, Outcome
from millstream.hadoop_loader.driver.metrics import LoadMetrics
from millstream.hadoop_loader.driver.report import TopicReport


def test_what_is_red_for_longer_than_a_run_is_a_gauge_and_what_runs_did_is_counted() -> None:
    metrics = LoadMetrics(wall_clock=lambda: 1_000.0)
    clicks = TopicReport("clicks", "id", rows=5, late_rows=2, lag=10, lag_age_s=90.5)
    views = TopicReport("views", "id-2", rows=1, lag=3)  # nothing of it was loaded before: of no known age
    report = LoadReport(
        "run", "job", "file:///lake", Outcome.PARTIAL, number=7, is_unapplied=True, topics=[clicks, views],
        dead_letters={"clicks": 3},
        compaction={"outcome": "loaded", "compacted_directories": 2, "bytes_before": 100},
    )  # fmt: skip
    for _ in range(2):
        metrics.handle_report(report)
    text = metrics.text()

    for line in (
        'lag_age_seconds{job="job",topic="clicks"} 90.5',
        'dead_letters_waiting{job="job",topic="clicks"} 3',
        'unapplied_entry{job="job"} 7',
        'late_rows_total{job="job",topic="clicks"} 4',
        'compactions_total{job="job",outcome="loaded"} 2',
        'compacted_directories_total{job="job"} 4',
        'compacted_bytes_total{job="job"} 200',
    ):
        assert f"millstream_loader_{line}\n" in text, text
    assert 'lag_age_seconds{job="job",topic="views"}' not in text

    clicks.lag, clicks.lag_age_s = 0, None
    metrics.handle_report(
        LoadReport("run", "job", "file:///lake", Outcome.LOADED, number=8, topics=[clicks], dead_letters={"clicks": 0})
    )
    text = metrics.text()
    assert 'lag_age_seconds{job="job",topic="clicks"} 0' in text
    assert 'dead_letters_waiting{job="job",topic="clicks"} 0' in text
    assert 'unapplied_entry{job="job"} 0' in text
    assert 'compactions_total{job="job",outcome="loaded"} 2' in text


def test_a_file_of_metrics_is_gone_on_with_by_the_next_run(tmp_path: Path) -> None:
    """Each run is a process of its own: alerts need counters that grow, and when one last ended well."""
    path, now_s = tmp_path / "clicks.prom", 1_000.0

    def run(outcome: Outcome, *topics: TopicReport, number: int | None = None) -> str:
        metrics = LoadMetrics(wall_clock=lambda: now_s)
        metrics.take_over(path, "clicks")
        metrics.handle_report(LoadReport("run", "clicks", "file:///lake", outcome, number=number, topics=list(topics)))
        metrics.write(path)
        return path.read_text()

    labels = '{job="clicks",topic="a \\"b\\""}'
    text = run(Outcome.LOADED, TopicReport('a "b"', "id", rows=5), TopicReport("left", "id-2", lag=3), number=2)
    assert f"rows_total{labels} 5\n" in text
    # There before anything is lost, or nobody could see it grow.
    assert f'gap_offsets_total{labels[:-1]},reason="retention"}} 0\n' in text
    now_s = 2_000.0
    text = run(Outcome.PARTIAL, TopicReport('a "b"', "id", rows=7, gaps={"retention": 4}), number=4)
    assert f"rows_total{labels} 12\n" in text
    assert f'gap_offsets_total{labels[:-1]},reason="retention"}} 4\n' in text
    assert "lag_offsets" in text
    assert 'lag_offsets{job="clicks",topic="left"}' not in text  # the job has it no more
    text = run(Outcome.FAILED)
    assert 'last_success_timestamp_seconds{job="clicks"} 1000.0\n' in text
    assert 'last_run_exit_code{job="clicks"} 1\n' in text
    assert 'runs_total{job="clicks",outcome="failed"} 1\n' in text
    assert f"rows_total{labels} 12\n" in text


def test_a_topic_that_is_stopped_is_no_topic_without_a_lag() -> None:
    metrics = LoadMetrics()
    behind = TopicReport("clicks", "id", lag=10, lag_age_s=90.5)
    stopped = [TopicReport(name, "", reason="it was created anew") for name in ("clicks", "views")]
    for topics in ([behind], stopped):
        metrics.handle_report(LoadReport("run", "j", "file:///lake", Outcome.PARTIAL, number=7, topics=topics))

    text = metrics.text()

    assert 'lag_offsets{job="j",topic="clicks"} 10\n' in text
    assert 'lag_age_seconds{job="j",topic="clicks"} 90.5\n' in text
    assert 'topic="views"} 0\n' in text
    assert 'lag_offsets{job="j",topic="views"}' not in text


def test_letters_of_topics_that_the_job_has_no_more_wait_for_nobody() -> None:
    metrics = LoadMetrics()

    def run(outcome: Outcome, *topics: str, **letters: int) -> str:
        reports = [TopicReport(topic, f"id of {topic}") for topic in topics]
        metrics.handle_report(LoadReport("run", "j", "file:///lake", outcome, topics=reports, dead_letters=letters))
        return metrics.text()

    run(Outcome.NOTHING_NEW, "clicks", deleted=2, excluded=3, clicks=1)
    text = run(Outcome.FAILED, "clicks")  # it came to look at no letters
    assert 'dead_letters_waiting{job="j",topic="excluded"} 3\n' in text
    text = run(Outcome.NOTHING_NEW, "clicks", deleted=2)
    assert 'dead_letters_waiting{job="j",topic="deleted"} 2\n' in text
    assert 'dead_letters_waiting{job="j",topic="clicks"} 1\n' in text
    assert 'topic="excluded"' not in text


def test_a_job_that_never_ended_well_has_a_time_that_alerts_find() -> None:
    metrics = LoadMetrics()
    metrics.handle_report(LoadReport("run", "claimed", "file:///lake", Outcome.CLAIMED))
    metrics.handle_report(LoadReport("run", "failed", "file:///lake", Outcome.FAILED))
    metrics.handle_no_report("wrong", "job wrong", 2)

    text = metrics.text()

    assert 'last_success_timestamp_seconds{job="failed"} 0\n' in text
    assert 'last_success_timestamp_seconds{job="wrong"} 0\n' in text
    assert 'last_run_exit_code{job="wrong"} 2\n' in text
    assert 'last_success_timestamp_seconds{job="claimed"}' not in text


def test_a_file_that_is_no_text_of_metrics_is_no_trouble(tmp_path: Path) -> None:
    path, metrics = tmp_path / "clicks.prom", LoadMetrics()
    path.write_bytes(b"\xff\n")
    metrics.take_over(path, "clicks")
    path.write_text('millstream_loader_rows_total{job="clicks"} 3\nmillstream_loader_rows_total{job="clicks",topic=')
    metrics.take_over(path, "clicks")
    metrics.take_over(tmp_path / "none.prom", "clicks")
    assert metrics.text() == ""
