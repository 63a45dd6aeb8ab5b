"""The two brokers under measurement, behind one interface: start, stop, kill, and what they used.

CPU-seconds and peak memory are the kernel's own figures for the whole process, all threads and ended ones included.
"""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Protocol

from millstream.testing.kafka import SERVER_JVM_OPTIONS, ApacheKafka, free_ports, wait_until
from millstream.testing.raw import ClosedError, RawConnection

START_TIMEOUT_S = 600.0
# What both are told. Everything else is each broker's default.
PROPERTIES = {
    "num.partitions": "4",
    "log.retention.check.interval.ms": "2000",
    "auto.create.topics.enable": "false",
    "group.initial.rebalance.delay.ms": "0",
}


class Served(Protocol):
    """A broker in a folder of its own."""

    name: str
    data_directory: Path

    @property
    def bootstrap(self) -> str: ...
    @property
    def pid(self) -> int: ...
    @property
    def command(self) -> list[str]: ...
    def prepare(self) -> None: ...
    def spawn(self) -> None: ...
    def stop(self) -> None: ...
    def kill(self) -> None: ...


class Millstream:
    """`millstream server` of the environment that runs this."""

    name = "millstream"

    def __init__(self, folder: Path, properties: dict[str, str] | None = None) -> None:
        self._folder = folder
        self.data_directory = folder / "data"
        self._port = free_ports(1)[0]
        self._properties = PROPERTIES | (properties or {})
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def command(self) -> list[str]:
        program = str(Path(sys.executable).with_name("millstream"))
        settings = [word for name, value in self._properties.items() for word in ("--set", f"{name}={value}")]
        return [program, "server", "--listen", self.bootstrap, "--data-dir", str(self.data_directory), *settings]

    def prepare(self) -> None:
        """Make the folder."""
        self._folder.mkdir(parents=True, exist_ok=True)

    def spawn(self) -> None:
        """Start the process; it may not answer yet."""
        with (self._folder / "millstream.log").open("ab") as output:
            self._process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(how)
            process.wait(300)


class Kafka:
    """Apache Kafka 4.3 with the JVM settings of its own start script."""

    name = "kafka"

    def __init__(self, folder: Path, properties: dict[str, str] | None = None) -> None:
        self._kafka = ApacheKafka(
            folder,
            properties=PROPERTIES | (properties or {}),
            jvm_options=("-Xmx1G", "-Xms1G", *SERVER_JVM_OPTIONS),
        )
        self.data_directory = self._kafka.data_directory
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        return self._kafka.bootstrap_servers

    @property
    def pid(self) -> int:
        return self._kafka.pid

    @property
    def command(self) -> list[str]:
        return self._kafka.server_command

    def prepare(self) -> None:
        """Format the folder, once: an operator's step, not a part of any start."""
        self._kafka.format()

    def spawn(self) -> None:
        """Start the process; it may not answer yet."""
        self._kafka.spawn()

    def stop(self) -> None:
        self._kafka.stop(300)

    def kill(self) -> None:
        self._kafka.kill()


def raise_open_files() -> None:
    """As many open files as the system lets this process have; what it starts inherits that."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (1_000_000, hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard)))
        except (ValueError, OSError):
            continue
        return


def start(broker: Served, partitions: dict[str, int] | None = None) -> float:
    """Start, and return the seconds until every partition of these topics answered ListOffsets."""
    broker.prepare()
    started = time.monotonic()
    broker.spawn()
    wait_until(lambda: _answers(broker.bootstrap, partitions or {}), START_TIMEOUT_S, f"{broker.name} to answer")
    return time.monotonic() - started


def _answers(bootstrap: str, partitions: dict[str, int]) -> bool:
    try:
        with RawConnection(bootstrap, timeout_s=60) as raw:
            raw.topics()
            found = raw.offsets({name: range(count) for name, count in partitions.items()})
    except (OSError, ClosedError):
        return False
    return all(offset >= 0 for topic in found.values() for offset in topic.values())


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far, all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_memory_mb(pid: int) -> float:
    """The largest resident size a process had (VmHWM), in MB of 10^6 bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise ValueError(f"process {pid} has no VmHWM")


def remove(broker: Served) -> None:
    """End the process and delete its folder."""
    broker.kill()
    shutil.rmtree(broker.data_directory.parent, ignore_errors=True)
