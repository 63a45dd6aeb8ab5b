"""Pages of the documentation that are tables of the code: command line, configuration. Run by MkDocs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from millstream.cli.app import app
from millstream.core.config import (
    ADMIN_CONFIGS,
    BROKER_CONFIGS,
    CONSUMER_CONFIGS,
    PRODUCER_CONFIGS,
    TOPIC_CONFIGS,
    ConfigDef,
    ConfigKey,
)
from millstream.hadoop_loader.job.reference import reference_lines

_MARKUP = re.compile(r"\[/?[a-z ]*\]")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to those found in docs/."""
    pages = {
        "cli.md": cli_page,
        "configuration.md": configuration_page,
        "client-configuration.md": client_configuration_page,
        "job-file.md": job_file_page,
    }
    for name, make in pages.items():
        files.append(File.generated(config, name, content="\n".join(make()) + "\n"))
    return files


def cli_page() -> Iterator[str]:
    """The command line, from its own help."""
    yield "# Command line\n"
    yield "Exit codes: 0 done, 1 failed (one sentence on standard error), 2 a wrong command line, 130 interrupted.\n"
    yield from _command(typer.main.get_command(app), "millstream", level=2)


def configuration_page() -> Iterator[str]:
    """Every config, from the tables the broker reads."""
    yield "# Configuration\n"
    yield "Names, types and value syntax are Kafka's; names that start with `millstream.` are ours.\n"
    yield "Kafka's other broker configs are accepted, so that an existing file works, and have no effect.\n"
    yield from _configs("Broker", BROKER_CONFIGS)
    yield from _configs("Topics", TOPIC_CONFIGS)


def client_configuration_page() -> Iterator[str]:
    """Every config of the clients, from the tables they read."""
    yield "# Configuration of clients\n"
    yield "Kafka's names and types; as keywords with underscores, `linger_ms=20`."
    yield "What a JVM alone can use is refused with a word on what takes its place.\n"
    yield from _configs("Producer", PRODUCER_CONFIGS)
    yield from _configs("Consumer", CONSUMER_CONFIGS)
    yield from _configs("Admin", ADMIN_CONFIGS)


def job_file_page() -> Iterator[str]:
    """Every key of a load's job file, from the dataclasses it is read into."""
    yield "# The job file\n"
    yield "Keys of a job of `millstream load`; examples are in [Loading into Hadoop](loader.md#the-job-file).\n"
    yield 'A size is a number of bytes or a text as `"256 MB"`, a time a number of seconds or one such as `"10 min"`;'
    yield 'a secret is `{ env = "NAME" }` or `{ file = "PATH" }`.\n'
    yield from reference_lines()


def _command(command: Any, path: str, level: int) -> Iterator[str]:
    yield f"{'#' * level} `{path}`\n"
    if command.help:
        yield _plain(command.help) + "\n"
    options = [param for param in command.params if not getattr(param, "hidden", False) and param.name != "help"]
    if options:
        rows = [_option(param) for param in options]
        columns = ("option", "what it does", "default")
        shown = len(columns) if any(row[-1] for row in rows) else len(columns) - 1
        yield from _table(columns[:shown], (row[:shown] for row in rows))
        yield ""
    if command.epilog:
        examples = [line.strip() for line in _plain(command.epilog).split("\n\n")[1:]]
        yield "```console\n" + "\n".join(examples) + "\n```\n"
    for name, child in getattr(command, "commands", {}).items():
        if not child.hidden:
            yield from _command(child, f"{path} {name}", level + 1)


def _option(param: Any) -> tuple[object, ...]:
    is_argument = param.param_type_name == "argument"
    names = param.metavar or param.name.upper() if is_argument else ", ".join(param.opts)
    value = "" if is_argument or getattr(param, "is_flag", False) else f" {param.metavar or ''}".rstrip()
    default = param.default
    shown = (
        ""
        if default in (None, False, ()) or callable(default) or param.required
        else getattr(default, "value", default)
    )
    return f"`{names}{value}`", _plain(param.help or ""), f"`{shown}`" if shown != "" else ""


def _configs(title: str, configs: ConfigDef) -> Iterator[str]:
    yield f"## {title}\n"
    for key in sorted((configs[name] for name in configs), key=lambda key: key.name):
        yield f"### `{key.name}` {{ #{title.lower()}-{key.name.replace('.', '-')} }}\n"
        yield f"{key.doc}\n"
        yield " · ".join(_facts(key)) + "\n"


def _facts(key: ConfigKey) -> Iterator[str]:
    yield key.type.name.lower()
    yield "no default" if key.default is None else f"default `{_text(key.default)}`"
    yield key.importance.name.lower() + " importance"
    yield {"READ_ONLY": "needs a restart", "PER_BROKER": "changes while it runs, per broker"}.get(
        key.dynamic.name, "changes while it runs"
    )


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _table(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> Iterator[str]:
    head = list(columns)
    yield "| " + " | ".join(head) + " |"
    yield "|" + " --- |" * len(head)
    for row in rows:
        yield "| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |"


def _plain(text: str) -> str:
    return _MARKUP.sub("", text).replace("\\[", "[").strip()
