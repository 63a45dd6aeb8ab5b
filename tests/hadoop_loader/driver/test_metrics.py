"""What Prometheus hears of runs."""

from __future__ import annotations

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
