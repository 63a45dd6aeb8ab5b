"""Programs of the JVM that run beside a test: where their jars lie, and one process that is started, ended and watched.

Apache Kafka and HDFS are made of these. A process ends with the test that started it, and if the test's own process is
killed, a small one that outlives it ends what it left.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Final

_TAIL_CHARACTERS: Final = 3000

# Kills what it was told to watch once its input ends, which it does when the other end's process is gone.
_REAPER: Final = """
pids=" "
while read -r verb pid; do
  case $verb in
    watch) pids="$pids$pid ";;
    forget) pids=$(echo "$pids" | sed "s/ $pid / /");;
  esac
done
for pid in $pids; do kill -9 "$pid"; done 2>/dev/null
"""


def jars_folder(
    component: str, *, variable: str, default: str, sample: str, unavailable: Callable[[str], Exception]
) -> Path:
    """The folder of a component's jars: what an environment variable names, else one in the user's cache.

    Raises `unavailable` when nothing there matches the pattern `sample`, or when there is no JDK.
    """
    named = os.environ.get(variable)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(named) if named else cache / "millstream" / "java" / default
    if not any(folder.glob(sample)):
        raise unavailable(f"No {component} jars in {folder}; `make jars` fetches them (Maven and a JDK 17).")
    if shutil.which("java") is None:
        raise unavailable("No `java` on the PATH; install a JDK 17.")
    return folder


def archive_of(jars: Path) -> Path:
    """Where the archive of a component's classes is, if one was made (tools/share_classes.py)."""
    return jars.with_name(f"{jars.name}.jsa")


def quick_jvm_options(jars: Path, heap: str = "256m") -> tuple[str, ...]:
    """For the JVMs of tests, which have little to do: they start in half the processor time.

    The quick compiler, the small collector, and classes out of the archive beside `jars`, where there is one, instead
    of each read and checked anew. A JVM that is not the one the archive was made by, or whose class path does not begin
    with these jars, goes without it and says nothing.
    """
    archive = archive_of(jars)
    shared = [f"-XX:SharedArchiveFile={archive}"] if archive.exists() else []
    quiet = ("-Xlog:disable", "-Xlog:all=error:stderr")
    return (f"-Xmx{heap}", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", *shared, *quiet)


class Daemon:
    """One JVM; states: STOPPED -> RUNNING (start) -> STOPPED (end), again and again, on the same files.

    `command` gives the argv anew for each start. What it prints is appended to `log_path`, in whose folder it runs.
    """

    def __init__(
        self,
        name: str,
        command: Callable[[], list[str]],
        log_path: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.log_path = log_path
        self._command = command
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._output: IO[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start it and return at once; nothing when it runs already."""
        if self._process is not None:
            return
        self._output = self.log_path.open("ab")
        self._process = subprocess.Popen(
            self._command(),
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._output,
            cwd=self.log_path.parent,
            env=self._environment,
        )
        _Reaper.watch(self._process.pid)

    def check(self) -> None:
        """Raises ChildProcessError if it was started and has ended by itself."""
        if self._process is not None and self._process.poll() is not None:
            raise ChildProcessError(f"the {self.name} ended with {self._process.returncode}\n{self.tail()}")

    def end(self, how: signal.Signals = signal.SIGKILL, timeout_s: float = 30.0) -> None:
        """Send it a signal that ends it, and SIGKILL if it has not ended in time; nothing when it does not run."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(how)
            try:
                process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(timeout_s)
            _Reaper.forget(process.pid)
        if self._output is not None:
            self._output.close()
            self._output = None

    def pause(self) -> None:
        """SIGSTOP: it keeps its connections and answers nothing."""
        self._send(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT: it answers whatever it was asked meanwhile."""
        self._send(signal.SIGCONT)

    def _send(self, what: signal.Signals) -> None:
        assert self._process is not None, f"the {self.name} does not run"
        self._process.send_signal(what)

    def tail(self) -> str:
        """The end of its log."""
        return self.log_path.read_text(errors="replace")[-_TAIL_CHARACTERS:] if self.log_path.exists() else ""


class _Reaper:
    """A small process that outlives this one, however it ends, by as long as it takes to kill the JVMs it left.

    There is one while any are watched.
    """

    _lock: Final = threading.Lock()
    _process: subprocess.Popen[bytes] | None = None
    _watched: Final[set[int]] = set()

    @classmethod
    def watch(cls, pid: int) -> None:
        """From now on this one is killed if it is left."""
        with cls._lock:
            if cls._process is None:
                # A session of its own: a signal to the group of a test run is for the tests.
                cls._process = subprocess.Popen(
                    ["sh", "-c", _REAPER], stdin=subprocess.PIPE, start_new_session=True, bufsize=0
                )
            cls._watched.add(pid)
            cls._tell(f"watch {pid}\n")

    @classmethod
    def forget(cls, pid: int) -> None:
        """It has ended."""
        with cls._lock:
            cls._watched.discard(pid)
            cls._tell(f"forget {pid}\n")
            if not cls._watched and cls._process is not None:
                process, cls._process = cls._process, None
                assert process.stdin is not None
                process.stdin.close()
                process.wait(30.0)

    @classmethod
    def _tell(cls, line: str) -> None:
        assert cls._process is not None
        assert cls._process.stdin is not None
        cls._process.stdin.write(line.encode())
