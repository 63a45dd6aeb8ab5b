"""replay_dead_letters: what could not be read, once more: with today's schemas into its table, or back to a topic.

Into the table it is a load of its own: the letters of a topic become record batches again, at the offsets they had, and
go the way that fetched records go. What still cannot be read becomes a dead letter anew. Rows, new letters, and which
files are done with are one entry of the commit log for each topic, so a letter is replayed once, wherever this is
killed.

To a topic it cannot be more than at least once: the records are there before the log says so. Each carries the header
REPLAYED_FROM with the place it came from, by which a consumer knows one it has seen.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from millstream.core.wire import KafkaError
from millstream.hadoop_loader.commit import ClaimedError, CommitError, LoadDraft, Role
from millstream.hadoop_loader.driver.claim_keeper import ClaimKeeper
from millstream.hadoop_loader.driver.letters import (
    REPLAYED,
    DeadLetter,
    letter_files,
    letter_topics,
    read_letters,
    replayed_document,
)
from millstream.hadoop_loader.driver.report import Outcome
from millstream.hadoop_loader.driver.schemas import RunSchemas
from millstream.hadoop_loader.driver.surroundings import Surroundings
from millstream.hadoop_loader.filesystem import FileSystemError
from millstream.hadoop_loader.splits import FileKind, OffsetRange, StagedFile, UnknownSchema

if TYPE_CHECKING:
    from millstream.hadoop_loader.commit import Claim
    from millstream.hadoop_loader.filesystem import FileSystem
    from millstream.hadoop_loader.job import LoadJob
    from millstream.schemas.client import RegistryClient

REPLAYED_FROM: Final = "millstream.replayed.from"
_SCHEMA_ROUNDS_MAX: Final = 1_000


@dataclass(slots=True)
class ReplayedTopic:
    """Of one topic: letters looked at, those that became rows (or were sent), those that still cannot be read."""

    topic: str
    letters: int = 0
    replayed: int = 0
    still_bad: int = 0
    # Of those that still cannot be read, the reasons and how often each.
    errors: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Replay:
    """How a replay went."""

    run_id: str
    job: str
    destination: str
    target: str  # "table", or the topic the letters were sent to
    outcome: Outcome = Outcome.FAILED
    number: int | None = None
    topics: list[ReplayedTopic] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """What a command that made it ends with."""
        return self.outcome.exit_code

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self) | {"outcome": self.outcome.value, "exit_code": self.exit_code}


def replay_dead_letters(
    job: LoadJob,
    *,
    topics: Iterable[str] | None = None,
    to_topic: str | None = None,
    dry_run: bool = False,
    surroundings: Surroundings | None = None,
) -> Replay:
    """Replay the dead letters of `topics` (all by default) into their tables, or to `to_topic`.

    With `dry_run` letters are only counted. Never raises for what it may meet, as `run_load`.
    """
    world = surroundings or Surroundings()
    replay = Replay(world.run_id(), job.name, job.destination.uri, to_topic or "table")
    try:
        with ExitStack() as stack:
            _run(stack, job, replay, world, None if topics is None else set(topics), to_topic, dry_run=dry_run)
    except ClaimedError as error:
        replay.outcome = Outcome.CLAIMED
        replay.errors.append(str(error))
    except (KafkaError, FileSystemError, CommitError, ValueError, OSError) as error:
        replay.outcome = Outcome.FAILED if replay.number is None else Outcome.PARTIAL
        replay.errors.append(str(error) or type(error).__name__)
    return replay


def _run(
    stack: ExitStack,
    job: LoadJob,
    replay: Replay,
    world: Surroundings,
    wanted: set[str] | None,
    to_topic: str | None,
    *,
    dry_run: bool,
) -> None:
    filesystem = stack.enter_context(world.open_filesystem(job))
    log = world.commit_log(job, filesystem)
    state = log.read()
    names = [topic for topic in letter_topics(state) if wanted is None or topic in wanted]
    if dry_run:
        replay.topics = [
            ReplayedTopic(name, letters=sum(file.rows for file in letter_files(state, name))) for name in names
        ]
    if dry_run or not any(letter_files(state, name) for name in names):
        replay.outcome = Outcome.NOTHING_NEW
        return
    claim = log.claim(Role.LOAD, owner=world.owner(), run_id=replay.run_id)
    stack.callback(_release, claim)
    stack.enter_context(ClaimKeeper(claim, world.settings(job).renewal_interval_s))
    log.clean(claim)
    registry = None if job.registry is None else stack.enter_context(job.registry.client())
    number = 0
    for name in names:
        told = ReplayedTopic(name)
        # A topic that was deleted and created anew has letters of two, at the same offsets: an entry for each.
        by_id = {file.topic_id: file for file in letter_files(claim.state, name)}
        for topic_id in by_id:
            sources = [file for file in letter_files(claim.state, name) if file.topic_id == topic_id]
            letters = [letter for file in sources for letter in read_letters(filesystem, file.path)]
            told.letters += len(letters)
            still_bad = told.still_bad
            schemas = RunSchemas(job, claim.state.schemas, registry)
            staged: tuple[StagedFile, ...] = ()
            if to_topic is not None:
                _send(job, to_topic, letters)
                told.replayed += len(letters)
            else:
                staged = _decoded(job, filesystem, claim, number, letters, topic_id, schemas, registry, told)
            number += 1
            if to_topic is None and told.still_bad - still_bad == len(letters):
                # Nothing came of them: they stay the letters that they are.
                continue
            document = replayed_document(claim.state, name, sources)
            draft = LoadDraft(
                files=staged,
                schemas={**schemas.changed, f"{REPLAYED}{name}": document},
                report={"job": job.name, "outcome": "replayed", "rows": told.replayed if to_topic is None else 0},
            )
            replay.number = log.commit(claim, draft).number
        if by_id:
            replay.topics.append(told)
    replay.outcome = Outcome.PARTIAL if any(one.still_bad for one in replay.topics) else Outcome.LOADED
    log.clean(claim)


def _decoded(
    job: LoadJob,
    filesystem: FileSystem,
    claim: Claim,
    number: int,
    letters: list[DeadLetter],
    topic_id: str,
    schemas: RunSchemas,
    registry: RegistryClient | None,
    told: ReplayedTopic,
) -> tuple[StagedFile, ...]:
    """Write the letters' rows, and those that still cannot be read, to staging."""
    from millstream.hadoop_loader.running.errors import TopicUnreadableError
    from millstream.hadoop_loader.running.range_state import RangeState
    from millstream.hadoop_loader.running.sorting_out import Sorter
    from millstream.hadoop_loader.values import UnknownSchemaError
    from millstream.hadoop_loader.writing import OpenFiles

    schemas.prepare(told.topic)
    for attempt in range(_SCHEMA_ROUNDS_MAX):
        tables = {told.topic: schemas.tables[told.topic]}
        closed = {table.name: claim.state.closed_directories(table.name) for table in tables[told.topic].tables()}
        files = OpenFiles(
            filesystem,
            claim.staging(number, attempt),
            limits=job.limits,
            encoding=job.encoding,
            memory_bytes_max=job.worker_memory_bytes // 2,
        )
        try:
            sorter = Sorter(job, tables, closed, registry, files)
            states = []
            for partition, group in groupby(sorted(letters, key=_place), key=lambda letter: letter.partition):
                some = list(group)
                first, last = some[0].offset, some[-1].offset
                states.append(RangeState(OffsetRange(told.topic, topic_id, partition, -1, first, last + 1)))
                for fetched in _as_fetched(some):
                    sorter.sort(states[-1], fetched)
            staged = tuple(files.finish())
        except UnknownSchemaError as error:
            refused = schemas.learn([UnknownSchema(error.topic, error.schema_id, error.schema)])
            if refused:
                raise ValueError(refused[told.topic]) from error
            continue
        except TopicUnreadableError as error:
            raise ValueError(f"{told.topic}: {error}") from error
        finally:
            files.abandon()
        told.replayed += sum(state.rows for state in states)
        told.still_bad += sum(state.bad for state in states)
        for file in staged:
            if file.kind is FileKind.DEAD_LETTERS:
                for letter in read_letters(filesystem, file.path):
                    told.errors[letter.error] = told.errors.get(letter.error, 0) + 1
        return staged
    raise ValueError(f"{told.topic}: letters met unknown schemas {_SCHEMA_ROUNDS_MAX} times")


def _place(letter: DeadLetter) -> tuple[int, int]:
    return letter.partition, letter.offset


def _as_fetched(letters: list[DeadLetter]) -> Iterable[Any]:
    """Make record batches of a partition's letters again, one for each since their offsets have gaps."""
    from millstream.core.client import TopicPartition
    from millstream.core.client.consumer import FetchedRecords
    from millstream.core.records import BatchBuilder, RecordColumns
    from millstream.hadoop_loader.values.fetched import LOCATED_ROWS, fetched_rows

    batches = bytearray()
    for letter in letters:
        builder = BatchBuilder(base_offset=letter.offset)
        builder.append(letter.timestamp_ms, letter.key, letter.value, letter.headers)
        batches += builder.build()
    first, last = letters[0], letters[-1]
    piece = FetchedRecords(
        TopicPartition(first.topic, first.partition),
        memoryview(bytes(batches)),
        offset=first.offset,
        next_offset=last.offset + 1,
        record_count=len(letters),
    )
    yield from fetched_rows(piece, last.offset + 1, RecordColumns(LOCATED_ROWS))


def _send(job: LoadJob, to_topic: str, letters: list[DeadLetter]) -> None:
    """Send the letters' records; returns once all of them are acknowledged. Raises KafkaError."""
    from millstream.core.columns.blocking_producer import Producer

    with Producer(job.source.client_configs()) as producer:
        handles = []
        for letter in letters:
            place = f"{letter.topic}/{letter.partition}/{letter.offset}".encode()
            handles.append(
                producer.send(
                    to_topic,
                    letter.value,
                    key=letter.key,
                    timestamp_ms=letter.timestamp_ms if letter.timestamp_ms >= 0 else None,
                    headers=[*letter.headers, (REPLAYED_FROM, place)],
                )
            )
        for handle in handles:
            handle.result(job.source.timeout_s)


def _release(claim: Claim) -> None:
    with suppress(CommitError, FileSystemError, OSError):
        claim.release()
