"""[partitioning], [late], [limits], [encoding], [compaction]: into which directories and files rows go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from millstream.hadoop_loader.job.setting import setting

# Directories of these, in time patterns, by their short names.
TIME_PATTERNS: Final = {
    "monthly": "year=%Y/month=%m",
    "daily": "year=%Y/month=%m/day=%d",
    "hourly": "year=%Y/month=%m/day=%d/hour=%H",
}
TIME_DIRECTIVES: Final = "YmdHM"

MB: Final = 2**20
GB: Final = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Partitioning:
    """Which directory, below TABLE/FORMAT, a record's row goes to."""

    kind: str = setting(
        "`time`: by record time or a field, `fields`: by values of fields (Hive's `key=value`), `kafka`: by Kafka"
        " partition, `none`: one directory.",
        default="time",
        choices=("time", "fields", "kafka", "none"),
    )
    pattern: str = setting(
        "Of `time`: `monthly`, `daily`, `hourly`, or directories with %Y %m %d %H %M in them, from coarse to fine;"
        " `daily` is `year=%Y/month=%m/day=%d`.",
        default="daily",
        example='"dt=%Y-%m-%d/hour=%H"',
    )
    zone: str = setting("Of `time`: the zone whose clock names the directories, as in `Europe/Berlin`.", default="UTC")
    timestamp: str = setting(
        "Of `time`: `record` for the record's own timestamp, or the name of a field: a timestamp, a date, a number, or"
        " text as in ISO 8601. Dates, local timestamps and text without an offset are what the clock of `zone` shows.",
        default="record",
    )
    timestamp_unit: str = setting(
        "Of `time` by a field that is a plain number: its unit, since 1970.",
        default="ms",
        choices=("s", "ms", "us", "ns"),
    )
    fields: tuple[str, ...] = setting(
        "Of `fields`: the fields, outermost directory first. Of `time`: fields whose directories those of time lie in.",
        default=(),
        example='["country", "city"]',
    )

    @property
    def time_pattern(self) -> str:
        """The pattern with its short name spelt out."""
        return TIME_PATTERNS.get(self.pattern, self.pattern)


@dataclass(frozen=True, slots=True, kw_only=True)
class LateSettings:
    """When a time directory is closed, and what becomes of records that come for it later.

    The watermark of a topic is the least, over its partitions, of the latest record time loaded. It only grows.
    """

    close_after_s: float = setting(
        "A time directory is closed once the watermark is so far behind its end.", default=3600.0, at_least=0
    )
    policy: str = setting(
        "`separate` puts late rows into the same directory below TABLE.late, `append` adds files to the closed"
        " directory, `dead_letters` treats them as bad records.",
        default="separate",
        choices=("separate", "append", "dead_letters"),
    )
    idle_partitions: str = setting(
        "`ignore`: a partition that brought nothing new and has nothing left to load does not hold the watermark back;"
        " `wait`: every partition that ever had a record does.",
        default="ignore",
        choices=("ignore", "wait"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FileLimits:
    """When a file is full; the first limit reached closes it. Every file is closed at the end of a run."""

    bytes: int = setting("Bytes of a file, about.", default=512 * MB, at_least=64 * 1024)
    rows: int | None = setting("Rows of a file.", default=None, at_least=1)
    age_s: float | None = setting(
        "Record time between a file's first and last record (not wall time: the same records make the same files).",
        default=None,
        at_least=0.001,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ParquetSettings:
    """How Parquet files are encoded."""

    codec: str = setting("Compression.", default="zstd", choices=("zstd", "snappy", "gzip", "lz4", "brotli", "none"))
    level: int | None = setting(
        "Level of the compression; the codec's default otherwise.", default=1, at_least=1, at_most=22
    )
    row_group_bytes: int = setting("Bytes of a row group before compression, about.", default=64 * MB, at_least=MB)
    row_group_rows: int = setting("Rows of a row group, at most.", default=1_000_000, at_least=1000)
    page_bytes: int = setting("Bytes of a data page before compression, about.", default=128 * 1024, at_least=8 * 1024)
    dictionary: bool = setting("Whether columns with repeated values are dictionary-encoded.", default=True)
    dictionary_columns: tuple[str, ...] = setting(
        "Only these columns are dictionary-encoded; none given: each where it pays.", default=()
    )
    statistics: bool = setting("Whether least and greatest values are kept per row group and column.", default=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class AvroSettings:
    """How Avro container files are encoded."""

    codec: str = setting(
        "Compression of blocks.", default="zstandard", choices=("zstandard", "deflate", "snappy", "bzip2", "xz", "null")
    )
    level: int | None = setting(
        "Level of the compression; the codec's default otherwise.", default=1, at_least=1, at_most=22
    )
    block_bytes: int = setting("Bytes of a block before compression, about.", default=256 * 1024, at_least=1024)


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodingSettings:
    """How files are encoded, per format."""

    parquet: ParquetSettings = setting("How Parquet files are encoded.", default_factory=ParquetSettings)
    avro: AvroSettings = setting("How Avro files are encoded.", default_factory=AvroSettings)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactionSettings:
    """How `millstream load compact` makes few large files of the many small ones of a directory."""

    after_runs: bool = setting(
        "Whether each run that loaded something compacts what it closed (or what is open, with `open_directories`).",
        default=False,
    )
    open_directories: bool = setting(
        "Whether directories that are still open, or never close (those of `fields`, `kafka` and `none`, and of late"
        " records), are compacted too: their small files only, one by one.",
        default=False,
    )
    target_file_size_bytes: int = setting("Bytes of a compacted file, about.", default=GB, at_least=MB)
    files_min: int = setting("A directory with fewer files is left alone.", default=2, at_least=1)
    sort_by: str | None = setting(
        "Of Parquet: the column that the rows of a directory are sorted by, over all its files, so that files and row"
        " groups hold ranges of it that do not overlap.",
        default=None,
    )
    deduplicate_by: tuple[str, ...] = setting(
        "Of Parquet: columns that identify a row; of rows of one Kafka partition that are alike in them the one with"
        " the latest offset is kept. Needs `partition` and `offset` in `metadata_columns`. Avro files keep every row.",
        default=(),
        example='["id"]',
    )
    memory_bytes: int = setting(
        "Memory that compaction may take; of `workers` directories at once each gets its share, 256 MB at least.",
        default=GB,
        at_least=64 * MB,
    )
