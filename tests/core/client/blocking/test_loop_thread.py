"""The background loop: waits, errors, interrupts, forks, and the end of the program."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import subprocess
import sys
import threading

import pytest

from millstream.core.client.blocking import ForkedError, LoopThread, background_loop


@pytest.fixture
def thread() -> LoopThread:
    return background_loop()


async def _add(left: int, right: int) -> int:
    await asyncio.sleep(0)
    return left + right


def test_there_is_one_per_process(thread: LoopThread) -> None:
    assert background_loop() is thread
    assert thread.run(_add(1, 2)) == 3
    assert thread.call(threading.current_thread) is not threading.current_thread()


def test_errors_come_back(thread: LoopThread) -> None:
    async def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        thread.run(fail())


def test_an_interrupt_cancels_what_is_waited_for(thread: LoopThread) -> None:
    cancelled = threading.Event()
    # A program started in the background ignores SIGINT unless it says otherwise.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    async def wait_for_ever() -> None:
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGINT)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            cancelled.set()

    try:
        with pytest.raises(KeyboardInterrupt):
            thread.run(wait_for_ever())
    finally:
        signal.signal(signal.SIGINT, before)
    assert cancelled.wait(30)
    assert thread.run(_add(1, 1)) == 2


def test_a_callback_may_not_wait_for_its_own_loop(thread: LoopThread) -> None:
    def wait() -> str:
        try:
            thread.run(_add(1, 1))
        except AssertionError as error:
            return str(error)
        return "it waited"

    assert "callback" in thread.call(wait)


def _in_a_fork(code: str) -> str:
    """Run `code` in a fresh interpreter, since a test's own has threads that a fork would leave behind."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_forked_child_has_a_loop_of_its_own() -> None:
    code = """
import asyncio, os, warnings
warnings.filterwarnings("ignore", "This process", DeprecationWarning)
from millstream.core.client.blocking import background_loop, ForkedError
async def one(): return 1
before = background_loop()
assert before.run(one()) == 1
child = os.fork()
if child == 0:
    try:
        before.run(one())
    except ForkedError as error:
        print("refused", flush=True)
    assert background_loop() is not before
    assert background_loop().run(one()) == 1
    background_loop().stop()
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert before.run(one()) == 1
print("parent goes on")
"""
    assert _in_a_fork(code).splitlines() == ["refused", "parent goes on"]


def test_a_program_ends_while_work_is_under_way() -> None:
    code = """
import asyncio
from millstream.core.client.blocking import background_loop
async def for_ever():
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        print("cancelled", flush=True)
asyncio.run_coroutine_threadsafe(for_ever(), background_loop().loop)
background_loop().call(lambda: None)
"""
    assert _in_a_fork(code) == "cancelled\n"


def test_the_error_survives_a_trip_between_processes() -> None:
    assert str(pickle.loads(pickle.dumps(ForkedError()))) == str(ForkedError())
