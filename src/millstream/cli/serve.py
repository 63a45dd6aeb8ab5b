"""The server, by the light path: what `millstream server` runs, and what a child broker runs as a module.

Nothing here loads typer, rich or Arrow, so a broker is up in a fraction of a second. The arguments are few and the same
as the command's; `argparse` would cost more than the loop that reads them. What this loop cannot read, and what is
wrong, is left to the command in `server.py`, which has the help and the sentences.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from millstream.cli.errors import CommandError, os_sentence
from millstream.cli.lifeline import die_with_parent
from millstream.cli.pairs import parse_pairs
from millstream.core.broker import run
from millstream.core.config import BrokerConfig, ConfigError, read_properties
from millstream.core.net.addresses import parse_address

LISTEN_DEFAULT: Final = "127.0.0.1:9092"
DATA_DIR_DEFAULT: Final = "millstream-data"
_OPTIONS: Final = ("--listen", "--data-dir", "--config", "--set", "--life-fd", "--ready-fd")
# Those of `millstream server`, and their short names.
_SERVER_OPTIONS: Final = {name: name for name in _OPTIONS[:4]} | {
    "-l": "--listen",
    "-d": "--data-dir",
    "-c": "--config",
    "-s": "--set",
}


def load_config(
    path: Path | None, *, listen: str | None, data_dir: Path | None, settings: Mapping[str, str]
) -> BrokerConfig:
    """Return the broker's configuration: the file, then the options, then `settings`, the later ones winning.

    Address and data directory have defaults of their own, used where neither a file nor an option gives them: loopback,
    and a folder beside the caller. Raises ConfigError, and ValueError for an address.
    """
    given = dict(read_properties(path)) if path is not None else {}
    overrides: dict[str, str] = {}
    if listen is not None or "listeners" not in given:
        address = parse_address(listen or LISTEN_DEFAULT)
        overrides["listeners"] = f"PLAINTEXT://{address}"
        if listen is not None and "advertised.listeners" in given:
            overrides["advertised.listeners"] = f"PLAINTEXT://{address}"
    if data_dir is not None or not given.keys() & {"log.dirs", "log.dir"}:
        overrides["log.dirs"] = str((data_dir or Path(DATA_DIR_DEFAULT)).absolute())
    return BrokerConfig.load(path, {**overrides, **settings})


def check_directories(config: BrokerConfig) -> None:
    """Raise ConfigError where no log directory can be used; one is enough, and the broker tells of the others."""
    reasons = [reason for path in config.log_dirs if (reason := _unusable(path)) is not None]
    if len(reasons) == len(config.log_dirs):
        raise ConfigError(f"{'; '.join(reasons)}; name another with --data-dir, or log.dirs in the configuration")


def _unusable(path: Path) -> str | None:
    """Return why a log directory can be neither used nor made."""
    if path.exists() and not path.is_dir():
        return f"{path} is a file, and the data needs a directory"
    place = path
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        return f"{path} cannot be made: {place} is a file"
    if os.access(place, os.R_OK | os.W_OK | os.X_OK):
        return None
    why = "on a read-only file system" if os.statvfs(place).f_flag & os.ST_RDONLY else "not writable by this user"
    return f"{path} cannot be used: it is {why}" if place == path else f"{path} cannot be made: {place} is {why}"


@contextmanager
def start_errors() -> Iterator[None]:
    """Turn what keeps a broker from starting into a CommandError, and let pass an error that nobody foresaw."""
    try:
        yield
    except Exception as error:
        if (sentence := _start_error(error)) is None:
            raise
        raise CommandError(sentence) from error


def _start_error(error: Exception) -> str | None:
    """Return the sentence for an error that a start may meet; the kinds are looked up only once there is one."""
    from millstream.core.cluster.adoption import AdoptionError
    from millstream.core.cluster.store import StoreWriteError
    from millstream.core.log.errors import CorruptCheckpointError, InconsistentDirectoryError, LogLockedError
    from millstream.core.wire import KafkaError

    if isinstance(error, KafkaError):
        return error.message
    if isinstance(error, OSError):
        return os_sentence(error)
    foreseen = (
        ConfigError,
        ValueError,
        AdoptionError,
        StoreWriteError,
        CorruptCheckpointError,
        InconsistentDirectoryError,
        LogLockedError,
    )
    return str(error) if isinstance(error, foreseen) else None


def plain_config(arguments: Sequence[str]) -> BrokerConfig | None:
    """Return what `millstream server ARGUMENTS` is to serve with, or None where the command itself has to look."""
    names, values = arguments[::2], arguments[1::2]
    if len(names) != len(values) or any(value.startswith("-") for value in values):
        return None
    try:
        config = _config_of((_SERVER_OPTIONS[name], value) for name, value in zip(names, values, strict=True))
        check_directories(config)
    except (KeyError, ConfigError, ValueError, OSError):
        return None
    return config


def serve(config: BrokerConfig, announce: Callable[[str], None] | None = None) -> int:
    """Serve until told to stop; return the exit code. Raises CommandError with what kept it from starting."""
    with start_errors():
        return run(config, announce=announce, service_manager=os.environ.get("NOTIFY_SOCKET"))


def main(arguments: Sequence[str]) -> int:
    """Serve as a child process until told to stop; return the exit code."""
    given = list(zip(arguments[::2], arguments[1::2], strict=True))
    life, ready = (next((value for name, value in given if name == one), None) for one in ("--life-fd", "--ready-fd"))
    if life is not None:
        die_with_parent(int(life))
    try:
        with start_errors():
            config = _config_of(given)
            check_directories(config)
        return serve(config, lambda line: _announce(line, int(ready) if ready else None))
    except CommandError as error:
        print(f"millstream: {error}", file=sys.stderr)
        return 1


def _config_of(given: Iterable[tuple[str, str]]) -> BrokerConfig:
    """Return what the options ask for; of one that may be given once the last holds. Raises as `load_config`."""
    options: dict[str, list[str]] = {name: [] for name in _OPTIONS}
    for name, value in given:
        options[name].append(value)

    def last(name: str) -> str | None:
        return options[name][-1] if options[name] else None

    path, data_dir = last("--config"), last("--data-dir")
    return load_config(
        Path(path) if path else None,
        listen=last("--listen"),
        data_dir=Path(data_dir) if data_dir else None,
        settings=parse_pairs(options["--set"]),
    )


def _announce(line: str, ready: int | None) -> None:
    print(line, flush=True)
    if ready is not None:
        os.write(ready, f"{line}\n".encode())
        os.close(ready)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
