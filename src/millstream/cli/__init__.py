"""The `millstream` command line: one module per command group.

    app        the tree of commands, and how an error becomes one sentence and an exit code
    output     tables, JSON, rates, progress
    options    what several commands take
    serve      the server by the light path; `child` runs it as a child process

This package itself imports nothing, so that a child broker pays for neither typer nor rich.
"""

from __future__ import annotations


def main() -> None:
    """Run the command line of this process, and end it with the command's exit code."""
    import sys

    from millstream.cli.app import run

    sys.exit(run(sys.argv[1:]))
