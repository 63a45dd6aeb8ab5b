"""Commands run as a user runs them, in a process of their own, against Millstream and against Apache Kafka."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

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
    """Runs `millstream ...` with a cluster to talk to; each call is a process of its own."""

    def __init__(self, bootstrap: str = "127.0.0.1:1") -> None:
        self.bootstrap = bootstrap
        self.environment = {**os.environ, "MILLSTREAM_BOOTSTRAP_SERVER": bootstrap, "COLUMNS": "100", "NO_COLOR": "1"}

    def __call__(self, *arguments: str, stdin: str | bytes = b"", code: int = 0) -> Result:
        """Run a command and check its exit code; an error is one line on standard error and never a traceback."""
        data = stdin.encode() if isinstance(stdin, str) else stdin
        done = subprocess.run(
            [sys.executable, "-m", "millstream", *arguments],
            input=data,
            capture_output=True,
            env=self.environment,
            timeout=60,
        )
        result = Result(done.returncode, done.stdout.decode(), done.stderr.decode())
        assert result.code == code, result
        assert "Traceback" not in result.err, result.err
        if code in {1, 2}:
            lines = result.err.strip().splitlines()
            assert lines[-1].startswith("millstream: "), result.err
        return result


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
