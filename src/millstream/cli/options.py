"""What several commands take, and how their work is run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from typing import Annotated, Final, TypeVar

import typer
from rich.markup import escape

from millstream.cli.pairs import parse_pairs
from millstream.core.client import Client, TopicPartition

T = TypeVar("T")

BOOTSTRAP_DEFAULT: Final = "127.0.0.1:9092"
TIMEOUT_DEFAULT_S: Final = 30.0

Bootstrap = Annotated[
    str,
    typer.Option(
        "--bootstrap-server",
        "-b",
        metavar="HOST:PORT",
        envvar="MILLSTREAM_BOOTSTRAP_SERVER",
        help="A broker of the cluster, or several with commas.",
    ),
]
Timeout = Annotated[
    float, typer.Option("--timeout", metavar="SECONDS", min=0.1, help="How long to wait for the cluster.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


class CompressionName(StrEnum):
    """Codecs by the names Kafka's configs have for them."""

    none = "none"
    gzip = "gzip"
    snappy = "snappy"
    lz4 = "lz4"
    zstd = "zstd"


def examples(*commands: str) -> str:
    """Return the end of a command's help: command lines to copy, one per line."""
    return "\n\n".join(("[bold]Examples[/bold]", *(f"  [cyan]$[/cyan] {escape(command)}" for command in commands)))


def on_cluster(bootstrap: str, timeout_s: float, work: Callable[[Client], Awaitable[T]]) -> T:
    """Run `work` with a client of the cluster at `bootstrap`, and close it. Raises KafkaError, BadParameter."""

    async def with_client() -> T:
        try:
            client = Client(bootstrap, client_id="millstream-cli", request_timeout_ms=int(timeout_s * 1000))
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--bootstrap-server") from error
        async with client:
            return await work(client)

    return asyncio.run(with_client())


def pairs_of(texts: Sequence[str], hint: str) -> dict[str, str]:
    """Read the `name=value` texts of the option `hint`. Raises BadParameter."""
    try:
        return parse_pairs(texts)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=hint) from error


async def partitions_of(client: Client, topic: str, chosen: list[int] | None = None) -> list[TopicPartition]:
    """Return the partitions of a topic that exists, or those chosen. Raises KafkaError, BadParameter."""
    info = (await client.metadata([topic])).topic(topic)
    known = [partition.partition for partition in info.partitions]
    for partition in chosen or ():
        if partition not in known:
            raise typer.BadParameter(
                f"topic {topic!r} has no partition {partition}: it has {len(known)}, from 0 on",
                param_hint="--partition",
            )
    return [TopicPartition(topic, partition) for partition in (sorted(set(chosen)) if chosen else known)]
