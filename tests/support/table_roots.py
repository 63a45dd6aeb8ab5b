"""A table root on this machine's disk with loads committed to it, as small as tests want them."""

from __future__ import annotations

import io
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq

from millstream.core._kernels.crc32c import crc32c
from millstream.hadoop_loader.commit import Claim, CommitLog, LoadDraft, Role
from millstream.hadoop_loader.filesystem import FileSystem, LocalFileSystem
from millstream.hadoop_loader.splits import FileKind, StagedFile

TOPIC, TOPIC_ID = "orders", "b3JkZXJzb3JkZXJzb3JkZQ"


def commit_log(filesystem: FileSystem) -> CommitLog:
    """Return the log of a root."""
    return CommitLog(
        filesystem,
        monotonic=time.monotonic,
        wait=time.sleep,
        now_ms=lambda: time.time_ns() // 1_000_000,
        random=random.Random(7),
    )


class TableRoot:
    """A root with one table; each `load` commits files to one of its directories."""

    def __init__(self, folder: Path, filesystem: FileSystem | None = None) -> None:
        """Have it in `folder`; with a file system there, and nothing in the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.filesystem: FileSystem = LocalFileSystem(str(folder)) if filesystem is None else filesystem
        self.log = commit_log(self.filesystem)
        self._runs = 0
        self._offsets: dict[int, int] = {}

    def claim(self, role: Role) -> Claim:
        """Take a role for a run of its own."""
        self._runs += 1
        return self.log.claim(role, owner="test", run_id=f"run-{self._runs}")

    def load(
        self,
        files: Sequence[tuple[int, str, bytes, int]],
        *,
        directory: str = "day=1",
        closed: bool = True,
        topic: str = TOPIC,
        topic_id: str = "",
        kind: FileKind = FileKind.DATA,
        at_ms: int = 0,
        schema_versions: Sequence[int] = (),
        first_offsets: Sequence[int] = (),
        schemas: Mapping[str, Any] | None = None,
    ) -> None:
        """Commit files: (partition, format, contents, rows), with records of about `at_ms`.

        `topic_id` is the topic's own if none is given; `schema_versions` and `first_offsets` are those of the files, by
        default behind all that their partitions had; `schemas` are documents of topics.
        """
        topic_id = topic_id or (TOPIC_ID if topic == TOPIC else f"id-of-{topic}")
        claim = self.claim(Role.LOAD)
        staging = claim.staging(0, 0)
        staged: list[StagedFile] = []
        for number, (partition, format_, contents, rows) in enumerate(files):
            path = f"{staging}/{number}.{format_}"
            with self.filesystem.create(path) as file:
                file.write(contents)
            first = first_offsets[number] if first_offsets else self._offsets.get(partition, 0)
            self._offsets[partition] = first + rows
            staged.append(
                StagedFile(
                    path=path,
                    table=topic,
                    directory=directory,
                    format=format_,
                    topic=topic,
                    topic_id=topic_id,
                    partition=partition,
                    first_offset=first,
                    last_offset=first + rows - 1,
                    rows=rows,
                    length=len(contents),
                    checksum=f"crc32c:{crc32c(contents):08x}",
                    min_timestamp_ms=at_ms + first,
                    max_timestamp_ms=at_ms + first + rows,
                    kind=kind,
                    schema_version=schema_versions[number] if schema_versions else 1,
                )
            )
        formats = {format_ for _, format_, _, _ in files}
        self.log.commit(
            claim,
            LoadDraft(
                topics={topic_id: topic},
                files=tuple(staged),
                schemas=schemas or {},
                closed=tuple(f"{topic}/{format_}/{directory}" for format_ in sorted(formats)) if closed else (),
            ),
        )
        claim.release()

    def staged(self) -> list[Path]:
        """What is in staging, of whatever claim."""
        return [path for path in (self.folder / "_millstream" / "staging").rglob("*") if path.is_file()]

    def paths(self, format_: str, directory: str = "day=1") -> list[Path]:
        """The files that readers of the directory see."""
        return sorted((self.folder / TOPIC / format_ / directory).glob(f"*.{format_}"))


def parquet_bytes(table: pa.Table, **options: Any) -> bytes:
    """Return a Parquet file."""
    out = pa.BufferOutputStream()
    pq.write_table(table, out, **options)
    return bytes(out.getvalue())


def avro_bytes(
    schema: Any, rows: Iterable[dict[str, Any]], *, codec: str = "deflate", block_bytes: int = 16_000
) -> bytes:
    """Return an Avro container file."""
    out = io.BytesIO()
    fastavro.writer(out, fastavro.parse_schema(schema), rows, codec=codec, sync_interval=block_bytes)
    return out.getvalue()
