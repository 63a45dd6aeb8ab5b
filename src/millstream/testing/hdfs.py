"""A real HDFS as child processes: NameNode and DataNode of Apache Hadoop on free loopback ports.

    with MiniHdfs(tmp_path / "hdfs") as hdfs:
        hdfs.uri                        # "hdfs://127.0.0.1:PORT"
        hdfs.webhdfs_uri                # "webhdfs://127.0.0.1:PORT"
        hdfs.kill_namenode()            # SIGKILL; start_namenode() brings it back with what it had

    with MiniHdfs(tmp_path / "hdfs", ha=True) as hdfs:
        hdfs.uri                        # "hdfs://millstream", a name service that hdfs.conf_directory describes
        hdfs.fail_over()                # the active NameNode is killed, the standby becomes active

Each process is a JVM of some 200 MB, and a start takes 5 to 25 s, so a test session shares one. With `ha` there are
two NameNodes and a JournalNode between them; who is active is set by hand, as there is no ZooKeeper.

The jars lie in the folder named by the environment variable MILLSTREAM_HADOOP_JARS (`make jars` fills it and `make`
exports it); hadoop_jars() names the default folder otherwise. Those of Maven lack the web pages, without whose folders
a NameNode does not start, so empty ones are written beside the configuration. The user who starts it is the superuser;
others are checked against the files' permissions.
"""

from __future__ import annotations

import getpass
import http.client
import json
import os
import subprocess
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit
from xml.sax.saxutils import escape

from millstream.testing.daemon import Daemon, jars_folder, quick_jvm_options
from millstream.testing.kafka import free_ports, wait_until

HADOOP_VERSION: Final = "3.5.0"
NAMESERVICE: Final = "millstream"
HOST: Final = "127.0.0.1"

START_TIMEOUT_S: Final = 180.0
_TOOL_TIMEOUT_S: Final = 120.0

_NAMENODE: Final = "org.apache.hadoop.hdfs.server.namenode.NameNode"
_DATANODE: Final = "org.apache.hadoop.hdfs.server.datanode.DataNode"
_JOURNALNODE: Final = "org.apache.hadoop.hdfs.qjournal.server.JournalNode"
_ADMIN: Final = "org.apache.hadoop.hdfs.tools.DFSHAAdmin"

_LOGGING: Final = """\
log4j.rootLogger=INFO,console
log4j.appender.console=org.apache.log4j.ConsoleAppender
log4j.appender.console.target=System.err
log4j.appender.console.layout=org.apache.log4j.PatternLayout
log4j.appender.console.layout.ConversionPattern=%d{ISO8601} %p %c{2}: %m%n
# These have a line for each step of each file.
log4j.logger.BlockStateChange=WARN
log4j.logger.org.apache.hadoop.hdfs.StateChange=WARN
log4j.logger.org.apache.hadoop.hdfs.server.datanode.DataNode=WARN
log4j.logger.org.apache.hadoop.hdfs.server.datanode.fsdataset=WARN
log4j.logger.org.apache.hadoop.hdfs.server.namenode.FSEditLog=WARN
log4j.logger.org.apache.hadoop.hdfs.server.namenode.FSNamesystem.audit=WARN
"""
_EMPTY_WEB_APP: Final = '<web-app version="2.5" xmlns="http://java.sun.com/xml/ns/javaee"></web-app>\n'


class HdfsUnavailableError(Exception):
    """The jars or the JDK are missing, or HDFS did not start; the message says which and has its log's end."""


def hadoop_jars() -> Path:
    """The folder of Apache Hadoop's jars. Raises HdfsUnavailableError when it or a JDK is missing."""
    return jars_folder(
        "Apache Hadoop",
        variable="MILLSTREAM_HADOOP_JARS",
        default=f"hadoop-{HADOOP_VERSION}",
        sample="hadoop-hdfs-client-*.jar",
        unavailable=HdfsUnavailableError,
    )


class MiniHdfs:
    """One HDFS in a folder of its own: a DataNode and a NameNode, or two of them (`ha`).

    States: STOPPED -> RUNNING (start: a file can be written) -> STOPPED (stop). Ports and data stay over restarts of
    its processes; what start or `with` began, stop or the end of `with` ends, and so does the end of this process.
    """

    def __init__(
        self,
        folder: Path,
        *,
        ha: bool = False,
        properties: Mapping[str, str] | None = None,
        jvm_options: Sequence[str] | None = None,
        more_jvm_options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        jars: Path | None = None,
        probe: Callable[[], object] | None = None,
    ) -> None:
        """`properties` are Hadoop settings over ours, `environment` is added to that of the processes.

        `jvm_options` stand in place of those that have them start quickly, `more_jvm_options` behind them.
        `probe` writes a file, or raises OSError while it cannot: for an HDFS that asks who one is.
        """
        self.folder = folder
        self.ha = ha
        self.jars = hadoop_jars() if jars is None else jars
        # A folder that HADOOP_CONF_DIR may name: core-site.xml and hdfs-site.xml for clients.
        self.conf_directory = folder / "conf"
        self._environment = dict(environment or {})
        self._probe = probe or self._write_probe
        jvm_options = quick_jvm_options(self.jars) if jvm_options is None else jvm_options
        self._jvm_options = (*jvm_options, *more_jvm_options)
        names = ("nn1", "nn2") if ha else ("nn1",)
        ports = iter(free_ports(2 * len(names) + 5))
        self._rpc_ports = {name: next(ports) for name in names}
        self._http_ports = {name: next(ports) for name in names}
        datanode_ports = [next(ports) for _ in range(3)]
        self._datanode_http_port = datanode_ports[1]
        self._journal_ports = [next(ports) for _ in range(2)]
        self._properties = {**self._base_properties(datanode_ports), **(properties or {})}
        # The NameNode that was made active last. Without `ha` there is but one.
        self.active = "nn1"
        self._namenodes = {name: self._daemon(name, _NAMENODE) for name in names}
        self._datanode = self._daemon("dn", _DATANODE)
        self._journalnode = self._daemon("jn", _JOURNALNODE) if ha else None

    @property
    def uri(self) -> str:
        """Its root for hdfs-native and Hadoop's own clients; with `ha` a name that `conf_directory` explains."""
        return f"hdfs://{NAMESERVICE}" if self.ha else f"hdfs://{self.rpc_addresses[0]}"

    @property
    def webhdfs_uri(self) -> str:
        """Its root over HTTP."""
        return f"webhdfs://{NAMESERVICE}" if self.ha else f"webhdfs://{self.http_addresses[0]}"

    @property
    def rpc_addresses(self) -> tuple[str, ...]:
        """HOST:PORT of each NameNode for RPC."""
        return tuple(f"{HOST}:{port}" for port in self._rpc_ports.values())

    @property
    def http_addresses(self) -> tuple[str, ...]:
        """HOST:PORT of each NameNode for HTTP."""
        return tuple(f"{HOST}:{port}" for port in self._http_ports.values())

    def start(self) -> Self:
        """Format it if it is new, start all of it and wait until a file can be written."""
        try:
            self._start()
        except (TimeoutError, ChildProcessError, subprocess.SubprocessError) as error:
            tails = "".join(f"\n{daemon.name}: {daemon.tail()}" for daemon in self._daemons())
            self.stop()
            raise HdfsUnavailableError(f"HDFS did not start: {error}{tails}") from error
        return self

    def _start(self) -> None:
        new = not any(self.folder.glob("name*"))
        self._write_configuration()
        if self._journalnode is not None:
            self._journalnode.start()
        # It asks for its NameNode until there is one, and is up by then.
        self._datanode.start()
        if new:
            self._format("nn1")
        self._namenodes["nn1"].start()
        if self.ha:
            self._wait("nn1", "answers", lambda: self._state("nn1"))
            if new:
                self.run(_NAMENODE, "-bootstrapStandby", "-nonInteractive", "-force", namenode="nn2")
            self._namenodes["nn2"].start()
            self._wait("nn2", "answers", lambda: self._state("nn2"))
            self.make_active(self.active)
        self.wait_until_writable()

    def stop(self) -> None:
        """End all of it; its files stay."""
        for daemon in self._daemons():
            daemon.end()

    def restore(self) -> None:
        """Bring back whatever of it was killed or paused, and wait until a file can be written again."""
        was_down = [daemon for daemon in self._daemons() if daemon.pid is None]
        for daemon in self._daemons():
            if daemon.pid is None:
                daemon.start()
            daemon.resume()
        if was_down and self.ha:
            for name, daemon in self._namenodes.items():
                if daemon in was_down:
                    self._wait(name, "answers", partial(self._state, name))
            self.make_active(self.active)
        if was_down:
            self.wait_until_writable()

    def kill_namenode(self, name: str | None = None) -> None:
        """SIGKILL to one NameNode, the active one unless named."""
        self._namenodes[name or self.active].end()

    def start_namenode(self, name: str | None = None, *, wait: bool = True) -> None:
        """Start a NameNode again, and wait until a file can be written (with `ha`: until it answers, as a standby)."""
        name = name or self.active
        self._namenodes[name].start()
        if wait and self.ha:
            self._wait(name, "answers", lambda: self._state(name))
        elif wait:
            self.wait_until_writable()

    def pause_namenode(self, name: str | None = None) -> None:
        """SIGSTOP: its connections stay and nothing is answered, until resume_namenode."""
        self._namenodes[name or self.active].pause()

    def resume_namenode(self, name: str | None = None) -> None:
        """SIGCONT: it answers whatever it was asked meanwhile."""
        self._namenodes[name or self.active].resume()

    def kill_datanode(self) -> None:
        """SIGKILL to the DataNode."""
        self._datanode.end()

    def start_datanode(self, *, wait: bool = True) -> None:
        """Start the DataNode again, and wait until a file can be written."""
        self._datanode.start()
        if wait:
            self.wait_until_writable()

    def make_active(self, name: str) -> None:
        """Make one NameNode of two the active one. Only with `ha`."""
        # By force, as the tool else asks the other one, which may be dead, whether it is active.
        self.run(_ADMIN, "-transitionToActive", "--forceactive", name, namenode=name)
        self.active = name
        self._wait(name, "is active", lambda: self._state(name) == "active")

    def fail_over(self) -> str:
        """Kill the active NameNode and make the other active; returns the name of the one killed."""
        killed = self.active
        (other,) = (name for name in self._namenodes if name != killed)
        self.kill_namenode(killed)
        self.make_active(other)
        return killed

    def wait_until_writable(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until a byte can be written to a file: what JMX says of live DataNodes is true some seconds later."""
        wait_until(self._writable, timeout_s, "HDFS to take a file")

    def set_quota(self, path: str, *, names: int | None = None, space_bytes: int | None = None) -> None:
        """Bound the names and bytes below a directory (an absolute path), as `hdfs dfsadmin -setQuota` does."""
        unchanged = (1 << 63) - 1
        query = f"namespacequota={unchanged if names is None else names}"
        query += f"&storagespacequota={unchanged if space_bytes is None else space_bytes}"
        self.request("PUT", path, f"op=SETQUOTA&{query}")

    def request(self, method: str, path: str, query: str, *, user: str | None = None, timeout_s: float = 30.0) -> bytes:
        """A WebHDFS request to the active NameNode; raises urllib.error.HTTPError with Hadoop's own text."""
        user_query = f"user.name={user or getpass.getuser()}"
        url = f"http://{HOST}:{self._http_ports[self.active]}/webhdfs/v1{path}?{user_query}&{query}"
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=timeout_s) as answer:
            return bytes(answer.read())

    def run(self, *arguments: str, namenode: str = "nn1") -> subprocess.CompletedProcess[str]:
        """Run one of Hadoop's programs by class name to its end; a failure raises with its output."""
        done = subprocess.run(
            self._command(*arguments, conf=self._conf_of(namenode)),
            capture_output=True,
            text=True,
            timeout=_TOOL_TIMEOUT_S,
            check=False,
            env={**os.environ, **self._environment},
        )
        if done.returncode != 0:
            raise ChildProcessError(f"{arguments[0]} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done

    def _format(self, namenode: str) -> None:
        self.run(_NAMENODE, "-format", "-nonInteractive", "-force", namenode=namenode)

    def _wait(self, name: str, what: str, condition: Callable[[], object]) -> None:
        def checked() -> object:
            self._check()
            return condition()

        wait_until(checked, START_TIMEOUT_S, f"the NameNode {name} {what}")

    def _check(self) -> None:
        for daemon in self._daemons():
            daemon.check()

    def _daemons(self) -> list[Daemon]:
        journal = [] if self._journalnode is None else [self._journalnode]
        return [self._datanode, *self._namenodes.values(), *journal]

    def _daemon(self, name: str, program: str) -> Daemon:
        command = partial(self._command, program, conf=self._conf_of(name))
        return Daemon(name, command, self.folder / f"{name}.log", self._environment)

    def _command(self, *arguments: str, conf: Path) -> list[str]:
        # A killed JVM leaves what it unpacked; here it goes with the folder.
        options = [
            *self._jvm_options,
            "-Djava.net.preferIPv4Stack=true",
            f"-Dhadoop.log.dir={self.folder}",
            f"-Djava.io.tmpdir={self.folder}",
        ]
        return ["java", *options, "-cp", f"{self.jars}/*:{conf}", *arguments]

    def _conf_of(self, name: str) -> Path:
        """The configuration of one process; NameNodes of a pair are told by it which one they are."""
        return self.folder / f"conf-{name}" if self.ha and name in {"nn1", "nn2"} else self.conf_directory

    def _state(self, name: str) -> str | None:
        """What a NameNode is, "active" or "standby"; None before it has started."""
        url = f"http://{HOST}:{self._http_ports[name]}/jmx?qry=Hadoop:service=NameNode,name=NameNodeStatus"
        try:
            with urllib.request.urlopen(url, timeout=5.0) as answer:
                beans = json.load(answer)["beans"]
        except (OSError, ValueError, KeyError):
            return None
        return str(beans[0]["State"]) if beans and beans[0].get("State") in {"active", "standby"} else None

    def _writable(self) -> bool:
        self._check()
        try:
            self._probe()
        except (OSError, ValueError):
            return False
        return True

    def _write_probe(self) -> None:
        # The DataNode's own word first: a file may be taken on the registration of a process that was killed.
        url = f"http://{HOST}:{self._datanode_http_port}/jmx?qry=Hadoop:service=DataNode,name=DataNodeInfo"
        with urllib.request.urlopen(url, timeout=5.0) as answer:
            if b"RUNNING" not in answer.read():
                raise OSError("the DataNode has not registered yet")
        path = f"/.probe-{os.getpid()}"
        self._put(path, b"x")
        self.request("DELETE", path, "op=DELETE", timeout_s=10.0)

    def _put(self, path: str, data: bytes) -> None:
        answer = json.loads(self.request("PUT", path, "op=CREATE&overwrite=true&noredirect=true", timeout_s=10.0))
        url = urlsplit(answer["Location"])
        with closing(http.client.HTTPConnection(url.netloc, timeout=10.0)) as datanode:
            headers = {"Content-Type": "application/octet-stream"}
            datanode.request("PUT", f"{url.path}?{url.query}", body=data, headers=headers)
            if (status := datanode.getresponse().status) != http.client.CREATED:
                raise OSError(f"{url.netloc} answers {status} to a file")

    def _base_properties(self, datanode_ports: Sequence[int]) -> dict[str, str]:
        data, http, ipc = datanode_ports
        properties = {
            "fs.defaultFS": self.uri,
            "hadoop.tmp.dir": str(self.folder / "tmp"),
            "hadoop.http.staticuser.user": getpass.getuser(),
            "dfs.datanode.data.dir": (self.folder / "data").as_uri(),
            "dfs.datanode.address": f"{HOST}:{data}",
            "dfs.datanode.http.address": f"{HOST}:{http}",
            "dfs.datanode.ipc.address": f"{HOST}:{ipc}",
            "dfs.datanode.hostname": HOST,
            "dfs.replication": "1",
            "dfs.namenode.name.dir": (self.folder / "name").as_uri(),
            "dfs.namenode.safemode.extension": "0",
            "dfs.namenode.safemode.min.datanodes": "1",
            "dfs.namenode.datanode.registration.ip-hostname-check": "false",
            "dfs.namenode.fs-limits.min-block-size": "4096",
            "dfs.namenode.reconstruction.pending.timeout-sec": "5",
            "dfs.namenode.heartbeat.recheck-interval": "500",
            "dfs.heartbeat.interval": "1",
            # Space that is kept free on the disk is not ours to keep.
            "dfs.datanode.du.reserved": "0",
        }
        if not self.ha:
            properties["dfs.namenode.rpc-address"] = self.rpc_addresses[0]
            properties["dfs.namenode.http-address"] = self.http_addresses[0]
            return properties
        journal_rpc, journal_http = self._journal_ports
        provider = "org.apache.hadoop.hdfs.server.namenode.ha.ConfiguredFailoverProxyProvider"
        properties |= {
            "dfs.nameservices": NAMESERVICE,
            f"dfs.ha.namenodes.{NAMESERVICE}": ",".join(self._rpc_ports),
            f"dfs.client.failover.proxy.provider.{NAMESERVICE}": provider,
            "dfs.namenode.shared.edits.dir": f"qjournal://{HOST}:{journal_rpc}/{NAMESERVICE}",
            "dfs.journalnode.edits.dir": str(self.folder / "journal"),
            "dfs.journalnode.rpc-address": f"{HOST}:{journal_rpc}",
            "dfs.journalnode.http-address": f"{HOST}:{journal_http}",
            # The other one is killed before one is made active, so there is nobody to fence.
            "dfs.ha.fencing.methods": "shell(/bin/true)",
            "dfs.ha.automatic-failover.enabled": "false",
            "dfs.ha.tail-edits.period": "1",
        }
        for name, rpc_port in self._rpc_ports.items():
            properties[f"dfs.namenode.rpc-address.{NAMESERVICE}.{name}"] = f"{HOST}:{rpc_port}"
            properties[f"dfs.namenode.http-address.{NAMESERVICE}.{name}"] = f"{HOST}:{self._http_ports[name]}"
        return properties

    def _write_configuration(self) -> None:
        self._write_conf_directory(self.conf_directory, self._properties)
        if self.ha:
            for name in self._namenodes:
                own = {"dfs.ha.namenode.id": name, "dfs.namenode.name.dir": (self.folder / f"name-{name}").as_uri()}
                self._write_conf_directory(self._conf_of(name), {**self._properties, **own})

    def _write_conf_directory(self, folder: Path, properties: Mapping[str, str]) -> None:
        for program in ("hdfs", "datanode", "journal", "secondary"):
            web = folder / "webapps" / program / "WEB-INF"
            web.mkdir(parents=True, exist_ok=True)
            (web / "web.xml").write_text(_EMPTY_WEB_APP)
        (folder / "webapps" / "static").mkdir(exist_ok=True)
        (folder / "log4j.properties").write_text(_LOGGING)
        core = {name: value for name, value in properties.items() if not name.startswith("dfs.")}
        rest = {name: value for name, value in properties.items() if name.startswith("dfs.")}
        for file_name, chosen in (("core-site.xml", core), ("hdfs-site.xml", rest)):
            lines = [
                f"  <property><name>{escape(name)}</name><value>{escape(value)}</value></property>\n"
                for name, value in chosen.items()
            ]
            (folder / file_name).write_text(
                f'<?xml version="1.0"?>\n<configuration>\n{"".join(lines)}</configuration>\n'
            )

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
