"""`millstream up`: broker and schema registry together, as child processes with one lifetime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import typer

from millstream.cli.options import examples, pairs_of

_REGISTRY_DEFAULTS: Final = {"kafkastore.topic.replication.factor": "1"}


def register(app: typer.Typer) -> None:
    app.command(
        epilog=examples(
            "millstream up",
            "millstream up --data-dir /var/lib/millstream --listen 0.0.0.0:9092 --registry-listen 0.0.0.0:8081",
            "millstream up --set log.retention.hours=24 --registry-set schema.compatibility.level=FULL",
        )
    )(up)


def up(
    data_dir: Annotated[
        Path, typer.Option("--data-dir", "-d", metavar="DIR", file_okay=False, help="Where everything lies.")
    ] = Path("millstream-up"),
    listen: Annotated[
        str | None,
        typer.Option(
            "--listen", "-l", metavar="HOST:PORT", help="Where the broker listens; 127.0.0.1:9092, or as --config says."
        ),
    ] = None,
    registry_listen: Annotated[
        str | None,
        typer.Option(
            "--registry-listen",
            metavar="HOST:PORT",
            help="Where the registry listens; 127.0.0.1:8081, or as --registry-config says.",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", metavar="FILE", exists=True, dir_okay=False, help="The broker's properties."),
    ] = None,
    registry_config: Annotated[
        Path | None,
        typer.Option("--registry-config", metavar="FILE", exists=True, dir_okay=False, help="And the registry's."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", metavar="NAME=VALUE", help="A config of the broker; may be repeated."),
    ] = None,
    registry_settings: Annotated[
        list[str] | None,
        typer.Option("--registry-set", metavar="NAME=VALUE", help="A config of the registry; may be repeated."),
    ] = None,
) -> None:
    """Run broker and schema registry until told to stop (Ctrl-C, SIGTERM).

    Each is a process of its own; what it prints is in DIR/broker.log and DIR/registry.log.
    One that ends by itself is started again, after a pause that grows; one that fails again and again ends both.
    """
    from millstream.cli.child import BrokerProcess, RegistryProcess
    from millstream.cli.serve_registry import packages
    from millstream.cli.supervisor import Child, Supervisor

    with packages():
        import httptools  # noqa: F401  what only the registry needs is missed before anything runs
        import uvicorn  # noqa: F401
    broker_settings = pairs_of(settings or [], "--set")
    schema_settings = pairs_of(registry_settings or [], "--registry-set")
    folder = data_dir.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    running: list[BrokerProcess] = []

    def start_broker(is_wanted: Callable[[], bool]) -> BrokerProcess:
        # A port that was the system's choice stays the one it chose. What a file says stays with the file: its
        # listeners may be TLS, and an address given here is plaintext.
        address = running[-1].bootstrap_servers if running and listen is not None else listen
        broker = BrokerProcess(
            folder / "broker",
            config=broker_settings,
            file=config,
            listen=address,
            output=folder / "broker.log",
            is_wanted=is_wanted,
        )
        running.append(broker)
        del running[:-1]
        return broker

    registry_defaults = _registry_defaults(registry_config)
    addresses: list[str] = []

    def start_registry(is_wanted: Callable[[], bool]) -> RegistryProcess:
        schemas = RegistryProcess(
            running[-1].bootstrap_servers,
            config={**registry_defaults, **schema_settings},
            file=registry_config,
            listen=addresses[-1] if addresses and registry_listen is not None else registry_listen,
            output=folder / "registry.log",
            is_wanted=is_wanted,
        )
        addresses[:] = [schemas.url]
        return schemas

    children = [Child("broker", start_broker), Child("registry", start_registry)]
    code = Supervisor(children, lambda line: print(f"millstream up: {line}", flush=True)).run()
    if code:
        raise typer.Exit(code)


def _registry_defaults(file: Path | None) -> dict[str, str]:
    """Return what a registry beside one broker needs other than by default, but for what `file` says itself."""
    from millstream.core.config import read_properties

    given = read_properties(file) if file is not None else {}
    return {name: value for name, value in _REGISTRY_DEFAULTS.items() if name not in given}
