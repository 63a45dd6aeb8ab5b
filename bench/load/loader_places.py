"""Where `bench.loader` loads from and to: brokers with their topics and a registry each, a local disk, a real HDFS."""

from __future__ import annotations

import json
import shutil
import urllib.request
from pathlib import Path

import pyarrow as pa
from bench.load.brokers import Served, cpu_seconds, start
from bench.load.loader_topic import SCHEMA_ID, TEXT, fill

from millstream.cli.child import RegistryProcess
from millstream.testing.hdfs import MiniHdfs

# One disk and one DataNode are what there is; a JVM as a server runs it, with its own compiler settings.
HDFS_OPTIONS = ("-Xmx512m",)


class Source:
    """A broker that runs, and a registry on it that knows the records' schema."""

    def __init__(self, broker: Served, folder: Path) -> None:
        self.broker = broker
        start(broker)
        settings = {"kafkastore.topic.replication.factor": "1", "log.level": "WARNING"}
        folder.mkdir(parents=True, exist_ok=True)
        self.registry = RegistryProcess(broker.bootstrap, config=settings, output=folder / "registry.txt")

    @property
    def name(self) -> str:
        return self.broker.name

    @property
    def bootstrap(self) -> str:
        return self.broker.bootstrap

    def cpu_s(self) -> float:
        """CPU seconds of the broker so far."""
        return cpu_seconds(self.broker.pid)

    def make_topic(self, topic: str, partitions: int, records: int, values: pa.BinaryArray) -> None:
        """Make a topic, its schema, and so many records in it."""
        body = json.dumps({"schema": TEXT}).encode()
        headers = {"Content-Type": "application/vnd.schemaregistry.v1+json"}
        url = f"{self.registry.url}/subjects/{topic}-value/versions"
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=60) as answer:
            found = json.load(answer)["id"]
        assert found == SCHEMA_ID, f"the registry calls the schema {found}; the records say {SCHEMA_ID}"
        fill(self.bootstrap, topic, partitions, records, values)

    def stop(self) -> None:
        """End both."""
        self.registry.kill()
        self.broker.kill()


class LocalDisk:
    """A folder."""

    name = "file"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fresh(self, name: str) -> str:
        """Return the address of a folder that is there and empty."""
        self.drop(name)
        (self.folder / name).mkdir(parents=True)
        return f"file://{self.folder / name}"

    def drop(self, name: str) -> None:
        """Delete a folder."""
        shutil.rmtree(self.folder / name, ignore_errors=True)

    def stop(self) -> None:
        """There is nothing to end."""


class Hdfs:
    """A NameNode and a DataNode on this machine."""

    name = "hdfs"

    def __init__(self, folder: Path) -> None:
        self.cluster = MiniHdfs(folder, jvm_options=HDFS_OPTIONS).start()

    def fresh(self, name: str) -> str:
        """Return the address of a folder that is there and empty."""
        self.drop(name)
        self.cluster.request("PUT", f"/{name}", "op=MKDIRS")
        return f"{self.cluster.uri}/{name}"

    def drop(self, name: str) -> None:
        """Delete a folder."""
        self.cluster.request("DELETE", f"/{name}", "op=DELETE&recursive=true")

    def stop(self) -> None:
        """End it."""
        self.cluster.stop()


Destination = LocalDisk | Hdfs
