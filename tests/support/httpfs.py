"""A real HttpFS for tests: Apache Hadoop's gateway that speaks WebHDFS in front of an HDFS.

It acts for whoever asks, so the HDFS behind it has to let its user do that: PROXY_USER among its properties.
"""

from __future__ import annotations

import getpass
import shutil
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from millstream.testing.daemon import Daemon, jars_folder, quick_jvm_options
from millstream.testing.hdfs import HdfsUnavailableError, MiniHdfs
from millstream.testing.kafka import free_ports, wait_until

PROXY_USER: Final = {f"hadoop.proxyuser.{getpass.getuser()}.{of}": "*" for of in ("hosts", "groups")}
_START_S: Final = 120.0
_SERVER: Final = "org.apache.hadoop.fs.http.server.HttpFSServerWebServer"
_LOGGING: Final = """\
log4j.rootLogger=WARN,console
log4j.appender.console=org.apache.log4j.ConsoleAppender
log4j.appender.console.layout=org.apache.log4j.PatternLayout
log4j.appender.console.layout.ConversionPattern=%d{ISO8601} %p %c{2}: %m%n
"""


def httpfs_jars() -> Path:
    """The folder of its jars. Raises HdfsUnavailableError when it or a JDK is missing."""
    return jars_folder(
        "HttpFS",
        variable="MILLSTREAM_HTTPFS_JARS",
        default="httpfs-3.4.2",
        sample="hadoop-hdfs-httpfs-*.jar",
        unavailable=HdfsUnavailableError,
    )


class HttpFs:
    """Runs while its block does; `address` is its HOST:PORT."""

    def __init__(self, folder: Path, hdfs: MiniHdfs, jars: Path) -> None:
        (port,) = free_ports(1)
        self.address = f"127.0.0.1:{port}"
        for name in ("conf", "log", "temp"):
            (folder / name).mkdir(parents=True)
        conf = folder / "conf"
        for name in ("core-site.xml", "hdfs-site.xml"):
            shutil.copy(hdfs.conf_directory / name, conf)
        (conf / "httpfs-site.xml").write_text(
            "<configuration>"
            f"<property><name>httpfs.http.port</name><value>{port}</value></property>"
            "<property><name>httpfs.http.hostname</name><value>127.0.0.1</value></property>"
            "</configuration>"
        )
        (conf / "httpfs-signature.secret").write_text("of this test only")
        (conf / "httpfs-log4j.properties").write_text(_LOGGING)
        command = [
            "java",
            *quick_jvm_options(jars),
            # What Jersey 1 looks into of Java 17.
            "--add-opens=java.base/java.lang=ALL-UNNAMED",
            f"-Djava.io.tmpdir={folder / 'temp'}",
            f"-Dhttpfs.home.dir={folder}",
            "-cp",
            f"{jars}/*:{conf}",
            _SERVER,
        ]
        self._daemon = Daemon("HttpFS", lambda: command, folder / "httpfs.log")

    def __enter__(self) -> Self:
        self._daemon.start()
        try:
            wait_until(self._answers, _START_S, "HttpFS to answer")
        except BaseException:
            self._daemon.end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._daemon.end()

    def _answers(self) -> bool:
        self._daemon.check()
        url = f"http://{self.address}/webhdfs/v1/?op=GETFILESTATUS&user.name={getpass.getuser()}"
        try:
            with urllib.request.urlopen(url, timeout=10.0) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False
