"""What cleaning leaves to those who stand on it, and what it tells of what it could not do."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby
from pathlib import Path

import pytest
from tests.support.commit_commands import job_of, surroundings_of
from tests.support.commit_simulation import SETTINGS, TOPIC, World

from millstream.hadoop_loader.commit import (
    Claim,
    CompactDraft,
    CompactedDirectory,
    Entry,
    LoadDraft,
    Role,
    Snapshot,
    names,
)
from millstream.hadoop_loader.driver.status import status_of

DAY_S = 86_400.0
# A checkpoint is due every 5 entries, and a load makes two.
BACKFILL_RUNS = 10


def quiet_root(monkeypatch: pytest.MonkeyPatch, loads: int, segment: int = 10) -> World:
    """A root after so many loads an hour apart, and three days without any, with `segment` entries in each segment."""
    monkeypatch.setattr(names, "ENTRIES_PER_SEGMENT", segment)
    world = World(settings=replace(SETTINGS, snapshot_retention_s=DAY_S), formats=("avro",), late_records=False)
    for _ in range(loads):
        load(world)
        world.clock.wait(3_600)
    world.clock.wait(3 * DAY_S)
    return world


def load(world: World) -> None:
    world.produced += 3
    world.driver().run(Role.LOAD)


def backfill(world: World) -> None:
    """Several checkpoints within minutes."""
    for _ in range(BACKFILL_RUNS):
        load(world)
        world.clock.wait(20)


def empty_a_directory(world: World) -> None:
    """An expiry of the first closed directory that has files."""
    driver = world.driver()
    claim = driver.log.claim(Role.COMPACT, owner="b", run_id=driver.run_id)
    driver.log.clean(claim)
    directory, files = next(
        (directory, list(files))
        for directory, files in groupby(claim.state.files.under(TOPIC), key=lambda file: file.directory)
        if claim.state.is_closed(directory)
    )
    staged = claim.staging(0, 0)
    replaced = tuple(file.name for file in files)
    driver.log.commit(
        claim,
        CompactDraft(
            directories=(CompactedDirectory(directory=directory, staged=staged, files=(), replaced=replaced),)
        ),
    )
    claim.release()


def flip_a_byte(world: World, path: str) -> None:
    with world.disk.open(path) as file:
        data = bytearray(file.read_at(0, file.size))
    data[3] ^= 0xFF
    world.disk.delete(path)
    with world.disk.create(path) as changed:
        changed.write(data)


def cleaned(world: World) -> list[str]:
    driver = world.driver()
    claim = driver.log.claim(Role.LOAD, owner="a", run_id=driver.run_id)
    told = driver.log.clean(claim)
    claim.release()
    return told


# Where checkpoints come among the loads differs, and which runs of the inventory the last one stands on.
@pytest.mark.parametrize("loads", range(11, 15))
def test_what_a_reader_pinned_after_quiet_days_stays(monkeypatch: pytest.MonkeyPatch, loads: int) -> None:
    world = quiet_root(monkeypatch, loads)
    snapshot = Snapshot(world.disk)
    files = list(snapshot.files(TOPIC, "avro"))

    backfill(world)

    assert list(snapshot.files(TOPIC, "avro")) == files
    assert list(Snapshot(world.disk, snapshot.number).files(TOPIC, "avro")) == files
    # A day after it was the newest it may go, and with it all that nobody stands on.
    world.clock.wait(DAY_S)
    backfill(world)
    with pytest.raises(LookupError, match="older than snapshot_retention"):
        Snapshot(world.disk, snapshot.number)


def test_a_compaction_commits_beside_a_backfill_after_quiet_days(monkeypatch: pytest.MonkeyPatch) -> None:
    world = quiet_root(monkeypatch, 14)
    driver = world.driver()
    claim = driver.log.claim(Role.COMPACT, owner="a", run_id="a")
    commit = driver.log.commit

    def commit_later(claim: Claim, draft: LoadDraft | CompactDraft) -> Entry:
        backfill(world)
        return commit(claim, draft)

    monkeypatch.setattr(driver.log, "commit", commit_later)

    assert driver.work(claim) is not None
    claim.release()
    world.finish()


# A compaction looks into the inventory when it commits, a load when its checkpoint is due; the log is gone by then too
# where segments are short.
@pytest.mark.parametrize("segment", [10, 1_000])
@pytest.mark.parametrize("role", [Role.COMPACT, Role.LOAD])
def test_who_works_for_longer_than_a_checkpoint_is_kept_commits_all_the_same(
    monkeypatch: pytest.MonkeyPatch, role: Role, segment: int
) -> None:
    world = quiet_root(monkeypatch, 39, segment)
    driver = world.driver()
    claim = driver.log.claim(role, owner="a", run_id="a")
    stood_on = [run.path for run in claim.state.files.runs]
    world.produced += 3
    commit = driver.log.commit

    def days_later(claim: Claim, draft: LoadDraft | CompactDraft) -> Entry:
        for _ in range(10):
            load(world) if role is Role.COMPACT else empty_a_directory(world)
            world.clock.wait(DAY_S / 2)
        return commit(claim, draft)

    monkeypatch.setattr(driver.log, "commit", days_later)

    assert driver.work(claim) is not None
    assert driver.log.clean(claim) == []
    claim.release()
    assert stood_on
    assert [path for path in stood_on if world.disk.status(path) is not None] == []
    world.finish()


def test_a_checkpoint_that_cannot_be_written_is_told_until_it_can(tmp_path: Path) -> None:
    world = World(formats=("avro",))
    for _ in range(6):
        load(world)
    assert cleaned(world) == []
    damaged = world.disk.list(names.INVENTORY)[-1]
    flip_a_byte(world, damaged.path)

    for _ in range(12):
        load(world)
    told = cleaned(world)
    log = world.driver().log

    number = damaged.name.partition(names.SEPARATOR)[0]
    assert len(told) == 1
    assert told[0].startswith(f"the checkpoint that is due could not be written: {damaged.path}: ")
    assert f"delete the checkpoints from {number} on" in told[0]
    assert log.entries_without_checkpoint(log.read()) > 3 * SETTINGS.entries_per_checkpoint
    status = status_of(job_of(tmp_path), offline=True, surroundings=surroundings_of(world))
    assert any("entries are in no checkpoint" in red.what for red in status.red)

    for checkpoint in world.disk.list(names.CHECKPOINTS):
        if checkpoint.name >= number:
            world.disk.delete(checkpoint.path)
    assert cleaned(world) == []
    assert log.entries_without_checkpoint(log.read()) == 0
    status = status_of(job_of(tmp_path), offline=True, surroundings=surroundings_of(world))
    assert status.red == []
    world.finish()
