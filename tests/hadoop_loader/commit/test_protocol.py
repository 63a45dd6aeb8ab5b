"""Sentences of the commit protocol, one test each: what a driver does when it meets this or that at a certain call."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.support.commit_matrices import prepare
from tests.support.commit_simulation import SETTINGS, TOPIC, World

from millstream.hadoop_loader.commit import (
    ClaimedError,
    CommitError,
    CompactionConflictError,
    CorruptLogError,
    Entry,
    EntryKind,
    FencedError,
    LoadDraft,
    LostFileError,
    Role,
    UnappliedError,
    UnsettledError,
    names,
)
from millstream.hadoop_loader.commit.reading import LogReader
from millstream.hadoop_loader.filesystem import AccessDeniedError, FileStatus, QuotaExceededError, UnavailableError
from millstream.hadoop_loader.splits import StagedFile
from millstream.testing.faulty_disk import SimulatedCrashError
from millstream.testing.faulty_filesystem import Fault
from millstream.testing.memory_filesystem import MemoryFileSystem

PUBLISH_CLAIM = r"rename _millstream/publishing/\S+ -> _millstream/log/\S+"
MOVE = rf"rename _millstream/staging/\S+ -> {TOPIC}/\S+\+\d+\.\w+$"
TO_TRASH = rf"rename {TOPIC}/\S+ -> _millstream/trash/"
SWAP_IN = rf"rename _millstream/staging/\S+ -> {TOPIC}/[^+]+$"


@pytest.fixture
def world() -> World:
    made = World()
    prepare(made)
    return made


def at(pattern: str, then: Callable[[], object], *, nth: int = 1) -> Callable[[str], None]:
    """A hook that runs `then` before the nth call whose name matches."""
    seen = 0

    def before_call(name: str) -> None:
        nonlocal seen
        if re.match(pattern, name):
            seen += 1
            if seen == nth:
                then()

    return before_call


def act_number(world: World, role: Role, pattern: str, *, nth: int = 1) -> int:
    """The number of the nth act of such a name in a run without faults, in a world like this one."""
    same = World()
    prepare(same)
    driver = same.driver()
    driver.run(role)
    acts = [number for number, name in enumerate(driver.filesystem.journal, 1) if re.match(pattern, name)]
    return acts[nth - 1]


def entries(world: World) -> dict[int, Entry]:
    reader = LogReader(world.disk, 1)
    found = {number: reader.entry(number) for number in range(1, 100)}
    return {number: entry for number, entry in found.items() if entry is not None}


@pytest.mark.parametrize("fault", [Fault.LATE, Fault.LOST, Fault.ANSWER_LOST])
def test_a_publish_that_is_not_answered_is_settled_by_reading_its_number(world: World, fault: Fault) -> None:
    world.late.is_held = True
    before = world.driver().log.read().number
    act = act_number(world, Role.LOAD, PUBLISH_CLAIM, nth=2)

    entry = world.driver({act: fault}).run(Role.LOAD)

    assert entry is not None
    aborted = [number for number, one in entries(world).items() if one.kind is EntryKind.ABORT]
    assert aborted == ([] if fault is Fault.ANSWER_LOST else [before + 2])
    assert entry.number == before + (2 if fault is Fault.ANSWER_LOST else 3)
    world.finish()


def test_nothing_is_concluded_while_the_number_cannot_be_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    act = act_number(world, Role.LOAD, PUBLISH_CLAIM, nth=2)
    # Neither the rename nor any abort is ever answered, nor takes effect before the driver has given up.
    world.late.is_held = True
    driver = world.driver(dict.fromkeys(range(act, act + 500), Fault.LATE))
    claim = driver.log.claim(Role.LOAD, owner="a", run_id="a")
    driver.log.clean(claim)
    claim.renew()
    with pytest.raises(UnsettledError, match="nothing has been cleaned"):
        driver.work(claim)
    # Tried again under the same claim it might be there twice: the first one may arrive at any time.
    with pytest.raises(UnsettledError, match="may still be on its way; claim anew"):
        driver.log.commit(claim, LoadDraft())

    assert len(world.disk.list(names.STAGING)) > 0
    world.late.flush()
    world.finish()


def test_no_such_file_is_no_certain_answer_while_nobody_can_look(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    # A rename takes effect and its answer is lost inside the client, which sends it again; then the file system goes.
    driver = world.driver()
    claim = driver.log.claim(Role.LOAD, owner="a", run_id="a")
    rename, status = driver.filesystem.rename, driver.filesystem.status
    is_gone = False

    def send_twice(source: str, target: str) -> None:
        nonlocal is_gone
        rename(source, target)
        if target.startswith(names.LOG):
            is_gone = True
            raise FileNotFoundError(source)

    def status_once_back(path: str) -> FileStatus | None:
        nonlocal is_gone
        if is_gone:
            is_gone = False
            raise UnavailableError("no answer", uri="memory://test", path=path)
        return status(path)

    monkeypatch.setattr(driver.filesystem, "rename", send_twice)
    monkeypatch.setattr(driver.filesystem, "status", status_once_back)
    entry = driver.work(claim)
    claim.release()

    assert entry is not None
    assert entries(world)[entry.number].kind is EntryKind.LOAD
    world.finish()


def test_what_no_file_system_could_apply_is_not_published(world: World) -> None:
    driver = world.driver()
    claim = driver.log.claim(Role.LOAD, owner="a", run_id="a")
    staged = StagedFile("s/0", TOPIC, f"key={'ü' * 126}", "avro", TOPIC, "", 0, 0, 9, 10, 1, "crc32c:00000000", 0, 0)
    with pytest.raises(CommitError, match="a name in it is over 255 bytes; nothing was published"):
        driver.log.commit(claim, LoadDraft(files=(staged,)))
    claim.release()

    assert world.driver().run(Role.LOAD) is not None
    world.finish()


@pytest.mark.parametrize("role", list(Role))
def test_a_conflict_with_the_other_role_is_rebased_on(world: World, role: Role) -> None:
    other = Role.COMPACT if role is Role.LOAD else Role.LOAD
    world.produced = 14 if role is Role.LOAD else 9
    winners: list[Entry | None] = []

    def other_runs() -> None:
        world.produced = 14
        winners.append(world.driver().run(other))

    # Late records would come into the directory that is compacted: here there are none among 9 to 13.
    driver = world.driver(before_call=at(PUBLISH_CLAIM, other_runs, nth=2))
    if role is Role.COMPACT:
        world.late_records = False
    entry = driver.run(role)

    assert winners[0] is not None
    assert entry is not None
    assert entry.number > winners[0].number
    assert entry.base == entry.number - 1
    state = world.driver().log.read()
    assert {int(file.name.rpartition("+")[2].split(".")[0]) for file in state.files.under()} >= {
        entry.number,
        winners[0].number,
    }
    world.finish()


def test_a_directory_that_got_a_late_file_is_not_replaced(world: World) -> None:
    driver = world.driver(before_call=at(PUBLISH_CLAIM, lambda: world.driver().run(Role.LOAD), nth=2))
    with pytest.raises(CompactionConflictError, match="its files have changed since it was compacted"):
        driver.run(Role.COMPACT)
    world.finish()


def test_a_file_of_somebody_else_keeps_a_directory_from_being_replaced(world: World) -> None:
    world.disk.create(f"{TOPIC}/avro/part=0/notes.txt").close()
    entry = world.driver().run(Role.COMPACT)
    assert entry is not None
    assert entry.report["left_out"] == {f"{TOPIC}/avro/part=0": "it holds other files than the log says"}
    assert [swap.directory for swap in entry.swaps] == [f"{TOPIC}/parquet/part=0"]


def test_a_later_claim_of_the_role_stops_a_driver_and_its_workers(world: World) -> None:
    taken: list[Entry | None] = []
    driver = world.driver(before_call=at(PUBLISH_CLAIM, lambda: taken.append(world.driver().run(Role.LOAD)), nth=2))
    with pytest.raises(FencedError, match=r"host/run-\d+ \(run run-\d+\) took load over from host/run-\d+"):
        driver.run(Role.LOAD)
    assert taken[0] is not None

    claim = world.driver().log.claim(Role.LOAD, owner="a", run_id="a")
    world.driver().run(Role.LOAD)
    with pytest.raises(FencedError, match="is gone: a later run took over"):
        claim.staging(1, 1)
    with pytest.raises(FencedError, match="took load over from a"):
        claim.renew()
    world.finish()


def test_a_claim_whose_counter_moves_is_left_alone(world: World) -> None:
    claim = world.driver().log.claim(Role.LOAD, owner="db1/4711", run_id="nightly")
    before = world.clock.now_s
    second = world.driver(before_call=at("list _millstream/renewals", claim.renew, nth=8))
    with pytest.raises(ClaimedError, match=r"db1/4711 \(run nightly\) is at work as load"):
        second.run(Role.LOAD)
    assert world.clock.now_s - before < SETTINGS.claim_timeout_s

    assert world.driver().run(Role.COMPACT) is not None  # another role is another claim

    before = world.clock.now_s
    assert world.driver().run(Role.LOAD) is not None  # its counter stands still from here on
    assert SETTINGS.claim_timeout_s <= world.clock.now_s - before < 2 * SETTINGS.claim_timeout_s


def test_a_claim_given_back_is_not_waited_for(world: World) -> None:
    world.driver().log.claim(Role.LOAD, owner="a", run_id="a").release()
    before = world.clock.now_s
    world.driver().run(Role.LOAD)
    assert world.clock.now_s == before


@pytest.mark.parametrize(("role", "act"), [(Role.LOAD, MOVE), (Role.COMPACT, TO_TRASH), (Role.COMPACT, SWAP_IN)])
@pytest.mark.parametrize("fault", [Fault.CRASH_BEFORE, Fault.CRASH_AFTER])
def test_an_entry_left_unapplied_is_applied_before_the_next_is_published(role: Role, act: str, fault: Fault) -> None:
    world = World()
    prepare(world)
    beside = world.driver()
    other = Role.COMPACT if role is Role.LOAD else Role.LOAD
    claim = beside.log.claim(other, owner="beside", run_id="beside")
    dying = world.driver({act_number(world, role, act): fault})
    with pytest.raises(SimulatedCrashError):
        dying.run(role)
    unapplied = beside.log.unapplied()
    assert unapplied is not None

    seen: list[Entry | None] = []
    beside.filesystem.before_call = at(PUBLISH_CLAIM, lambda: seen.append(beside.log.unapplied()))
    if role is Role.LOAD:
        with pytest.raises(CompactionConflictError):
            beside.work(claim)
    else:
        beside.work(claim)
        assert seen == [None]
    assert beside.log.unapplied() is None
    world.finish()


@pytest.mark.parametrize("call", [r"status orders/\S+\+\d+\.\w+$", r"status _millstream/staging/\S+$", MOVE])
def test_two_drivers_that_apply_the_same_entry_agree(world: World, call: str) -> None:
    dying = world.driver({act_number(world, Role.LOAD, MOVE, nth=2): Fault.CRASH_BEFORE})
    with pytest.raises(SimulatedCrashError):
        dying.run(Role.LOAD)
    # The first file is in its place: its rename fails and is judged, and another driver comes right then.
    first = world.driver(before_call=at(call, lambda: world.driver().log.claim(Role.COMPACT, owner="b", run_id="b")))
    assert first.run(Role.LOAD) is None
    world.finish()


@pytest.mark.parametrize("call", [r"status orders/\S+\+\d+\.\w+$", r"status _millstream/staging/\S+$"])
def test_a_file_that_moves_while_it_is_looked_for_is_not_lost(world: World, call: str) -> None:
    def another_applies() -> None:
        # It dies before it publishes anything: no later entry tells that this one was applied.
        dying = world.driver()
        dying.filesystem.before_call = at(PUBLISH_CLAIM, lambda: setattr(dying.filesystem, "is_dead", True))
        with pytest.raises(SimulatedCrashError):
            dying.run(Role.COMPACT)

    driver = world.driver({act_number(world, Role.LOAD, MOVE): Fault.LOST}, before_call=at(call, another_applies))
    assert driver.run(Role.LOAD) is not None
    world.finish()


def test_what_a_compaction_replaced_stays_for_snapshot_retention(world: World) -> None:
    entry = world.driver().run(Role.COMPACT)
    assert entry is not None
    world.clock.wait(SETTINGS.snapshot_retention_s - 10)
    world.driver().run(Role.COMPACT)
    swap = next(iter(entry.swaps))
    trash = names.trash_path(entry.number, swap.directory)
    assert {status.name for status in world.disk.list(trash)} == {*(file.name for file in swap.removed), names.SUCCESS}
    assert swap.removed
    world.clock.wait(20)
    world.driver().run(Role.COMPACT)
    assert world.disk.status(trash) is None


def test_a_file_that_is_in_neither_place_stops_everybody(world: World) -> None:
    dying = world.driver({act_number(world, Role.LOAD, MOVE): Fault.CRASH_BEFORE})
    with pytest.raises(SimulatedCrashError):
        dying.run(Role.LOAD)
    entry = world.driver().log.unapplied()
    assert entry is not None
    lost = next(iter(entry.added))
    kept = f"_millstream/{lost.file.name}"
    world.disk.rename(lost.staged, kept)
    for role in Role:
        with pytest.raises(LostFileError, match=rf"entry {entry.number}: {lost.staged} is gone"):
            world.driver().run(role)

    world.disk.rename(kept, lost.file.path)  # the operator puts it back, into either place
    world.finish()


def test_quota_leaves_an_entry_unapplied_and_the_next_run_goes_on(world: World) -> None:
    def refuse() -> None:
        raise QuotaExceededError("the quota of names is used up", uri="memory://test", path=TOPIC)

    driver = world.driver(before_call=at(MOVE, refuse, nth=3))
    with pytest.raises(UnappliedError, match="used up; raise the quota") as raised:
        driver.run(Role.LOAD)
    unapplied = driver.log.unapplied()
    assert unapplied is not None
    # It counts, so whoever committed it is told which it is; whoever only finishes it has committed nothing.
    assert raised.value.published is not None
    assert raised.value.published.number == unapplied.number
    with pytest.raises(UnappliedError) as raised:
        world.driver(before_call=at(MOVE, refuse)).run(Role.LOAD)
    assert raised.value.published is None
    world.finish()


def test_what_may_not_be_deleted_keeps_nothing_else_from_it(world: World) -> None:
    for run in range(3):
        # Claims of processes that die when they have begun to stage.
        world.driver().log.claim(Role.LOAD, owner="dead", run_id=f"dead-{run}").staging(0, 0)
        world.clock.wait(SETTINGS.claim_timeout_s + 1)
    dead = [status.path for status in world.disk.list(names.STAGING)]

    def refuse() -> None:
        raise AccessDeniedError("Permission denied: user=loader", uri="memory://test", path=dead[0])

    driver = world.driver(before_call=at(rf"rename {dead[0]} ", refuse))
    claim = driver.log.claim(Role.LOAD, owner="a", run_id="a")
    told = driver.log.clean(claim)

    assert len(dead) > 1
    assert [sentence for sentence in told if "Permission denied" in sentence] == told != []
    assert [path for path in dead if world.disk.status(path) is not None] == [dead[0]]
    assert driver.log.clean(claim) == []
    claim.release()
    world.finish()


def test_cleaning_is_due_once_something_is_past_its_time(world: World) -> None:
    log = world.driver().log
    entry = world.driver().run(Role.COMPACT)
    assert entry is not None
    assert not log.cleaning_is_due(Role.LOAD)
    world.clock.wait(SETTINGS.snapshot_retention_s + 1)

    assert log.cleaning_is_due(Role.LOAD)
    claim = world.driver().log.claim(Role.LOAD, owner="a", run_id="a")
    log.clean(claim)
    claim.release()

    # The claim's own staging is no reason for the next one.
    world.clock.wait(SETTINGS.snapshot_retention_s + 1)
    assert not log.cleaning_is_due(Role.LOAD)


def test_a_driver_that_removes_a_stray_takes_no_mark_of_the_compacted_directory(world: World) -> None:
    directory = f"{TOPIC}/avro/part=0"
    success = f"{directory}/{names.SUCCESS}"
    with pytest.raises(SimulatedCrashError):
        world.driver({act_number(world, Role.COMPACT, SWAP_IN): Fault.CRASH_BEFORE}).run(Role.COMPACT)
    world.disk.make_directory(directory)
    world.disk.create(success).close()

    def another_applies() -> None:
        world.driver().run(Role.LOAD)
        assert world.disk.status(success) is not None

    world.clock.wait(SETTINGS.claim_timeout_s + 1)
    driver = world.driver(before_call=at(rf"delete {success}", another_applies))
    driver.run(Role.COMPACT)

    assert world.disk.status(success) is not None
    world.finish()


def test_marks_are_on_disk_before_what_is_published_after_them(world: World) -> None:
    for role in (Role.LOAD, Role.COMPACT):
        driver = world.driver()
        driver.run(role)
        journal = driver.filesystem.journal
        marks = [
            name.removeprefix("create ") for name in journal if re.match(r"create (.*_SUCCESS|\S+/applied/)", name)
        ]
        assert len(marks) > 1
        for path in marks:
            acts = [name.partition(" ")[0] for name in journal if name.endswith(f" {path}")]
            assert acts == ["create", "sync", "close"], path


def test_a_directory_made_late_between_both_renames_is_removed(world: World) -> None:
    directory = f"{TOPIC}/avro/part=0"

    def late_load() -> None:
        world.disk.make_directory(directory)
        world.disk.create(f"{directory}/{names.SUCCESS}").close()

    entry = world.driver(before_call=at(SWAP_IN, late_load)).run(Role.COMPACT)
    assert entry is not None
    assert world.disk.status(f"{directory}/{names.SUCCESS}") is not None
    world.finish()


def test_a_load_that_wakes_up_between_both_renames_leaves_the_directory_alone(world: World) -> None:
    directory = f"{TOPIC}/avro/part=1"

    def compaction_dies() -> None:
        # It finishes the load first, and dies with the directory in trash.
        dying = world.driver()
        swap_in = rf"rename {names.STAGING}/\S+ -> {directory}$"
        dying.filesystem.before_call = at(swap_in, lambda: setattr(dying.filesystem, "is_dead", True))
        with pytest.raises(SimulatedCrashError):
            dying.run(Role.COMPACT)

    driver = world.driver(before_call=at(rf"create {directory}/{names.SUCCESS}", compaction_dies))
    entry = driver.run(Role.LOAD)

    assert entry is not None
    assert driver.log.unapplied() is not None  # it is the compaction's
    assert world.disk.status(directory) is None
    world.finish()


def test_a_directory_that_was_deleted_by_hand_is_closed_all_the_same(world: World) -> None:
    directory = f"{TOPIC}/avro/part=7"
    driver = world.driver()
    claim = driver.log.claim(Role.LOAD, owner="a", run_id="a")
    entry = driver.log.commit(claim, LoadDraft(closed=(directory,)))
    claim.release()

    assert driver.log.unapplied() is None, entry
    assert world.disk.status(f"{directory}/{names.SUCCESS}") is not None


def test_a_compaction_that_wakes_up_days_later_moves_nothing(world: World) -> None:
    # It sleeps just before its first rename; others repair its entry, and its trash is gone when it wakes up.
    driver = world.driver(before_call=at(TO_TRASH, lambda: world.days_pass(6)))
    entry = driver.run(Role.COMPACT)
    world.look("waking up")
    assert entry is not None
    assert world.disk.status(names.trash_path(entry.number)) is None
    world.finish()


def test_a_sleeper_brings_no_number_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "ENTRIES_PER_SEGMENT", 4)
    world = World(settings=replace(SETTINGS, entries_per_checkpoint=2))
    world.produced = 2
    first = world.driver(before_call=at(r"make_child _millstream/log/0+$", lambda: world.days_pass(12)))
    first.run(Role.LOAD)  # it meant to be the first of all; it finds what has happened, and takes a number of today
    assert min(entries(world)) > 1
    world.finish()

    # Its claim has number 1 of a segment of its own; the load's number begins a segment, which it is about to make.
    for nth in range(1, 5):
        world.produced += 1
        sleeper = world.driver(before_call=at(r"make_child _millstream/log/\d+$", lambda: world.days_pass(12)))
        number = sleeper.log.read().number
        try:
            sleeper.run(Role.LOAD)
        except FencedError:
            assert (number + 2) % 4 == 0, f"the {nth}th"
        world.look("waking up")
    assert len(world.disk.list(names.LOG)) <= 3
    world.finish()


def test_a_reader_who_sleeps_while_segments_go_reads_the_log_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "ENTRIES_PER_SEGMENT", 4)
    for pattern in (r"list _millstream/log/\d+$", r"list _millstream/checkpoints", r"open _millstream/log/\d+/\d+$"):
        world = World(settings=replace(SETTINGS, entries_per_checkpoint=2), produced=2)
        world.days_pass(2)
        reader = world.driver(before_call=at(pattern, lambda world=world: world.days_pass(12)))  # type: ignore[misc]
        state = reader.log.read()
        now = world.driver().log.read()
        assert (state.number, state.totals, state.positions) == (now.number, now.totals, now.positions)
        assert len(list(state.files.under())) == sum(total.files for total in now.totals.values())


def test_the_last_segment_is_never_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "ENTRIES_PER_SEGMENT", 4)
    world = World(settings=replace(SETTINGS, entries_per_checkpoint=1, snapshot_retention_s=0))
    for _ in range(12):
        world.days_pass(1)
        segments = [status.name for status in world.disk.list(names.LOG)]
        end = world.driver().log.read().number
        assert segments[-1] == names.number_name(names.segment_of(end))
    assert end > 20
    assert len(segments) <= 2


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-20], lambda data: data.replace(b'"epoch"', b'"epocH"'), lambda _: b""]
)
def test_a_damaged_entry_is_named(world: World, damage: Callable[[bytes], bytes]) -> None:
    path = names.entry_path(2)
    with world.disk.open(path) as file:
        data = file.read_at(0, file.size)
    world.disk.delete(path)
    with world.disk.create(path) as changed:
        changed.write(damage(data))
    with pytest.raises(CorruptLogError, match=rf"{path}: .*bytes that do not fit their checksum"):
        world.driver().run(Role.LOAD)


def test_a_torn_entry_is_never_published(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    before = world.driver().log.read().number
    original = MemoryFileSystem.status

    def shorter(self: MemoryFileSystem, path: str) -> object:
        found = original(self, path)
        return found._replace(length=found.length - 1) if found and path.startswith(names.PUBLISHING) else found

    with monkeypatch.context() as torn:
        torn.setattr(MemoryFileSystem, "status", shorter)
        with pytest.raises(CorruptLogError, match=r"of the \d+ bytes written; run again"):
            world.driver().run(Role.LOAD)
    assert world.driver().log.read().number == before
    world.finish()


def test_run_ids_go_into_names() -> None:
    with pytest.raises(ValueError, match="use at most 64 letters"):
        World().driver().log.claim(Role.LOAD, owner="a", run_id="a/b")


def test_checkpoints_segments_and_inventory_stay_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "ENTRIES_PER_SEGMENT", 4)
    world = World(settings=replace(SETTINGS, entries_per_checkpoint=3))
    most: dict[str, int] = {}
    for _ in range(40):
        world.days_pass(1)
        for directory in (names.CHECKPOINTS, names.LOG, names.INVENTORY, names.TRASH, names.APPLIED, names.STAGING):
            most[directory] = max(most.get(directory, 0), len(world.disk.list(directory)))
    assert most[names.CHECKPOINTS] <= 3
    assert most[names.LOG] <= 4
    assert most[names.INVENTORY] <= 12
    assert most[names.TRASH] <= 2
    assert most[names.APPLIED] <= 2
    assert most[names.STAGING] <= 2
    # The newest checkpoint may be lost: the one before it and the log still have everything.
    state = world.driver().log.read()
    newest = world.disk.list(names.CHECKPOINTS)[-1]
    world.disk.delete(newest.path)
    again = world.driver().log.read()
    assert (again.number, again.positions, again.totals) == (state.number, state.positions, state.totals)
    assert list(again.files.under()) == list(state.files.under())
    world.finish()


def test_a_log_that_lacks_an_entry_is_named(world: World) -> None:
    world.disk.delete(names.entry_path(2))
    with pytest.raises(CorruptLogError, match="_millstream/log: lacks entries behind its last checkpoint"):
        world.driver().run(Role.LOAD)
    with pytest.raises(LookupError, match="lacks what number 3 takes"):
        world.driver().log.read(3)
