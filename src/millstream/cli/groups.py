"""`millstream groups`: list, describe, delete, delete-offsets; reset-offsets is in `reset_offsets`.

What Kafka's ConsumerGroupCommand does, under the same names of commands and options where they mean the same.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import typer

from millstream.cli import reset_offsets
from millstream.cli.group_options import AllGroups, Groups, Partitions, check_named, groups_of, parse_partitions
from millstream.cli.options import (
    BOOTSTRAP_DEFAULT,
    TIMEOUT_DEFAULT_S,
    Bootstrap,
    Json,
    Timeout,
    examples,
    on_cluster,
)
from millstream.cli.output import done, fail, note, print_json, print_table
from millstream.core.client import (
    LATEST,
    Client,
    CommittedOffset,
    GroupDescription,
    GroupListing,
    GroupMember,
    GroupType,
    TopicPartition,
    delete_groups,
    delete_offsets,
    describe_groups,
    fetch_offsets,
    list_groups,
    list_offsets,
)
from millstream.core.wire import ErrorCode, KafkaError

# Of groups of all types; Kafka's tool refuses others too, as a list that is empty for want of a letter says nothing.
_STATES: Final = (
    "Stable",
    "Empty",
    "PreparingRebalance",
    "CompletingRebalance",
    "Assigning",
    "Reconciling",
    "NotReady",
    "Dead",
)

_group = typer.Typer(no_args_is_help=True, help="List, describe, reset and delete consumer groups.")


def register(app: typer.Typer) -> None:
    reset_offsets.register(_group)
    app.add_typer(_group, name="groups")


@_group.command(
    "list",
    epilog=examples(
        "millstream groups list",
        "millstream groups list --state Stable,Empty",
        "millstream groups list --type consumer --json | jq -r '.[].group'",
    ),
)
def list_command(
    state: Annotated[
        str | None, typer.Option("--state", metavar="STATES", help="Only in these states, as Stable,Empty.")
    ] = None,
    kind: Annotated[
        str | None, typer.Option("--type", metavar="TYPES", help="Only of these types: classic, consumer.")
    ] = None,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    timeout: Timeout = TIMEOUT_DEFAULT_S,
    as_json: Json = False,
) -> None:
    """List the groups of the cluster."""
    states = None if state is None else _states(state)
    types = None if kind is None else _types(kind)
    listed = [
        one
        for one in on_cluster(bootstrap, timeout, list_groups)
        if (states is None or one.state.lower() in states) and (types is None or one.type in types)
    ]
    if as_json:
        print_json([_listing(one) for one in listed])
    elif listed:
        print_table(
            ("GROUP", "TYPE", "PROTOCOL", "STATE", "COORDINATOR"),
            [(one.group_id, one.type.value, one.protocol_type, one.state, one.coordinator) for one in listed],
        )
    else:
        note("there are no groups" if state is None and kind is None else "there are no such groups")


@_group.command(
    epilog=examples(
        "millstream groups describe billing",
        "millstream groups describe --all-groups --state",
        "millstream groups describe billing --members --verbose",
        "millstream groups describe billing --json | jq '[.[].offsets[].lag] | add'",
    )
)
def describe(
    names: Groups = None,
    all_groups: AllGroups = False,
    members: Annotated[bool, typer.Option("--members", help="Who is in the group, instead of its offsets.")] = False,
    state: Annotated[bool, typer.Option("--state", help="The group's state, instead of its offsets.")] = False,
    offsets: Annotated[bool, typer.Option("--offsets", help="What was committed, and the lag; the default.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Also epochs, and which partitions each member has.")
    ] = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    timeout: Timeout = TIMEOUT_DEFAULT_S,
    as_json: Json = False,
) -> None:
    """Show what groups have committed and how far behind they are, or their members, or their state.

    With --json everything is printed.
    """
    if members + state + offsets > 1:
        raise typer.BadParameter("give one of --offsets, --members, --state")

    async def work(client: Client) -> tuple[list[_Described], list[KafkaError]]:
        wanted = await groups_of(client, names, all_groups)
        found = await describe_groups(client, wanted)
        described = [one for one in found.values() if isinstance(one, GroupDescription)]
        errors = [one for one in found.values() if isinstance(one, KafkaError)]
        if all_groups:  # one may have gone since they were listed
            errors = [error for error in errors if error.code is not ErrorCode.GROUP_ID_NOT_FOUND]
        if (members or state) and not as_json:
            return [_Described(group) for group in described], errors
        return await _with_offsets(client, described), errors

    described, errors = on_cluster(bootstrap, timeout, work)
    if errors and not described:
        raise errors[0]
    if as_json:
        print_json([_as_json(one) for one in described])
    elif not described:
        note("there are no groups")
    elif state:
        _print_states([one.group for one in described], verbose)
    elif members:
        _print_members([one.group for one in described], verbose)
    else:
        _print_offsets(described, verbose)
    if errors:
        fail("; ".join(error.message for error in errors))


@_group.command(epilog=examples("millstream groups delete billing", "millstream groups delete --all-groups --yes"))
def delete(
    names: Groups = None,
    all_groups: AllGroups = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    timeout: Timeout = TIMEOUT_DEFAULT_S,
    as_json: Json = False,
) -> None:
    """Delete groups that have no members, with all they committed."""
    check_named(names, all_groups)
    if not yes:
        _ask("deleting a group", f"Delete {'every group' if all_groups else ', '.join(names or [])}?")

    async def work(client: Client) -> dict[str, KafkaError | None]:
        return await delete_groups(client, await groups_of(client, names, all_groups))

    results = on_cluster(bootstrap, timeout, work)
    _report(results, "group", as_json)


@_group.command(
    "delete-offsets",
    epilog=examples(
        "millstream groups delete-offsets billing --topic flights",
        "millstream groups delete-offsets billing --topic flights:0,1 --json",
    ),
)
def delete_offsets_command(
    name: Annotated[str, typer.Argument(metavar="GROUP", help="Whose offsets.")],
    topic: Partitions,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    timeout: Timeout = TIMEOUT_DEFAULT_S,
    as_json: Json = False,
) -> None:
    """Forget what a group committed for topics that none of its members reads."""

    async def work(client: Client) -> dict[TopicPartition, KafkaError | None]:
        return await delete_offsets(client, name, await parse_partitions(client, topic))

    results = on_cluster(bootstrap, timeout, work)
    _report({str(tp): error for tp, error in sorted(results.items())}, "partition", as_json)


@dataclass
class _Described:
    """A group with what it committed and where its partitions end (None: no leader, or no such partition)."""

    group: GroupDescription
    committed: Mapping[TopicPartition, CommittedOffset] = field(default_factory=dict)
    ends: Mapping[TopicPartition, int | None] = field(default_factory=dict)

    def partitions(self) -> list[tuple[TopicPartition, int | None, int | None, int | None, GroupMember | None]]:
        """Partition, committed offset, end, lag and the member that has it: all committed or assigned."""
        owners = {tp: member for member in self.group.members for tp in member.assigned}
        rows = []
        for tp in sorted({*self.committed, *owners}):
            committed = self.committed[tp].offset if tp in self.committed else None
            end = self.ends.get(tp)
            lag = None if committed is None or end is None else end - committed
            rows.append((tp, committed, end, lag, owners.get(tp)))
        return rows


async def _with_offsets(client: Client, groups: list[GroupDescription]) -> list[_Described]:
    committed = await fetch_offsets(client, dict.fromkeys(group.group_id for group in groups))
    partitions = {tp for offsets in committed.values() for tp in offsets}
    partitions |= {tp for group in groups for member in group.members for tp in member.assigned}
    topics = (await client.metadata({tp.topic for tp in partitions})).topics if partitions else {}
    led = {
        TopicPartition(name, info.partition)
        for name, one in topics.items()
        for info in one.partitions
        if info.leader >= 0
    }
    found = await list_offsets(client, dict.fromkeys(sorted(partitions & led), LATEST))
    ends = {tp: at.offset for tp, at in found.items()}
    return [_Described(group, committed.get(group.group_id, {}), ends) for group in groups]


def _print_offsets(described: list[_Described], verbose: bool) -> None:
    epoch = ("LEADER EPOCH",) if verbose else ()
    columns = ("GROUP", "TOPIC", "PARTITION", "COMMITTED", *epoch, "END", "LAG", "MEMBER", "HOST", "CLIENT")
    rows: list[tuple[object, ...]] = []
    for one in described:
        group = one.group
        if not group.is_active:
            note(f"group {group.group_id!r} has no members")
        elif group.state != "Stable":
            note(f"group {group.group_id!r} is rebalancing ({group.state})")
        for tp, committed, end, lag, member in one.partitions():
            known = one.committed.get(tp)
            epochs = (
                ((known.leader_epoch if known is not None and known.leader_epoch >= 0 else None),) if verbose else ()
            )
            whose = (None, None, None) if member is None else (_name(member), member.host, member.client_id)
            rows.append((group.group_id, tp.topic, tp.partition, committed, *epochs, end, lag, *whose))
    if rows:
        print_table(columns, rows, numbers=("PARTITION", "COMMITTED", "LEADER EPOCH", "END", "LAG"))
    else:
        note("nothing is committed, and nothing assigned")


def _print_members(groups: list[GroupDescription], verbose: bool) -> None:
    more = ("EPOCH", "ASSIGNED", "TARGET EPOCH", "TARGET") if verbose else ()
    columns = ("GROUP", "MEMBER", "INSTANCE", "HOST", "CLIENT", "PARTITIONS", *more)
    rows: list[tuple[object, ...]] = []
    for group in groups:
        for member in group.members:
            row = (group.group_id, member.member_id, member.instance_id, member.host, member.client_id)
            details: tuple[object, ...] = ()
            if verbose:
                target = None if member.target is None else _assigned(member.target)
                details = (member.epoch, _assigned(member.assigned), group.assignment_epoch, target)
            rows.append((*row, len(member.assigned), *details))
        if not group.members:
            note(f"group {group.group_id!r} has no members")
    if rows:
        print_table(columns, rows, numbers=("PARTITIONS", "EPOCH", "TARGET EPOCH"))


def _print_states(groups: list[GroupDescription], verbose: bool) -> None:
    more = ("EPOCH", "TARGET EPOCH") if verbose else ()
    rows = [
        (
            group.group_id,
            group.type.value,
            group.coordinator,
            group.assignor or None,
            group.state,
            len(group.members),
            *((group.epoch, group.assignment_epoch) if verbose else ()),
        )
        for group in groups
    ]
    columns = ("GROUP", "TYPE", "COORDINATOR", "ASSIGNOR", "STATE", "MEMBERS", *more)
    print_table(columns, rows, numbers=("MEMBERS", "EPOCH", "TARGET EPOCH"))


def _as_json(one: _Described) -> dict[str, Any]:
    group = one.group
    return {
        "group": group.group_id,
        "type": group.type.value or None,
        "protocol": group.protocol_type,
        "state": group.state,
        "assignor": group.assignor or None,
        "coordinator": group.coordinator,
        "epoch": group.epoch,
        "assignment_epoch": group.assignment_epoch,
        "members": [
            {
                "id": member.member_id,
                "instance": member.instance_id,
                "client": member.client_id,
                "host": member.host,
                "rack": member.rack,
                "epoch": member.epoch,
                "assigned": _pairs(member.assigned),
                "target": None if member.target is None else _pairs(member.target),
            }
            for member in group.members
        ],
        "offsets": [
            {
                "topic": tp.topic,
                "partition": tp.partition,
                "committed": committed,
                "leader_epoch": one.committed[tp].leader_epoch if tp in one.committed else None,
                "metadata": one.committed[tp].metadata if tp in one.committed else None,
                "end": end,
                "lag": lag,
                "member": None if member is None else member.member_id,
            }
            for tp, committed, end, lag, member in one.partitions()
        ],
    }


def _listing(one: GroupListing) -> dict[str, Any]:
    return {
        "group": one.group_id,
        "type": one.type.value or None,
        "protocol": one.protocol_type,
        "state": one.state or None,
        "coordinator": one.coordinator,
    }


def _types(text: str) -> set[GroupType]:
    known = {one.name.lower(): one for one in GroupType if one is not GroupType.UNKNOWN}
    names = [name.strip().lower() for name in text.split(",")]
    if unknown := [name for name in names if name not in known]:
        raise typer.BadParameter(f"there is no type {unknown[0]!r}; there are {', '.join(known)}", param_hint="--type")
    return {known[name] for name in names}


def _states(text: str) -> set[str]:
    known = {one.lower() for one in _STATES}
    names = [name.strip().lower() for name in text.split(",")]
    if unknown := [name for name in names if name not in known]:
        raise typer.BadParameter(
            f"there is no state {unknown[0]!r}; there are {', '.join(_STATES)}", param_hint="--state"
        )
    return set(names)


def _name(member: GroupMember) -> str:
    return member.member_id if member.instance_id is None else member.instance_id


def _assigned(partitions: tuple[TopicPartition, ...]) -> str:
    """Kafka's way of writing them: flights(0,1), weather(3)."""
    topics: dict[str, list[int]] = {}
    for tp in partitions:
        topics.setdefault(tp.topic, []).append(tp.partition)
    return ", ".join(f"{topic}({','.join(map(str, indexes))})" for topic, indexes in topics.items()) or "-"


def _pairs(partitions: tuple[TopicPartition, ...]) -> list[dict[str, Any]]:
    return [{"topic": tp.topic, "partition": tp.partition} for tp in partitions]


def _ask(deed: str, question: str) -> None:
    """Have a person confirm; where there is none, fail."""
    if not sys.stdin.isatty():
        fail(f"{deed} cannot be undone: say --yes where nobody can be asked")
    typer.confirm(question, abort=True, err=True)


def _report(results: Mapping[str, KafkaError | None], what: str, as_json: bool) -> None:
    """Print what became of each; one that failed makes the command fail."""
    if as_json:
        print_json(
            [
                {
                    what: name,
                    "changed": error is None,
                    "error": None if error is None else error.code.name,
                    "message": None if error is None else error.message,
                }
                for name, error in results.items()
            ]
        )
    else:
        for name, error in results.items():
            if error is None:
                done(f"{name}: deleted")
        if not results:
            note("there was nothing to delete")
    if failed := [error for error in results.values() if error is not None]:
        fail("; ".join(error.message for error in failed))
