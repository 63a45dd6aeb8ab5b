"""A Spark cluster of its own processes: a master, and two workers as on two hosts, which executors are children of.

`local-cluster` has its master and its workers within the driver's JVM and all of them on one host, where Spark never
runs a slow task a second time: that has to be on another one.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import psutil
import pyspark
from tests.support.spark_reader import QUICK_JVM

from millstream.testing.daemon import Daemon
from millstream.testing.kafka import free_ports, wait_until

HOSTS: Final = ("127.0.0.1", "127.0.0.2")
CORES: Final = 2
_HOME: Final = Path(pyspark.__file__).parent
_START_S: Final = 120.0


class SparkCluster:
    """Runs while its block does; `master` is its address. Each worker has room for an executor of two applications."""

    def __init__(self, folder: Path) -> None:
        (port,) = free_ports(1)
        self.master = f"spark://{HOSTS[0]}:{port}"

        def daemon(name: str, host: str, program: str, *arguments: str) -> Daemon:
            options = [
                "-Xmx128m",
                f"-Djava.io.tmpdir={folder}",
                "-Djava.net.preferIPv4Stack=true",
                "-Dspark.master.rest.enabled=false",
            ]
            of_all = ["--host", host, "--webui-port", "0"]
            command = ["java", *options, "-cp", f"{_HOME}/jars/*", f"org.apache.spark.deploy.{program}", *of_all]
            environment = {
                "SPARK_HOME": str(_HOME),
                # Where Spark is installed a script of its own finds it out; no executor is started without it.
                "SPARK_SCALA_VERSION": "2.13",
                "SPARK_LOCAL_DIRS": str(folder),
                "SPARK_LOCAL_IP": host,
                "JDK_JAVA_OPTIONS": QUICK_JVM,
            }
            return Daemon(name, lambda: [*command, *arguments], folder / f"{name}.log", environment)

        self._master = daemon("master", HOSTS[0], "master.Master", "--port", str(port))
        room = ("--cores", str(CORES), "--memory", "2g", "--work-dir", str(folder / "work"))
        self._workers = [
            daemon(f"worker-{number}", host, "worker.Worker", *room, self.master) for number, host in enumerate(HOSTS)
        ]

    def __enter__(self) -> Self:
        try:
            # They ask for their master until there is one.
            for one in self._daemons():
                one.start()
            for worker in self._workers:
                wait_until(partial(self._is_registered, worker), _START_S, f"the {worker.name} to register")
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    def executors(self) -> list[psutil.Process]:
        """The JVMs of executors that run, of all applications."""
        return [
            child
            for worker in self._workers
            if worker.pid is not None
            for child in psutil.Process(worker.pid).children()
        ]

    def _daemons(self) -> list[Daemon]:
        return [self._master, *self._workers]

    def _is_registered(self, worker: Daemon) -> bool:
        for one in self._daemons():
            one.check()
        return "Successfully registered with master" in worker.log_path.read_text(errors="replace")

    def _end(self) -> None:
        left = self.executors()
        for one in reversed(self._daemons()):
            one.end()
        for executor in left:
            executor.kill()
        psutil.wait_procs(left, timeout=30)
