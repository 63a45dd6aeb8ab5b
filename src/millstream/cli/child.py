"""A broker, or a schema registry, as a child process: started by the light path, waited for, always ended.

The child is `python -m millstream.cli.serve` (or `serve_registry`), which loads neither typer nor rich nor Arrow. It
dies with its parent: it watches a pipe whose other end only the parent holds, so its end is seen however the parent
went (SIGKILL included).
Output goes to a file, so that nobody has to drain a pipe and it can be shown when something failed.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Final

START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 10.0
# How often somebody who waits for a start looks whether it is still wanted.
_LOOK_S: Final = 0.1
_SERVING: Final = b" serving on "
_OUTPUT_SHOWN_BYTES: Final = 8192


class ChildStartError(Exception):
    """The child did not come up; the message holds what it printed."""


class BrokerStartError(ChildStartError):
    """The broker did not come up."""


class ChildProcess:
    """A running child; ended by `stop`, `kill`, or the end of this process. `serving_on` is where it says to be."""

    what: ClassVar[str]
    start_error: ClassVar[type[ChildStartError]] = ChildStartError

    def __init__(
        self,
        module: str,
        options: Sequence[str],
        settings: Mapping[str, str],
        output: Path,
        start_timeout_s: float,
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        self._output_path = output
        self._is_wanted = is_wanted
        command = [sys.executable, "-m", module, *options]
        for name, value in settings.items():
            command += ["--set", f"{name}={value}"]
        life_read, self._life_write = os.pipe()
        ready_read, ready_write = os.pipe()
        self._output = output.open("ab")
        # Where this child's own lines begin: the file may hold those of one before it.
        self._output_start = self._output.tell()
        try:
            self._process = subprocess.Popen(
                [*command, "--life-fd", str(life_read), "--ready-fd", str(ready_write)],
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=subprocess.STDOUT,
                pass_fds=(life_read, ready_write),
                # Its own group, so that Ctrl-C in a terminal reaches the parent, which then stops it in order.
                process_group=0,
            )
        except BaseException:
            os.close(self._life_write)
            self._output.close()
            os.close(ready_read)
            raise
        finally:
            os.close(life_read)
            os.close(ready_write)
        try:
            self.serving_on = self._wait_until_serving(ready_read, start_timeout_s)
        except BaseException:
            self.kill()
            raise
        finally:
            os.close(ready_read)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """The exit code once the child ended (negative: the signal that ended it), else None."""
        return self._process.poll()

    def output(self) -> str:
        """Return the end of what the child printed so far, both streams."""
        with self._output_path.open("rb") as file:
            file.seek(max(self._output_start, file.seek(0, os.SEEK_END) - _OUTPUT_SHOWN_BYTES))
            return file.read().decode(errors="replace")

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Stop in order (SIGTERM), after `timeout_s` the hard way; return the exit code."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout_s)
        return self.kill()

    def kill(self) -> int:
        """End it as a crash would (SIGKILL), and reap it; return the exit code."""
        if self._process.poll() is None:
            self._process.kill()
        code = self._process.wait()
        if not self._output.closed:
            self._output.close()
            os.close(self._life_write)
        return code

    def _wait_until_serving(self, ready: int, timeout_s: float) -> str:
        """Read the child's `millstream VERSION serving on HOST:PORT` line from its end of the pipe."""
        deadline = time.monotonic() + timeout_s
        line = b""
        with selectors.DefaultSelector() as selector:
            selector.register(ready, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                if not selector.select(_LOOK_S):
                    if not self._is_wanted():
                        raise self.start_error(f"{self.what} is not wanted any more")
                    if time.monotonic() < deadline:
                        continue
                    raise self.start_error(f"{self.what} did not serve within {timeout_s:g} s{self._shown_output()}")
                chunk = os.read(ready, 4096)
                if not chunk:
                    code = self._process.wait(STOP_TIMEOUT_S)
                    raise self.start_error(f"{self.what} ended with code {code} before it served{self._shown_output()}")
                line += chunk
        return line.rpartition(_SERVING)[2].strip().decode()

    def _shown_output(self) -> str:
        output = self.output().strip()
        return f"; it printed:\n{output}" if output else ""


class BrokerProcess(ChildProcess):
    """A running child broker."""

    what = "the broker"
    start_error = BrokerStartError

    def __init__(
        self,
        data_dir: Path,
        *,
        config: Mapping[str, str] | None = None,
        file: Path | None = None,
        listen: str | None = "127.0.0.1:0",
        output: Path,
        start_timeout_s: float = START_TIMEOUT_S,
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        """Start a broker on `data_dir` and return once every partition answers. Raises BrokerStartError.

        `listen` of None leaves to `file` and `config` where it listens.
        """
        self.data_dir = data_dir
        options = [*_option("--listen", listen), "--data-dir", str(data_dir), *_option("--config", file)]
        super().__init__("millstream.cli.serve", options, config or {}, output, start_timeout_s, is_wanted)

    @property
    def bootstrap_servers(self) -> str:
        """Where clients reach it."""
        return self.serving_on


class RegistryProcess(ChildProcess):
    """A running child registry."""

    what = "the registry"

    def __init__(
        self,
        bootstrap_servers: str,
        *,
        config: Mapping[str, str] | None = None,
        file: Path | None = None,
        listen: str | None = "127.0.0.1:0",
        output: Path,
        start_timeout_s: float = START_TIMEOUT_S,
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        """Start a registry that keeps its schemas in that cluster; return once it answers. Raises ChildStartError.

        `listen` of None leaves to `file` and `config` where it listens.
        """
        options = [*_option("--listen", listen), "--bootstrap", bootstrap_servers, *_option("--config", file)]
        module = "millstream.cli.serve_registry"
        super().__init__(module, options, config or {}, output, start_timeout_s, is_wanted)

    @property
    def url(self) -> str:
        """Where clients reach it."""
        return self.serving_on


def _option(name: str, value: str | Path | None) -> list[str]:
    return [] if value is None else [name, str(value)]
