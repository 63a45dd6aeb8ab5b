"""Checkpoints and the inventory: the same files as entry by entry, and no memory to speak of at a million of them."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.hadoop_loader.commit import (
    AddedFile,
    CorruptLogError,
    DirectorySwap,
    Entry,
    EntryKind,
    Position,
    Role,
    TableFile,
    TableState,
    Totals,
    envelope,
    names,
)
from millstream.hadoop_loader.commit.checkpoints import decode_checkpoint, write_checkpoint
from millstream.hadoop_loader.commit.encoding import decode_entry, encode_entry, file_from_line, file_to_line
from millstream.hadoop_loader.commit.inventory_runs import runs_to_merge
from millstream.testing.memory_filesystem import MemoryFileSystem

DIRECTORIES = ["t/avro", "t/avro/a", "t/avro-x/a", "t/avro/a/b", "t/avro.v2/a", "t/parquet/ä=1", "t.late/avro/a"]


def a_file(directory: str, number: int, index: int, rows: int = 1) -> TableFile:
    return TableFile(
        directory=directory,
        name=f"t+0+{index}+{index}+{number}.avro",
        topic="t",
        topic_id="dA",
        partition=0,
        first_offset=index,
        last_offset=index,
        rows=rows,
        length=100 + index,
        checksum=f"crc32c:{index:08x}",
        min_timestamp_ms=-1,
        max_timestamp_ms=5,
        schema_version=index % 3,
    )


def an_entry(number: int, files: list[TableFile] | None = None, swaps: tuple[DirectorySwap, ...] = ()) -> Entry:
    added = tuple(AddedFile(file, f"staged/{file.name}") for file in files or ())
    changed = len(added) + sum(len(swap.removed) + len(swap.files) for swap in swaps)
    return Entry(
        number=number,
        kind=EntryKind.COMPACT if swaps else EntryKind.LOAD,
        role=Role.LOAD,
        epoch=1,
        run_id="r",
        owner="o",
        base=number - 1,
        at_ms=0,
        positions={"dA": {0: Position(number)}},
        totals={"t/avro": Totals(len(added), len(added), 0)},
        files_changed=changed,
        added=added,
        swaps=swaps,
    )


def home() -> MemoryFileSystem:
    filesystem = MemoryFileSystem()
    for directory in names.HOME_DIRECTORIES:
        filesystem.make_directory(directory)
    return filesystem


def reread(filesystem: MemoryFileSystem, number: int) -> TableState:
    path = names.checkpoint_path(number)
    with filesystem.open(path) as file:
        return decode_checkpoint(file.read_at(0, file.size), path, number, filesystem.open)


@given(
    steps=st.lists(
        st.tuples(st.integers(0, 3), st.lists(st.sampled_from(DIRECTORIES), max_size=6), st.booleans()), max_size=25
    ),
    prefix=st.sampled_from(["", "t", "t/avro", "t/avro/a", "t/parquet", "t/none", "t.late"]),
)
def test_checkpoints_have_the_files_of_a_dictionary(steps: list[tuple[int, list[str], bool]], prefix: str) -> None:
    filesystem = home()
    state = TableState()
    expected: dict[str, TableFile] = {}
    for number, (kind, directories, is_checkpoint) in enumerate(steps, 1):
        if kind == 0 and directories and any(file.directory == directories[0] for file in expected.values()):
            directory = directories[0]
            removed = tuple(file for file in expected.values() if file.directory == directory)
            new = a_file(directory, number, 999)
            entry = an_entry(number, swaps=(DirectorySwap(directory, "staged", removed, (new,)),))
            expected = {path: file for path, file in expected.items() if file.directory != directory}
            expected[new.path] = new
        else:
            files = [a_file(directory, number, index) for index, directory in enumerate(directories)]
            entry = an_entry(number, files)
            expected.update({file.path: file for file in files})
        state.fold(decode_entry(encode_entry(entry), "path", number))
        assert len(list(state.files.under())) == len(expected)
        if is_checkpoint:
            write_checkpoint(filesystem, state, f"n{number}")
            assert not state.files.entries
            state = reread(filesystem, number)

    wanted = [file for file in expected.values() if not prefix or f"{file.directory}/".startswith(f"{prefix}/")]
    assert list(state.files.under(prefix)) == sorted(wanted, key=lambda file: (file.directory, file.name))
    directory = DIRECTORIES[1]
    assert {file.path for file in state.files.in_directory(directory)} == {
        path for path, file in expected.items() if file.directory == directory
    }


def test_what_changed_is_decoded_once_for_any_number_of_tables() -> None:
    decoded = 0

    class Added(list[AddedFile]):
        def __iter__(self) -> Iterator[AddedFile]:
            nonlocal decoded
            decoded += 1
            return super().__iter__()

    state = TableState()
    for number in (1, 2):
        entry = an_entry(number, [a_file(directory, number, 0) for directory in DIRECTORIES])
        state.fold(replace(entry, added=Added(entry.added)))
        assert [len(list(state.files.under(table))) for table in ("t", "t.late", "u")] == [6 * number, number, 0]
        assert decoded == number


@given(st.lists(st.integers(1, 10_000), max_size=200))
def test_runs_stay_few_and_lines_are_rewritten_seldom(added: list[int]) -> None:
    runs: list[int] = []
    written = 0
    for lines in added:
        merged = runs_to_merge([*runs, lines])
        runs = [*runs, lines]
        total = sum(runs[len(runs) - merged :])
        runs[len(runs) - merged :] = [total]
        written += total
    assert len(runs) <= 15
    assert written <= 20 * sum(added)


def test_a_damaged_run_is_named() -> None:
    filesystem = home()
    state = TableState()
    state.fold(an_entry(1, [a_file("t/avro", 1, index) for index in range(100)]))
    write_checkpoint(filesystem, state, "n")
    path = state.files.runs[0].path
    with filesystem.open(path) as file:
        data = bytearray(file.read_at(0, file.size))
    for position in (10, len(data) - 40, len(data) - 1):
        changed = bytearray(data)
        changed[position] ^= 1
        filesystem.delete(path)
        with filesystem.create(path) as output:
            output.write(changed)
        with pytest.raises(CorruptLogError, match=path.replace("+", r"\+")):
            list(state.files.under("t"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_million_files_take_no_memory_to_speak_of(soak: bool) -> None:
    count = 1_000_000 if soak else 60_000
    per_entry = 20_000
    filesystem = home()
    state = TableState()
    for number in range(1, count // per_entry + 1):
        files = [a_file(f"t/avro/hour={index % 500:05d}", number, index) for index in range(per_entry)]
        entry = decode_entry(encode_entry(an_entry(number, files)), "path", number)
        positions = {"dA": {partition: Position(number, 1) for partition in range(20_000)}}
        state.fold(entry)
        state.positions.update(positions)
        if number % 3 == 0:
            write_checkpoint(filesystem, state, f"n{number}")
    write_checkpoint(filesystem, state, "last")
    number = state.number
    del state, files, entry, positions

    tracemalloc.start()
    state = reread(filesystem, number)
    after_reading = tracemalloc.get_traced_memory()[1]
    found = sum(1 for _ in state.files.under("t/avro/hour=00042"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert found == count // 500
    assert state.totals["t/avro"].files == count
    # Twenty thousand positions take some megabytes; what is looked up takes its blocks and the index.
    assert after_reading < 25_000_000
    assert peak < 40_000_000
    assert len(state.files.runs) < 10


def test_lines_of_before_schemas_had_versions_are_read() -> None:
    file = a_file("t/avro", 1, 2)
    line = file_to_line(file)

    assert file_from_line(line, "a run") == file
    assert file_from_line(line[:-1], "a run") == replace(file, schema_version=0)


def test_a_checkpoint_of_before_there_were_last_loads_has_those_among_its_reports() -> None:
    filesystem, state = home(), TableState()
    state.fold(replace(an_entry(1), report={"job": "clicks", "audit": {}}))
    state.fold(replace(an_entry(2), report={"job": "clicks", "outcome": "closed"}))
    write_checkpoint(filesystem, state, "n")
    path = names.checkpoint_path(2)
    with filesystem.open(path) as file:
        header, sections = envelope.decode(file.read_at(0, file.size), path)
    (content,) = sections["state"]
    assert content.pop("last_loads")["clicks"]["number"] == 1

    older = decode_checkpoint(envelope.encode(header, {"state": [content]}), path, 2, filesystem.open)

    assert older.last_loads == state.last_loads == reread(filesystem, 2).last_loads
