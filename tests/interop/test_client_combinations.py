"""Configs that depend on each other: what Kafka's own clients take together, ours takes, with the same outcome."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from millstream.core.client.consumer import Consumer
from millstream.core.client.producer import Producer
from millstream.core.config import ConfigError
from millstream.testing.kafka import Java

pytestmark = pytest.mark.java

PROGRAM = Path(__file__).parents[1] / "support" / "ClientCombinations.java"
LEFT_OUT = ""
Settings = Mapping[str, str]

IDEMPOTENCE = {
    "enable.idempotence": (LEFT_OUT, "true", "false"),
    "acks": (LEFT_OUT, "all", "-1", "1", "0"),
    "max.in.flight.requests.per.connection": (LEFT_OUT, "1", "5", "6"),
    "retries": (LEFT_OUT, "0", "3"),
}
DELIVERY = {
    "delivery.timeout.ms": (LEFT_OUT, "0", "100", "30000", "30005", "130000"),
    "linger.ms": (LEFT_OUT, "0", "100", "100000"),
    "request.timeout.ms": (LEFT_OUT, "100", "30000", "120000"),
}
ALONE = {
    "acks": ("ALL", "2", "-2", "all ", ""),
    "max.block.ms": ("-1", "0"),
    "linger.ms": ("-1", "0.5"),
    "batch.size": ("0", "-1"),
    "buffer.memory": ("0", "-1"),
    "compression.type": ("LZ4", "brotli"),
    "max.in.flight.requests.per.connection": ("0",),
    "retries": ("-1", "2147483648"),
}
MEMBERS = {
    "group.id": (LEFT_OUT, "g", "  "),
    "group.protocol": (LEFT_OUT, "classic", "CONSUMER"),
    "enable.auto.commit": (LEFT_OUT, "true", "false"),
    "session.timeout.ms": (LEFT_OUT, "3000"),
    "heartbeat.interval.ms": (LEFT_OUT, "3000"),
    "group.remote.assignor": (LEFT_OUT, "uniform"),
}
POSITIONS = {
    "auto.offset.reset": (
        "earliest",
        "latest",
        "none",
        "by_duration:PT1H",
        "by_duration:-PT1H",
        "by_duration:",
        "Latest",
    ),
    "isolation.level": (LEFT_OUT, "read_committed", "READ_COMMITTED"),
}


def combined(options: Mapping[str, tuple[str, ...]]) -> Iterator[Settings]:
    """Every combination, without what is left out."""
    for values in itertools.product(*options.values()):
        yield {name: value for name, value in zip(options, values, strict=True) if value is not LEFT_OUT}


def producer(settings: Settings) -> str:
    try:
        made = Producer({"bootstrap.servers": "127.0.0.1:1", **settings})
    except ConfigError:
        return "refused"
    read = made._settings
    return f"acks={read.acks} idempotent={str(read.is_idempotent).lower()}"


def consumer(settings: Settings) -> str:
    try:
        made = Consumer({"bootstrap.servers": "127.0.0.1:1", **settings})
    except ConfigError:
        return "refused"
    return f"commits={str(made._settings.auto_commit).lower()}"


def theirs(jars: Path, classes: Path, kind: str, combinations: list[Settings]) -> list[str]:
    """What Kafka's own client says of each."""
    java = Java(jars)
    java.compile(PROGRAM, classes)
    lines = ["\t".join([kind, *(f"{name}={value}" for name, value in each.items())]) for each in combinations]
    command = java.command("ClientCombinations")
    command[command.index("-cp") + 1] += f":{classes}"
    done = subprocess.run(
        command, input="\n".join(lines) + "\n", capture_output=True, text=True, timeout=200, check=True
    )
    said = done.stdout.splitlines()
    assert len(said) == len(combinations), done.stdout
    return said


def assert_alike(combinations: list[Settings], said: list[str], ours: Callable[[Settings], str]) -> None:
    differing = [
        f"{each}: theirs {their}, ours {our}"
        for each, their in zip(combinations, said, strict=True)
        if (our := ours(each)) != their
    ]
    assert not differing, "\n".join(differing)


def test_producers(jars: Path, tmp_path: Path) -> None:
    alone: list[Settings] = [{name: value} for name, values in ALONE.items() for value in values]
    combinations = [*combined(IDEMPOTENCE), *combined(DELIVERY), *alone]
    assert_alike(combinations, theirs(jars, tmp_path, "producer", combinations), producer)


def test_consumers(jars: Path, tmp_path: Path) -> None:
    combinations = [*combined(MEMBERS), *combined(POSITIONS)]
    assert_alike(combinations, theirs(jars, tmp_path, "consumer", combinations), consumer)
