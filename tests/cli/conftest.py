"""Commands run as a user types them, against Millstream and against Apache Kafka."""

from __future__ import annotations

import io
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import pytest

from millstream.cli.app import run

_numbers = itertools.count()


@dataclass(frozen=True)
class Result:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class CommandLine:
    """Runs `millstream ...` with a cluster to talk to: in this process, since a start of its own takes longer than most
    commands do; or, with `process=True`, as a shell would."""

    def __init__(self, bootstrap: str = "127.0.0.1:1") -> None:
        self.bootstrap = bootstrap
        self.settings = {"MILLSTREAM_BOOTSTRAP_SERVER": bootstrap, "COLUMNS": "100", "NO_COLOR": "1"}
        self.environment = {**os.environ, **self.settings}

    def __call__(self, *arguments: str, stdin: str | bytes = b"", code: int = 0, process: bool = False) -> Result:
        """Run a command and check its exit code; an error is one line on standard error and never a traceback."""
        data = stdin.encode() if isinstance(stdin, str) else stdin
        result = self._in_a_process(arguments, data) if process else self._here(arguments, data)
        assert result.code == code, result
        assert "Traceback" not in result.err, result.err
        if code in {1, 2}:
            lines = result.err.strip().splitlines()
            assert lines[-1].startswith("millstream: "), result.err
        return result

    def _here(self, arguments: tuple[str, ...], stdin: bytes) -> Result:
        with (
            tempfile.TemporaryFile() as given,
            io.TextIOWrapper(io.BytesIO(), encoding="utf-8") as out,
            io.StringIO() as err,
            patch.dict(os.environ, self.settings),
            patch.object(sys, "stdin", given),
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            given.write(stdin)
            given.seek(0)
            code = run(arguments)
            out.flush()
            assert isinstance(out.buffer, io.BytesIO)
            return Result(code, out.buffer.getvalue().decode(), err.getvalue())

    def _in_a_process(self, arguments: tuple[str, ...], stdin: bytes) -> Result:
        done = subprocess.run(
            [sys.executable, "-m", "millstream", *arguments],
            input=stdin,
            capture_output=True,
            env=self.environment,
            timeout=300,
        )
        return Result(done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.fixture
def offline() -> CommandLine:
    """A command line with no cluster: nothing listens at its address."""
    return CommandLine()


@pytest.fixture(params=["millstream", pytest.param("kafka", marks=pytest.mark.java)])
def millstream(request: pytest.FixtureRequest) -> CommandLine:
    """A command line on a cluster, ours or Apache Kafka; shared, so topics need names of their own."""
    fixture = "millstream_broker_session" if request.param == "millstream" else "apache_kafka"
    return CommandLine(request.getfixturevalue(fixture).bootstrap_servers)


@pytest.fixture
def topic_name() -> Callable[[], str]:
    """Make names of topics that no other test uses."""
    return lambda: f"cli-{os.getpid()}-{next(_numbers)}"
