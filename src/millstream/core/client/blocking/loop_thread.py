"""The one thread per process whose event loop does the work of every client that is used without await.

It starts with the first such client and is a daemon: it never keeps a program from ending. At the interpreter's end it
is stopped and joined before modules go away under it.

A fork has the parent's memory and none of its threads: in the child there is no background loop until a client is made
there, and a client made before the fork raises ForkedError at its first use instead of waiting for ever. Sockets that
the child inherited are the parent's; nothing here touches them.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeVar

import uvloop

from millstream.core.wire import ErrorCode, KafkaError

T = TypeVar("T")

_log: Final = logging.getLogger(__name__)

# A thread that waits looks up so often: a signal that comes just before it begins to wait would not end its waiting.
LOOK_S: Final = 0.5
_STOP_S: Final = 5.0
_STOP_ROUNDS: Final = 100


class ForkedError(KafkaError):
    """A client is used in a process that was forked after it was made."""

    def __init__(self) -> None:
        super().__init__(
            ErrorCode.UNKNOWN_SERVER_ERROR,
            "this client was made before the process forked: make a new one in the child",
        )


class LoopThread:
    """An event loop on a thread of its own.

    States: RUNNING (made) -> STOPPED (`stop`, or the process forked and this is the child).
    """

    def __init__(self, name: str = "millstream-client") -> None:
        self._pid = os.getpid()
        # What runs without anybody waiting.
        self._left: set[asyncio.Task[None]] = set()
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop, for `call_soon_threadsafe` from any thread. Raises ForkedError in a child."""
        self.check()
        return self._loop

    @property
    def is_ours(self) -> bool:
        """Whether the thread is one of this process: not in a child that was forked since."""
        return os.getpid() == self._pid

    def check(self) -> None:
        """Raise ForkedError in a process that has no such thread."""
        if not self.is_ours:
            raise ForkedError

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run `coroutine` on the loop and wait for its end: its result, or what it raises.

        KeyboardInterrupt, or any other exception that a signal handler raises here, cancels the coroutine and goes on.
        Must not be called on the loop's own thread.
        """
        try:
            self.check()
            assert threading.current_thread() is not self._thread, "a call that waits cannot be made by a callback"
        except BaseException:
            coroutine.close()
            raise
        future: Future[T] = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            _wait_for(future)
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def call(self, function: Callable[[], T]) -> T:
        """Run a plain `function` on the loop and wait for its result."""

        async def called() -> T:
            return function()

        return self.run(called())

    def run_soon(self, begin: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Have what `begin` returns run on the loop, and wait for nothing; what it raises is logged.

        From any thread, and inside garbage collection. Does nothing where the loop has ended.
        """

        async def run() -> None:
            try:
                await begin()
            except Exception:  # noqa: BLE001  nobody waits for it
                _log.exception("what was left to the client's thread failed")

        def start() -> None:
            task = self._loop.create_task(run())
            self._left.add(task)
            task.add_done_callback(self._left.discard)

        if self.is_ours:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(start)

    def stop(self) -> None:
        """End the loop and the thread; what still runs on it is cancelled. Does nothing in a forked child."""
        if not self.is_ours or not self._thread.is_alive():
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_STOP_S)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            for _ in range(_STOP_ROUNDS):
                # What hears that a task of its was cancelled may begin another.
                if not (remaining := asyncio.all_tasks(self._loop)):
                    break
                for task in remaining:
                    task.cancel()
                self._loop.run_until_complete(asyncio.gather(*remaining, return_exceptions=True))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.run_until_complete(self._loop.shutdown_default_executor(_STOP_S))
        finally:
            self._loop.close()


def _wait_for(future: Future[Any]) -> None:
    """Return when `future` is done.

    A function of its own, so that whatever a signal raises between any two steps of it meets the caller's `except`; and
    without the future's lock, which would stay taken.
    """
    ended: SimpleQueue[object] = SimpleQueue()
    future.add_done_callback(ended.put)
    while True:
        with contextlib.suppress(Empty):
            ended.get(timeout=LOOK_S)
            return


_background: LoopThread | None = None
_lock = threading.Lock()


def background_loop() -> LoopThread:
    """Return this process's loop thread, started at the first call."""
    global _background  # noqa: PLW0603  one thread per process is the point
    with _lock:
        if _background is None:
            _background = LoopThread()
        return _background


def _forget() -> None:
    """In a forked child: the thread was not inherited, and the lock may be held by one that was not either."""
    global _background, _lock  # noqa: PLW0603
    _background = None
    _lock = threading.Lock()


def _stop() -> None:
    if _background is not None:
        _background.stop()


os.register_at_fork(after_in_child=_forget)
atexit.register(_stop)
