"""The schema registry by the light path: what `millstream registry` runs, and what a child registry runs as a module.

As in `serve.py`, nothing here loads typer, rich or Arrow.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from millstream.cli.errors import CommandError, os_sentence
from millstream.cli.lifeline import die_with_parent
from millstream.cli.pairs import parse_pairs

if TYPE_CHECKING:
    from millstream.schemas.server.settings import RegistryConfig

# Those of `millstream registry`, and their short names.
_OPTIONS: Final = {
    "--bootstrap": "--bootstrap",
    "-b": "--bootstrap",
    "--listen": "--listen",
    "-l": "--listen",
    "--config": "--config",
    "-c": "--config",
    "--set": "--set",
    "-s": "--set",
}
_LACKING: Final = "the registry stands on packages that are not installed ({}): pip install 'millstream[registry]'"


def load_registry_config(
    path: Path | None, *, listen: str | None, bootstrap: str | None, settings: Mapping[str, str]
) -> RegistryConfig:
    """Return the registry's configuration: the file, then the options, then `settings`, the later ones winning.

    Raises ConfigError, OSError, PropertiesError.
    """
    with packages():
        from millstream.schemas.server.settings import RegistryConfig

    overrides: dict[str, str] = {}
    if bootstrap is not None:
        overrides["kafkastore.bootstrap.servers"] = bootstrap
    if listen is not None:
        overrides["listeners"] = listen if "://" in listen else f"http://{listen}"
    return RegistryConfig.load(path, {**overrides, **settings})


def plain_registry_config(arguments: Sequence[str]) -> RegistryConfig | None:
    """Return what `millstream registry ARGUMENTS` is to serve with, or None where the command itself has to look."""
    names, values = arguments[::2], arguments[1::2]
    if len(names) != len(values) or any(value.startswith("-") for value in values):
        return None
    given = [(_OPTIONS.get(name), value) for name, value in zip(names, values, strict=True)]
    if any(name is None for name, _ in given):
        return None
    try:
        return _config_of([(name, value) for name, value in given if name is not None])
    except (ValueError, OSError):
        return None


def serve_registry(config: RegistryConfig, announce: Callable[[str], None]) -> int:
    """Serve until told to stop; return the exit code. Raises CommandError with what kept it from starting."""
    with packages():
        from millstream.schemas.server.runner import run
    with start_errors():
        return run(config, announce=announce)


@contextmanager
def packages() -> Iterator[None]:
    """Say which extra is missing, where an import says so."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("millstream"):
            raise
        raise CommandError(_LACKING.format(error.name)) from error


@contextmanager
def start_errors() -> Iterator[None]:
    """Turn what keeps a registry from starting into a CommandError, and let pass an error that nobody foresaw."""
    from millstream.core.config import ConfigError, PropertiesError
    from millstream.core.wire import KafkaError

    try:
        yield
    except KafkaError as error:
        raise CommandError(f"the Kafka cluster that keeps the schemas: {error.message}") from error
    except TimeoutError as error:
        raise CommandError("the Kafka cluster that keeps the schemas did not answer in time") from error
    except OSError as error:
        raise CommandError(os_sentence(error)) from error
    except (ConfigError, PropertiesError, ValueError) as error:
        raise CommandError(str(error)) from error
    except Exception as error:
        from millstream.schemas.server.store import StoreError

        if not isinstance(error, StoreError):
            raise
        raise CommandError(str(error)) from error


def announce_to(ready: int | None) -> Callable[[str], None]:
    """Return what prints the line that a server serves, and writes it to a parent's pipe."""

    def announce(line: str) -> None:
        print(line, flush=True)
        if ready is not None:
            os.write(ready, f"{line}\n".encode())
            os.close(ready)

    return announce


def main(arguments: Sequence[str]) -> int:
    """Serve as a child process until told to stop; return the exit code."""
    given = list(zip(arguments[::2], arguments[1::2], strict=True))

    def last(name: str) -> str | None:
        return next((value for one, value in reversed(given) if one == name), None)

    if (life := last("--life-fd")) is not None:
        die_with_parent(int(life))
    ready = last("--ready-fd")
    try:
        with start_errors():
            config = _config_of(given)
        return serve_registry(config, announce_to(int(ready) if ready else None))
    except CommandError as error:
        print(f"millstream: {error}", file=sys.stderr)
        return 1


def _config_of(given: Sequence[tuple[str, str]]) -> RegistryConfig:
    """Return what the options ask for; of one that may be given once the last holds."""
    last = dict(given)
    path = last.get("--config")
    return load_registry_config(
        Path(path) if path else None,
        listen=last.get("--listen"),
        bootstrap=last.get("--bootstrap"),
        settings=parse_pairs([value for name, value in given if name == "--set"]),
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
