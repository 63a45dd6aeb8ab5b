"""What the log comes to at one number: the fold of its entries, files apart."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from millstream.hadoop_loader.commit.entries import Entry, EntryKind, Position, Role, Totals
from millstream.hadoop_loader.commit.inventory import Inventory

REPORTS_KEPT: Final = 20


class ClaimRecord(NamedTuple):
    """The last claim of a role: who made it, and where it is in the log."""

    role: Role
    epoch: int
    number: int
    run_id: str
    owner: str
    at_ms: int


@dataclass(slots=True)
class TableState:
    """The state of a table root at `number`; owned by whoever read it, and moved on by `fold` alone.

    Positions move back only where a topic was truncated and the job says to go on there, or is loaded anew.
    """

    # The last entry folded in; 0 for a root nobody has claimed yet.
    number: int = 0
    cluster_id: str = ""
    # The highest epoch any claim had. Each claim, of whatever role, takes the next one.
    epoch: int = 0
    claims: dict[Role, ClaimRecord] = field(default_factory=dict)
    topics: dict[str, str] = field(default_factory=dict)  # topic id -> name
    positions: dict[str, dict[int, Position]] = field(default_factory=dict)
    # The highest record time seen in each partition: what closing directories and lateness follow.
    watermarks: dict[str, dict[int, int]] = field(default_factory=dict)
    # "TABLE/FORMAT" -> directories below it that got files and were not closed yet; never "TABLE.late/...".
    open: dict[str, set[str]] = field(default_factory=dict)
    # "TABLE/FORMAT" -> its closed directories, below it.
    closed: dict[str, set[str]] = field(default_factory=dict)
    # Topic -> the document TABLES keeps for it; opaque here.
    schemas: dict[str, Any] = field(default_factory=dict)
    # "TABLE/FORMAT" or "_dead_letters/TOPIC" -> how much is there.
    totals: dict[str, Totals] = field(default_factory=dict)
    # What the last loads and compactions reported, oldest first: {"number", "kind", "run_id", "at_ms", "report"}.
    reports: deque[Mapping[str, Any]] = field(default_factory=lambda: deque(maxlen=REPORTS_KEPT))
    # Job -> the same of its last load that was a run, which may be no more among `reports`: a compaction alone may have
    # made as many entries. A report with an "audit" is that of a run, and names its "job".
    last_loads: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    # Every visible file, read only when asked for.
    files: Inventory = field(default_factory=Inventory)

    def position(self, topic_id: str, partition: int) -> Position | None:
        """Where the next run goes on, or None for a partition that was never loaded."""
        return self.positions.get(topic_id, {}).get(partition)

    def is_closed(self, directory: str) -> bool:
        """Whether `directory` (relative to the root) was closed."""
        table, format_, below = split_directory(directory)
        return below in self.closed.get(f"{table}/{format_}", ())

    def closed_directories(self, table: str) -> frozenset[str]:
        """The closed directories of a table, below TABLE/FORMAT, of any format."""
        found = (below for key, below in self.closed.items() if key.rpartition("/")[0] == table)
        return frozenset().union(*found)

    def open_directories(self) -> Iterator[str]:
        """The directories (relative to the root) that have files of a table and were not closed yet."""
        for key, directories in self.open.items():
            yield from (f"{key}/{below}" if below else key for below in directories)

    def is_open(self, directory: str) -> bool:
        """Whether `directory` (relative to the root) is among the open ones."""
        table, format_, below = split_directory(directory)
        return below in self.open.get(f"{table}/{format_}", ())

    def outer_directories(self) -> set[str]:
        """The directories (relative to the root) that have others of the table, open or closed, below them."""
        found: set[str] = set()
        for held in (self.open, self.closed):
            for key, directories in held.items():
                for below in directories:
                    parent = f"{key}/{below}" if below else key
                    while parent != key:
                        parent = parent.rpartition("/")[0]
                        found.add(parent)
        return found

    def fold(self, entry: Entry) -> None:
        """Move on by one entry, which must be the next."""
        assert entry.number == self.number + 1, f"entry {entry.number} does not follow {self.number}"
        self.number = entry.number
        if entry.kind is EntryKind.CLAIM:
            assert entry.epoch > self.epoch, f"claim {entry.number} has epoch {entry.epoch}, not over {self.epoch}"
            self.epoch = entry.epoch
            self.claims[entry.role] = ClaimRecord(
                entry.role, entry.epoch, entry.number, entry.run_id, entry.owner, entry.at_ms
            )
        if entry.kind not in {EntryKind.LOAD, EntryKind.COMPACT}:
            return
        self.files.fold(entry)
        self.cluster_id = entry.cluster_id or self.cluster_id
        self.topics.update(entry.topics)
        for topic_id, positions in entry.positions.items():
            self.positions.setdefault(topic_id, {}).update(positions)
        for topic_id, watermarks in entry.watermarks.items():
            self.watermarks.setdefault(topic_id, {}).update(watermarks)
        for directory in entry.opened:
            table, format_, below = split_directory(directory)
            self.open.setdefault(f"{table}/{format_}", set()).add(below)
        for directory in entry.closed:
            table, format_, below = split_directory(directory)
            self.open.get(f"{table}/{format_}", set()).discard(below)
            self.closed.setdefault(f"{table}/{format_}", set()).add(below)
        self.schemas.update(entry.schemas)
        for key, change in entry.totals.items():
            self.totals[key] = self.totals.get(key, Totals()).plus(change)
        self.add_report(
            {
                "number": entry.number,
                "kind": entry.kind.value,
                "run_id": entry.run_id,
                "at_ms": entry.at_ms,
                "report": entry.report,
            }
        )

    def add_report(self, report: Mapping[str, Any]) -> None:
        """Keep what an entry reported, which must be later than those kept."""
        self.reports.append(report)
        if "audit" in report["report"]:
            self.last_loads[report["report"]["job"]] = report


def split_directory(directory: str) -> tuple[str, str, str]:
    """TABLE, FORMAT and what is below of a directory relative to the root."""
    table, _, rest = directory.partition("/")
    format_, _, below = rest.partition("/")
    return table, format_, below


def totals_key(directory: str) -> str:
    """What the totals of a directory's files are kept under: its first two parts."""
    table, _, rest = directory.partition("/")
    return f"{table}/{rest.partition('/')[0]}"
