"""The `millstream` command line: one module per command group.

    app        the tree of commands, and how an error becomes one sentence and an exit code
    output     tables, JSON, rates, progress
    options    what several commands take
    serve      the server by the light path, which `millstream server` takes too; `serve_registry` is the registry's
    child      either of them as a child process; `supervisor` keeps several running

This package itself imports nothing, and `app` no command before it is asked for: who starts a broker pays for neither
typer nor rich, and who runs a command not for the others.
"""

from __future__ import annotations


def main() -> None:
    """Run the command line of this process, and end it with the command's exit code."""
    import sys

    try:
        _have_streams()
        _run(sys.argv[1:])
    except KeyboardInterrupt:
        # While commands are imported; they themselves make more of it.
        sys.exit(130)


def _have_streams() -> None:
    """Open those that whoever started this has closed, lest a socket or a file gets the number of one and what is meant
    for nobody is written to it; and have standard output escape what its encoding lacks, as the other one does.
    """
    import io
    import os
    import sys

    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The least number that is free.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stdin is None:
        sys.stdin = os.fdopen(0, closefd=False)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def _run(arguments: list[str]) -> None:
    import sys

    if arguments[:1] == ["server"]:
        from millstream.cli.errors import CommandError
        from millstream.cli.serve import plain_config, serve

        # Written plainly, as it nearly always is, it needs no typer, which takes as long to load as half the broker.
        if (config := plain_config(arguments[1:])) is not None:
            try:
                sys.exit(serve(config))
            except CommandError as error:
                from millstream.cli.app import failed

                sys.exit(failed(str(error)))
    if arguments[:1] == ["registry"]:
        from millstream.cli.errors import CommandError
        from millstream.cli.serve_registry import announce_to, plain_registry_config, serve_registry

        try:
            if (registry_config := plain_registry_config(arguments[1:])) is not None:
                sys.exit(serve_registry(registry_config, announce_to(None)))
        except CommandError as error:
            from millstream.cli.app import failed

            sys.exit(failed(str(error)))
    from millstream.cli.app import run

    sys.exit(run(arguments))
