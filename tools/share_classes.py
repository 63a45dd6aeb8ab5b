"""Make the archive of classes that lets JVMs of tests start in half the processor time: class data sharing.

    python tools/share_classes.py kafka         # ~/.cache/millstream/java/kafka-4.3.0.jsa, of the jars beside it
    python tools/share_classes.py hadoop

The programs that tests start often are run, each lists the classes that it loads, and a JVM maps the classes of all of
them into one file. That is for the very JVM and jars it was made by: any other goes without it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from millstream.testing.daemon import archive_of
from millstream.testing.hdfs import MiniHdfs, hadoop_jars
from millstream.testing.kafka import ApacheKafka, kafka_jars

TOOLS: Final = "org.apache.kafka.tools."
TOPIC: Final = ("--topic", "shared")


def run_kafka(folder: Path) -> None:
    """A broker, and the tools that speak to it as most do."""
    with ApacheKafka(folder / "kafka") as kafka:
        kafka.run_tool(f"{TOOLS}TopicCommand", "--create", *TOPIC)
        kafka.run_tool(f"{TOOLS}ConsoleProducer", *TOPIC, text="a\nb\n")
        for protocol in ("classic", "consumer"):
            grouped = ("--group", protocol, "--command-property", f"group.protocol={protocol}", "--max-messages", "2")
            kafka.run_tool(f"{TOOLS}consumer.ConsoleConsumer", *TOPIC, "--from-beginning", *grouped)
        kafka.run_tool(f"{TOOLS}VerifiableProducer", *TOPIC, "--max-messages", "2")
        kafka.run_tool(f"{TOOLS}consumer.group.ConsumerGroupCommand", "--describe", "--all-groups")
        kafka.run_tool(f"{TOOLS}GetOffsetShell", *TOPIC)
        kafka.run_tool("kafka.admin.ConfigCommand", "--describe", "--all", "--entity-type", "topics")


def run_hadoop(folder: Path) -> None:
    """A NameNode and its standby, a DataNode, a JournalNode, and the tool that makes a NameNode the active one."""
    with MiniHdfs(folder / "hdfs", ha=True):
        pass


def make_archive(jars: Path, run: Callable[[Path], None]) -> None:
    """Replace the archive beside `jars` by one of the classes that `run` has programs load."""
    archive = archive_of(jars)
    archive.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="classes-") as name:
        folder = Path(name)
        os.environ["JDK_JAVA_OPTIONS"] = f"-XX:DumpLoadedClassList={folder}/%p.classes"
        run(folder)
        del os.environ["JDK_JAVA_OPTIONS"]
        # One that was killed may have left half a line.
        lists = [path.read_text().rpartition("\n")[0].splitlines() for path in sorted(folder.glob("*.classes"))]
        every = folder / "classes"
        every.write_text("".join(f"{line}\n" for line in dict.fromkeys(line for lines in lists for line in lines)))
        made = archive.with_suffix(f".{os.getpid()}")
        subprocess.run(
            [
                *("java", "-Xshare:dump", "-Xlog:disable", "-Xlog:all=error:stderr"),
                *(f"-XX:SharedClassListFile={every}", f"-XX:SharedArchiveFile={made}", "-cp", f"{jars}/*"),
            ],
            check=True,
        )
        made.rename(archive)


def main() -> None:
    """Make the archive of one component's classes."""
    components = {"kafka": (kafka_jars, run_kafka), "hadoop": (hadoop_jars, run_hadoop)}
    parser = argparse.ArgumentParser(description="Make the archive of classes that JVMs of tests start with.")
    parser.add_argument("component", choices=components)
    find_jars, run = components[parser.parse_args().component]
    make_archive(find_jars(), run)


if __name__ == "__main__":
    main()
