"""The tree of commands, and how an error becomes one sentence and an exit code.

Exit codes: 0 done, 1 failed (one sentence on standard error), 2 the command line itself was wrong, 130 interrupted.
Whoever reads the output may leave (`| head`): the command ends with 1 and says nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

import millstream
from millstream.cli.errors import CommandError, os_sentence
from millstream.core.wire import KafkaError, WireError

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130
# typer names only this subclass of its usage errors.
_UsageError: Final[Any] = typer.BadParameter.__base__
_HELP_NAMES: Final = ["-h", "--help"]
_MARKUP: Final = "rich"

# Commands and groups of commands, in the order of the help, and the module that registers each on the app it is given.
_MODULES: Final = {
    "server": "server",
    "registry": "registry",
    "up": "up",
    "produce": "produce",
    "consume": "consume",
    "offsets": "offsets",
    "dump-log": "dump_log",
    "doctor": "doctor",
    "demo": "demo",
    "topics": "topics",
    "configs": "configs",
    "groups": "groups",
    "schemas": "schemas",
    "load": "load",
}


class _Commands(Mapping[str, Any]):
    """The commands, each made when it is looked up: typer takes longer over all of them than most commands work.

    The names are known without their modules. Only `millstream --help`, which shows a line of each, loads all.
    """

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        module = _MODULES[name]
        if name not in self._made:
            from millstream.cli.options import add_command_config

            made = typer.Typer(rich_markup_mode=_MARKUP)
            import_module(f"millstream.cli.{module}").register(made)
            self._made[name] = command = typer.main.get_group(made).commands[name]
            add_command_config(command)
            _show_flags_plainly(command)
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_MODULES)

    def __len__(self) -> int:
        return len(_MODULES)


class _Root(TyperGroup):
    """`millstream` itself."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        _show_flags_plainly(self)
        self.commands: Any = _Commands()


app = typer.Typer(
    name="millstream",
    cls=_Root,
    help="Millstream carries data from any Kafka client into Hadoop. This is its broker, and tools for any Kafka.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=_MARKUP,
    context_settings={"help_option_names": _HELP_NAMES},
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"millstream {millstream.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """What comes before a command's name."""


def run(arguments: Sequence[str]) -> int:
    """Run one command line; return the exit code."""
    command = typer.main.get_command(app)
    try:
        result = command.main(args=list(arguments), prog_name="millstream", standalone_mode=False)
        sys.stdout.flush()
    except _UsageError as error:
        return _usage(error)
    except CommandError as error:
        return failed(str(error))
    except KafkaError as error:
        return failed(error.message)
    except WireError as error:
        return failed(f"the broker answered what this client cannot read: {error}")
    except BrokenPipeError:
        from millstream.cli.output import silence_stdout

        silence_stdout()
        return EXIT_FAILED
    except OSError as error:
        return failed(os_sentence(error))
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else EXIT_FAILED  # a broken pipe, seen by typer
    except (KeyboardInterrupt, typer.Abort):
        return EXIT_INTERRUPTED
    return result if isinstance(result, int) else 0


def _show_flags_plainly(command: Any) -> None:
    """Have the help say `--json`, not `--json <bool>`: a flag takes no value; and `TOPIC`, not `TOPIC <list[str]>`."""
    options = [*command.params, command.get_help_option(command.context_class(command, help_option_names=_HELP_NAMES))]
    for option in options:
        if getattr(option, "is_flag", False):
            option.metavar = ""
        elif option.param_type_name == "argument":
            option.display_type_rich = _no_type
    for child in getattr(command, "commands", {}).values():
        _show_flags_plainly(child)


def _no_type(ctx: Any) -> None:  # noqa: ARG001  the name is typer's
    return None


def failed(sentence: str) -> int:
    """Say what went wrong on standard error; return the exit code."""
    _print_error(sentence[:1].lower() + sentence[1:] if sentence[:2].istitle() else sentence)
    return EXIT_FAILED


def _usage(error: Any) -> int:
    message: str = error.format_message()
    if type(error).__name__ == "NoArgsIsHelpError":
        return EXIT_USAGE  # the help of the group has been printed already
    path = error.ctx.command_path if error.ctx is not None else "millstream"
    _print_error(f"{message.rstrip('.')}; `{path} --help` shows how")
    return EXIT_USAGE


def _print_error(sentence: str) -> None:
    from millstream.cli.output import err

    one_line = " ".join(sentence.split())
    console = err()
    console.print(
        f"[red]millstream:[/red] {one_line.replace('[', chr(92) + '[')}"
        if console.is_terminal
        else f"millstream: {one_line}",
        markup=console.is_terminal,
        # A terminal gets lines broken between words, whatever else reads it one line.
        soft_wrap=not console.is_terminal,
    )
