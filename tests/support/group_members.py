"""Members of a consumer group as processes, with what each of them said; and what must hold over all they said.

A member is one of the Python clients (`group_member`) or Kafka's own VerifiableConsumer; both say the same events.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from millstream.testing.kafka import Java

STOP_S = 60.0
# How soon a member that died is missed. A static one must be back before that, and its process starts slowly on a busy
# machine.
SESSION_MS = 5_000
STATIC_SESSION_MS = 20_000
# A JVM takes its time to start; nothing waits for such a session to end.
JAVA_STATIC_SESSION_MS = 45_000


class MemberKind(NamedTuple):
    """A client with the protocol and the assignor that it is used with."""

    name: str
    client: str
    protocol: str = "classic"
    assignor: str = "range"
    is_static: bool = False
    # Whether what one member keeps in a rebalance is never taken from it meanwhile.
    is_incremental: bool = False


KINDS = (
    MemberKind("confluent-range", "confluent"),
    MemberKind("confluent-cooperative", "confluent", assignor="cooperative-sticky", is_incremental=True),
    MemberKind("confluent-static", "confluent", is_static=True),
    MemberKind("confluent-consumer", "confluent", protocol="consumer", is_incremental=True),
    MemberKind("kafka-python", "kafka-python"),
    MemberKind("kafka-python-static", "kafka-python", is_static=True),
    MemberKind("aiokafka", "aiokafka"),
    MemberKind("aiokafka-static", "aiokafka", is_static=True),
    MemberKind("java-classic", "java", assignor="RangeAssignor"),
    MemberKind("java-static", "java", assignor="RangeAssignor", is_static=True),
    MemberKind("java-cooperative", "java", assignor="CooperativeStickyAssignor", is_incremental=True),
    MemberKind("java-consumer", "java", protocol="consumer", is_incremental=True),
    MemberKind("java-consumer-static", "java", protocol="consumer", is_static=True, is_incremental=True),
)


class Stint(NamedTuple):
    """What a member read of a partition from one assignment of it to the next: when that began, and all offsets."""

    partition: int
    began_ms: int
    ranges: list[tuple[int, int]]


class GroupMember:
    """One process. States: running -> stopped (SIGTERM: it leaves the group) or killed."""

    def __init__(self, kind: MemberKind, jars: Path, bootstrap: str, group: str, topic: str, number: int = 0) -> None:
        self.kind = kind
        instance = f"instance-{number}" if kind.is_static else ""
        self._config = tempfile.NamedTemporaryFile("w", suffix=".properties")  # noqa: SIM115  closed by `close`
        if kind.client == "java":
            # The interval of the consumer protocol is the broker's affair.
            classic = "heartbeat.interval.ms=200\n" if kind.protocol == "classic" else ""
            self._config.write(f"{classic}fetch.max.wait.ms=50\nreconnect.backoff.max.ms=200\n")
            self._config.flush()
            command = _java_command(kind, jars, bootstrap, group, topic, instance)
            command += ["--command-config", self._config.name]
        else:
            command = [sys.executable, "-m", "tests.support.group_member", kind.client, "--bootstrap", bootstrap]
            command += ["--group", group, "--topic", topic, "--protocol", kind.protocol, "--assignor", kind.assignor]
            command += ["--instance", instance] if instance else []
            command += ["--session-ms", str(STATIC_SESSION_MS if instance else SESSION_MS)]
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed by `close`
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._errors, text=True
        )
        # Only appended to, by the thread.
        self.events: list[dict[str, Any]] = []
        self._thread = threading.Thread(target=self._listen, name=f"{kind.name}-{number}", daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            # One that was killed may have left half a line.
            if line.startswith("{") and line.endswith("\n"):
                self.events.append(json.loads(line))

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def told(self) -> str:
        """What it said last, for who looks into a failure."""
        lines = [f"{self.kind.name}, {'running' if self.is_running else 'ended'}, holds {sorted(self.assigned)}"]
        lines += [f"    {json.dumps(event)[:400]}" for event in list(self.events)[-8:]]
        return "\n".join(lines)

    def check(self) -> None:
        """Raise what it said on standard error if it has ended by itself."""
        if not self.is_running:
            self._errors.seek(0)
            raise RuntimeError(f"{self.kind.name} ended: {self._errors.read()[-2000:]}")

    @property
    def assigned(self) -> set[int]:
        """Partitions it holds now."""
        held: set[int] = set()
        for event in list(self.events):
            touched = {one["partition"] for one in event.get("partitions", ())}
            if event["name"] == "partitions_assigned":
                held |= touched
            elif event["name"] == "partitions_revoked":
                held -= touched
        return held

    @property
    def count(self) -> int:
        """Records read so far, those read twice counted twice."""
        return sum(event["count"] for event in list(self.events) if event["name"] == "records_consumed")

    def commits(self) -> Iterator[tuple[int, int, int]]:
        """What was acknowledged: (time in ms, partition, offset)."""
        for event in list(self.events):
            if event["name"] == "offsets_committed" and event["success"]:
                for one in event["offsets"]:
                    yield event["timestamp"], one["partition"], one["offset"]

    def stints(self) -> list[Stint]:
        """What it read, from one assignment of a partition to the next."""
        current: dict[int, Stint] = {}
        every: list[Stint] = []
        for event in list(self.events):
            if event["name"] == "partitions_assigned":
                for one in event["partitions"]:
                    stint = current[one["partition"]] = Stint(one["partition"], event["timestamp"], [])
                    every.append(stint)
            elif event["name"] == "records_consumed":
                for one in event["partitions"]:
                    current[one["partition"]].ranges.append((one["minOffset"], one["maxOffset"] + 1))
        return every

    def stop(self) -> None:
        """Have it leave, and wait until it has."""
        self._process.terminate()
        self._process.wait(STOP_S)
        self.close()

    def kill(self) -> None:
        """End it as a crash would."""
        self.close()

    def close(self) -> None:
        """End it if it runs; what it said stays."""
        self._process.kill()
        self._process.wait(STOP_S)
        self._errors.close()
        self._config.close()
        self._thread.join(STOP_S)
        if self._process.stdout is not None:
            self._process.stdout.close()


def _java_command(kind: MemberKind, jars: Path, bootstrap: str, group: str, topic: str, instance: str) -> list[str]:
    command = Java(jars).command("org.apache.kafka.tools.VerifiableConsumer", "--bootstrap-server", bootstrap)
    command += ["--group-id", group, "--topic", topic, "--group-protocol", kind.protocol, "--reset-policy", "earliest"]
    if kind.protocol == "classic":
        assignor = f"org.apache.kafka.clients.consumer.{kind.assignor}"
        command += [
            "--session-timeout",
            str(JAVA_STATIC_SESSION_MS if instance else SESSION_MS),
            "--assignment-strategy",
            assignor,
        ]
    return command + (["--group-instance-id", instance] if instance else [])


def check_reading(members: Iterable[GroupMember], ends: list[int]) -> int:
    """Check that every record up to `ends` was read, each stint from a place that was committed; return the doubles.

    What is read twice was read first by a member that could not commit it any more. A stint begins where some member's
    batch ended, since that is what members commit, and behind everything whose commit was acknowledged before.
    """
    members = list(members)
    commits = [commit for member in members for commit in member.commits()]
    stints = [stint for member in members for stint in member.stints() if stint.ranges]
    doubles = 0
    for partition, end in enumerate(ends):
        ranges = [each for stint in stints if stint.partition == partition for each in stint.ranges]
        batch_ends = {0, *(stop for _, stop in ranges)}
        for stint in stints:
            if stint.partition != partition:
                continue
            first = stint.ranges[0][0]
            assert first in batch_ends, f"partition {partition}: read from {first} on, which nobody committed"
            known = max(
                (offset for when, index, offset in commits if index == partition and when < stint.began_ms), default=0
            )
            assert first >= known, f"partition {partition}: read from {first} on, {known} was committed"
            for (_, stop), (start, _) in zip(stint.ranges, stint.ranges[1:], strict=False):
                assert start == stop, f"partition {partition}: {start} after {stop}"
        reached = 0
        for start, stop in sorted(ranges):
            assert start <= reached, f"partition {partition}: nobody read {reached} to {start}"
            reached = max(reached, stop)
        assert reached == end, f"partition {partition} ends at {end}, read up to {reached}"
        doubles += sum(stop - start for start, stop in ranges) - end
    return doubles
