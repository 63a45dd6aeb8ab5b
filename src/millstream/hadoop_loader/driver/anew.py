"""load_anew: topics from their start once more, at the same root, into tables of other names.

One entry of a load without a file: positions go back to where the job would begin with the topic, watermarks and the
document of its tables are those of a topic that was never loaded, and the document names another table. From there on
it is loaded as a new topic is. Directories of the former tables stay closed, marked and as they are: their readers see
each record once, as before, and move to the new table when it is whole. Dead letters of records that come again are
done with; those of records that the topic holds no more wait on, and are replayed into the new table. `drop_tables`
(`directories.py`) empties former tables when nobody reads them any more.

Which tables are former ones is in the commit log, in the document FORMER + topic.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Collection
from dataclasses import asdict, dataclass, field, replace
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from millstream.hadoop_loader.commit import LoadDraft, Position, Role
from millstream.hadoop_loader.commit.names import LATE_SUFFIX
from millstream.hadoop_loader.driver.claim_keeper import claimed
from millstream.hadoop_loader.driver.closing import NO_TIME
from millstream.hadoop_loader.driver.letters import (
    REPLAYED,
    first_letters,
    letter_files,
    letters_of,
    replayed_document,
)
from millstream.hadoop_loader.driver.problems import outcome_in
from millstream.hadoop_loader.driver.report import Outcome
from millstream.hadoop_loader.driver.surroundings import Surroundings, look_at_topics
from millstream.hadoop_loader.driver.telling import bring_catalogs_up_to_date, catalogs_lack
from millstream.hadoop_loader.source import Severity, reconcile
from millstream.hadoop_loader.source.topics import loads_topic
from millstream.hadoop_loader.tables import all_tables, merge
from millstream.hadoop_loader.tables.naming import (
    FORMER,
    TABLE_NAME_LENGTH_MAX,
    TableNames,
    are_of_one,
    former_tables,
    why_no_table,
)

if TYPE_CHECKING:
    from millstream.hadoop_loader.commit import TableFile, TableState
    from millstream.hadoop_loader.filesystem import FileSystem
    from millstream.hadoop_loader.job import LoadJob

BEGUN_ANEW: Final = "begun anew"
_TABLE: Final = re.compile(rf"(?![._])[A-Za-z0-9._-]{{1,{TABLE_NAME_LENGTH_MAX}}}")


class CannotBeginError(ValueError):
    """A topic that cannot be loaded anew as it was asked for; the message says why, and what to do."""


@dataclass(slots=True)
class AnewRun:
    """What became of it. Outcome LOADED: the topic begins anew with the next run."""

    run_id: str
    job: str
    destination: str
    topic: str
    table: str
    outcome: Outcome = Outcome.FAILED
    number: int | None = None
    # That it had until now, as they are: all generations, and those of late records.
    former_tables: list[str] = field(default_factory=list)
    # Partition -> where the next run begins, and how many offsets that is in all.
    start_offsets: dict[int, int] = field(default_factory=dict)
    offsets: int = 0
    # In the former tables, in one format; more than there are offsets where the topic holds some of it no more.
    former_rows: int = 0
    # Dead letters that are done with.
    letters: int = 0
    errors: list[str] = field(default_factory=list)
    # Nothing to be done at once.
    notes: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """What a command that made this run ends with."""
        return self.outcome.exit_code

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self) | {"outcome": self.outcome.value, "exit_code": self.exit_code}


def load_anew(
    job: LoadJob,
    topic: str,
    table: str,
    *,
    dry_run: bool = False,
    stop: threading.Event | None = None,
    surroundings: Surroundings | None = None,
) -> AnewRun:
    """Have the next run load `topic` from its start into `table`, and return how it went; never raises, as `run_load`.

    With `dry_run` nothing is changed, and the outcome of what would be is NOTHING_NEW.
    """
    world, stop = surroundings or Surroundings(), stop or threading.Event()
    run = AnewRun(world.run_id(), job.name, job.destination.uri, topic, table)
    with outcome_in(run, ValueError):
        with world.open_filesystem(job) as filesystem:
            log = world.commit_log(job, filesystem, stop=stop)
            if dry_run:
                _draft(job, filesystem, log.read(), run)
                run.outcome = Outcome.NOTHING_NEW
                return run
            # Looked at first: what is wrong with it need not wait for another run's claim.
            _why_not(job, log.read(), topic, table)
            with claimed(world, job, log, Role.LOAD, run.run_id) as claim:
                draft = _draft(job, filesystem, claim.state, run)
                _tell_catalogs(job, filesystem, claim.state, run)
                run.number = log.commit(claim, draft).number
        run.outcome = Outcome.LOADED
    return run


def _draft(job: LoadJob, filesystem: FileSystem, state: TableState, run: AnewRun) -> LoadDraft:
    """Put the entry together, and say in `run` what it comes to. Raises CannotBeginError, and what `MET` names."""
    topic = run.topic
    _why_not(job, state, topic, run.table)
    topic_id, positions, run.offsets = _start(job, state, topic)
    run.start_offsets = {partition: position.offset for partition, position in sorted(positions.items())}
    held = all_tables(state.schemas.get(topic), topic)
    run.former_tables = [one.name + suffix for one in held for suffix in ("", LATE_SUFFIX)]
    rows = {name: found for name in run.former_tables if (found := _rows(state, name)) is not None}
    run.former_tables, run.former_rows = list(rows), sum(rows.values())
    schemas: dict[str, Any] = {
        topic: merge(None, {}, topic=topic, name=run.table).document,
        f"{FORMER}{topic}": {"tables": [*former_tables(state.schemas, topic), *run.former_tables]},
    }
    if document := _letters(filesystem, state, topic_id, run):
        schemas[f"{REPLAYED}{topic}"] = document
    return LoadDraft(
        topics={topic_id: topic},
        positions={topic_id: positions},
        watermarks={topic_id: dict.fromkeys(state.watermarks.get(topic_id, {}), NO_TIME)},
        schemas=schemas,
        report={"job": job.name, "outcome": BEGUN_ANEW, "topic": topic, "table": run.table},
    )


def _tell_catalogs(job: LoadJob, filesystem: FileSystem, state: TableState, run: AnewRun) -> None:
    """Have catalogs know all of the tables that nobody tells them of any more. Raises CannotBeginError."""
    if not run.former_tables or not catalogs_lack(job, filesystem, state):
        return
    told = bring_catalogs_up_to_date(job, filesystem, state, run.run_id)
    if told.fails:
        raise CannotBeginError("; ".join(told.problems))
    run.notes += told.problems


def _letters(filesystem: FileSystem, state: TableState, topic_id: str, run: AnewRun) -> dict[str, Any] | None:
    """The document of the topic's letters without those of records that come again; None where there are none."""
    done: list[TableFile] = []
    cut: list[TableFile] = []
    for file in letter_files(state, run.topic):
        start = run.start_offsets.get(file.partition, 0)
        if file.topic_id != topic_id or file.last_offset < start:
            continue
        run.letters += file.rows
        if file.first_offset >= start:
            done.append(file)
        else:
            rows = sum(letter.offset < start for letter in letters_of(filesystem, file))
            run.letters -= rows
            cut.append(first_letters(file, start, rows))
    return replayed_document(state, run.topic, done, cut) if done or cut else None


def _why_not(job: LoadJob, state: TableState, topic: str, table: str) -> None:
    """Raise CannotBeginError where the topic, or its table's new name, is not to be had."""
    if not loads_topic(job.source, topic):
        raise CannotBeginError(f"{topic!r} is no topic of job {job.name}; name one of source.topics")
    if topic not in state.topics.values():
        raise CannotBeginError(f"topic {topic} was never loaded here: `millstream load run` begins with it")
    if job.source.start_group is not None and job.source.start_group == job.source.group:
        raise CannotBeginError(
            f"source.start_group is {job.source.group}, to which this job commits how far it has come: topic {topic}"
            " would begin there; take source.start_group out, or change source.group"
        )
    if _TABLE.fullmatch(table) is None:
        raise CannotBeginError(
            f"{table!r} is no name of a table; use letters, digits, '.', '_' and '-', up to {TABLE_NAME_LENGTH_MAX} of"
            " them, the first no '.' and no '_': those are hidden from readers"
        )
    names = TableNames(job.destination.table_names, {**state.schemas, topic: {"table": table}})
    # All that are at the root, or were.
    there = {key.partition("/")[0] for key in (*state.totals, *state.closed, *state.open)}
    there |= {names.of(one) for one in state.topics.values() if one != topic} | names.former
    if taken := _meeting(there, table):
        number = next(number for number in count(2) if _meeting(there, f"{topic}_{number}") is None)
        raise CannotBeginError(f"table {table}: {taken} is there already; give another name, such as {topic}_{number}")
    if (job.hive or job.iceberg) and (alike := _alike_in_catalogs(there, table)):
        raise CannotBeginError(f"table {table}: catalogs would call it as they do {alike}; give another name")
    if reason := why_no_table(topic, set(state.topics.values()), names=names):
        raise CannotBeginError(f"table {table}: {reason}")


def _alike_in_catalogs(there: Collection[str], table: str) -> str | None:
    """One of the tables that has the name there that `table` would get, and with it what is said of the other."""
    from millstream.hadoop_loader.catalogs.hive import hive_name

    wanted = {hive_name(table), hive_name(table + LATE_SUFFIX)}
    return next((one for one in sorted(there) if hive_name(one) in wanted), None)


def _meeting(there: Collection[str], table: str) -> str | None:
    """One of the tables that would share a directory with those of `table`, if there is one."""
    return next((one for one in sorted(there) if are_of_one(one, table) or are_of_one(table, one)), None)


def _rows(state: TableState, table: str) -> int | None:
    """How many rows a table has, in the format that has the most; None where there never was such a table."""
    return max((held.rows for key, held in state.totals.items() if key.rpartition("/")[0] == table), default=None)


def _start(job: LoadJob, state: TableState, topic: str) -> tuple[str, dict[int, Position], int]:
    """The topic's id, where its partitions begin for a job that never loaded it, and the offsets from there."""
    without = replace(
        state,
        topics={topic_id: name for topic_id, name in state.topics.items() if name != topic},
        positions={one: held for one, held in state.positions.items() if state.topics.get(one) != topic},
    )
    snapshot = look_at_topics(job, without)
    found = reconcile(
        snapshot,
        job.source,
        cluster_id=state.cluster_id,
        topics=without.topics,
        positions=without.positions,
    )
    told = [one for one in found.findings if one.severity is not Severity.NOTE and one.topic in ("", topic)]
    if told:
        # As a partition that does not answer now: it would be taken for one that was added later, and begin elsewhere.
        raise CannotBeginError(str(told[0]))
    topic_id = next((one for one, name in found.topics.items() if name == topic), None)
    if topic_id is None:
        # A pattern's topic that is gone, and that nothing says was loaded, is none that anybody misses.
        raise CannotBeginError(f"topic {topic} is not there any more: nothing of it could be loaded anew")
    offsets = sum(one.end_offset - one.start_offset for one in found.ranges if one.topic_id == topic_id)
    return topic_id, found.moved[topic_id], offsets
