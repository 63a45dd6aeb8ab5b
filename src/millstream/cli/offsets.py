"""`millstream offsets`: where the log of each partition starts and ends, and which offset a time has."""

from __future__ import annotations

import datetime
from typing import Annotated, Final

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
from millstream.core.client import (
    EARLIEST,
    LATEST,
    MAX_TIMESTAMP,
    Client,
    LogOffset,
    TopicPartition,
    list_offsets,
)

# The numbers are what Kafka's own GetOffsetShell takes.
_NAMED: Final = {
    "earliest": EARLIEST,
    "latest": LATEST,
    "max-timestamp": MAX_TIMESTAMP,
    "-1": LATEST,
    "-2": EARLIEST,
    "-3": MAX_TIMESTAMP,
}


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


def parse_time(text: str) -> int:
    """Read a time as ListOffsets takes it: a name, milliseconds since 1970, or a date. Raises BadParameter."""
    lowered = text.strip().lower()
    if lowered in _NAMED:
        return _NAMED[lowered]
    if lowered.isascii() and lowered.isdigit():
        return int(lowered)
    try:
        when = datetime.datetime.fromisoformat(text.strip())
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no time: write earliest, latest, max-timestamp, 2026-03-01T12:00:00Z or milliseconds",
            param_hint="--time",
        ) from None
    if when.tzinfo is None:
        when = when.replace(tzinfo=datetime.UTC)
    return int(when.timestamp() * 1000)


def time_text(timestamp_ms: int) -> str | None:
    """Return a record's timestamp as a date in UTC, or None where it has none or lies outside the calendar."""
    if timestamp_ms < 0:
        return None
    try:
        when = datetime.datetime.fromtimestamp(timestamp_ms / 1000, datetime.UTC)
    except (OverflowError, ValueError, OSError):
        return str(timestamp_ms)
    return when.strftime("%Y-%m-%dT%H:%M:%S.") + f"{timestamp_ms % 1000:03d}Z"
