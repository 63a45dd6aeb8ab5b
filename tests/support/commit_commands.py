"""Commands given to the small world of the commit log: what `status` and `verify` say of it."""

from __future__ import annotations

from pathlib import Path

from tests.support.commit_simulation import TOPIC, World

from millstream.hadoop_loader.driver.surroundings import Surroundings
from millstream.hadoop_loader.job import DestinationSettings, LoadJob, SourceSettings, ValueSettings


def job_of(folder: Path) -> LoadJob:
    """A job of the world's topic; `folder` is a destination that nobody looks at."""
    return LoadJob(
        name="orders",
        source=SourceSettings(bootstrap_servers="unused:1", topics=(TOPIC,)),
        destination=DestinationSettings(uri=folder.as_uri(), formats=frozenset({"avro"})),
        value=ValueSettings(format="raw"),
    )


def surroundings_of(world: World) -> Surroundings:
    """What has commands find the world at their destination."""
    return Surroundings(open_filesystem=lambda _job: world.disk, commit_settings=world.settings)
