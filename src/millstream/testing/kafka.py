"""Apache Kafka itself, as a child process: the peer that tests and benchmarks hold Millstream against.

    with ApacheKafka(tmp_path / "kafka") as kafka:
        kafka.bootstrap_servers                     # "127.0.0.1:PORT"
        kafka.run_tool("org.apache.kafka.tools.GetOffsetShell", "--topic", "flights")

One JVM is broker and KRaft controller on free loopback ports. A start takes about 3 s and 300-700 MB, so a test session
shares one. The jars lie in the folder named by the environment variable MILLSTREAM_KAFKA_JARS (`make jars` fills it and
`make` exports it); kafka_jars() names the default folder otherwise.

Everything here blocks and is meant for tests; the process is always addressed by its own pid.
"""

import random
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Self, TypeVar

from millstream.testing.daemon import Daemon, jars_folder, quick_jvm_options

T = TypeVar("T")

KAFKA_VERSION = "4.3.0"
CLUSTER_ID = "MkU3OEVBNTcwNTJENDM2Qg"

# What Kafka's own kafka-server-start.sh and kafka-run-class.sh pass: a benchmark must give Kafka its own settings.
SERVER_JVM_OPTIONS = (
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
    "-XX:MaxInlineLevel=15",
    "-Djava.awt.headless=true",
)
# A tool takes a second or two; on a machine that does much else, far longer.
TOOL_TIMEOUT_S = 150.0
_QUICK_COMPILER = ("-J-XX:TieredStopAtLevel=1", "-J-XX:+UseSerialGC")
LOGGING_OPTIONS = ("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dlog4j2.level=WARN")


class KafkaUnavailableError(Exception):
    """The jars or the JDK are missing, or Kafka did not start; the message says which and where its log is."""


def kafka_jars() -> Path:
    """The folder of Apache Kafka's jars. Raises KafkaUnavailableError when it or a JDK is missing."""
    return jars_folder(
        "Apache Kafka",
        variable="MILLSTREAM_KAFKA_JARS",
        default=f"kafka-{KAFKA_VERSION}",
        sample="kafka_2.13-*.jar",
        unavailable=KafkaUnavailableError,
    )


def free_ports(count: int) -> list[int]:
    """`count` different loopback TCP ports that nothing listens on now, and that this process was never given before.

    They lie below those that the kernel hands out by itself: such a port, while its server is down, may become the
    local end of any connection that goes out (of one to itself, even), or another test's, and is in use ever after.
    """
    draw = random.SystemRandom()
    ports: list[int] = []
    while len(ports) < count:
        port = draw.choice(_OWN_PORTS)
        if port not in _given_ports and _is_free(port):
            _given_ports.add(port)
            ports.append(port)
    return ports


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def _own_ports() -> range:
    """The 12,000 ports below the kernel's own."""
    try:
        low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except OSError:
        low = 32_768
    return range(low - 12_000, low) if low > 16_000 else range(16_000, 28_000)


_OWN_PORTS: Final = _own_ports()
_given_ports: Final[set[int]] = set()


def wait_until(condition: Callable[[], T | None], timeout_s: float, what: str) -> T:
    """Call `condition` until it returns something true, and return that; TimeoutError names `what` was waited for."""
    deadline = time.monotonic() + timeout_s
    pause_s = 0.002
    while True:
        if result := condition():
            return result
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout_s:g} s")
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, 0.1)


def brokers_answering(host: str, port: int, timeout_s: float = 5.0) -> int:
    """How many brokers a Metadata request to this address names; 0 while nothing answers."""
    body = struct.pack(">hhih", 3, 1, 1, -1) + struct.pack(">i", 0)
    try:
        with socket.create_connection((host, port), timeout=timeout_s) as connection:
            connection.sendall(struct.pack(">i", len(body)) + body)
            with connection.makefile("rb") as answer:
                head = answer.read(12)
    except OSError:
        return 0
    return int(struct.unpack(">iii", head)[2]) if len(head) == 12 else 0


class Java:
    """Runs programs on Kafka's class path: its tools by class name, and single source files."""

    def __init__(self, jars: Path | None = None) -> None:
        self.jars = kafka_jars() if jars is None else jars

    def command(self, *arguments: str, options: Sequence[str] | None = None) -> list[str]:
        """The argv that runs a class (or a .java file) with its arguments; `options` are those of the JVM."""
        options = quick_jvm_options(self.jars) if options is None else options
        return ["java", *options, *LOGGING_OPTIONS, "-cp", f"{self.jars}/*", *arguments]

    def run(
        self, *arguments: str, text: str | None = None, timeout_s: float = TOOL_TIMEOUT_S, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run to the end with `text` as standard input; a failure (unless `check` is off) raises with its output."""
        done = subprocess.run(
            self.command(*arguments), input=text or "", capture_output=True, text=True, timeout=timeout_s, check=False
        )
        if check and done.returncode != 0:
            raise RuntimeError(f"{arguments[0]} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done

    def compile(self, source: Path, classes: Path) -> None:
        """Compile one Java file against the jars into the folder `classes`."""
        classes.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["javac", *_QUICK_COMPILER, "-nowarn", "-cp", f"{self.jars}/*", "-d", str(classes), str(source)],
            check=True,
            capture_output=True,
            timeout=TOOL_TIMEOUT_S,
        )


# What formatting leaves in a folder, by the jars and the kind of node.
_formatted: Final[dict[tuple[object, ...], dict[str, bytes]]] = {}


class ApacheKafka:
    """One Kafka node (broker and controller) in a folder of its own.

    States: STOPPED -> RUNNING (start: answers Metadata with itself as a live broker) -> STOPPED (stop: SIGTERM, a clean
    shutdown; kill: SIGKILL). Ports and data stay over a restart.
    """

    def __init__(
        self,
        folder: Path,
        *,
        properties: Mapping[str, str] | None = None,
        jvm_options: Sequence[str] | None = None,
        more_jvm_options: Sequence[str] = (),
        jars: Path | None = None,
        port: int | None = None,
    ) -> None:
        """`properties` override or extend the server.properties written into `folder`.

        `jvm_options` stand in place of those that have it start quickly, `more_jvm_options` behind them.
        """
        self.java = Java(jars)
        self.folder = folder
        self.data_directory = folder / "data"
        self.log_path = folder / "kafka.log"
        self._port, controller_port = (port, *free_ports(1)) if port else free_ports(2)
        jvm_options = quick_jvm_options(self.java.jars, heap="512m") if jvm_options is None else jvm_options
        self._jvm_options = (*jvm_options, *more_jvm_options)
        self._properties = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
            "listeners": f"PLAINTEXT://127.0.0.1:{self._port},CONTROLLER://127.0.0.1:{controller_port}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self._port}",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": str(self.data_directory),
            "num.partitions": "4",
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "1",
            "group.initial.rebalance.delay.ms": "0",
            **(properties or {}),
        }
        self._daemon = Daemon("broker", lambda: self.server_command, self.log_path)

    @property
    def host(self) -> str:
        """The address it listens on."""
        return "127.0.0.1"

    @property
    def port(self) -> int:
        """The port clients connect to; the same over restarts."""
        return self._port

    @property
    def bootstrap_servers(self) -> str:
        """HOST:PORT, as clients take it."""
        return f"{self.host}:{self.port}"

    @property
    def pid(self) -> int:
        """The JVM's process id; only while it runs."""
        pid = self._daemon.pid
        assert pid is not None, "Kafka is not running"
        return pid

    @property
    def server_command(self) -> list[str]:
        """The argv the broker is started with."""
        # A killed JVM leaves what it unpacked; here it goes with the folder.
        options = [*self._jvm_options, f"-Djava.io.tmpdir={self.folder}"]
        return self.java.command("kafka.Kafka", str(self.folder / "server.properties"), options=options)

    def format(self) -> None:
        """Write server.properties, and format the storage unless it is formatted already.

        That takes a JVM of its own, once: the next of its kind in this process is given copies of the few files.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "server.properties"
        path.write_text("".join(f"{name}={value}\n" for name, value in self._properties.items()))
        if (self.data_directory / "meta.properties").exists():
            return
        kind = (self.java.jars, *(self._properties[name] for name in ("process.roles", "node.id")))
        is_elsewhere = self._properties["log.dirs"] != str(self.data_directory)
        if is_elsewhere or kind not in _formatted:
            self.java.run("kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(path))
        else:
            self.data_directory.mkdir(parents=True, exist_ok=True)
            for name, data in _formatted[kind].items():
                (self.data_directory / name).write_bytes(data)
        if not is_elsewhere:
            _formatted[kind] = {file.name: file.read_bytes() for file in self.data_directory.iterdir()}

    def spawn(self) -> None:
        """Start the process and return at once."""
        assert self._daemon.pid is None, f"Kafka runs already as {self.pid}"
        self.format()
        self._daemon.start()

    def start(self, timeout_s: float = 120.0) -> Self:
        """Start and wait until it answers as a live broker; KafkaUnavailableError otherwise, with its log's end."""
        self.spawn()
        try:
            wait_until(self._answers, timeout_s, "Kafka's first answer")
        except (TimeoutError, ChildProcessError) as error:
            self.kill()
            raise KafkaUnavailableError(f"Kafka did not start: {error}\n{self._daemon.tail()}") from error
        return self

    def _answers(self) -> bool:
        self._daemon.check()
        return brokers_answering(self.host, self.port) > 0

    def stop(self, timeout_s: float = 60.0) -> None:
        """A clean shutdown; nothing when it does not run."""
        self._daemon.end(signal.SIGTERM, timeout_s)

    def kill(self) -> None:
        """SIGKILL: what a crash leaves on disk stays."""
        self._daemon.end()

    def run_tool(
        self, tool: str, *arguments: str, text: str | None = None, timeout_s: float = TOOL_TIMEOUT_S, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run one of Kafka's command-line tools against this broker."""
        bootstrap = ("--bootstrap-server", self.bootstrap_servers)
        return self.java.run(tool, *bootstrap, *arguments, text=text, timeout_s=timeout_s, check=check)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
