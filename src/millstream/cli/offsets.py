"""`millstream offsets`: where the log of each partition starts and ends, and which offset a time has."""

from __future__ import annotations

from typing import Annotated

import typer

from millstream.cli.options import (
    BOOTSTRAP_DEFAULT,
    TIMEOUT_DEFAULT_S,
    Bootstrap,
    Json,
    Timeout,
    examples,
    on_cluster,
    partitions_of,
)
from millstream.cli.output import print_json, print_table
from millstream.cli.times import parse_time, time_text
from millstream.core.client import (
    EARLIEST,
    LATEST,
    Client,
    LogOffset,
    TopicPartition,
    list_offsets,
)


def register(app: typer.Typer) -> None:
    app.command(
        epilog=examples(
            "millstream offsets flights",
            "millstream offsets flights --time 2026-03-01T00:00:00Z",
            "millstream offsets flights --time max-timestamp --partition 0 --json",
        )
    )(offsets)


def offsets(
    topics: Annotated[list[str] | None, typer.Argument(metavar="TOPIC", help="Topics; all of them otherwise.")] = None,
    time: Annotated[
        str | None,
        typer.Option(
            "--time",
            metavar="WHEN",
            help="earliest, latest, max-timestamp, a date and time (UTC unless it says otherwise), or milliseconds "
            "since 1970: the first offset at or after it. Both ends otherwise.",
        ),
    ] = None,
    partition: Annotated[
        list[int] | None, typer.Option("--partition", "-p", metavar="N", help="Only this one; repeatable.")
    ] = None,
    read_committed: Annotated[
        bool, typer.Option("--read-committed", help="The end is where the first open transaction begins.")
    ] = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    timeout: Timeout = TIMEOUT_DEFAULT_S,
    as_json: Json = False,
) -> None:
    """Show the log offsets of topics: both ends, or at a time."""
    timestamp = None if time is None else parse_time(time)
    asked = [EARLIEST, LATEST] if timestamp is None else [timestamp]

    async def work(client: Client) -> list[tuple[TopicPartition, list[LogOffset]]]:
        names = topics or sorted(
            topic.name for topic in (await client.metadata()).topics.values() if not topic.is_internal
        )
        wanted = [tp for name in dict.fromkeys(names) for tp in await partitions_of(client, name, partition)]
        answers = [
            await list_offsets(client, dict.fromkeys(wanted, one), read_committed=read_committed) for one in asked
        ]
        return [(tp, [answer[tp] for answer in answers]) for tp in wanted]

    found = on_cluster(bootstrap, timeout, work)
    if timestamp is None:
        _print_both_ends(found, as_json)
    else:
        _print_at_time(found, as_json)


def _print_both_ends(found: list[tuple[TopicPartition, list[LogOffset]]], as_json: bool) -> None:
    if as_json:
        print_json(
            [
                {"topic": tp.topic, "partition": tp.partition, "earliest": start.offset, "latest": end.offset}
                for tp, (start, end) in found
            ]
        )
        return
    columns = ("TOPIC", "PARTITION", "EARLIEST", "LATEST", "RECORDS")
    rows = [(tp.topic, tp.partition, start.offset, end.offset, end.offset - start.offset) for tp, (start, end) in found]
    print_table(columns, rows, numbers=columns[1:])


def _print_at_time(found: list[tuple[TopicPartition, list[LogOffset]]], as_json: bool) -> None:
    if as_json:
        print_json(
            [
                {
                    "topic": tp.topic,
                    "partition": tp.partition,
                    "offset": at.offset if at.offset >= 0 else None,
                    "timestamp": at.timestamp if at.timestamp >= 0 else None,
                }
                for tp, (at,) in found
            ]
        )
        return
    columns = ("TOPIC", "PARTITION", "OFFSET", "TIME")
    rows = [
        (tp.topic, tp.partition, at.offset if at.offset >= 0 else None, time_text(at.timestamp)) for tp, (at,) in found
    ]
    print_table(columns, rows, numbers=("PARTITION", "OFFSET"))
