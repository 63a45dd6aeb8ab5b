"""The loader's commit log: every change of a table root, exactly once, whoever crashes where.

Read `docs/design.md` for the protocol's rules; `names` for where things lie; `entries` for what is written.
"""

from millstream.hadoop_loader.commit.claims import Claim
from millstream.hadoop_loader.commit.entries import (
    AddedFile,
    CompactDraft,
    CompactedDirectory,
    DirectorySwap,
    Entry,
    EntryKind,
    LoadDraft,
    Position,
    Role,
    TableFile,
    Totals,
)
from millstream.hadoop_loader.commit.errors import (
    ClaimedError,
    CommitError,
    CompactionConflictError,
    CorruptLogError,
    FencedError,
    LostFileError,
    UnappliedError,
    UnsettledError,
)
from millstream.hadoop_loader.commit.log import CommitLog, CommitSettings
from millstream.hadoop_loader.commit.names import final_directory, table_directory
from millstream.hadoop_loader.commit.snapshot import Snapshot, dataset
from millstream.hadoop_loader.commit.state import ClaimRecord, TableState

__all__ = [
    "AddedFile",
    "Claim",
    "ClaimRecord",
    "ClaimedError",
    "CommitError",
    "CommitLog",
    "CommitSettings",
    "CompactDraft",
    "CompactedDirectory",
    "CompactionConflictError",
    "CorruptLogError",
    "DirectorySwap",
    "Entry",
    "EntryKind",
    "FencedError",
    "LoadDraft",
    "LostFileError",
    "Position",
    "Role",
    "Snapshot",
    "TableFile",
    "TableState",
    "Totals",
    "UnappliedError",
    "UnsettledError",
    "dataset",
    "final_directory",
    "table_directory",
]
