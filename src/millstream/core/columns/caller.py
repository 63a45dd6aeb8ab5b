"""The thread that calls a blocking consumer, and what it does while it waits: its own callbacks.

A Kafka consumer is one thread's at a time, and its listeners run on that thread, inside the call that caused them. The
work itself is done on the background loop; so a call hands a coroutine over and waits on a queue, on which the loop
puts what is to be run here. A callback may call the consumer again: that call waits in the same way, one level deeper.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeVar

from millstream.core.client.blocking.loop_thread import LOOK_S, LoopThread

T = TypeVar("T")

_log: Final = logging.getLogger(__name__)
# How long an interrupted call waits for what it began to be over.
_CANCEL_S: Final = 5.0


class ConcurrentUseError(RuntimeError):
    """Two threads use one consumer at once: it belongs to one at a time."""


class Caller:
    """Runs one client's coroutines for the thread that calls: `run` and `call` are for it, the rest for the loop."""

    def __init__(self, loop_thread: LoopThread, name: str) -> None:
        self._loop_thread = loop_thread
        self._name = name
        self._busy = threading.Lock()
        # Invariant: the thread inside `run` while `_busy` is held, else None.
        self._owner: int | None = None
        # What the calling thread is to run; None only wakes it.
        self._work: SimpleQueue[Callable[[], object] | None] = SimpleQueue()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run `coroutine` on the loop and wait for its end, running callbacks meanwhile: its result, or what it raises.

        KeyboardInterrupt, and whatever else a callback raises that is no Exception, cancels the coroutine, waits until
        it is over, and goes on. Raises ConcurrentUseError where another thread is inside, ForkedError.
        """
        me = threading.get_ident()
        outermost = self._owner != me
        try:
            self._loop_thread.check()
            if outermost:
                self._enter()
        except BaseException:
            coroutine.close()
            raise
        self._owner = me
        try:
            if outermost and not self._work.empty():
                try:
                    self._drain()
                except BaseException:
                    coroutine.close()
                    raise
            return self._wait_for(coroutine)
        finally:
            if outermost:
                self._owner = None
                self._busy.release()

    def call(self, function: Callable[[], T]) -> T:
        """Run a plain `function` on the loop and wait for its result."""

        async def called() -> T:
            return function()

        return self.run(called())

    async def run_there(self, function: Callable[..., object], *arguments: Any) -> None:
        """Have the calling thread run `function` inside its call, and wait until it has. Raises what that raises."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def finish(error: Exception | None) -> None:
            if done.done():
                return
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)

        def work() -> None:
            error: Exception | None = None
            try:
                function(*arguments)
            except Exception as raised:  # noqa: BLE001  the application's, for the call that it is in
                error = raised
            finally:
                loop.call_soon_threadsafe(finish, error)

        self._work.put(work)
        await done

    def leave(self, function: Callable[..., object], *arguments: Any) -> None:
        """Have the calling thread run `function` in this call or a later one; an exception of its own is logged."""
        self._work.put(partial(_logged, function, *arguments))

    def _enter(self) -> None:
        if not self._busy.acquire(blocking=False):
            raise ConcurrentUseError(
                f"{self._name} is used by two threads at once: it belongs to one at a time, so lock it or make two"
            )

    def _drain(self) -> None:
        """Run what earlier calls left."""
        with contextlib.suppress(Empty):
            while True:
                work = self._work.get_nowait()
                if work is not None:
                    work()

    def _wait_for(self, coroutine: Coroutine[Any, Any, T]) -> T:
        future: Future[T] = asyncio.run_coroutine_threadsafe(coroutine, self._loop_thread.loop)
        over = threading.Event()
        try:
            self._work_until_done(future)
            return future.result()
        except BaseException:
            if not future.done():
                future.cancel()
                # What was cancelled takes a turn or two of the loop to end; nothing else may begin before.
                self._loop_thread.loop.call_soon_threadsafe(self._loop_thread.loop.call_soon, over.set)
                over.wait(_CANCEL_S)
            raise

    def _work_until_done(self, future: Future[Any]) -> None:
        """Run what is put on the queue until `future` is done.

        A function of its own, so that whatever a signal raises between any two steps of it meets the caller's `except`.
        And without the future's lock, which would stay taken.
        """
        ended: list[object] = []

        def end(_: object) -> None:
            ended.append(None)
            self._work.put(None)

        future.add_done_callback(end)
        while not ended:
            try:
                work = self._work.get(timeout=LOOK_S)
            except Empty:
                continue
            if work is not None:
                work()


def _logged(function: Callable[..., object], *arguments: Any) -> None:
    try:
        function(*arguments)
    except Exception as error:  # noqa: BLE001  the application's; the call that it happens to run in is another matter
        _log.error("a consumer's callback failed", exc_info=error)
