"""`millstream registry`: the schema registry in the foreground."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from millstream.cli.options import examples, pairs_of
from millstream.cli.output import print_json


def register(app: typer.Typer) -> None:
    app.command(
        epilog=examples(
            "millstream registry --bootstrap 127.0.0.1:9092",
            "millstream registry --config schema-registry.properties --listen 0.0.0.0:8081 --set host.name=schemas-1",
        )
    )(registry)


def registry(
    bootstrap_servers: Annotated[
        str | None,
        typer.Option("--bootstrap", "-b", metavar="HOST:PORT", help="A broker of the cluster that keeps the schemas."),
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option("--listen", "-l", metavar="HOST:PORT", help="Where to listen; 127.0.0.1:8081 otherwise."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-c",
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="Confluent's schema-registry.properties will do.",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", metavar="NAME=VALUE", help="A config, over the file; may be repeated."),
    ] = None,
    password_for: Annotated[
        str | None,
        typer.Option(
            "--password-for", metavar="USER", help="Ask for a password, print a line for the users' file, and exit."
        ),
    ] = None,
    show_config: Annotated[
        bool, typer.Option("--show-config", help="Print the effective configuration as JSON and exit.")
    ] = False,
) -> None:
    """Run a schema registry with Confluent's REST interface, until it is told to stop (Ctrl-C, SIGTERM).

    Schemas are kept in the topic _schemas of any Kafka cluster, in Confluent's format.
    Several instances on one cluster elect a leader, which alone writes.
    """
    from millstream.cli.serve_registry import announce_to, load_registry_config, serve_registry, start_errors

    if password_for is not None:
        from millstream.schemas.server.auth import password_line

        password = typer.prompt(f"Password of {password_for}", hide_input=True, confirmation_prompt=True, err=True)
        print(password_line(password_for, password))
        return
    with start_errors():
        loaded = load_registry_config(
            config, listen=listen, bootstrap=bootstrap_servers, settings=pairs_of(settings or [], "--set")
        )
    if show_config:
        print_json(loaded.shown())
        return
    code = serve_registry(loaded, announce_to(None))
    sys.stdout.flush()
    if code:
        raise typer.Exit(code)
