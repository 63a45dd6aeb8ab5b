"""A log that a newer version has written to: named as that, and never read as if nothing were new."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.support.commit_simulation import World

from millstream.core.records import crc32c
from millstream.hadoop_loader.commit import CorruptLogError, Entry, Role, envelope, names
from millstream.hadoop_loader.commit.checkpoints import decode_checkpoint
from millstream.hadoop_loader.commit.encoding import decode_entry
from millstream.hadoop_loader.commit.inventory import Inventory
from millstream.hadoop_loader.commit.inventory_runs import InventoryRun, RunWriter
from millstream.hadoop_loader.commit.state import TableState
from millstream.testing.memory_filesystem import MemoryFileSystem

Document = tuple[dict[str, Any], dict[str, list[Any]]]
Change = Callable[[Document], object]


def read(world: World, path: str) -> bytes:
    with world.disk.open(path) as file:
        return file.read_at(0, file.size)


@pytest.fixture(scope="module")
def world() -> World:
    made = World(formats=("avro",), late_records=False)
    for role in (Role.LOAD, Role.LOAD, Role.COMPACT):
        made.produced += 9
        made.driver().run(role)
    return made


def entry_of(world: World, kind: str) -> tuple[int, bytes]:
    """The first entry of a kind."""
    found = ((number, world.entries[number]) for number in sorted(world.entries))
    return next((number, data) for number, data in found if f'"kind":"{kind}"'.encode() in data)


def changed(data: bytes, change: Change) -> bytes:
    header, sections = envelope.decode(data, "a file")
    document = (header, {name: list(lines) for name, lines in sections.items()})
    change(document)
    return envelope.encode(*document)


def decoded_whole(data: bytes, number: int) -> Entry:
    entry = decode_entry(data, "an entry", number)
    assert [*entry.added, *entry.swaps]
    return entry


ENTRY_CHANGES: dict[str, tuple[str, Change]] = {
    "a kind": ("load", lambda document: document[0].update(kind="trim")),
    "a role": ("load", lambda document: document[0].update(role="index")),
    "a section": ("load", lambda document: document[1].update(deletes=[["x"]])),
    "a header without what it had": ("load", lambda document: document[0].pop("token")),
    "a column of positions": (
        "load",
        lambda document: document[1]["changes"][0]["positions"].update(b=[[0, 9, 7, "node-7"]]),
    ),
    "a kind of file": ("load", lambda document: document[1]["files"][0].__setitem__(-2, "index")),
    "a column of a swap": ("compact", lambda document: document[1]["swaps"][0].append("why")),
}


@pytest.mark.parametrize("name", ENTRY_CHANGES)
def test_an_entry_with_something_new_is_named(world: World, name: str) -> None:
    kind, change = ENTRY_CHANGES[name]
    number, data = entry_of(world, kind)
    assert decoded_whole(changed(data, lambda _document: None), number).kind == kind

    with pytest.raises(CorruptLogError, match=r"^an entry: .*: written by a newer version of millstream"):
        decoded_whole(changed(data, change), number)


NAMES_AND_COLUMNS: dict[str, Change] = {
    "a name in the header": lambda document: document[0].update(why="new"),
    "a name in the changes": lambda document: document[1]["changes"][0].update(why={"new": 1}),
    "a column of a file": lambda document: document[1]["files"][0].append("new"),
}


@pytest.mark.parametrize("name", NAMES_AND_COLUMNS)
def test_names_of_objects_and_columns_of_files_may_come_to_an_entry(world: World, name: str) -> None:
    number, data = entry_of(world, "load")
    before, after = decoded_whole(data, number), decoded_whole(changed(data, NAMES_AND_COLUMNS[name]), number)

    assert (after.positions, list(after.added)) == (before.positions, list(before.added))


def test_a_file_of_a_kind_that_is_new_is_looked_for_in_the_inventory() -> None:
    line = ["orders/avro/day=1", "orders+0+0+1+2.avro", "orders", "b3I", 0, 0, 1, 2, 9, "crc32c:0", -1, -1, "index", 1]
    writer = RunWriter()
    data = writer.add(line) + writer.finish()
    disk = MemoryFileSystem()
    with disk.create("run") as file:
        file.write(data)
    inventory = Inventory((InventoryRun("run", 1, len(data)),), disk.open)

    with pytest.raises(CorruptLogError, match=r"^_millstream/inventory: orders/avro/day=1/.*: written by a newer"):
        list(inventory.under())


def test_another_layout_is_a_newer_one_only_if_it_is_whole(world: World) -> None:
    number, data = entry_of(world, "load")
    body = data[: -envelope.TRAILER_SIZE_BYTES].replace(b"millstream-log 1", b"millstream-log 2", 1)

    with pytest.raises(CorruptLogError, match="millstream-log 2: written by a newer version"):
        decode_entry(body + b"crc32c:%08x\n" % crc32c(body), "an entry", number)
    with pytest.raises(CorruptLogError, match="do not fit their checksum; restore the file"):
        decode_entry(body + data[-envelope.TRAILER_SIZE_BYTES :], "an entry", number)


CHECKPOINT_CHANGES: dict[str, Change] = {
    "a section": lambda document: document[1].update(deletes=[["x"]]),
    "a role": lambda document: document[1]["state"][0]["claims"][0].__setitem__(0, "index"),
    "a column of a claim": lambda document: document[1]["state"][0]["claims"][0].append("why"),
    "a state without what it had": lambda document: document[1]["state"][0].pop("runs"),
}


@pytest.mark.parametrize("name", CHECKPOINT_CHANGES)
def test_a_checkpoint_with_something_new_is_named(world: World, name: str) -> None:
    path = world.disk.list(names.CHECKPOINTS)[-1].path
    number, data = int(path.rpartition("/")[2]), read(world, path)

    def decode(data: bytes) -> TableState:
        return decode_checkpoint(data, path, number, world.disk.open)

    assert decode(changed(data, lambda _document: None)).number == number
    with pytest.raises(CorruptLogError, match="written by a newer version of millstream; use that one here"):
        decode(changed(data, CHECKPOINT_CHANGES[name]))
