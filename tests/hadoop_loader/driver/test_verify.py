"""What `verify --repair` gives back, and when: a mark says that all rows are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.support.commit_commands import job_of, surroundings_of
from tests.support.commit_simulation import TOPIC, World

from millstream.hadoop_loader.commit import Role, UnappliedError, names
from millstream.hadoop_loader.driver.verify import Verified, verify_destination
from millstream.hadoop_loader.filesystem import QuotaExceededError

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
