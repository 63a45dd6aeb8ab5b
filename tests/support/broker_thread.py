"""A broker in this process, on a loop and a thread of its own: for tests that also look inside.

with BrokerThread(tmp_path / "data") as served:
    served.bootstrap_servers                       # for any client, blocking ones too
    served.call(lambda broker: len(broker.partitions))     # runs on the broker's loop
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import uvloop

from millstream.core.broker import Broker
from millstream.core.config import BrokerConfig
from millstream.core.log import FileSystem

T = TypeVar("T")

TIMEOUT_S: Final = 120.0


class BrokerThread:
    """States: STOPPED -> RUNNING (start, or `with`) -> STOPPED (stop); data and settings stay for another start."""

    def __init__(
        self, data_directory: Path, settings: Mapping[str, str] | None = None, files: FileSystem | None = None
    ) -> None:
        self.data_directory = data_directory
        self.files = files
        self.settings = {
            "listeners": "PLAINTEXT://127.0.0.1:0",
            "log.dirs": str(data_directory),
            **(settings or {}),
        }
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._broker: Broker | None = None

    @property
    def broker(self) -> Broker:
        """The broker; touch it only by `call`, except for what never changes."""
        assert self._broker is not None, "the broker does not run"
        return self._broker

    @property
    def bootstrap_servers(self) -> str:
        """HOST:PORT of its first listener."""
        host, port = next(iter(self.broker.addresses.values()))
        return f"{host}:{port}"

    def start(self) -> Self:
        """Start; raises what Broker.start raises."""
        loop = self._loop = uvloop.new_event_loop()  # the one that `run` uses: asyncio's never pauses after writelines
        self._thread = threading.Thread(target=loop.run_forever, name="broker-under-test", daemon=True)
        self._thread.start()
        try:
            self._broker = self._wait(Broker.start(BrokerConfig(self.settings), files=self.files))
        except BaseException:
            self._end_loop()
            raise
        return self

    def stop(self) -> None:
        """A clean stop; nothing where it does not run."""
        if self._broker is not None:
            broker, self._broker = self._broker, None
            self._wait(broker.stop())
            self._end_loop()

    def call(self, function: Callable[[Broker], T]) -> T:
        """Run a function of the broker on its loop."""

        async def run() -> T:
            return function(self.broker)

        return self._wait(run())

    def wait(self, function: Callable[[Broker], Awaitable[T]]) -> T:
        """Run a coroutine of the broker on its loop and wait for it."""

        async def run() -> T:
            return await function(self.broker)

        return self._wait(run())

    def _wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        assert self._loop is not None, "no loop"
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(TIMEOUT_S)

    def _end_loop(self) -> None:
        assert self._loop is not None, "no loop"
        assert self._thread is not None, "no thread"
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(TIMEOUT_S)
        self._loop.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
