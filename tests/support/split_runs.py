"""One split, run in this process: records into a topic, run_split over it, and the files read by other readers."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import fastavro
import pyarrow.parquet as pq
from tests.support import loads  # for its reader of zstandard blocks

from millstream import Admin, Consumer, Producer, TopicPartition
from millstream.core.client.admin import NewTopic
from millstream.hadoop_loader.filesystem import FileSystemSettings, open_filesystem
from millstream.hadoop_loader.job import DestinationSettings, LoadJob, Partitioning, RegistrySettings, SourceSettings
from millstream.hadoop_loader.running import run_split
from millstream.hadoop_loader.splits import FileKind, OffsetRange, Split, SplitResult, SplitTask, StagedFile
from millstream.hadoop_loader.tables import TableVersion

assert loads.FIRST_MS

NO_REGISTRY = RegistrySettings(urls=("http://127.0.0.1:9",))


class Record:
    """A record to produce."""

    def __init__(
        self,
        value: bytes | None,
        *,
        key: bytes | None = None,
        timestamp_ms: int = loads.FIRST_MS,
        partition: int = 0,
        headers: Sequence[tuple[str, bytes | None]] = (),
    ) -> None:
        self.value = value
        self.key = key
        self.timestamp_ms = timestamp_ms
        self.partition = partition
        self.headers = list(headers)


class SplitTopic:
    """A topic of a test's own, and splits over it."""

    def __init__(self, bootstrap: str, name: str, root: Path, partitions: int = 1) -> None:
        self.bootstrap = bootstrap
        self.name = name
        self.root = root
        self.partitions = partitions
        with Admin(bootstrap) as admin:
            configs = {"retention.ms": "-1", "message.timestamp.after.max.ms": str(2**63 - 1)}
            admin.create_topics([NewTopic(name, partitions, 1, configs)])

    def send(self, records: Sequence[Record], **configs: Any) -> None:
        """Append records."""
        with Producer(self.bootstrap, **configs) as producer:
            for one in records:
                producer.send(
                    self.name,
                    one.value,
                    key=one.key,
                    partition=one.partition,
                    timestamp_ms=one.timestamp_ms,
                    headers=one.headers,
                )
            producer.flush()

    def ranges(self) -> tuple[OffsetRange, ...]:
        """Return all there is of each partition."""
        with Consumer(self.bootstrap) as consumer:
            topic_id = base64.urlsafe_b64encode(consumer.topics()[self.name].topic_id).rstrip(b"=").decode()
            tps = [TopicPartition(self.name, partition) for partition in range(self.partitions)]
            ends = consumer.end_offsets(tps)
        return tuple(OffsetRange(self.name, topic_id, tp.partition, -1, 0, ends[tp]) for tp in tps)

    def job(self, **given: Any) -> LoadJob:
        """Return a job over the topic."""
        formats = given.pop("formats", {"avro", "parquet"})
        source = {
            "bootstrap_servers": self.bootstrap,
            "topics": (self.name,),
            "timeout_s": 30.0,
            **given.pop("source", {}),
        }
        return LoadJob(
            name="test",
            source=SourceSettings(**source),
            registry=NO_REGISTRY,
            destination=DestinationSettings(uri=f"file://{self.root}", formats=frozenset(formats)),
            **{"partitioning": Partitioning(kind="none"), **given},
        )

    def run(
        self,
        job: LoadJob,
        table: TableVersion,
        ranges: Sequence[OffsetRange] | None = None,
        *,
        closed: Mapping[str, frozenset[str]] | None = None,
        registry: Any = None,
        **given: Any,
    ) -> Outcome:
        """Run one split over these ranges, by default over all there is."""
        number = sum(1 for _ in self.root.iterdir())
        staging = f"staging-{number}"
        wanted = self.ranges() if ranges is None else tuple(ranges)
        with open_filesystem(f"file://{self.root}", FileSystemSettings()) as filesystem:
            filesystem.make_directory(staging)
            task = SplitTask(job, Split(0, wanted), 0, staging, "run", {self.name: table}, closed or {})
            return Outcome(run_split(task, filesystem, registry=registry, **given), self.root)


class Outcome:
    """What a split came to, and what is in its files."""

    def __init__(self, result: SplitResult, root: Path) -> None:
        self.result = result
        self._root = root

    def files(self, format_: str, kind: FileKind = FileKind.DATA) -> list[StagedFile]:
        """Return the files of one kind."""
        return [file for file in self.result.files if (file.format, file.kind) == (format_, kind)]

    def rows(self, format_: str, kind: FileKind = FileKind.DATA) -> list[tuple[str, dict[str, Any]]]:
        """Return rows with their directories, by fastavro and pyarrow."""
        found: list[tuple[str, dict[str, Any]]] = []
        for file in self.files(format_, kind):
            found += [(file.directory, row) for row in self.rows_of(file)]
        return found

    def rows_of(self, file: StagedFile) -> list[dict[str, Any]]:
        """Return the rows of one file."""
        path = self._root / file.path
        content: list[Any]
        if file.format == "parquet":
            content = pq.read_table(path).to_pylist()
        else:
            with path.open("rb") as opened:
                content = list(fastavro.reader(opened))
        assert len(content) == file.rows, file
        return content

    def dead_letters(self) -> list[dict[str, Any]]:
        """Return the dead letters by their offsets."""
        return sorted((row for _, row in self.rows("avro", FileKind.DEAD_LETTERS)), key=lambda row: row["offset"])
