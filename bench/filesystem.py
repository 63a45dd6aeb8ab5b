"""Bytes to and from a real HDFS: through the loader's file systems, and through the clients alone that they stand on.

    python -m bench.filesystem [--mb N] [--rounds N] [--write-doc docs/performance.md]

One file is written and read again in turn by each way, 4 MB at a time, on an HDFS in memory with one DataNode, which
shares the processors. Medians of the rounds; CPU is that of this process, all threads. What ours costs above the
client is deadlines (each call is made by another thread), gathered chunks and errors with a meaning.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import hdfs  # type: ignore[import-untyped]
import hdfs_native
from bench.load import report

from millstream.hadoop_loader.filesystem import FileSystem, FileSystemSettings, open_filesystem
from millstream.testing.hdfs import MiniHdfs

SECTION = "filesystem"
MB = 1 << 20
PIECE_BYTES = 4 * MB
STATUS_CALLS = 200

Way = Callable[[], float]


class Ours:
    """One file through one of the loader's file systems."""

    def __init__(self, lake: FileSystem, piece: bytes, count: int) -> None:
        self.lake, self.piece, self.count = lake, piece, count

    def write(self) -> float:
        self.lake.delete("file")
        with self.lake.create("file") as file:
            for _ in range(self.count):
                file.write(self.piece)
        return self.count * len(self.piece) / MB

    def read(self) -> float:
        with self.lake.open("file") as file:
            for position in range(0, file.size, PIECE_BYTES):
                file.read_at(position, PIECE_BYTES)
        return file.size / MB

    def status(self) -> float:
        for _ in range(STATUS_CALLS):
            self.lake.status("file")
        return STATUS_CALLS


class Native:
    """The same through hdfs-native alone."""

    def __init__(self, client: hdfs_native.Client, piece: bytes, count: int) -> None:
        self.client, self.piece, self.count = client, piece, count

    def write(self) -> float:
        self.client.delete("/alone")
        with self.client.create("/alone") as file:
            for _ in range(self.count):
                file.write(self.piece)
        return self.count * len(self.piece) / MB

    def read(self) -> float:
        file = self.client.read("/alone")
        size = len(file)
        for position in range(0, size, PIECE_BYTES):
            file.read_range(position, min(PIECE_BYTES, size - position))
        return size / MB

    def status(self) -> float:
        for _ in range(STATUS_CALLS):
            self.client.get_file_info("/alone")
        return STATUS_CALLS


class Package:
    """The same through the package `hdfs` alone."""

    def __init__(self, client: hdfs.InsecureClient, piece: bytes, count: int) -> None:
        self.client, self.piece, self.count = client, piece, count

    def write(self) -> float:
        self.client.write("/package", (self.piece for _ in range(self.count)), overwrite=True)
        return self.count * len(self.piece) / MB

    def read(self) -> float:
        size = 0
        with self.client.read("/package", chunk_size=PIECE_BYTES) as chunks:
            for chunk in chunks:
                size += len(chunk)
        return size / MB

    def status(self) -> float:
        for _ in range(STATUS_CALLS):
            self.client.status("/package")
        return STATUS_CALLS


def cpu_s() -> float:
    """CPU seconds of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def measured(ways: dict[str, Way], rounds: int) -> dict[str, tuple[float, float]]:
    """Work per second and per CPU-second by way, medians; the ways take turns."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            before, started = cpu_s(), time.perf_counter()
            work = way()
            found[name].append((work / (time.perf_counter() - started), work / max(1e-9, cpu_s() - before)))
    return {
        name: (statistics.median(one[0] for one in each), statistics.median(one[1] for one in each))
        for name, each in found.items()
    }


def table(cluster: MiniHdfs, size_mb: int, rounds: int) -> list[str]:
    """Measure everything, and return the table."""
    piece, count = os.urandom(PIECE_BYTES), size_mb * MB // PIECE_BYTES
    http = f"http://{cluster.http_addresses[0]}"
    settings = FileSystemSettings()
    with (
        open_filesystem(f"{cluster.uri}/rpc", settings) as rpc,
        open_filesystem(f"{cluster.webhdfs_uri}/http", settings) as web,
    ):
        rpc.make_directory("")
        web.make_directory("")
        pairs = [
            ("RPC", Ours(rpc, piece, count), Native(hdfs_native.Client(cluster.uri), piece, count)),
            ("HTTP", Ours(web, piece, count), Package(hdfs.InsecureClient(http), piece, count)),
        ]
        lines = ["| work | figure | ours | client alone | ratio |", "|---|---|--:|--:|--:|"]
        for name, ours, alone in pairs:
            for work, unit in (("write", "MB"), ("read", "MB"), ("status", "calls")):
                figures = measured({"ours": getattr(ours, work), "alone": getattr(alone, work)}, rounds)
                for index, per in enumerate(("s", "CPU-s")):
                    ours_rate, alone_rate = figures["ours"][index], figures["alone"][index]
                    cells = [f"{name}, {work}", f"{unit}/{per}", report.number(ours_rate), report.number(alone_rate)]
                    lines.append(report.table_row([*cells, f"{ours_rate / alone_rate:.2f}x"]))
                    print(lines[-1], flush=True)
    return lines


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--mb", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write-doc", type=Path)
    arguments = parser.parse_args()
    memory = Path("/dev/shm")
    with (
        tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder,
        # Hadoop's own compiler settings: this is no test, whose JVMs start quickly and stay slow.
        MiniHdfs(Path(folder) / "hdfs", jvm_options=("-Xmx512m",)) as cluster,
    ):
        lines = table(cluster, arguments.mb, arguments.rounds)
    if arguments.write_doc:
        head = [
            "Written by `python -m bench.filesystem --write-doc docs/performance.md`; medians of the rounds. One",
            "file on an HDFS with one DataNode in memory, 4 MB at a time: through the loader's file systems, and",
            "through the clients alone that they stand on (hdfs-native by RPC, the package hdfs over HTTP).",
            "",
            report.machine(),
            "",
        ]
        report.replace_section(arguments.write_doc, SECTION, "Bytes to and from HDFS", [*head, *lines])
    return 0


if __name__ == "__main__":
    sys.exit(main())
