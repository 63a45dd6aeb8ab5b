"""A Delayed is completed once; a cancelled one ignores what comes later."""

import asyncio

import pytest

from millstream.core.broker import Delayed


def test_the_callback_is_called_at_once_whichever_comes_first() -> None:
    seen: list[int] = []
    early: Delayed[int] = Delayed()
    early.on_complete(lambda delayed: seen.append(delayed.result()))
    early.complete(1)
    late: Delayed[int] = Delayed()
    late.complete(2)
    late.on_complete(lambda delayed: seen.append(delayed.result()))
    assert seen == [1, 2]


def test_a_failure_is_raised_by_result() -> None:
    delayed: Delayed[int] = Delayed()
    delayed.fail(ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        delayed.result()


def test_a_cancelled_one_tells_its_worker_and_ignores_the_answer() -> None:
    seen: list[str] = []
    delayed: Delayed[int] = Delayed()
    delayed.on_cancel(lambda: seen.append("cancelled"))
    delayed.on_complete(lambda _: seen.append("completed"))
    delayed.cancel()
    delayed.cancel()
    delayed.complete(1)
    delayed.fail(ValueError("late"))
    assert seen == ["cancelled"]
    assert delayed.is_cancelled


def test_completing_twice_is_our_mistake() -> None:
    delayed: Delayed[int] = Delayed()
    delayed.complete(1)
    with pytest.raises(AssertionError):
        delayed.complete(2)


async def test_a_coroutine_completes_or_fails_it() -> None:
    async def work(fail: bool) -> int:
        await asyncio.sleep(0)
        if fail:
            raise KeyError("gone")
        return 5

    async def result(fail: bool) -> int:
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        delayed = Delayed.from_coroutine(asyncio.get_running_loop(), work(fail))

        def take(done: Delayed[int]) -> None:
            try:
                future.set_result(done.result())
            except KeyError as error:
                future.set_exception(error)

        delayed.on_complete(take)
        return await future

    assert await result(False) == 5
    with pytest.raises(KeyError):
        await result(True)
