"""`millstream server`: the broker in the foreground."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from millstream.cli.options import examples, pairs_of
from millstream.cli.output import fail, print_json


def register(app: typer.Typer) -> None:
    app.command(
        epilog=examples(
            "millstream server",
            "millstream server --listen 127.0.0.1:0 --data-dir /tmp/data",
            "millstream server --config server.properties --set log.retention.hours=24",
        )
    )(server)


def server(
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", "-c", metavar="FILE", exists=True, dir_okay=False, help="Kafka's own server.properties will do."
        ),
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option(
            "--listen", "-l", metavar="HOST:PORT", help="Where to listen; 127.0.0.1:9092 otherwise. Port 0: a free one."
        ),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            "--data-dir", "-d", metavar="DIR", file_okay=False, help="Where the logs lie; ./millstream-data otherwise."
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", metavar="NAME=VALUE", help="A broker config, over the file; may be repeated."),
    ] = None,
    show_config: Annotated[
        bool, typer.Option("--show-config", help="Print the effective configuration as JSON and exit.")
    ] = False,
) -> None:
    """Run the broker until it is told to stop (Ctrl-C, SIGTERM).

    It says `millstream VERSION serving on HOST:PORT` once every partition answers.
    Nothing is authenticated yet: it listens on the loopback unless told otherwise.
    """
    from millstream.cli.serve import check_directories, load_config, serve, start_errors
    from millstream.core.config import BROKER_CONFIGS, ConfigError

    try:
        loaded = load_config(config, listen=listen, data_dir=data_dir, settings=pairs_of(settings or [], "--set"))
    except ConfigError as error:
        fail(str(error))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--listen") from error
    if show_config:
        print_json({name: loaded[name] for name in sorted(BROKER_CONFIGS)})
        return
    with start_errors():
        check_directories(loaded)
    code = serve(loaded)
    sys.stdout.flush()
    if code:
        raise typer.Exit(code)
