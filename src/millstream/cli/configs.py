"""`millstream configs`: describe, set, delete; of topics, consumer groups and brokers."""

from __future__ import annotations

from typing import Annotated

import typer

from millstream.cli.options import BOOTSTRAP_DEFAULT, TIMEOUT_DEFAULT_S, Bootstrap, Json, Timeout, examples, on_cluster
from millstream.cli.output import done, note, out, print_json, print_table
from millstream.core.client import (
    ConfigOperation,
    ConfigResource,
    ConfigResourceType,
    ConfigValue,
    alter_configs,
    describe_configs,
)

_group = typer.Typer(no_args_is_help=True, help="Show and change the configs of topics, consumer groups and brokers.")

_Topic = Annotated[str | None, typer.Option("--topic", "-t", metavar="TOPIC", help="The topic's configs.")]
_GroupName = Annotated[
    str | None, typer.Option("--group", "-g", metavar="GROUP", help="The configs of the consumer group of this name.")
]
_Broker = Annotated[str | None, typer.Option("--broker", metavar="ID", help="The configs of the broker with this id.")]
_Default = Annotated[bool, typer.Option("--broker-default", help="What holds for every broker.")]
_ValidateOnly = Annotated[bool, typer.Option("--dry-run", help="Have the cluster check it, and change nothing.")]


def register(app: typer.Typer) -> None:
    app.add_typer(_group, name="configs")


@_group.command(
    epilog=examples(
        "millstream configs describe --topic flights",
        "millstream configs describe --group billing --all",
        "millstream configs describe --broker 1 --all --docs",
        "millstream configs describe --topic flights --all --json | jq '.[] | {name, value}'",
    )
)
def describe(
    topic: _Topic = None,
    group: _GroupName = None,
    broker: _Broker = None,
    broker_default: _Default = False,
    show_all: Annotated[bool, typer.Option("--all", "-a", help="Also what has its default value.")] = False,
    docs: Annotated[bool, typer.Option("--docs", help="Also what each config does.")] = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    timeout: Timeout = TIMEOUT_DEFAULT_S,
    as_json: Json = False,
) -> None:
    """Show configs, with where each value comes from."""
    resource = _resource(topic, group, broker, broker_default)
    configs = on_cluster(bootstrap, timeout, lambda client: describe_configs(client, resource, documentation=docs))
    shown = [one for one in configs if show_all or not one.is_default]
    if as_json:
        print_json([_as_json(one, docs) for one in shown])
    elif not shown:
        note(f"every config of the {resource} has its default; --all shows them")
    elif docs:
        for one in shown:
            out().print(f"[bold]{one.name}[/bold] = {_value(one)}  [dim]{_source(one)}[/dim]", soft_wrap=True)
            if one.documentation:
                out().print(f"  {one.documentation}", markup=False)
    else:
        print_table(("CONFIG", "VALUE", "FROM"), [(one.name, _value(one), _source(one)) for one in shown])


@_group.command(
    "set",
    epilog=examples(
        "millstream configs set --topic flights retention.ms=86400000",
        "millstream configs set --topic flights cleanup.policy+=compact",
        "millstream configs set --group billing consumer.session.timeout.ms=60000",
        "millstream configs set --broker-default log.retention.hours=48 --dry-run",
    ),
)
def set_configs(
    settings: Annotated[
        list[str], typer.Argument(metavar="NAME=VALUE", help="NAME+=VALUE adds to a list, NAME-=VALUE takes away.")
    ],
    topic: _Topic = None,
    group: _GroupName = None,
    broker: _Broker = None,
    broker_default: _Default = False,
    dry_run: _ValidateOnly = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    timeout: Timeout = TIMEOUT_DEFAULT_S,
    as_json: Json = False,
) -> None:
    """Set configs, or add to and take from lists; all of them or none."""
    changes = [_change(text) for text in settings]
    _alter(_resource(topic, group, broker, broker_default), changes, dry_run, bootstrap, timeout, as_json)


_group.command("alter", hidden=True)(set_configs)


@_group.command(epilog=examples("millstream configs delete --topic flights retention.ms"))
def delete(
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="Config names.")],
    topic: _Topic = None,
    group: _GroupName = None,
    broker: _Broker = None,
    broker_default: _Default = False,
    dry_run: _ValidateOnly = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    timeout: Timeout = TIMEOUT_DEFAULT_S,
    as_json: Json = False,
) -> None:
    """Take configs back to what holds without them."""
    changes: list[tuple[str, ConfigOperation, str | None]] = [(name, ConfigOperation.DELETE, None) for name in names]
    _alter(_resource(topic, group, broker, broker_default), changes, dry_run, bootstrap, timeout, as_json)


def _alter(
    resource: ConfigResource,
    changes: list[tuple[str, ConfigOperation, str | None]],
    dry_run: bool,
    bootstrap: str,
    timeout: float,
    as_json: bool,
) -> None:
    on_cluster(bootstrap, timeout, lambda client: alter_configs(client, resource, changes, validate_only=dry_run))
    if as_json:
        print_json(
            {
                "resource": resource.type.name.lower(),
                "name": resource.name,
                "dry_run": dry_run,
                "changes": [
                    {"name": name, "operation": op.name.lower(), "value": value} for name, op, value in changes
                ],
            }
        )
        return
    for name, operation, value in changes:
        what = (
            f"{name} back to its default"
            if operation is ConfigOperation.DELETE
            else f"{name} {_SIGNS[operation]} {value}"
        )
        done(f"{resource}: {what}{' (not changed: --dry-run)' if dry_run else ''}")


_SIGNS = {ConfigOperation.SET: "=", ConfigOperation.APPEND: "+=", ConfigOperation.SUBTRACT: "-="}


def _resource(topic: str | None, group: str | None, broker: str | None, broker_default: bool) -> ConfigResource:
    if sum(name is not None for name in (topic, group, broker)) + broker_default != 1:
        raise typer.BadParameter("name one of --topic TOPIC, --group GROUP, --broker ID, --broker-default")
    if topic is not None:
        return ConfigResource(ConfigResourceType.TOPIC, topic)
    if group is not None:
        return ConfigResource(ConfigResourceType.GROUP, group)
    return ConfigResource(ConfigResourceType.BROKER, broker or "")


def _change(text: str) -> tuple[str, ConfigOperation, str | None]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip("+- "):
        raise typer.BadParameter(f"{text!r} is no setting: write NAME=VALUE, NAME+=VALUE or NAME-=VALUE")
    operation = {"+": ConfigOperation.APPEND, "-": ConfigOperation.SUBTRACT}.get(name[-1], ConfigOperation.SET)
    return name.rstrip("+- "), operation, value.strip()


def _value(config: ConfigValue) -> str:
    if config.is_sensitive:
        return "(secret)"
    return "(none)" if config.value is None else config.value


def _source(config: ConfigValue) -> str:
    return config.source.name.lower().removesuffix("_config").replace("_", " ")


def _as_json(config: ConfigValue, docs: bool) -> dict[str, object]:
    described: dict[str, object] = {
        "name": config.name,
        "value": config.value,
        "source": config.source.name,
        "read_only": config.is_read_only,
        "sensitive": config.is_sensitive,
        "synonyms": [{"name": name, "value": value, "source": source.name} for name, value, source in config.synonyms],
    }
    if docs:
        described["documentation"] = config.documentation
    return described
