"""A broker in a child process on a disk that fails: the file system of millstream.testing.faulty_disk is passed in.

Run as a module this is the child: `python -m tests.support.faulty_broker KIND JOURNAL name=value ...`, KIND `faulty` or
`journal`. It prints its address, then obeys lines on its standard input: `fail OPERATION ERRNO TIMES PATH`, `heal`; at
the end of the input it stops.
"""

import asyncio
import errno
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from millstream.core.broker.broker import Broker
from millstream.core.config import BrokerConfig
from millstream.core.log.files import FileSystem
from millstream.testing.faulty_disk import FaultyDisk, SyncJournal, lose_unsynced
from millstream.testing.kafka import free_ports

ROOT = Path(__file__).resolve().parents[2]


class FaultyBroker:
    """The child, seen from the test: a context manager. `log_dirs` may be several."""

    kind = "faulty"

    def __init__(self, *log_dirs: Path, **settings: str) -> None:
        self._log_dirs = log_dirs
        self._port = free_ports(1)[0]
        self._settings = {
            "listeners": f"PLAINTEXT://127.0.0.1:{self._port}",
            "log.dirs": ",".join(map(str, log_dirs)),
            "auto.create.topics.enable": "false",
            **{name.replace("_", "."): value for name, value in settings.items()},
        }
        self.output_path = log_dirs[0].with_name("faulty-broker.txt")
        self._journal = log_dirs[0].with_name("journal")
        self._process: subprocess.Popen[str] | None = None

    @property
    def bootstrap_servers(self) -> str:
        return f"127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def output(self) -> str:
        """What it has printed and logged so far."""
        return self.output_path.read_text(errors="replace")

    def start(self) -> None:
        """Start it and wait until it serves."""
        words = [f"{name}={value}" for name, value in self._settings.items()]
        with self.output_path.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.faulty_broker", self.kind, str(self._journal), *words],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
                cwd=ROOT,
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line == f"{self.bootstrap_servers}\n", f"it did not start: {line!r}\n{self.output[-3000:]}"

    def fail(self, operation: str, error: int = errno.EIO, *, times: int = 1, path: str = "/") -> None:
        """Let calls of a FileSystem method on paths that contain `path` fail with this error from now on."""
        self._tell(f"fail {operation} {error} {times} {path}")

    def heal(self) -> None:
        """No more faults."""
        self._tell("heal")

    def _tell(self, line: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n"

    def kill(self) -> None:
        """SIGKILL."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate(timeout=90)

    def stop(self) -> int:
        """A clean stop; returns the exit code."""
        assert self._process is not None
        process, self._process = self._process, None
        process.communicate(timeout=90)
        return process.returncode

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            error.add_note(f"the broker printed:\n{self.output[-4000:]}")
        self.kill()


class UnsyncedDiskBroker(FaultyBroker):
    """On a disk that keeps what was synced, and nothing else, when the power goes."""

    kind = "journal"

    def lose_power_and_restart(self) -> None:
        """Kill it, drop what was not synced, and start it again."""
        self.kill()
        lose_unsynced(self._journal)
        self.start()


def main(kind: str, journal: str, *settings: str) -> int:
    """The child."""
    config = BrokerConfig.load(None, dict(setting.split("=", 1) for setting in settings))
    files: FileSystem = FaultyDisk() if kind == "faulty" else SyncJournal(journal)

    def obey() -> None:
        for line in sys.stdin:
            command, *words = line.split()
            assert isinstance(files, FaultyDisk)
            if command == "heal":
                files.heal()
            else:
                operation, error, times, path = words
                files.fail(operation, int(error), times=int(times), path=path)
            print("done", flush=True)

    async def serve() -> None:
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()

        def read_commands() -> None:
            obey()
            loop.call_soon_threadsafe(ended.set)

        broker = await Broker.start(config, files=files)
        threading.Thread(target=read_commands, name="commands", daemon=True).start()
        listener = config.listeners[0]
        print(f"{listener.host}:{listener.port}", flush=True)
        await ended.wait()
        await broker.stop()

    asyncio.run(serve())
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
