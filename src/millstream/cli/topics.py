"""`millstream topics`: list, describe, create, alter, delete, trim."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from millstream.cli.options import (
    BOOTSTRAP_DEFAULT,
    TIMEOUT_DEFAULT_S,
    Bootstrap,
    Json,
    Timeout,
    examples,
    on_cluster,
    pairs_of,
    partitions_of,
)
from millstream.cli.output import done, fail, note, out, print_json, print_table
from millstream.cli.times import parse_time
from millstream.core.client import (
    EARLIEST,
    LATEST,
    Client,
    ConfigResource,
    ConfigResourceType,
    ConfigSource,
    NewTopic,
    TopicInfo,
    TopicPartition,
    create_partitions,
    create_topics,
    delete_records,
    delete_topics,
    describe_configs,
    list_offsets,
)
from millstream.core.wire import ErrorCode, KafkaError, uuid_text

_group = typer.Typer(no_args_is_help=True, help="List, describe, create, alter, trim and delete topics.")
_Names = Annotated[list[str], typer.Argument(metavar="TOPIC", help="Topic names.", show_default=False)]


def register(app: typer.Typer) -> None:
    app.add_typer(_group, name="topics")


@_group.command(
    "list",
    epilog=examples("millstream topics list", "millstream topics list -b kafka1:9092 --json | jq '.[].name'"),
)
def list_topics(
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    internal: Annotated[bool, typer.Option("--internal", help="Also the cluster's internal topics.")] = False,
    timeout: Timeout = TIMEOUT_DEFAULT_S,
    as_json: Json = False,
) -> None:
    """List the cluster's topics."""

    async def work(client: Client) -> list[TopicInfo]:
        cluster = await client.metadata()
        return sorted(
            (topic for topic in cluster.topics.values() if internal or not topic.is_internal), key=lambda one: one.name
        )

    topics = on_cluster(bootstrap, timeout, work)
    if as_json:
        print_json([_summary(topic) for topic in topics])
    elif topics:
        print_table(
            ("TOPIC", "PARTITIONS", "REPLICAS"),
            [(topic.name, len(topic.partitions), _replication(topic)) for topic in topics],
            numbers=("PARTITIONS", "REPLICAS"),
        )
    else:
        note("there are no topics; `millstream topics create NAME` makes one")


@_group.command(
    epilog=examples(
        "millstream topics describe flights",
        "millstream topics describe flights weather --json",
        "millstream topics describe --under-replicated -b kafka1:9092",
    )
)
def describe(
    names: Annotated[list[str] | None, typer.Argument(metavar="TOPIC", help="Topics; all of them otherwise.")] = None,
    under_replicated: Annotated[
        bool, typer.Option("--under-replicated", help="Only partitions with replicas that are not in sync.")
    ] = False,
    unavailable: Annotated[bool, typer.Option("--unavailable", help="Only partitions without a leader.")] = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    timeout: Timeout = TIMEOUT_DEFAULT_S,
    as_json: Json = False,
) -> None:
    """Show leaders, replicas, offsets and changed configs of topics."""

    async def work(client: Client) -> list[dict[str, Any]]:
        cluster = await client.metadata(names or None)
        every = sorted(topic.name for topic in cluster.topics.values() if not topic.is_internal)
        return [await _description(client, cluster.topic(name)) for name in dict.fromkeys(names or every)]

    described = on_cluster(bootstrap, timeout, work)
    if under_replicated or unavailable:
        described = _only(described, under_replicated, unavailable)
    if as_json:
        print_json(described)
        return
    if not described:
        note("there is no such partition" if under_replicated or unavailable else "there are no topics")
    for index, topic in enumerate(described):
        if index:
            out().print()
        _print_description(topic)


@_group.command(
    epilog=examples(
        "millstream topics create flights --partitions 12",
        "millstream topics create events -p 6 -c retention.ms=86400000 -c compression.type=zstd",
    )
)
def create(
    names: _Names,
    partitions: Annotated[
        int | None,
        typer.Option("--partitions", "-p", metavar="N", min=1, help="How many; the broker's default otherwise."),
    ] = None,
    replication_factor: Annotated[
        int | None,
        typer.Option("--replication-factor", "-r", metavar="N", min=1, help="Copies; the broker's default otherwise."),
    ] = None,
    config: Annotated[
        list[str] | None, typer.Option("--config", "-c", metavar="NAME=VALUE", help="A topic config; may be repeated.")
    ] = None,
    if_not_exists: Annotated[bool, typer.Option("--if-not-exists", help="A topic that exists is no error.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Have the cluster check it, and create nothing.")] = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    timeout: Timeout = TIMEOUT_DEFAULT_S,
    as_json: Json = False,
) -> None:
    """Create topics."""
    configs = pairs_of(config or [], "--config")
    wanted = [NewTopic(name, partitions or -1, replication_factor or -1, configs) for name in dict.fromkeys(names)]
    results = on_cluster(bootstrap, timeout, lambda client: create_topics(client, wanted, validate_only=dry_run))
    forgiven = ErrorCode.TOPIC_ALREADY_EXISTS if if_not_exists else None
    _report(results, "could be created" if dry_run else "created", forgiven, as_json, changes=not dry_run)


@_group.command(epilog=examples("millstream topics alter flights --partitions 24"))
def alter(
    names: _Names,
    partitions: Annotated[
        int, typer.Option("--partitions", "-p", metavar="N", min=1, help="The new number; it can only grow.")
    ],
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    timeout: Timeout = TIMEOUT_DEFAULT_S,
    as_json: Json = False,
) -> None:
    """Add partitions to topics. (Configs are changed by `millstream configs set`.)"""
    counts = dict.fromkeys(names, partitions)
    results = on_cluster(bootstrap, timeout, lambda client: create_partitions(client, counts))
    _report(results, f"has {partitions} partitions", None, as_json)


@_group.command(epilog=examples("millstream topics delete flights", "millstream topics delete flights weather --yes"))
def delete(
    names: _Names,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    if_exists: Annotated[bool, typer.Option("--if-exists", help="A topic that does not exist is no error.")] = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    timeout: Timeout = TIMEOUT_DEFAULT_S,
    as_json: Json = False,
) -> None:
    """Delete topics with all their records."""
    if not yes:
        _ask("deleting a topic", f"Delete {', '.join(names)} with all records?")
    results = on_cluster(bootstrap, timeout, lambda client: delete_topics(client, dict.fromkeys(names)))
    _report(results, "deleted", ErrorCode.UNKNOWN_TOPIC_OR_PARTITION if if_exists else None, as_json)


@_group.command(
    epilog=examples(
        "millstream topics trim flights --partition 0 --offset 1000",
        "millstream topics trim flights --time 2026-03-01T00:00:00Z --yes",
        "millstream topics trim flights --time latest  # every record",
    )
)
def trim(
    name: Annotated[str, typer.Argument(metavar="TOPIC", help="Whose records.")],
    offset: Annotated[
        int | None, typer.Option("--offset", "-o", metavar="N", min=0, help="Delete what is before this offset.")
    ] = None,
    when: Annotated[
        str | None, typer.Option("--time", metavar="WHEN", help="Delete what is before this time, as for `offsets`.")
    ] = None,
    partition: Annotated[
        list[int] | None, typer.Option("--partition", "-p", metavar="N", help="Only this one; repeatable.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    timeout: Timeout = TIMEOUT_DEFAULT_S,
    as_json: Json = False,
) -> None:
    """Delete the records before an offset or a time: the partitions start there from now on."""
    if (offset is None) == (when is None):
        raise typer.BadParameter("give one of --offset, --time")
    timestamp = None if when is None else parse_time(when)
    if not yes:
        _ask("deleting records", f"Delete the records of {name} before {when or f'offset {offset}'}?")

    async def work(client: Client) -> dict[TopicPartition, int]:
        wanted = await partitions_of(client, name, partition)
        if timestamp is None:
            assert offset is not None
            return await delete_records(client, dict.fromkeys(wanted, offset))
        found = await list_offsets(client, dict.fromkeys(wanted, timestamp))
        # No record that young: all of them are older.
        return await delete_records(client, {tp: at.offset if at.offset >= 0 else LATEST for tp, at in found.items()})

    starts = sorted(on_cluster(bootstrap, timeout, work).items())
    if as_json:
        print_json([{"topic": tp.topic, "partition": tp.partition, "earliest": start} for tp, start in starts])
    else:
        for tp, start in starts:
            done(f"{tp}: starts at offset {start}")


def _ask(deed: str, question: str) -> None:
    """Have a person confirm; where there is none, fail."""
    if not sys.stdin.isatty():
        fail(f"{deed} cannot be undone: say --yes where nobody can be asked")
    typer.confirm(question, abort=True, err=True)


def _report(
    results: dict[str, KafkaError | None],
    verb: str,
    forgiven: ErrorCode | None,
    as_json: bool,
    *,
    changes: bool = True,
) -> None:
    """Print what became of each topic; one that failed makes the command fail."""
    failed = {name: error for name, error in results.items() if error is not None and error.code is not forgiven}
    if as_json:
        print_json(
            [
                {
                    "topic": name,
                    "changed": error is None and changes,
                    "error": None if error is None else error.code.name,
                    "message": None if error is None else error.message,
                }
                for name, error in results.items()
            ]
        )
    else:
        for name, error in results.items():
            if error is None:
                done(f"{name}: {verb}")
            elif name not in failed:
                done(f"{name}: unchanged")
    if failed:
        fail("; ".join(error.message for error in failed.values()))


def _summary(topic: TopicInfo) -> dict[str, Any]:
    return {
        "name": topic.name,
        "id": uuid_text(topic.topic_id),
        "partitions": len(topic.partitions),
        "replication_factor": _replication(topic),
        "internal": topic.is_internal,
    }


def _replication(topic: TopicInfo) -> int:
    return max((len(partition.replicas) for partition in topic.partitions), default=0)


async def _description(client: Client, topic: TopicInfo) -> dict[str, Any]:
    partitions = [TopicPartition(topic.name, info.partition) for info in topic.partitions if info.leader >= 0]
    starts = await list_offsets(client, dict.fromkeys(partitions, EARLIEST))
    ends = await list_offsets(client, dict.fromkeys(partitions, LATEST))
    configs = await describe_configs(client, ConfigResource(ConfigResourceType.TOPIC, topic.name))
    return {
        **_summary(topic),
        "partition_count": len(topic.partitions),
        "configs": {one.name: one.value for one in configs if one.source is ConfigSource.DYNAMIC_TOPIC_CONFIG},
        "partitions": [
            {
                "partition": info.partition,
                "leader": info.leader if info.leader >= 0 else None,
                "leader_epoch": info.leader_epoch,
                "replicas": info.replicas,
                "in_sync": info.isr,
                "offline": info.offline_replicas,
                "start_offset": starts[tp].offset
                if (tp := TopicPartition(topic.name, info.partition)) in starts
                else None,
                "end_offset": ends[tp].offset if tp in ends else None,
            }
            for info in topic.partitions
        ],
    }


def _only(described: list[dict[str, Any]], under_replicated: bool, unavailable: bool) -> list[dict[str, Any]]:
    """Return the topics that have such partitions, with those alone."""
    for topic in described:
        topic["partitions"] = [
            one
            for one in topic["partitions"]
            if (under_replicated and len(one["in_sync"]) < len(one["replicas"]))
            or (unavailable and one["leader"] is None)
        ]
    return [topic for topic in described if topic["partitions"]]


def _print_description(topic: dict[str, Any]) -> None:
    count, copies = topic["partition_count"], topic["replication_factor"]
    done(
        f"{topic['name']}  {count} {'partition' if count == 1 else 'partitions'}, "
        f"{copies} {'replica' if copies == 1 else 'replicas'}, id {topic['id']}"
    )
    for name, value in topic["configs"].items():
        done(f"  {name} = {value}")
    columns = ("PARTITION", "LEADER", "REPLICAS", "IN SYNC", "START", "END", "RECORDS")
    rows = [
        (
            one["partition"],
            one["leader"],
            one["replicas"],
            one["in_sync"],
            one["start_offset"],
            one["end_offset"],
            None if one["end_offset"] is None else one["end_offset"] - one["start_offset"],
        )
        for one in topic["partitions"]
    ]
    print_table(columns, rows, numbers=("PARTITION", "LEADER", "START", "END", "RECORDS"))
