"""A load and a compaction on a secured HDFS, by a principal whose tickets end long before the load does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.kerberos import REALM
from tests.support.loads import FIRST_MS, KEPT
from tests.support.secured_hdfs import Secured, secured_hdfs

from millstream import Admin, Producer
from millstream.hadoop_loader import LoadJob, run_compaction, run_load
from millstream.hadoop_loader.commit import Snapshot
from millstream.hadoop_loader.driver import Outcome
from millstream.hadoop_loader.filesystem import open_filesystem
from millstream.hadoop_loader.job import DestinationSettings, Partitioning, SourceSettings, ValueSettings
from millstream.hadoop_loader.job.destination import KerberosSettings
from millstream.testing import TestBroker

pytestmark = [pytest.mark.hdfs, pytest.mark.kerberos]

TICKET_LIFE_S = 12
RECORDS_PER_S = 40
RECORDS = 3 * TICKET_LIFE_S * RECORDS_PER_S
HOUR_MS = 3_600_000


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory, hadoop_folder: Path) -> Iterator[Secured]:
    with secured_hdfs(tmp_path_factory.mktemp("secured"), hadoop_folder) as made:
        yield made


def tickets_issued(secured: Secured, name: str) -> int:
    log = (secured.folder / "realm" / "kdc.log").read_text()
    return sum("AS_REQ" in line and "ISSUE" in line and f"{name}@" in line for line in log.splitlines())


@pytest.mark.parametrize("scheme", ["hdfs", "webhdfs"])
def test_a_load_outlives_its_tickets(secured: Secured, millstream_broker_session: TestBroker, scheme: str) -> None:
    keytab = secured.realm.add(f"hurried-{scheme}", ticket_life_s=TICKET_LIFE_S)
    topic = f"orders-{scheme}"
    bootstrap = millstream_broker_session.bootstrap_servers
    with Admin(bootstrap) as admin:
        admin.create_topic(topic, partitions=1, configs=KEPT)
    with Producer(bootstrap) as producer:
        for number in range(RECORDS):
            producer.send(topic, b"%d" % number, timestamp_ms=FIRST_MS + number % 4 * HOUR_MS)
        producer.flush()
    root = secured.hdfs.uri if scheme == "hdfs" else secured.hdfs.webhdfs_uri
    kerberos = KerberosSettings(principal=f"hurried-{scheme}@{REALM}", keytab=str(keytab))
    job = LoadJob(
        name="orders",
        source=SourceSettings(
            bootstrap_servers=bootstrap,
            topics=(topic,),
            rate_limit_records_per_s=RECORDS_PER_S,
        ),
        value=ValueSettings(format="raw"),
        destination=DestinationSettings(
            uri=f"{root}/lake/hurried-{scheme}",
            kerberos=kerberos,
        ),
        partitioning=Partitioning(kind="time", pattern="hourly"),
        workers=1,
    )
    report = run_load(job)

    assert (report.outcome, report.rows) == (Outcome.LOADED, RECORDS), report.errors
    assert report.wall_s > 2 * TICKET_LIFE_S
    # The driver's first, its worker's first, and what came in their place.
    assert tickets_issued(secured, f"hurried-{scheme}") > 2

    compacted = run_compaction(job)
    assert compacted.errors == []
    with open_filesystem(job.destination.uri, job.destination.filesystem) as lake:
        assert sum(file.rows for file in Snapshot(lake).files(topic, "parquet")) == RECORDS
