"""What `verify` finds, beside others that commit as well; and what `--repair` gives back: a mark says that all rows are
there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.commit_commands import job_of, surroundings_of
from tests.support.commit_simulation import TOPIC, World
from tests.support.table_roots import TOPIC_ID, TableRoot

from millstream.hadoop_loader.commit import Role, TableFile, UnappliedError, names
from millstream.hadoop_loader.commit.inventory import Inventory
from millstream.hadoop_loader.driver.sharing import CUTS
from millstream.hadoop_loader.driver.surroundings import Surroundings
from millstream.hadoop_loader.driver.verify import Verified, verify_destination
from millstream.hadoop_loader.filesystem import QuotaExceededError, UnavailableError
from millstream.testing.faulty_filesystem import FaultyFileSystem
from millstream.testing.memory_filesystem import MemoryFileSystem

DIRECTORY = f"{TOPIC}/avro/part=0"


def verify(world: World, folder: Path) -> Verified:
    return verify_destination(job_of(folder), offline=True, repair=True, surroundings=surroundings_of(world))


def test_no_mark_is_made_before_its_entry_is_applied(tmp_path: Path) -> None:
    def refuse(call: str) -> None:
        if re.match(rf"rename {names.STAGING}/\S+ -> {TOPIC}/", call):
            raise QuotaExceededError("the quota of names is used up", uri="memory://test", path=TOPIC)

    world = World(formats=("avro",), late_records=False, produced=7)
    with pytest.raises(UnappliedError):
        world.driver(before_call=refuse).run(Role.LOAD)

    unapplied = verify(world, tmp_path)

    # What the entry brings is missing too; how to go on is said, and nothing about marks.
    assert unapplied.repaired == []
    assert unapplied.findings[0] == ("entry 2 is not fully applied", "run the job again")
    assert not [finding for finding in unapplied.findings if names.SUCCESS in finding.what]
    assert world.disk.status(f"{DIRECTORY}/{names.SUCCESS}") is None
    world.finish()


@pytest.mark.parametrize("length", [None, 1])
def test_no_mark_is_made_where_a_file_is_missing_or_cut(tmp_path: Path, length: int | None) -> None:
    world = World(formats=("avro",), late_records=False, produced=7)
    world.driver().run(Role.LOAD)
    world.lose_marks()
    file = next(iter(world.driver().log.read().files.in_directory(DIRECTORY)))
    with world.disk.open(file.path) as opened:
        data = opened.read_at(0, opened.size)

    def put(data: bytes) -> None:
        with world.disk.create(file.path) as created:
            created.write(data)

    world.disk.delete(file.path)
    if length is not None:
        put(data[:length])

    broken = verify(world, tmp_path)
    world.disk.delete(file.path)
    put(data)
    mended = verify(world, tmp_path)

    assert broken.repaired == []
    assert [finding.remedy for finding in broken.findings if names.SUCCESS in finding.what] == [
        "mend its files first: it would say that all rows are there"
    ]
    assert (mended.repaired, mended.findings) == ([f"{DIRECTORY}/{names.SUCCESS}"], [])


def seen_through(world: World, before_call: Callable[[str], None]) -> Surroundings:
    """Commands that find the world behind such calls."""
    disk = FaultyFileSystem(world.disk, before_call=before_call)
    return Surroundings(open_filesystem=lambda _job: disk, commit_settings=world.settings)


def of_runs(count: int) -> World:
    """A world after so many loads."""
    world = World(formats=("avro",), late_records=False)
    for _ in range(count):
        world.produced += 3
        world.driver().run(Role.LOAD)
    return world


def test_what_others_commit_while_all_is_looked_at_is_no_finding(tmp_path: Path) -> None:
    world = of_runs(6)
    looks = 0

    def commit(call: str) -> None:
        nonlocal looks
        if not call.startswith(f"list {TOPIC}/"):
            return
        looks += 1
        # Two for each directory there was: also all of a second look at everything would be disturbed.
        if looks <= 12:
            world.produced += 3
            world.driver().run([Role.LOAD, Role.COMPACT][looks % 2])

    verified = verify_destination(job_of(tmp_path), offline=True, surroundings=seen_through(world, commit))

    assert looks > 6
    assert (verified.findings, verified.number) == ([], 12)
    world.finish()


def test_a_mark_that_lacks_is_found_though_its_entry_was_applied_only_meanwhile(tmp_path: Path) -> None:
    world = of_runs(6)
    entry = world.driver().log.read().number
    world.disk.delete(names.applied_path(entry))
    world.disk.delete(f"{DIRECTORY}/{names.SUCCESS}")

    def apply(call: str) -> None:
        if call.startswith(f"list {TOPIC}/") and world.disk.status(names.applied_path(entry)) is None:
            world.disk.create(names.applied_path(entry)).close()

    verified = verify_destination(job_of(tmp_path), offline=True, surroundings=seen_through(world, apply))

    assert [finding.what for finding in verified.findings] == [f"{DIRECTORY} is closed and has no {names.SUCCESS}"]


def test_a_file_that_cannot_be_read_keeps_no_other_from_being_looked_at(tmp_path: Path) -> None:
    root = TableRoot(tmp_path, MemoryFileSystem())
    for number in range(3):
        root.load([(0, "avro", b"rows %d" % number, 4)], closed=False)
    first, _, third = sorted(file.path for file in root.log.read().files.under())
    root.filesystem.delete(third)
    with root.filesystem.create(third) as changed:
        changed.write(b"rows 9")
    is_away = False

    def refuse(call: str) -> None:
        if call == f"open {first}" or (is_away and call.startswith("status")):
            raise UnavailableError("no DataNode has block 7", uri=root.filesystem.uri, path=first)

    disk = FaultyFileSystem(root.filesystem, before_call=refuse)
    world = Surroundings(open_filesystem=lambda _job: disk)
    verified = verify_destination(job_of(tmp_path), deep=True, offline=True, surroundings=world)

    assert [finding.what.partition(":")[0] for finding in verified.findings] == [
        f"{first} cannot be read",
        f"{third} has the checksum crc32c",
    ]
    assert "no DataNode has block 7" in verified.findings[0].what
    # One that answers nothing at all is no finding of each of its files.
    is_away = True
    with pytest.raises(UnavailableError):
        verify_destination(job_of(tmp_path), deep=True, offline=True, surroundings=world)


def test_marks_that_another_job_at_the_root_does_without_are_not_missed(tmp_path: Path) -> None:
    root = TableRoot(tmp_path, MemoryFileSystem())
    for topic in ("orders", "clicks"):
        root.load([(0, "avro", b"rows", 4)], topic=topic)
        root.filesystem.delete(f"{topic}/avro/day=1/{names.SUCCESS}")
    world = Surroundings(open_filesystem=lambda _job: root.filesystem)

    verified = verify_destination(job_of(tmp_path), offline=True, repair=True, surroundings=world)

    assert (verified.repaired, verified.findings) == ([f"orders/avro/day=1/{names.SUCCESS}"], [])
    assert root.filesystem.status(f"clicks/avro/day=1/{names.SUCCESS}") is None


def test_files_that_the_inventory_and_the_disk_lack_are_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = of_runs(4)
    lost = list(world.driver().log.read().files.under())[2]
    world.disk.delete(lost.path)
    under = Inventory.under

    def without_it(inventory: Inventory, prefix: str = "") -> Iterator[TableFile]:
        return (file for file in under(inventory, prefix) if file.path != lost.path)

    monkeypatch.setattr(Inventory, "under", without_it)
    verified = verify_destination(job_of(tmp_path), offline=True, surroundings=surroundings_of(world))

    [finding] = verified.findings
    assert finding.what.startswith(f"{TOPIC}/avro: the entries of the log come to 8 files with 24 rows and 100 bytes")
    assert finding.what.endswith("its inventory has 7 with 21 and 88")


@pytest.mark.parametrize("truncated", ["fail", "continue"])
@pytest.mark.parametrize("topic", [TOPIC, "another"])
def test_both_histories_of_a_partition_that_was_cut_may_be_there(tmp_path: Path, truncated: str, topic: str) -> None:
    """Whoever asks: also a job that would have stopped there, and one of other topics."""
    root = TableRoot(tmp_path, MemoryFileSystem())
    cut = {f"{CUTS}{TOPIC}": {TOPIC_ID: {"0": 6}}}
    root.load([(number, "avro", b"before", 10) for number in range(2)], closed=False)
    root.load([(0, "avro", b"after", 8)], closed=False, first_offsets=[6], schemas=cut)
    # Of another partition, and what one entry brings twice.
    root.load([(1, "avro", b"after", 8)], closed=False, first_offsets=[6])
    root.load([(0, "avro", b"one", 4), (0, "avro", b"two", 4)], closed=False, directory="day=2", first_offsets=[7, 9])
    job = job_of(tmp_path)
    job = replace(job, source=replace(job.source, truncated=truncated, topics=(topic,)))

    verified = verify_destination(
        job, offline=True, surroundings=Surroundings(open_filesystem=lambda _job: root.filesystem)
    )

    shared = [re.findall(r"(day=\d)/orders\+(\d)\+(\d+)", finding.what) for finding in verified.findings]
    assert shared == [[("day=1", "1", "0"), ("day=1", "1", "6")], [("day=2", "0", "7"), ("day=2", "0", "9")]]
    assert all("no cut of their partition is in the log" in finding.remedy for finding in verified.findings)
