"""What several commands take, and how their work is run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextvars import ContextVar
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import typer
from rich.markup import escape

from millstream.cli.errors import CommandError
from millstream.cli.pairs import parse_pairs
from millstream.core.client import Client, TopicPartition
from millstream.core.config import (
    ADMIN_CONFIGS,
    CONSUMER_CONFIGS,
    PRODUCER_CONFIGS,
    ClientConfig,
    ConfigDef,
    ConfigError,
    PropertiesError,
    read_properties,
)
from millstream.core.config.client_config import Given
from millstream.core.net import parse_bootstrap

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


# The file of --command-config, of the command that runs.
_command_config: ContextVar[Path | None] = ContextVar("command_config", default=None)


def _take_command_config(file: Path | None) -> None:
    _command_config.set(file)


def _options_of_every_client(
    command_config: Annotated[
        Path | None,
        typer.Option(
            "--command-config",
            metavar="FILE",
            envvar="MILLSTREAM_COMMAND_CONFIG",
            exists=True,
            dir_okay=False,
            expose_value=False,
            callback=_take_command_config,
            help="Settings of the client by Kafka's names, for TLS and SASL.",
        ),
    ] = None,
) -> None:
    """Carries what is added to each command that talks to a cluster, so that none of them has to pass it on."""


def add_command_config(command: Any) -> None:
    """Give `command`, and those below it, the option --command-config where it talks to a cluster."""
    for child in getattr(command, "commands", {}).values():
        add_command_config(child)
    names = [param.name for param in command.params]
    if "bootstrap" in names:
        carrier = typer.Typer(add_completion=False)
        carrier.command()(_options_of_every_client)
        option = next(one for one in typer.main.get_command(carrier).params if one.name == "command_config")
        command.params.insert(names.index("bootstrap") + 1, option)


def client_settings(definition: ConfigDef, bootstrap: str, timeout_s: float, **configs: Given) -> dict[str, Given]:
    """Return what a client of this command is given: options go before the file of --command-config.

    Settings of the file that only other kinds of clients know are passed over. Raises BadParameter, CommandError.
    """
    try:
        parse_bootstrap(bootstrap)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--bootstrap-server") from error
    file = _command_config.get()
    given: dict[str, Given] = {"client.id": "millstream-cli"}
    lines: dict[str, int] = {}
    if file is not None:
        try:
            settings = read_properties(file)
        except PropertiesError as error:
            raise CommandError(f"{file}: {error}") from error
        for name, (value, line) in settings.items():
            if name in definition or not any(
                name in one for one in (ADMIN_CONFIGS, PRODUCER_CONFIGS, CONSUMER_CONFIGS)
            ):
                given[name], lines[name] = value, line
    given["bootstrap.servers"] = bootstrap
    given["request.timeout.ms"] = int(timeout_s * 1000)
    if "default.api.timeout.ms" in definition:
        given["default.api.timeout.ms"] = int(timeout_s * 1000)
    given |= {name.replace("_", "."): value for name, value in configs.items() if value is not None}
    try:
        ClientConfig.load(definition, given)
    except ConfigError as error:
        where = f"{file}:{lines[error.name]}: " if error.name in lines else ""
        raise CommandError(f"{where}{error}") from error
    return given


def run_client(work: Coroutine[Any, Any, T]) -> T:
    """Run `work`, which makes a client, to its end. Raises KafkaError, CommandError."""
    try:
        return asyncio.run(work)
    except ConfigError as error:
        raise CommandError(str(error)) from error


def on_cluster(bootstrap: str, timeout_s: float, work: Callable[[Client], Awaitable[T]]) -> T:
    """Run `work` with a client of the cluster at `bootstrap`, and close it. Raises KafkaError, BadParameter."""
    config = ClientConfig.load(ADMIN_CONFIGS, client_settings(ADMIN_CONFIGS, bootstrap, timeout_s))

    async def with_client() -> T:
        async with Client(config) as client:
            return await work(client)

    return run_client(with_client())


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
