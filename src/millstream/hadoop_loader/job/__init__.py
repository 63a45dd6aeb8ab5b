"""A job: what to load, from where, to where and how, as frozen values and as a TOML file.

load_job.py   LoadJob, the whole           source.py, records.py, destination.py, files.py, running.py   its parts
setting.py    what a field may hold        problem.py   what is wrong, all at once      secret.py   never shown
documents.py  its TOML files, lines.py     checks.py    limits, and what goes together  resolving.py  secrets looked up
reading.py    from there to a LoadJob      reference.py  the table in the documentation offsets.py   of partitions
"""

from millstream.hadoop_loader.job.destination import (
    DestinationSettings,
    HiveSettings,
    IcebergSettings,
    KerberosSettings,
)
from millstream.hadoop_loader.job.files import (
    AvroSettings,
    CompactionSettings,
    EncodingSettings,
    FileLimits,
    LateSettings,
    ParquetSettings,
    Partitioning,
)
from millstream.hadoop_loader.job.load_job import LoadJob
from millstream.hadoop_loader.job.problem import JobError, Problem
from millstream.hadoop_loader.job.reading import read_resolved
from millstream.hadoop_loader.job.records import METADATA_COLUMNS, BadRecords, ValueSettings
from millstream.hadoop_loader.job.running import ReportSettings, ScheduleSettings, SparkSettings
from millstream.hadoop_loader.job.secret import Secret
from millstream.hadoop_loader.job.source import RegistrySettings, SourceSettings

__all__ = [
    "METADATA_COLUMNS",
    "AvroSettings",
    "BadRecords",
    "CompactionSettings",
    "DestinationSettings",
    "EncodingSettings",
    "FileLimits",
    "HiveSettings",
    "IcebergSettings",
    "JobError",
    "KerberosSettings",
    "LateSettings",
    "LoadJob",
    "ParquetSettings",
    "Partitioning",
    "Problem",
    "RegistrySettings",
    "ReportSettings",
    "ScheduleSettings",
    "Secret",
    "SourceSettings",
    "SparkSettings",
    "ValueSettings",
    "read_resolved",
]
