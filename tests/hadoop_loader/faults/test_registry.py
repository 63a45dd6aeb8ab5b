"""The registry goes away in the middle of a run: what needs it waits for the next run, everything else is loaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.loads import SCHEMA_2, Events, assert_same, job_for
from tests.support.registry import registry

from millstream.hadoop_loader.driver import Outcome, run_load
from millstream.hadoop_loader.driver.observer import Observer
from millstream.hadoop_loader.driver.verify import verify_destination
from millstream.hadoop_loader.job import Partitioning, RegistrySettings
from millstream.hadoop_loader.splits import Split
from millstream.testing import TestBroker


class OncePlanned(Observer):
    """Does something when the splits are about to be handed out: what planning asked of the registry was answered."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act
        self.splits = 0

    def handle_planned(self, splits: Sequence[Split], workers: int) -> None:
        self.splits = len(splits)
        self._act()


def test_a_topic_with_a_new_schema_waits_and_its_neighbour_is_loaded(
    millstream_broker_session: TestBroker, tmp_path: Path
) -> None:
    bootstrap = millstream_broker_session.bootstrap_servers
    settings = {"kafkastore.topic": "_schemas_of_a_registry_that_dies"}
    with registry(bootstrap, settings) as schemas:
        address = urlsplit(schemas.url).netloc
        known, grown = (Events(bootstrap, schemas.url, f"registry-dies-{name}") for name in ("known", "grown"))
        for events in (known, grown):
            events.send(90)
        job = job_for(
            [known, grown],
            tmp_path,
            workers=1,
            split_attempts=1,
            partitioning=Partitioning(kind="none"),
            registry=RegistrySettings(urls=(schemas.url,), timeout_s=1.0),
        )
        assert run_load(job).outcome is Outcome.LOADED
        for events in (known, grown):
            events.send(90)
        grown.send(90, SCHEMA_2)
        dies = OncePlanned(schemas.kill)

        partly = run_load(job, observer=dies)

        assert dies.splits == 1  # they share it
        assert (partly.outcome, partly.exit_code, partly.rows) == (Outcome.PARTIAL, 3, 90)
        (error,) = partly.errors
        assert grown.topic in error
        assert address in error
        assert {topic.topic: topic.lag for topic in partly.topics} == {known.topic: 0, grown.topic: 180}
    with registry(bootstrap, settings, listen=address):
        whole = run_load(job)

        assert (whole.outcome, whole.rows, whole.errors) == (Outcome.LOADED, 180, [])
        for events in (known, grown):
            assert_same(events, tmp_path, "avro", "parquet")
        assert verify_destination(job).findings == []
