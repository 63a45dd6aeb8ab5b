"""A real broker for the tests of a Kafka application, without Docker or a JVM.

`with broker() as b:` starts one as a child process on a free port of the loopback, with its data in a temporary
directory, and ends it at the end of the block; it also ends when this process dies. What it printed is added to the
exception that leaves the block, so that a failed test shows it.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final

from millstream.cli.child import START_TIMEOUT_S, BrokerProcess, BrokerStartError

__all__ = ["BrokerStartError", "TestBroker", "broker"]

# What a test wants and an operator would not: no disk reserved ahead, small indexes, no wait for more group members.
_TEST_CONFIG: Final = {
    "log.index.size.max.bytes": str(1024 * 1024),
    "group.initial.rebalance.delay.ms": "0",
}

# A clean stop takes a fraction of a second; where a busy machine makes it long, a kill instead would fail the test.
STOP_TIMEOUT_S: Final = 60.0

_running: Final[weakref.WeakSet[TestBroker]] = weakref.WeakSet()


class TestBroker:
    """A broker for one test or many; a context manager. Made by `broker`.

    States: new -> RUNNING (start) -> STOPPED (stop, kill) -> RUNNING (start: the same data and port) -> closed.
    """

    __test__ = False  # the name must not make pytest collect it

    def __init__(
        self,
        config: Mapping[str, object] | None = None,
        *,
        log_dir: Path | str | None = None,
        port: int = 0,
        keep: bool = False,
        start_timeout_s: float = START_TIMEOUT_S,
    ) -> None:
        self._config = {**_TEST_CONFIG, **{name: str(value) for name, value in (config or {}).items()}}
        self._given_dir = Path(log_dir) if log_dir is not None else None
        self._port = port
        self._keep = keep
        self._start_timeout_s = start_timeout_s
        self._home: Path | None = None
        self._process: BrokerProcess | None = None

    @property
    def bootstrap_servers(self) -> str:
        """`HOST:PORT` for a client's bootstrap.servers."""
        return self._running_process.bootstrap_servers

    @property
    def log_dir(self) -> Path:
        """The data directory; a temporary one unless `log_dir` was given."""
        return self._given_dir or self._made_home() / "data"

    @property
    def pid(self) -> int:
        return self._running_process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.is_running

    @property
    def output(self) -> str:
        """The end of what the broker printed, standard error included."""
        return self._process.output() if self._process is not None else ""

    def start(self) -> None:
        """Start it, or start it again on the data and the port it had. Raises BrokerStartError."""
        if self.is_running:
            return
        if self._process is not None:
            self._process.kill()
        self._process = BrokerProcess(
            self.log_dir,
            config=self._config,
            listen=f"127.0.0.1:{self._port}",
            output=self._made_home() / "output.txt",
            start_timeout_s=self._start_timeout_s,
        )
        self._port = int(self._process.bootstrap_servers.rpartition(":")[2])
        _running.add(self)

    def stop(self) -> int:
        """Stop it in order (SIGTERM) and return its exit code; the data stays for `start`."""
        return self._running_process.stop(STOP_TIMEOUT_S)

    def kill(self) -> None:
        """End it as a crash would (SIGKILL); the data stays for `start`."""
        self._running_process.kill()

    def close(self) -> None:
        """End it the quick way and remove its temporary directory, unless `keep` was asked for."""
        if self._process is not None:
            self._process.kill()
        if self._home is not None and not self._keep:
            shutil.rmtree(self._home, ignore_errors=True)
            self._home = None

    def __enter__(self) -> TestBroker:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None and (output := self.output.strip()):
            error.add_note(f"the broker at {self.log_dir} printed:\n{output}")
        self.close()

    @property
    def _running_process(self) -> BrokerProcess:
        if self._process is None:
            raise RuntimeError("the broker has not been started: use it as `with broker() as b:`, or call start()")
        return self._process

    def _made_home(self) -> Path:
        if self._home is None:
            self._home = Path(tempfile.mkdtemp(prefix="millstream-test-"))
        return self._home


def broker(
    config: Mapping[str, object] | None = None,
    *,
    log_dir: Path | str | None = None,
    port: int = 0,
    keep: bool = False,
    start_timeout_s: float = START_TIMEOUT_S,
) -> TestBroker:
    """Return a broker to use as a context manager: `with broker() as b: b.bootstrap_servers`.

    `config` holds broker settings by Kafka's names (`{"num.partitions": 4}`). The data lies in a temporary directory
    that is removed at the end, unless `keep` is true or `log_dir` names one of yours. `port` 0 picks a free one.
    """
    return TestBroker(config, log_dir=log_dir, port=port, keep=keep, start_timeout_s=start_timeout_s)


@atexit.register
def _end_all() -> None:
    for running in list(_running):
        running.close()
