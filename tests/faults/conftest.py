"""The broker that hostile clients meet; MILLSTREAM_FAULTS_BROKER=kafka turns them on Apache Kafka instead.

A test that a broker with a 250 MB limit passes and Kafka does too (but for that limit) tests the broker, not itself.
"""

import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.support.witness import Witness

from millstream.testing import broker

MEMORY_MB_MAX = 250


class Victim(NamedTuple):
    """A broker that must survive."""

    name: str
    bootstrap: str
    pid: int

    def peak_memory_mb(self) -> float:
        """The largest resident size of the process so far (VmHWM)."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6


@pytest.fixture(scope="module")
def victim(request: pytest.FixtureRequest) -> Iterator[Victim]:
    """A broker for one module of hostile clients, whose memory is looked at after each test."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if os.environ.get("MILLSTREAM_FAULTS_BROKER") == "kafka":
        kafka = request.getfixturevalue("apache_kafka")
        yield Victim("kafka", kafka.bootstrap_servers, kafka.pid)
        return
    with broker({"auto.create.topics.enable": "false", "socket.listen.backlog.size": "4096"}) as running:
        yield Victim("millstream", running.bootstrap_servers, running.pid)


@pytest.fixture
def witness(victim: Victim, request: pytest.FixtureRequest) -> Iterator[Witness]:
    """A well-behaved client beside the test, which must get on; afterwards the broker's memory must be in bounds."""
    topic = "".join(c if c.isalnum() else "-" for c in f"witness-{request.node.name}")
    with Witness(victim.bootstrap, topic) as running:
        yield running
        running.wait_rounds(20)
    print(f"{running.rounds} rounds, slowest {running.slowest_s * 1000:.0f} ms, peak {victim.peak_memory_mb():.0f} MB")
    if victim.name == "millstream":
        assert victim.peak_memory_mb() < MEMORY_MB_MAX
