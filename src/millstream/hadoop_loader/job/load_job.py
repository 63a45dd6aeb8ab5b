"""LoadJob: all that a load is told, as one frozen, picklable value.

job = LoadJob.load(Path("flights.toml"))

job = LoadJob(
    name="flights",
    source=SourceSettings(bootstrap_servers="127.0.0.1:9092", topics=("flights",)),
    registry=RegistrySettings(urls=("http://127.0.0.1:8081",)),
    destination=DestinationSettings(uri="file:///data/lake", formats=frozenset({"avro", "parquet"})),
)

Either way every problem is found before anything is opened, and all of them are told at once (JobError).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from millstream.hadoop_loader.job.destination import DestinationSettings, HiveSettings, IcebergSettings
from millstream.hadoop_loader.job.files import (
    MB,
    CompactionSettings,
    EncodingSettings,
    FileLimits,
    LateSettings,
    Partitioning,
)
from millstream.hadoop_loader.job.problem import JobError
from millstream.hadoop_loader.job.records import METADATA_COLUMNS, BadRecords, ValueSettings
from millstream.hadoop_loader.job.running import ReportSettings, ScheduleSettings, SparkSettings
from millstream.hadoop_loader.job.setting import setting
from millstream.hadoop_loader.job.source import RegistrySettings, SourceSettings

NO_KEY = ValueSettings(format="none", framing="none")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadJob:
    """A load of topics into a table root. Raises JobError, with every problem there is, for one that cannot be run."""

    name: str = setting(
        "Names the job in claims, reports and metrics: letters, digits, `.`, `_` and `-`.", example='"flights"'
    )
    metadata_columns: tuple[str, ...] = setting(
        "What Kafka knows of each record, as columns named `_kafka_topic`, `_kafka_partition` and so on, behind the"
        " value's.",
        default=(),
        choices=METADATA_COLUMNS,
        example='["partition", "offset", "timestamp"]',
    )
    tombstones: str = setting(
        "What a null value becomes: `row` with nothing but the key and the metadata columns, `skip`, or"
        " `dead_letters`.",
        default="row",
        choices=("row", "skip", "dead_letters"),
    )
    evolution: str = setting(
        "A writer's schema that the table's does not cover: `evolve` widens the table (or begins a new generation of"
        " it), `fail` stops the topic.",
        default="evolve",
        choices=("evolve", "fail"),
    )
    engine: str = setting("`local`: processes of this machine; `spark`.", default="local", choices=("local", "spark"))
    workers: int | None = setting(
        "Splits at work at a time; one per core of this machine otherwise, or what Spark has.",
        default=None,
        at_least=1,
        at_most=10_000,
    )
    worker_memory_bytes: int = setting(
        "What a worker's buffers and open files may take; over it the largest open file is closed.",
        default=256 * MB,
        at_least=32 * MB,
    )
    split_bytes: int = setting(
        "About as many bytes of the log make one split; a partition with more is cut into several.",
        default=256 * MB,
        at_least=MB,
    )
    split_attempts: int = setting(
        "How often a split is tried before the topic that it fails by is left out; where it names none, each of its"
        " topics is then tried once on its own.",
        default=3,
        at_least=1,
    )
    source: SourceSettings = setting("Topics, and the part of them to load.")
    registry: RegistrySettings | None = setting("Where schemas are, for framing `registry`.", default=None)
    value: ValueSettings = setting("How values are read.", default_factory=ValueSettings)
    key: ValueSettings = setting("How keys are read; left out by default.", default=NO_KEY)
    destination: DestinationSettings = setting("Where files go.")
    partitioning: Partitioning = setting("Which directories rows go to.", default_factory=Partitioning)
    late: LateSettings = setting("When directories are closed, and late records.", default_factory=LateSettings)
    limits: FileLimits = setting("When a file is full.", default_factory=FileLimits)
    encoding: EncodingSettings = setting("How files are encoded.", default_factory=EncodingSettings)
    bad_records: BadRecords = setting("What becomes of unreadable records.", default_factory=BadRecords)
    compaction: CompactionSettings = setting(
        "How closed directories are compacted.", default_factory=CompactionSettings
    )
    hive: HiveSettings | None = setting("Tables for Hive's metastore.", default=None)
    iceberg: IcebergSettings | None = setting("Tables of Iceberg.", default=None)
    spark: SparkSettings = setting("The Spark engine.", default_factory=SparkSettings)
    schedule: ScheduleSettings | None = setting("When `millstream load serve` runs it.", default=None)
    report: ReportSettings = setting("Where runs are reported.", default_factory=ReportSettings)

    def __post_init__(self) -> None:
        from millstream.hadoop_loader.job.checks import problems_of

        problems = problems_of(self)
        if problems:
            raise JobError(problems, origin=f"job {self.name!r}")

    @classmethod
    def load(cls, path: str | Path) -> LoadJob:
        """Read a job file. Raises JobError with every problem of it."""
        from millstream.hadoop_loader.job.reading import read_job_file

        return read_job_file(Path(path))

    @classmethod
    def loads(cls, text: str, *, origin: str = "the job") -> LoadJob:
        """Read a job from TOML text; `origin` is what messages call it. Raises JobError with every problem of it."""
        from millstream.hadoop_loader.job.reading import read_job

        return read_job(text, origin=origin)

    def for_workers(self) -> LoadJob:
        """Return the job as tasks carry it: without the driver's own part, secrets included."""
        return replace(
            self,
            hive=None,
            iceberg=None,
            spark=SparkSettings(),
            schedule=None,
            report=ReportSettings(),
        )

    def resolved(self, environ: Mapping[str, str]) -> LoadJob:
        """Return the job with the text of its secrets looked up, for one run. Raises JobError for those that lack."""
        from millstream.hadoop_loader.job.resolving import resolve

        return resolve(self, environ)
