"""What operators and schedules do beside loads, killed and not answered: compaction, also of open directories, closing,
expiry, topics loaded anew and their former tables dropped, replay of dead letters, and verify's repair.

At each act on the destination the process is killed before or after it, or the act times out and takes effect later or
never; then the command is given again. After each the files hold what they should, each row once, and nobody was shown
a row twice in between. `make test` takes a seeded sample, `make soak` all of it.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pytest
from tests.support.killed_run import COMMANDS, EXPIRED_BEFORE_MS, NEW_TABLE, QUICK, killed
from tests.support.raw_topics import Row, rows_of
from tests.support.table_roots import TOPIC, TableRoot, avro_bytes, parquet_bytes

from millstream import Admin, Producer
from millstream.core.wire.uuids import uuid_text
from millstream.hadoop_loader.commit import LoadDraft, Position, Role
from millstream.hadoop_loader.driver.anew import load_anew
from millstream.hadoop_loader.driver.letters import waiting_letters
from millstream.hadoop_loader.driver.report import Outcome
from millstream.hadoop_loader.driver.surroundings import Surroundings
from millstream.hadoop_loader.driver.verify import verify_destination
from millstream.hadoop_loader.filesystem import FileSystem, FileSystemError, FileSystemSettings, open_filesystem
from millstream.hadoop_loader.job import (
    DestinationSettings,
    LoadJob,
    Partitioning,
    SourceSettings,
    ValueSettings,
)
from millstream.hadoop_loader.job.files import CompactionSettings
from millstream.hadoop_loader.running.dead_letters import SCHEMA as LETTER
from millstream.hadoop_loader.splits import FileKind
from millstream.hadoop_loader.tables.naming import TableNames, former_tables
from millstream.testing import broker
from millstream.testing.faulty_disk import SimulatedCrashError
from millstream.testing.faulty_filesystem import Fault, FaultyFileSystem, LateActs
from millstream.testing.hdfs import MiniHdfs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(14_400)]

SEED: Final = 20260101
OPERATORS: Final = tuple(command for command in COMMANDS if command != "load")
FORMATS: Final = ("avro", "parquet")
CLOSED: Final = "year=2026/month=01/day=01"
OPEN: Final = "year=2026/month=01/day=02"
ROWS_PER_FILE: Final = 5
LETTERS: Final = 3
# Where the next load begins: behind what the lake holds.
NEXT_OFFSETS: Final = {0: 4 * ROWS_PER_FILE + 1, 1: LETTERS}
# Crashes are real processes' here.
FAULTS: Final = (Fault.LATE, Fault.LOST, Fault.ANSWER_LOST, Fault.REFUSED)
# Roots at a time: on HDFS a file that is closed is waited for.
AT_ONCE: Final = 4
# Renewals would be acts at any time: here a claim outlives the run without.
UNRENEWED: Final = replace(QUICK, claim_timeout_s=0.2, renewal_interval_s=3_600)
SCHEMA: Final = {
    "type": "record",
    "name": "Row",
    "fields": [
        {"name": "value", "type": ["null", "bytes"]},
        {"name": "_kafka_partition", "type": "int"},
        {"name": "_kafka_offset", "type": "long"},
    ],
}
TABLE: Final = pa.schema([("value", pa.binary()), ("_kafka_partition", pa.int32()), ("_kafka_offset", pa.int64())])


class Topic(NamedTuple):
    """Where the topic is that the lake was loaded from, and its id."""

    bootstrap: str
    topic_id: str


@pytest.fixture(scope="module")
def topic() -> Iterator[Topic]:
    with (
        broker() as running,
        Admin(running.bootstrap_servers) as admin,
        Producer(running.bootstrap_servers) as producer,
    ):
        admin.create_topic(TOPIC, partitions=len(NEXT_OFFSETS))
        for partition, next_offset in NEXT_OFFSETS.items():
            for _ in range(next_offset):
                producer.send(TOPIC, b"", partition=partition)
        producer.flush(60)
        yield Topic(running.bootstrap_servers, uuid_text(admin.describe_topic(TOPIC).topic_id))


class Lake:
    """A root with a closed day, an open one and dead letters of it, all small; and a job whose tables these are."""

    def __init__(self, uri: str, folder: Path, command: str, topic: Topic) -> None:
        self.uri = uri
        self.topic_id = topic.topic_id
        # For what is not of the root.
        self.folder = folder
        self.command = command
        self.job = LoadJob(
            name=TOPIC,
            source=SourceSettings(bootstrap_servers=topic.bootstrap, topics=(TOPIC,)),
            value=ValueSettings(format="raw"),
            metadata_columns=("partition", "offset"),
            destination=DestinationSettings(uri=uri, formats=frozenset(FORMATS)),
            partitioning=Partitioning(kind="time", pattern="daily"),
            compaction=CompactionSettings(open_directories=True),
        )
        self._next = 0
        self.rows: dict[str, Counter[Row]] = {}
        self.letters: Counter[Row] = Counter()
        with open_filesystem(uri, FileSystemSettings()) as filesystem:
            root = TableRoot(folder, filesystem)
            for directory, is_closed in ((CLOSED, True), (OPEN, False)):
                self.rows[directory] = Counter()
                files = [self._file(directory) for _ in range(2)]
                root.load(
                    [one for pair in files for one in pair],
                    directory=directory,
                    closed=is_closed,
                    topic_id=self.topic_id,
                )
            letters = [self._letters()]
            root.load(letters, directory="", closed=False, kind=FileKind.DEAD_LETTERS, topic_id=self.topic_id)
            claim = root.claim(Role.LOAD)
            positions = {partition: Position(offset=offset) for partition, offset in NEXT_OFFSETS.items()}
            root.log.commit(claim, LoadDraft(positions={self.topic_id: positions}))
            claim.release()
            for format_ in FORMATS if command == "repair" else ():
                # Somebody has deleted by hand what says that a directory is closed.
                assert filesystem.delete(f"{TOPIC}/{format_}/{CLOSED}/_SUCCESS")
        if command == "drop":
            assert load_anew(self.job, TOPIC, NEW_TABLE).errors == []

    def run(self, surroundings: Surroundings) -> Any:
        """Give the command in this process."""
        return COMMANDS[self.command](self.job, surroundings)

    def run_again(self) -> None:
        """Give the command once more, after one that did not come to its end."""
        ended = self.run(Surroundings(commit_settings=UNRENEWED))
        if self.command != "repair":
            assert (ended.outcome in (Outcome.LOADED, Outcome.NOTHING_NEW), ended.errors) == (True, []), ended

    def check_between(self) -> None:
        """Nobody sees a row twice, or one that never was."""
        known = self.rows[OPEN] + self.rows[CLOSED] + self.letters
        for format_ in FORMATS:
            assert not self._held(format_) - known

    def check(self) -> None:
        """The command was done, and all of it holds."""
        expected = Counter[Row]()
        if self.command != "drop":
            expected += self.rows[OPEN]
        if self.command not in ("expire", "drop"):
            expected += self.rows[CLOSED]
        if self.command == "replay":
            expected += self.letters
        for format_ in FORMATS:
            assert self._held(format_) == expected, format_
        assert verify_destination(self.job, deep=True, offline=True).findings == []
        with open_filesystem(self.uri, FileSystemSettings()) as filesystem:
            state = Surroundings().commit_log(self.job, filesystem).read()
            for directory in (CLOSED, *([OPEN] if self.command == "close" else [])):
                for format_ in FORMATS:
                    assert state.is_closed(f"{TOPIC}/{format_}/{directory}")
                    assert filesystem.status(f"{TOPIC}/{format_}/{directory}/_SUCCESS") is not None
            if self.command == "compact":
                assert {key: total.files for key, total in state.totals.items() if TOPIC in key.split("/")[0]} == {
                    f"{TOPIC}/{format_}": 2 for format_ in FORMATS
                }
            if self.command == "anew":
                # All of it comes again, into another table.
                positions = state.positions[self.topic_id]
                assert {partition: held.offset for partition, held in positions.items()} == dict.fromkeys(
                    NEXT_OFFSETS, 0
                )
                assert TableNames({}, state.schemas).of(TOPIC) == NEW_TABLE
                assert former_tables(state.schemas, TOPIC) == [TOPIC]
                assert not any(waiting_letters(state).values())
            assert Surroundings().commit_log(self.job, filesystem).unapplied() is None

    def _held(self, format_: str) -> Counter[Row]:
        return rows_of(self.uri, TOPIC, format_)

    def _file(self, directory: str) -> tuple[tuple[int, str, bytes, int], ...]:
        """One file's rows, in each format."""
        rows = [self._row() for _ in range(ROWS_PER_FILE)]
        self.rows[directory].update(rows)
        columns = [
            {"value": value, "_kafka_partition": partition, "_kafka_offset": offset}
            for partition, offset, value in rows
        ]
        partition = rows[0][0]
        return (
            (partition, "avro", avro_bytes(SCHEMA, columns), len(rows)),
            (partition, "parquet", parquet_bytes(pa.Table.from_pylist(columns, TABLE)), len(rows)),
        )

    def _letters(self) -> tuple[int, str, bytes, int]:
        rows: list[Row] = [(1, offset, b"letter %d" % offset) for offset in range(LETTERS)]
        self.letters.update(rows)
        letters: list[dict[str, Any]] = [
            {
                "topic": TOPIC,
                "partition": partition,
                "offset": offset,
                "timestamp": EXPIRED_BEFORE_MS + offset,
                "timestamp_type": 0,
                "key": None,
                "headers": [],
                "schema_id": None,
                "value": value,
                "error": "not yet",
            }
            for partition, offset, value in rows
        ]
        return rows[0][0], "avro", avro_bytes(json.loads(LETTER), letters), len(rows)

    def _row(self) -> Row:
        self._next += 1
        return 0, self._next, b"%d" % self._next


Lakes = Callable[[str], Lake]


@pytest.fixture
def samples(request: pytest.FixtureRequest) -> tuple[int, int]:
    """Without soak: of how many commands one is killed, and of how many one is not answered."""
    return (1, 1) if "hdfs" in request.node.callspec.id else (2, len(OPERATORS))


@pytest.fixture(params=["local", pytest.param("hdfs", marks=pytest.mark.hdfs)])
def lakes(request: pytest.FixtureRequest, tmp_path: Path, topic: Topic) -> Lakes:
    """Makes a new root for a command."""
    numbers = count()
    root = tmp_path.as_uri()
    if request.param == "hdfs":
        hdfs: MiniHdfs = request.getfixturevalue("hdfs")
        root = f"{hdfs.uri}/{tmp_path.name}"

    def make(command: str) -> Lake:
        number = next(numbers)
        folder = tmp_path / f"told-{number}"
        folder.mkdir()
        return Lake(f"{root}/root-{number}", folder, command, topic)

    return make


def acts_of(command: str, tmp_path: Path, topic: Topic) -> int:
    """How many acts a command takes that nothing happens to."""
    lake = Lake((tmp_path / command).as_uri(), tmp_path, command, topic)
    opened: list[FaultyFileSystem] = []
    lake.run(Surroundings(open_filesystem=_opening(opened), commit_settings=UNRENEWED))
    lake.check()
    return opened[0].acts


def _opening(
    opened: list[FaultyFileSystem], faults: dict[int, Fault] | None = None, late: LateActs | None = None
) -> Callable[[LoadJob], FileSystem]:
    def open_faulty(job: LoadJob) -> FileSystem:
        opened.append(FaultyFileSystem(open_filesystem(job.destination.uri, FileSystemSettings()), faults, late=late))
        return opened[-1]

    return open_faulty


Point = tuple[str, int, Any]


def points(tmp_path: Path, topic: Topic, ways: tuple[Any, ...], sample: int | None) -> list[Point]:
    """Every act of every command in each way; or of so many commands one."""
    chance = random.Random(SEED)
    commands = OPERATORS if sample is None else chance.sample(OPERATORS, sample)
    of_each = [
        [(one, act, way) for act in range(1, acts_of(one, tmp_path, topic) + 1) for way in ways] for one in commands
    ]
    return [each for every in of_each for each in (every if sample is None else [chance.choice(every)])]


def run_all(points: list[Point], run: Callable[[str, int, Any], None]) -> None:
    """Run each, and once more where it did not come to its end; then all of it must hold."""

    def run_one(point: Point) -> None:
        command, act, way = point
        try:
            run(command, act, way)
        except Exception as error:
            raise AssertionError(f"{command}, {way} act {act}: {error}") from error

    with ThreadPoolExecutor(AT_ONCE) as threads:
        list(threads.map(run_one, points))


@pytest.mark.parametrize("command", [command for command in OPERATORS if command != "repair"])
def test_what_was_published_and_not_applied_is_applied_by_the_same_command(
    command: str, tmp_path: Path, topic: Topic
) -> None:
    opened: list[FaultyFileSystem] = []
    same = Lake((tmp_path / "same").as_uri(), tmp_path / "same", command, topic)
    same.run(Surroundings(open_filesystem=_opening(opened), commit_settings=UNRENEWED))
    published = [act for act, name in enumerate(opened[0].journal, 1) if " -> _millstream/log/" in name]
    lake = Lake((tmp_path / "lake").as_uri(), tmp_path / "lake", command, topic)
    with pytest.raises(SimulatedCrashError):
        lake.run(
            Surroundings(
                open_filesystem=_opening([], {published[-1] + 1: Fault.CRASH_BEFORE}), commit_settings=UNRENEWED
            )
        )

    lake.run_again()

    lake.check()


def test_a_mark_is_given_back_to_a_directory_that_was_emptied(tmp_path: Path, topic: Topic) -> None:
    lake = Lake(tmp_path.as_uri(), tmp_path, "expire", topic)
    lake.run(Surroundings())
    mark = tmp_path / TOPIC / "avro" / CLOSED / "_SUCCESS"
    mark.unlink()
    assert [one.what for one in verify_destination(lake.job, offline=True).findings] == [
        f"{TOPIC}/avro/{CLOSED} is closed and has no _SUCCESS"
    ]

    repaired = verify_destination(lake.job, offline=True, repair=True)

    assert (repaired.repaired, mark.exists()) == ([f"{TOPIC}/avro/{CLOSED}/_SUCCESS"], True)
    # One that somebody deleted, empty as it was, is missed by nobody.
    mark.unlink()
    mark.parent.rmdir()
    lake.check_between()
    assert verify_destination(lake.job, offline=True).findings == []


def test_a_directory_that_is_away_while_verify_looks_ends_nothing(tmp_path: Path, topic: Topic) -> None:
    lake = Lake(tmp_path.as_uri(), tmp_path, "compact", topic)
    directory = f"{TOPIC}/avro/{CLOSED}"
    looks: list[str] = []

    def look(name: str) -> None:
        # First for the files that the log names, then for others.
        if name == f"list {directory}":
            looks.append(name)
            if len(looks) == 2:
                (tmp_path / directory).rename(tmp_path / "_away")

    def open_watched(job: LoadJob) -> FileSystem:
        return FaultyFileSystem(open_filesystem(job.destination.uri, FileSystemSettings()), before_call=look)

    verified = verify_destination(lake.job, offline=True, surroundings=Surroundings(open_filesystem=open_watched))

    assert (len(looks), verified.findings) == (2, [])


def test_a_command_that_is_killed_is_brought_to_its_end_by_the_next(
    lakes: Lakes, tmp_path: Path, topic: Topic, soak: bool, samples: tuple[int, int]
) -> None:
    def run(command: str, act: int, when: str) -> None:
        lake = lakes(command)
        assert killed(command, lake.job, lake.folder, act, when)
        lake.check_between()
        lake.run_again()
        lake.check()

    run_all(points(tmp_path, topic, ("before", "after"), None if soak else samples[0]), run)


def test_a_command_that_is_not_answered_is_brought_to_its_end_by_the_next(
    lakes: Lakes, tmp_path: Path, topic: Topic, soak: bool, samples: tuple[int, int]
) -> None:
    def run(command: str, act: int, fault: Fault) -> None:
        lake = lakes(command)
        late = LateActs(act)
        # Others make an outcome of it; verify raises what it meets.
        with suppress(FileSystemError):
            lake.run(Surroundings(open_filesystem=_opening([], {act: fault}, late), commit_settings=UNRENEWED))
        lake.check_between()
        # What the first one sent may arrive among the acts of the second, and what is left behind it.
        lake.run(Surroundings(open_filesystem=_opening([], late=late), commit_settings=UNRENEWED))
        late.flush()
        lake.check_between()
        lake.run_again()
        lake.check()

    run_all(points(tmp_path, topic, FAULTS, None if soak else samples[1]), run)
