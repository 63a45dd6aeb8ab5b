"""Checkpoints that cannot be written: what stays of the attempt, and what is told of it."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from tests.support.commit_simulation import SETTINGS, World

from millstream.hadoop_loader.commit import Role, names
from millstream.hadoop_loader.commit.checkpoints import check_length
from millstream.hadoop_loader.filesystem import AccessDeniedError, QuotaExceededError, UnknownOutcomeError

TEMPORARY = r"create _millstream/publishing/\S+\+checkpoint"
RENAME = r"rename _millstream/publishing/(\S+)\+checkpoint -> _millstream/checkpoints/(\d+)"


def refusing(pattern: str, error: Callable[[str], Exception]) -> Callable[[str], None]:
    """A hook that has calls of such names fail; `error` gets the name."""

    def before_call(name: str) -> None:
        if re.match(pattern, name):
            raise error(name)

    return before_call


def denied(name: str) -> Exception:
    return AccessDeniedError("Permission denied: user=loader", uri="memory://test", path=name)


def over_quota(name: str) -> Exception:
    return QuotaExceededError("the quota of names is used up", uri="memory://test", path=name)


def unanswered(name: str) -> Exception:
    return UnknownOutcomeError("no answer", uri="memory://test", path=name)


def load(world: World, before_call: Callable[[str], None] | None = None) -> list[str]:
    """One run, and what its cleaning tells."""
    world.produced += 3
    driver = world.driver(before_call=before_call)
    claim = driver.log.claim(Role.LOAD, owner="a", run_id=driver.run_id)
    driver.work(claim)
    told = driver.log.clean(claim)
    claim.release()
    return told


@pytest.fixture
def world() -> World:
    """One whose first checkpoint is due at the next run."""
    made = World(formats=("avro",), late_records=False)
    while made.driver().log.read().number + 2 < SETTINGS.entries_per_checkpoint:
        load(made)
    assert made.disk.list(names.CHECKPOINTS) == []
    return made


@pytest.mark.parametrize(("call", "error"), [(RENAME, denied), (TEMPORARY, over_quota)])
def test_attempts_at_a_checkpoint_that_fail_leave_nothing(
    world: World, call: str, error: Callable[[str], Exception]
) -> None:
    for _ in range(3):
        told = load(world, refusing(call, error))
        assert len(told) == 1
        assert told[0].startswith("the checkpoint that is due could not be written: memory://test/")
        assert world.disk.list(names.INVENTORY) == []
        assert not [status for status in world.disk.list(names.PUBLISHING) if status.name.endswith("+checkpoint")]

    assert load(world) == []
    assert len(world.disk.list(names.CHECKPOINTS)) == 1
    world.finish()


def test_a_refusal_of_a_rename_that_took_effect_keeps_the_run_that_the_checkpoint_names(world: World) -> None:
    def sent_twice(name: str) -> Exception:
        # The answer to the first sending was lost inside the client; the second is refused.
        temporary, target = name.removeprefix("rename ").split(" -> ")
        if world.disk.status(temporary) is not None:
            world.disk.rename(temporary, target)
        return denied(name)

    load(world, refusing(RENAME, sent_twice))

    assert world.disk.list(names.CHECKPOINTS) != []
    state = world.driver().log.read()
    assert [run.path for run in state.files.runs] == [status.path for status in world.disk.list(names.INVENTORY)]
    assert list(state.files.under()) != []
    world.finish()


def test_a_temporary_that_the_other_role_cleaned_away_is_no_problem(world: World) -> None:
    def cleaned(name: str) -> None:
        if re.match(RENAME, name):
            world.disk.delete(name.split(" ")[1])

    assert load(world, cleaned) == []
    assert world.disk.list(names.CHECKPOINTS) == []
    # Nor is a rename that was not answered; the run stays, for a checkpoint may yet come that names it.
    assert load(world, refusing(RENAME, unanswered)) == []
    assert world.disk.list(names.INVENTORY) != []

    assert load(world) == []
    assert len(world.disk.list(names.CHECKPOINTS)) == 1
    world.finish()


def test_a_run_that_is_gone_is_named_with_what_to_do(world: World) -> None:
    load(world)
    [run] = world.disk.list(names.INVENTORY)
    with world.disk.open(run.path) as file:
        data = file.read_at(0, file.size)
    world.disk.delete(run.path)

    # Until the next checkpoint is due, and would merge that run.
    told = next(filter(None, (load(world) for _ in range(2 * SETTINGS.entries_per_checkpoint))))

    assert len(told) == 1
    assert f"could not be written: {run.path}: is not there; restore the file" in told[0]
    assert world.disk.list(names.INVENTORY) == []
    with world.disk.create(run.path) as restored:
        restored.write(data)
    assert load(world) == []
    world.finish()


def test_a_file_that_is_not_there_is_told_with_its_reason(world: World) -> None:
    with pytest.raises(FileNotFoundError, match=r"No such file or directory: 'memory://test/nowhere'"):
        check_length(world.disk, "nowhere", 1)
