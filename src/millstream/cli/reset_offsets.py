"""`millstream groups reset-offsets`: set what groups have committed; shows the plan, and does it with --execute.

A plan is a new offset per partition: an end of its log, a time, an offset, a step from the committed one, or a file.
It is held within the log, as Kafka's own command does it. Of several groups one that cannot be reset, since it has
members or nothing to shift, does not keep the others from it; the command fails in the end.
"""

from __future__ import annotations

import csv
import io
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer

from millstream.cli.errors import CommandError
from millstream.cli.group_options import AllGroups, Groups, groups_of, parse_partitions
from millstream.cli.options import (
    BOOTSTRAP_DEFAULT,
    TIMEOUT_DEFAULT_S,
    Bootstrap,
    Json,
    Timeout,
    examples,
    on_cluster,
)
from millstream.cli.output import fail, note, print_json, print_table
from millstream.cli.times import parse_time
from millstream.core.client import (
    EARLIEST,
    LATEST,
    Client,
    CommittedOffset,
    GroupDescription,
    TopicPartition,
    commit_offsets,
    describe_groups,
    fetch_offsets,
    list_offsets,
)
from millstream.core.wire import ErrorCode, KafkaError

# ISO 8601, as Kafka's command takes it: P1DT2H30M.
_DURATION: Final = re.compile(
    r"P(?:(?P<weeks>\d{1,12})W)?(?:(?P<days>\d{1,12})D)?"
    r"(?:T(?:(?P<hours>\d{1,12})H)?(?:(?P<minutes>\d{1,12})M)?(?:(?P<seconds>\d{1,12}(?:\.\d{1,12})?)S)?)?",
    re.IGNORECASE,
)
_SECONDS: Final = {"weeks": 604_800, "days": 86_400, "hours": 3600, "minutes": 60, "seconds": 1}
_CSV_COLUMNS: Final = (3, 4)  # topic,partition,offset, or with the group before


def register(group: typer.Typer) -> None:
    group.command(
        "reset-offsets",
        epilog=examples(
            "millstream groups reset-offsets billing --topic flights --to-earliest",
            "millstream groups reset-offsets billing --topic flights:0,1 --shift-by -100 --execute",
            "millstream groups reset-offsets billing --all-topics --to-datetime 2026-03-01T00:00:00Z --execute",
            "millstream groups reset-offsets billing --all-topics --by-duration PT2H --export > plan.csv",
            "millstream groups reset-offsets billing --from-file plan.csv --execute",
        ),
    )(reset_offsets)


def reset_offsets(
    names: Groups = None,
    all_groups: AllGroups = False,
    topic: Annotated[
        list[str] | None,
        typer.Option("--topic", "-t", metavar="TOPIC[:0,1]", help="All its partitions, or these; repeatable."),
    ] = None,
    all_topics: Annotated[bool, typer.Option("--all-topics", help="Every partition the group has committed.")] = False,
    to_earliest: Annotated[bool, typer.Option("--to-earliest", help="To the start of each log.")] = False,
    to_latest: Annotated[bool, typer.Option("--to-latest", help="To the end of each log.")] = False,
    to_current: Annotated[
        bool, typer.Option("--to-current", help="To what is committed; to the end where nothing is.")
    ] = False,
    to_offset: Annotated[int | None, typer.Option("--to-offset", metavar="N", min=0, help="To this offset.")] = None,
    shift_by: Annotated[
        int | None, typer.Option("--shift-by", metavar="N", help="By so many from what is committed; -N is back.")
    ] = None,
    to_datetime: Annotated[
        str | None,
        typer.Option("--to-datetime", metavar="WHEN", help="To the first record at or after it, as 2026-03-01T12:00Z."),
    ] = None,
    by_duration: Annotated[
        str | None, typer.Option("--by-duration", metavar="P1DT2H", help="To the first record no older than that.")
    ] = None,
    from_file: Annotated[
        Path | None, typer.Option("--from-file", metavar="CSV", help="To what a file says, as --export writes it.")
    ] = None,
    execute: Annotated[bool, typer.Option("--execute", help="Do it; otherwise the plan is shown.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan, as it is without --execute.")] = False,
    export: Annotated[bool, typer.Option("--export", help="Print the plan as CSV, for --from-file.")] = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    timeout: Timeout = TIMEOUT_DEFAULT_S,
    as_json: Json = False,
) -> None:
    """Set what groups without members have committed: shows the plan, and changes nothing without --execute."""
    target = _target(
        {
            "--to-earliest": (lambda: _Target(timestamp=EARLIEST)) if to_earliest else None,
            "--to-latest": (lambda: _Target(timestamp=LATEST)) if to_latest else None,
            "--to-current": _Target if to_current else None,
            "--to-offset": None if to_offset is None else lambda: _Target(offset=to_offset),
            "--shift-by": None if shift_by is None else lambda: _Target(shift=shift_by),
            "--to-datetime": None if to_datetime is None else lambda: _Target(timestamp=_date_ms(to_datetime or "")),
            "--by-duration": None
            if by_duration is None
            else lambda: _Target(timestamp=max(0, int(time.time() * 1000) - duration_ms(by_duration or ""))),
            "--from-file": None if from_file is None else lambda: _Target(rows=_read_file(from_file or Path())),
        }
    )
    if execute and dry_run:
        raise typer.BadParameter("--execute and --dry-run exclude each other")
    if as_json and export:
        raise typer.BadParameter("--json and --export exclude each other")
    if target.rows is None and bool(topic) == all_topics:
        raise typer.BadParameter("give --topic or --all-topics")
    if target.rows is not None and (topic or all_topics):
        raise typer.BadParameter("a file names its partitions itself", param_hint="--from-file")

    async def work(client: Client) -> tuple[dict[str, dict[TopicPartition, _Step]], list[str]]:
        groups = await groups_of(client, names, all_groups)
        if target.rows is not None:
            _check_rows(target.rows, groups, alone=len(groups) == 1 and not all_groups)
        named = await parse_partitions(client, topic or [])
        plans: dict[str, dict[TopicPartition, _Step]] = {}
        refused: list[str] = []
        for group, described in (await describe_groups(client, groups)).items():
            try:
                _refuse_active(group, described)
                steps = await _plan(client, group, named, target)
                if execute and steps:
                    await commit_offsets(client, group, {tp: CommittedOffset(step.new) for tp, step in steps.items()})
            except (CommandError, KafkaError) as error:
                refused.append(error.message if isinstance(error, KafkaError) else str(error))
            else:
                plans[group] = steps
        return plans, refused

    plans, refused = on_cluster(bootstrap, timeout, work)
    if refused and not plans:
        fail("; ".join(refused))
    if export:
        sys.stdout.write(_csv(plans))
    elif as_json:
        print_json(_as_json(plans, execute))
    else:
        _print(plans, execute)
    if refused:
        fail("; ".join(refused))


@dataclass(frozen=True)
class _Target:
    """Where to; nothing given: what is committed."""

    timestamp: int | None = None
    offset: int | None = None
    shift: int | None = None
    rows: list[tuple[str | None, TopicPartition, int]] | None = None


@dataclass(frozen=True)
class _Step:
    """A partition's offset before and after."""

    old: int | None
    new: int


def _target(given: Mapping[str, Callable[[], _Target] | None]) -> _Target:
    chosen = [make for make in given.values() if make is not None]
    if len(chosen) != 1:
        raise typer.BadParameter(f"give one of {', '.join(given)}")
    return chosen[0]()


def _refuse_active(group_id: str, described: GroupDescription | KafkaError) -> None:
    if isinstance(described, KafkaError):
        # A group may be given offsets before it has ever been there.
        if described.code is not ErrorCode.GROUP_ID_NOT_FOUND:
            raise described
    elif described.is_active:
        fail(f"group {group_id!r} is {described.state}: its offsets can be reset when all its members have stopped")


async def _plan(
    client: Client, group: str, named: list[TopicPartition], target: _Target
) -> dict[TopicPartition, _Step]:
    committed = {tp: at.offset for tp, at in (await fetch_offsets(client, {group: None}))[group].items()}
    rows = None
    if target.rows is not None:
        rows = {tp: offset for whose, tp, offset in target.rows if whose in {group, None}}
        await _check_partitions(client, rows)
    wanted = sorted(rows if rows is not None else named or committed)
    if not wanted:
        return {}
    starts = await _offsets_at(client, wanted, EARLIEST)
    ends = await _offsets_at(client, wanted, LATEST)
    if rows is not None:
        new = rows
    elif target.offset is not None:
        new = dict.fromkeys(wanted, target.offset)
    elif target.shift is not None:
        if lacking := [tp for tp in wanted if tp not in committed]:
            fail(f"group {group!r} has committed nothing for {lacking[0]}: there is no offset to shift")
        new = {tp: committed[tp] + target.shift for tp in wanted}
    elif target.timestamp is None:
        new = {tp: committed.get(tp, ends[tp]) for tp in wanted}
    else:
        # No record that young: the end.
        found = await _offsets_at(client, wanted, target.timestamp)
        new = {tp: found[tp] if found[tp] >= 0 else ends[tp] for tp in wanted}
    plan: dict[TopicPartition, _Step] = {}
    for tp in wanted:
        held = min(max(new[tp], starts[tp]), ends[tp])
        if held != new[tp]:
            note(f"{tp} has no offset {new[tp]}: it has {starts[tp]} to {ends[tp]}, {held} is taken")
        plan[tp] = _Step(committed.get(tp), held)
    return plan


async def _check_partitions(client: Client, partitions: Iterable[TopicPartition]) -> None:
    indexes: dict[str, list[int]] = {}
    for tp in partitions:
        indexes.setdefault(tp.topic, []).append(tp.partition)
    for topic, wanted in indexes.items():
        known = {info.partition for info in (await client.metadata([topic])).topic(topic).partitions}
        if missing := sorted(set(wanted) - known):
            fail(f"topic {topic!r} has no partition {missing[0]}: it has {len(known)}, from 0 on")


async def _offsets_at(
    client: Client, partitions: Iterable[TopicPartition], timestamp: int
) -> dict[TopicPartition, int]:
    found = await list_offsets(client, dict.fromkeys(partitions, timestamp))
    return {tp: at.offset for tp, at in found.items()}


def duration_ms(text: str) -> int:
    """Read an ISO 8601 duration (P1DT2H30M) as milliseconds. Raises BadParameter."""
    match = _DURATION.fullmatch(text.strip())
    parts = {name: value for name, value in match.groupdict().items() if value} if match else {}
    if not parts:
        raise typer.BadParameter(f"{text!r} is no duration: write P7D, PT12H, P1DT2H30M", param_hint="--by-duration")
    return int(sum(_SECONDS[name] * float(value) for name, value in parts.items()) * 1000)


def _date_ms(text: str) -> int:
    timestamp = parse_time(text)
    if timestamp < 0:
        raise typer.BadParameter(f"{text!r} is no date: write 2026-03-01T12:00:00Z", param_hint="--to-datetime")
    return timestamp


def _read_file(path: Path) -> list[tuple[str | None, TopicPartition, int]]:
    found: list[tuple[str | None, TopicPartition, int]] = []
    with path.open("rb") as file:
        # A table program may have put a byte order mark in front.
        lines = file.read().decode("utf-8-sig", errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            row = [cell.strip() for cell in next(csv.reader([line]), ())]
        except csv.Error as error:
            fail(f"{path}:{number}: {error}")
        if not row:
            continue
        *group, topic, partition, offset = row if len(row) in _CSV_COLUMNS else ("", "", "")
        if not (topic and all(each.isascii() and each.isdigit() for each in (partition, offset))):
            fail(f"{path}:{number}: a line is topic,partition,offset or group,topic,partition,offset")
        found.append((group[0] if group else None, TopicPartition(topic, int(partition)), int(offset)))
    return found


def _check_rows(rows: list[tuple[str | None, TopicPartition, int]], groups: list[str], *, alone: bool) -> None:
    """Lines without a group's name are meant for the only one."""
    if not alone and any(whose is None for whose, _, _ in rows):
        fail("with several groups each line of the file begins with its group: group,topic,partition,offset")
    for other in sorted({whose for whose, _, _ in rows if whose is not None and whose not in groups}):
        note(f"the file's lines for group {other!r} are passed over: it was not named")


def _csv(plans: Mapping[str, Mapping[TopicPartition, _Step]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for group, steps in plans.items():
        first = () if len(plans) == 1 else (group,)
        writer.writerows((*first, tp.topic, tp.partition, step.new) for tp, step in steps.items())
    return out.getvalue()


def _as_json(plans: Mapping[str, Mapping[TopicPartition, _Step]], execute: bool) -> list[dict[str, object]]:
    return [
        {
            "group": group,
            "topic": tp.topic,
            "partition": tp.partition,
            "offset": step.old,
            "new_offset": step.new,
            "changed": execute,
        }
        for group, steps in plans.items()
        for tp, step in steps.items()
    ]


def _print(plans: Mapping[str, Mapping[TopicPartition, _Step]], execute: bool) -> None:
    rows = [
        (group, tp.topic, tp.partition, step.old, step.new)
        for group, steps in plans.items()
        for tp, step in steps.items()
    ]
    if not rows:
        note("there is nothing to reset: the groups have committed nothing there")
        return
    print_table(
        ("GROUP", "TOPIC", "PARTITION", "OFFSET", "NEW OFFSET"), rows, numbers=("PARTITION", "OFFSET", "NEW OFFSET")
    )
    if not execute:
        note("nothing was changed: --execute does it")
