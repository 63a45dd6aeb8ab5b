"""A real Hive metastore (2.3, on Derby) for tests, of the jars that PySpark brings."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

from millstream.testing.kafka import free_ports

START_S: Final = 180.0
# What Hive 2.3 looks into of Java 17.
_OPENED: Final = ("lang", "net", "nio", "util", "util.concurrent")


class HiveMetastore:
    """Runs while its block does; `uri` is its Thrift address."""

    def __init__(
        self, folder: Path, *, properties: Mapping[str, str] | None = None, jvm_options: Sequence[str] = ()
    ) -> None:
        """`properties` are of Hive, and of Hadoop."""
        self.folder = folder
        self._properties = dict(properties or {})
        self._jvm_options = jvm_options
        (self._port,) = free_ports(1)
        self.uri = f"thrift://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None
        self._output: IO[bytes] | None = None

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        properties = {
            "javax.jdo.option.ConnectionURL": f"jdbc:derby:;databaseName={self.folder}/database;create=true",
            "datanucleus.schema.autoCreateAll": "true",
            "hive.metastore.schema.verification": "false",
            "hive.metastore.warehouse.dir": f"{self.folder}/warehouse",
            "hive.async.log.enabled": "false",
            **self._properties,
        }
        lines = [f"<property><name>{key}</name><value>{value}</value></property>" for key, value in properties.items()]
        for name in ("hive-site.xml", "core-site.xml"):
            (self.folder / name).write_text(f"<configuration>{''.join(lines)}</configuration>")
        spec = importlib.util.find_spec("pyspark")
        assert spec is not None, "pyspark is not installed"
        assert spec.origin is not None, spec
        jars = Path(spec.origin).parent / "jars"
        self._output = (self.folder / "log").open("wb")
        self._process = subprocess.Popen(
            [
                "java",
                "-Xmx256m",
                "-XX:TieredStopAtLevel=1",
                "-XX:+UseSerialGC",
                *self._jvm_options,
                *(f"--add-opens=java.base/java.{package}=ALL-UNNAMED" for package in _OPENED),
                "-cp",
                f"{self.folder}:{jars}/*",
                "org.apache.hadoop.hive.metastore.HiveMetaStore",
                "-p",
                str(self._port),
            ],
            stdout=self._output,
            stderr=self._output,
            cwd=self.folder,
        )
        deadline = time.monotonic() + START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._end()
                raise RuntimeError(f"the metastore did not start:\n{(self.folder / 'log').read_text()[-3000:]}")
            time.sleep(0.1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
        except OSError:
            return False
        return True

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._output is not None:
            self._output.close()
