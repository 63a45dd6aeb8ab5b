"""replay_dead_letters: what could not be read, once more: with today's schemas into its table, or back to a topic.

Into the table it is a load of its own: letters become record batches again, at the offsets they had, and go the way
that fetched records go. What still cannot be read becomes a dead letter anew, also where the job's runs skip such
records. They are read piece by piece, so memory is that of a worker, however many wait. Rows, new letters, and which
files are done with are one entry of the commit log for some files at a time, so a letter is replayed once, wherever
this is killed. What does not add up is not committed: each letter is a row, a letter again, or a tombstone left out.

To a topic it cannot be more than at least once: the records are there before the log says so. Each carries the header
REPLAYED_FROM with the place it came from, by which a consumer knows one it has seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from millstream.hadoop_loader.commit import LoadDraft, Role
from millstream.hadoop_loader.driver.claim_keeper import claimed
from millstream.hadoop_loader.driver.letters import (
    REPLAYED,
    DeadLetter,
    letter_files,
    letter_topics,
    letters_of,
    read_letters,
    replayed_document,
    waiting_letters,
)
from millstream.hadoop_loader.driver.problems import outcome_in
from millstream.hadoop_loader.driver.report import Outcome
from millstream.hadoop_loader.driver.schemas import RunSchemas
from millstream.hadoop_loader.driver.surroundings import Surroundings
from millstream.hadoop_loader.source.topics import loads_topic
from millstream.hadoop_loader.splits import FileKind, OffsetRange, StagedFile, UnknownSchema

if TYPE_CHECKING:
    from millstream.hadoop_loader.commit import Claim, CommitLog, TableFile
    from millstream.hadoop_loader.filesystem import FileSystem
    from millstream.hadoop_loader.job import LoadJob
    from millstream.hadoop_loader.tables import TableVersion
    from millstream.schemas.client import RegistryClient

REPLAYED_FROM: Final = "millstream.replayed.from"
_SCHEMA_ROUNDS_MAX: Final = 1_000
# Of letters' files that one entry does away with, and of letters that are in memory at a time.
_BATCH_BYTES: Final = 64 * 2**20
_PIECE_LETTERS: Final = 1_000
_PIECE_BYTES: Final = 8 * 2**20
# Of a topic's letters that a dry run looks into.
LOOKED_AT: Final = 10_000


@dataclass(slots=True)
class ReplayedTopic:
    """Of one topic: letters looked at, those that became rows (or were sent), those that still cannot be read."""

    topic: str
    letters: int = 0
    replayed: int = 0
    still_bad: int = 0
    # Of those that still cannot be read (of a dry run: of those that wait), the reasons and how often each; and where
    # one of each is.
    errors: dict[str, int] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)

    def note(self, letter: DeadLetter) -> None:
        """Count a letter by its reason."""
        self.errors[letter.error] = self.errors.get(letter.error, 0) + 1
        self.places.setdefault(letter.error, f"partition {letter.partition}, offset {letter.offset}")


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
    notes: list[str] = field(default_factory=list)

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
    """Replay the dead letters of `topics` (by default all of the job's) into their tables, or to `to_topic`.

    With `dry_run` letters are only counted, and LOOKED_AT of each topic looked into. Never raises for what it may meet,
    as `run_load`.
    """
    world = surroundings or Surroundings()
    replay = Replay(world.run_id(), job.name, job.destination.uri, to_topic or "table")
    with outcome_in(replay, ValueError), ExitStack() as stack:
        _run(stack, job, replay, world, None if topics is None else set(topics), to_topic, dry_run=dry_run)
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
    if theirs := [topic for topic in sorted(wanted or ()) if not loads_topic(job.source, topic)]:
        # They would be read, and placed, as this job reads and places its own.
        raise ValueError(
            f"{', '.join(theirs)}: no topic of job {job.name}; replay its letters with the job that loads it"
        )
    names = [topic for topic in letter_topics(state, job) if wanted is None or topic in wanted]
    if dry_run:
        for name, count in waiting_letters(state, job).items():
            if name in names and count:
                told = ReplayedTopic(name, letters=count)
                replay.topics.append(told)
                files = letter_files(state, name)
                letters = (letter for file in files for letter in letters_of(filesystem, file))
                for letter in islice(letters, LOOKED_AT):
                    told.note(letter)
    # One that was killed behind its entry is brought to its end, though no letter waits any more.
    if dry_run or (not any(letter_files(state, name) for name in names) and log.unapplied() is None):
        replay.outcome = Outcome.NOTHING_NEW
        return
    claim = stack.enter_context(claimed(world, job, log, Role.LOAD, replay.run_id))
    _clean(replay, log, claim)
    registry = None if job.registry is None else stack.enter_context(job.registry.client())
    replayer = _Replayer(job, filesystem, log, claim, registry, replay)
    for name in names:
        sources = letter_files(claim.state, name)
        if not sources:
            continue
        told = ReplayedTopic(name)
        replay.topics.append(told)
        for some in _batches(sources):
            if to_topic is None:
                replayer.into_table(told, some)
            else:
                replayer.to_topic(told, some, to_topic)
    done = Outcome.LOADED if replay.topics else Outcome.NOTHING_NEW
    replay.outcome = Outcome.PARTIAL if any(one.still_bad for one in replay.topics) else done
    _clean(replay, log, claim)


def _clean(replay: Replay, log: CommitLog, claim: Claim) -> None:
    told = (f"cleaning: {sentence}" for sentence in log.clean(claim))
    replay.notes = list(dict.fromkeys([*replay.notes, *told]))


def _batches(sources: Iterable[TableFile]) -> Iterator[list[TableFile]]:
    """Put files together that one entry does away with: of one topic id, and one behind the other in each partition.

    A topic that was deleted and created anew has letters of two, at the same offsets.
    """
    batch: list[TableFile] = []
    size_bytes = 0
    for file in sorted(sources, key=lambda one: (one.topic_id, one.partition, one.first_offset)):
        before = batch[-1] if batch else None
        follows = before is None or (
            file.topic_id == before.topic_id
            and (file.partition != before.partition or file.first_offset > before.last_offset)
        )
        if not follows or size_bytes >= _BATCH_BYTES:
            yield batch
            batch, size_bytes = [], 0
        batch.append(file)
        size_bytes += file.length
    if batch:
        yield batch


@dataclass(slots=True)
class _Replayer:
    """Replays files of letters under one claim."""

    job: LoadJob
    filesystem: FileSystem
    log: CommitLog
    claim: Claim
    registry: RegistryClient | None
    replay: Replay
    # Of the next staging directory.
    number: int = 0

    def to_topic(self, told: ReplayedTopic, sources: list[TableFile], topic: str) -> None:
        """Send the letters of these files to a topic, then have the log say so."""
        sent = _send(self.job, topic, self._letters(sources))
        told.letters += sent
        told.replayed += sent
        self._commit(told.topic, sources, rows=0)

    def into_table(self, told: ReplayedTopic, sources: list[TableFile]) -> None:
        """Make rows of the letters of these files, and letters anew of those that still cannot be read."""
        schemas = RunSchemas(self.job, self.claim.state.schemas, self.registry)
        decoded = self._decoded(told.topic, sources, schemas)
        told.letters += decoded.letters
        told.replayed += decoded.rows
        told.still_bad += decoded.bad
        anew = [file for file in decoded.staged if file.kind is FileKind.DEAD_LETTERS]
        for file in anew:
            for letter in read_letters(self.filesystem, file.path):
                told.note(letter)
        if decoded.bad == decoded.letters and len(anew) >= len(sources):
            # Nothing came of them: they stay the letters that they are.
            return
        self._commit(told.topic, sources, rows=decoded.rows, staged=decoded.staged, schemas=schemas.changed)

    def _commit(
        self,
        topic: str,
        sources: list[TableFile],
        *,
        rows: int,
        staged: tuple[StagedFile, ...] = (),
        schemas: Mapping[str, Any] | None = None,
    ) -> None:
        document = replayed_document(self.claim.state, topic, sources)
        draft = LoadDraft(
            files=staged,
            schemas={**(schemas or {}), f"{REPLAYED}{topic}": document},
            report={"job": self.job.name, "outcome": "replayed", "rows": rows},
        )
        self.replay.number = self.log.commit(self.claim, draft).number

    def _letters(self, sources: Iterable[TableFile]) -> Iterator[DeadLetter]:
        for file in sources:
            yield from letters_of(self.filesystem, file)

    def _decoded(self, topic: str, sources: list[TableFile], schemas: RunSchemas) -> _Decoded:
        """Write the letters' rows, and those that still cannot be read, to staging."""
        from millstream.hadoop_loader.running.errors import TopicUnreadableError
        from millstream.hadoop_loader.values import UnknownSchemaError

        schemas.prepare(topic)
        number, self.number = self.number, self.number + 1
        for attempt in range(_SCHEMA_ROUNDS_MAX):
            try:
                decoded = self._sorted(self.claim.staging(number, attempt), sources, schemas.tables[topic])
            except UnknownSchemaError as error:
                found = UnknownSchema(error.topic, error.schema_id, error.schema, error.field)
                refused = schemas.learn([found])
                if refused:
                    raise ValueError(refused[topic]) from error
                continue
            except TopicUnreadableError as error:
                raise ValueError(f"{topic}: {error}") from error
            decoded.check(topic, self.job.destination.formats)
            return decoded
        raise ValueError(f"{topic}: letters met unknown schemas {_SCHEMA_ROUNDS_MAX} times")

    def _sorted(self, staging: str, sources: list[TableFile], version: TableVersion) -> _Decoded:
        from millstream.hadoop_loader.running.range_state import RangeState
        from millstream.hadoop_loader.running.sorting_out import Sorter
        from millstream.hadoop_loader.writing import OpenFiles

        job, topic = self.job, sources[0].topic
        closed = {table.name: self.claim.state.closed_directories(table.name) for table in version.tables()}
        files = OpenFiles(
            self.filesystem,
            staging,
            limits=job.limits,
            encoding=job.encoding,
            memory_bytes_max=job.worker_memory_bytes // 2,
        )
        # Those that cannot be read are still to be kept somewhere: their files are about to be done with.
        keeping = replace(job, bad_records=replace(job.bad_records, policy="dead_letters"))
        decoded = _Decoded()
        try:
            sorter = Sorter(keeping, {topic: version}, closed, self.registry, files)
            for source in sources:
                wanted = OffsetRange(
                    topic, source.topic_id, source.partition, -1, source.first_offset, source.last_offset + 1
                )
                state = RangeState(wanted)
                for piece in _pieces(letters_of(self.filesystem, source)):
                    decoded.letters += len(piece)
                    for fetched in _as_fetched(piece):
                        sorter.sort(state, fetched)
                decoded.rows += state.rows
                decoded.bad += state.bad
                decoded.left_out += state.tombstones_left_out
            decoded.staged = tuple(files.finish())
        finally:
            files.abandon()
        return decoded


@dataclass(slots=True)
class _Decoded:
    """What letters came to."""

    letters: int = 0
    rows: int = 0
    bad: int = 0
    left_out: int = 0  # tombstones
    staged: tuple[StagedFile, ...] = ()

    def check(self, topic: str, formats: Iterable[str]) -> None:
        """Raise ValueError if it does not add up."""
        kept = sum(file.rows for file in self.staged if file.kind is FileKind.DEAD_LETTERS)
        in_files = {
            name: sum(
                file.rows for file in self.staged if file.format == name and file.kind is not FileKind.DEAD_LETTERS
            )
            for name in formats
        }
        if (
            self.letters == self.rows + self.bad + self.left_out
            and kept == self.bad
            and all(rows == self.rows for rows in in_files.values())
        ):
            return
        raise ValueError(
            f"{topic}: the replay does not add up, so nothing of it is committed: {self.letters:,} letters are"
            f" {self.rows:,} rows ({', '.join(f'{rows:,} in {name}' for name, rows in sorted(in_files.items()))}),"
            f" {self.bad:,} bad ({kept:,} kept) and {self.left_out:,} tombstones left out"
        )


def _pieces(letters: Iterable[DeadLetter]) -> Iterator[list[DeadLetter]]:
    """Put letters together as far as memory is meant for."""
    piece: list[DeadLetter] = []
    size_bytes = 0
    for letter in letters:
        piece.append(letter)
        size_bytes += len(letter.key or b"") + len(letter.value or b"")
        if len(piece) >= _PIECE_LETTERS or size_bytes >= _PIECE_BYTES:
            yield piece
            piece, size_bytes = [], 0
    if piece:
        yield piece


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


def _send(job: LoadJob, to_topic: str, letters: Iterable[DeadLetter]) -> int:
    """Send the letters' records; returns how many once all of them are acknowledged. Raises KafkaError."""
    from millstream.core.columns.blocking_producer import Producer

    sent = 0
    with Producer(job.source.client_configs()) as producer:
        for piece in _pieces(letters):
            handles = []
            for letter in piece:
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
            sent += len(handles)
    return sent
