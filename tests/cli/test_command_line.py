"""What holds for every command: help with examples, one sentence per error, exit codes, light imports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cli.conftest import CommandLine
from typer.testing import CliRunner

from millstream import __version__
from millstream.cli.app import app
from millstream.cli.output import rate_text, size_text

# Those that run until they are told to stop, and print lines of a log.
SERVERS = [("server",), ("registry",), ("up",), ("load", "serve")]
COMMANDS = [
    *SERVERS,
    ("topics", "list"),
    ("topics", "describe"),
    ("topics", "create"),
    ("topics", "alter"),
    ("topics", "delete"),
    ("topics", "trim"),
    ("configs", "describe"),
    ("configs", "set"),
    ("configs", "delete"),
    ("groups", "list"),
    ("groups", "describe"),
    ("groups", "delete"),
    ("groups", "delete-offsets"),
    ("groups", "reset-offsets"),
    ("schemas", "list"),
    ("schemas", "show"),
    ("schemas", "register"),
    ("schemas", "check"),
    ("schemas", "diff"),
    ("load", "run"),
    ("load", "serve"),
    ("load", "plan"),
    ("load", "status"),
    ("load", "compact"),
    ("load", "verify"),
    ("load", "replay-dead-letters"),
    ("load", "close"),
    ("load", "expire"),
    ("load", "anew"),
    ("load", "drop"),
    ("produce",),
    ("consume",),
    ("offsets",),
    ("dump-log",),
    ("doctor",),
    ("demo",),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("width", [40, 80, 200])
def test_help_shows_examples_and_fits_the_terminal(command: tuple[str, ...], width: int) -> None:
    result = CliRunner(env={"COLUMNS": str(width), "TERMINAL_WIDTH": str(width)}).invoke(app, [*command, "--help"])
    assert result.exit_code == 0
    assert f"$ millstream {command[0]}" in result.output.replace("\n", " ").replace("  ", " ") or width == 40
    assert "Examples" in result.output
    assert max(len(line) for line in result.output.splitlines()) <= width


def test_every_command_is_listed_above() -> None:
    result = CliRunner(env={"COLUMNS": "100"}).invoke(app, ["--help"])
    named = {line.split()[1] for line in result.output.partition("Commands")[2].splitlines() if line[2:3].isalpha()}
    assert named == {command[0] for command in COMMANDS}


def test_every_command_prints_json() -> None:
    for command in COMMANDS:
        if command not in SERVERS:
            result = CliRunner(env={"COLUMNS": "100"}).invoke(app, [*command, "--help"])
            assert "--json" in result.output, command


def test_the_version(offline: CommandLine) -> None:
    assert offline("--version", process=True).out == f"millstream {__version__}\n"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_may_be_closed(tmp_path: Path, closed: str) -> None:
    told = tmp_path / "told"
    # What is opened next is none of the streams: nothing that is printed gets into it.
    (tmp_path / "program.py").write_text(
        "import os, sys\n"
        "from millstream.cli import _have_streams, main\n"
        "_have_streams()\n"
        f"told = open({str(told)!r}, 'w')\n"
        "assert told.fileno() > 2\n"
        "sys.argv[1:] = ['load', 'keys', 'limits']\n"
        "main()\n"
    )
    shell = f"exec {sys.executable} {tmp_path / 'program.py'} {closed}"
    ended = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr, told.read_text()) == (0, "", "")
    assert ("limits.bytes" in ended.stdout) == (">&-" not in closed.replace("2>&-", ""))


def test_what_an_encoding_lacks_is_escaped() -> None:
    program = "from millstream.cli import _have_streams; _have_streams(); print('\u00f6')"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, env=environment)
    assert (ended.stdout, ended.stderr) == (rb"\xf6" + b"\n", b"")


def test_json_is_json_in_every_encoding() -> None:
    program = "from millstream.cli import _have_streams; from millstream.cli.output import print_json; _have_streams();"
    said = {"town": "K\u00f6ln", "sign": "\U0001f600"}
    for encoding in ("ascii", "iso8859-2", "utf-8"):
        ended = subprocess.run(
            [sys.executable, "-c", f"{program} print_json({said!a})"],
            capture_output=True,
            timeout=60,
            env={**os.environ, "PYTHONIOENCODING": encoding},
        )
        assert json.loads(ended.stdout.decode(encoding)) == said


def test_an_interrupt_while_commands_are_imported_ends_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt")
    program = "import sys; sys.argv[1:] = ['topics', 'list']; from millstream.cli import main; main()"
    ended = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {program}"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stderr) == (130, "")


@pytest.mark.parametrize(
    "arguments",
    [
        ["topics", "list"],
        ["topics", "create", "a"],
        ["configs", "describe", "--topic", "a"],
        ["offsets", "a"],
        ["consume", "a"],
        ["produce", "a"],
    ],
    ids=" ".join,
)
def test_no_broker_is_one_sentence(offline: CommandLine, arguments: list[str]) -> None:
    result = offline(*arguments, code=1, process=arguments[0] == "offsets")
    assert result.err == "millstream: cannot connect to 127.0.0.1:1: nothing listens there\n"
    assert result.out == ""


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["topics", "list", "--nonsense"], "No such option: --nonsense"),
        (["topics", "create"], "Missing argument"),
        (["topics", "alter", "a", "--partitions", "0"], "greater than or equal to 1"),
        (["topics", "list", "-b", "nowhere:port"], "no valid port"),
        (["produce", "a", "--acks", "2"], "'2' is not one of"),
        (["produce", "a", "--idempotent", "--acks", "1"], "--idempotent needs --acks all"),
        (["produce", "a", "--file", "/nonexistent"], "does not exist"),
        (["configs", "describe", "--topic", "a", "--broker", "1"], "name one of"),
        (["server", "--listen", "x:y"], "no valid port"),
        (["server", "--set", "nonsense"], "write name=value"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_wrong_command_line_is_one_sentence_and_code_2(
    offline: CommandLine, arguments: list[str], complaint: str
) -> None:
    result = offline(*arguments, code=2, process=arguments == ["nonsense"])
    assert complaint in result.err
    assert len(result.err.splitlines()) == 1
    assert "--help` shows how" in result.err


def test_a_group_without_a_command_shows_its_help(offline: CommandLine) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "millstream", "topics"], capture_output=True, text=True, env=offline.environment
    )
    assert done.returncode == 2
    assert done.stdout.count("List, describe, create, alter, trim and delete topics.") == 1
    assert done.stderr == ""


def loaded_by(statement: str) -> set[str]:
    """Return the modules that a fresh interpreter has after `statement`."""
    code = f"{statement}\nimport sys, json\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "statement",
    [
        "import millstream",
        "import millstream.core.broker",
        "import millstream.cli.serve",
        "import millstream.core.client",
        "import millstream.testing; millstream.testing.broker",
        "import millstream.testing.pytest_plugin",
    ],
)
def test_light_paths_load_nothing_heavy(statement: str) -> None:
    loaded = loaded_by(statement)
    assert not loaded & {"pyarrow", "typer", "rich", "numpy", "pandas"}


@pytest.mark.parametrize("command", dict.fromkeys(name for name, *_ in COMMANDS))
def test_a_command_loads_no_other(command: str) -> None:
    modules = {f"millstream.cli.{name.replace('-', '_')}" for name, *_ in COMMANDS}
    loaded = loaded_by(f"from millstream.cli.app import run; assert run([{command!r}, '--help']) == 0")
    assert loaded & modules == {f"millstream.cli.{command.replace('-', '_')}"}


def test_a_plain_server_command_line_loads_nothing_heavy(tmp_path: Path) -> None:
    arguments = [
        "--listen",
        "127.0.0.1:0",
        "-d",
        str(tmp_path / "data"),
        "-s",
        "num.partitions=3",
        "--set",
        "node.id=4",
    ]
    statements = (
        "from unittest.mock import patch; import sys; import millstream.cli; import millstream.cli.serve as serve; "
        f"sys.argv[1:] = {['server', *arguments]}; served = []\n"
        "with patch.object(serve, 'run', lambda config, **_: served.append(config) or 0):\n"
        "    try: millstream.cli.main()\n"
        "    except SystemExit as end: assert not end.code\n"
        "assert [(config.num_partitions, config.node_id) for config in served] == [(3, 4)]"
    )
    loaded = loaded_by(statements)
    assert not loaded & {"typer", "click", "rich", "pydantic", "millstream.cli.app", "millstream.core.client"}


def test_the_plugin_loads_nothing_of_ours_until_it_is_used() -> None:
    ours = {name for name in loaded_by("import millstream.testing.pytest_plugin") if name.startswith("millstream")}
    assert ours == {"millstream", "millstream.testing", "millstream.testing.pytest_plugin"}


def test_no_part_is_loaded_by_the_name_of_its_link() -> None:
    loaded = loaded_by("import millstream.cli.app, millstream.testing.brokers, millstream.core.broker")
    assert not loaded & {"core", "streams", "connectors", "hadoop_loader", "schemas"}


def test_sizes_and_rates_are_readable() -> None:
    assert [size_text(size) for size in (0, 812, 3_565_158, 9 * 1024**4)] == ["0 B", "812 B", "3.4 MB", "9,216.0 GB"]
    assert rate_text(1, 10, 0.5) == "1 record, 10 B in 0.50 s (2 records/s, 20 B/s)"
