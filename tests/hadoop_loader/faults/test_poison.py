"""A topic that kills whoever reads it is left out, and nothing else is, however the splits were packed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.support import poisoned_worker
from tests.support.raw_topics import RawTopic, assert_held

from millstream import Admin, Producer
from millstream.hadoop_loader.driver import Outcome, run_load
from millstream.hadoop_loader.driver.observer import Observer
from millstream.hadoop_loader.driver.surroundings import Surroundings
from millstream.hadoop_loader.engines.local import LocalEngine
from millstream.testing import TestBroker


class Notes(Observer):
    """Keeps what a run tells."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def handle_note(self, sentence: str) -> None:
        self.notes.append(sentence)


def test_a_topic_that_kills_its_workers_is_left_out_alone(
    millstream_broker_session: TestBroker, tmp_path: Path
) -> None:
    bootstrap = millstream_broker_session.bootstrap_servers
    neighbours = [RawTopic(bootstrap, tmp_path / "lake") for _ in range(2)]
    poisoned = f"{neighbours[0].name}-{poisoned_worker.POISON}"
    with Admin(bootstrap) as admin, Producer(bootstrap) as producer:
        admin.create_topic(poisoned, partitions=1)
        producer.send(poisoned, b"whoever reads this dies").result(60)
    for topic in neighbours:
        topic.send(50)
    job = neighbours[0].job(changes={"split_attempts": 2})
    topics = (neighbours[0].name, poisoned, neighbours[1].name)
    job = replace(job, source=replace(job.source, topics=topics))
    observer = Notes()

    report = run_load(
        job,
        observer=observer,
        surroundings=Surroundings(
            open_engine=lambda job: LocalEngine(job.workers, worker_module=poisoned_worker.__name__)
        ),
    )

    # Both attempts of the one split, and the poisoned topic's own.
    assert (report.outcome, report.exit_code, report.splits) == (Outcome.PARTIAL, 3, 1)
    assert (report.rows, report.failed_attempts) == (100, 3)
    (error,) = report.errors
    assert error.startswith(f"topic {poisoned}: its worker")
    assert any("each of its 3 is tried alone" in note for note in observer.notes)
    for topic in neighbours:
        assert_held(topic)
