"""The timer wheel: what is due fires, in order and in slices; what is cancelled does not stay for weeks."""

from __future__ import annotations

import random
from functools import partial

import pytest

from millstream.core.groups.timer_wheel import CANCELLED_COUNT_MAX, Timer, TimerWheel

WEEKS_MS = 3 * 7 * 24 * 3_600_000


def test_timers_fire_at_their_deadline_and_in_the_order_they_were_set() -> None:
    wheel, fired = TimerWheel(), list[str]()

    def note(name: str, _now_ms: int) -> None:
        fired.append(name)

    for name, deadline_ms in (("late", 31), ("first", 10), ("second", 10), ("early", 1)):
        wheel.set(deadline_ms, partial(note, name))
    wheel.advance(10)
    assert fired == ["first", "second", "early"]
    wheel.advance(39)
    assert fired[3:] == []
    wheel.advance(40)
    assert fired[3:] == ["late"]
    assert wheel.next_deadline_ms is None


def test_what_a_callback_sets_for_now_fires_in_the_same_call() -> None:
    wheel, fired = TimerWheel(), list[int]()

    def again(now_ms: int) -> None:
        fired.append(now_ms)
        if len(fired) < 3:
            wheel.set(now_ms, again)

    wheel.set(10, again)
    wheel.advance(10)
    assert fired == [10, 10, 10]
    assert len(wheel) == 0


def test_a_callback_that_raises_leaves_the_others_for_the_next_call() -> None:
    wheel, fired = TimerWheel(), list[int]()

    def fail(_: int) -> None:
        raise ValueError("no")

    wheel.set(10, fail)
    wheel.set(10, fired.append)
    with pytest.raises(ValueError, match="no"):
        wheel.advance(20)
    wheel.advance(21)
    assert fired == [21]


def test_many_timers_of_one_moment_fire_in_slices() -> None:
    wheel, fired = TimerWheel(), list[int]()
    for _ in range(10):
        wheel.set(10, fired.append)
    rounds = 0
    while wheel.next_deadline_ms is not None:
        wheel.advance(10, is_over=lambda: len(fired) % 3 == 0)
        rounds += 1
    assert (len(fired), rounds) == (10, 4)


def test_cancelled_timers_do_not_stay_until_their_deadline() -> None:
    wheel, kept = TimerWheel(), list[int]()
    wheel.set(WEEKS_MS, kept.append)
    for each in range(20 * CANCELLED_COUNT_MAX):
        wheel.set(WEEKS_MS + each, kept.append).cancel()
        assert len(wheel) <= CANCELLED_COUNT_MAX + 2
    wheel.advance(WEEKS_MS + 10)
    assert len(kept) == 1


@pytest.mark.parametrize("seed", range(20))
def test_against_a_list(seed: int) -> None:
    """Set, cancel and advance at random, from callbacks too: a list says what fires."""
    source = random.Random(seed)
    wheel, now_ms = TimerWheel(), 0
    timers: dict[int, Timer] = {}
    due_ms: dict[int, int] = {}
    fired: list[int] = []

    def act() -> None:
        if source.random() < 0.45 and timers:
            number = source.choice(list(timers))
            timers.pop(number).cancel()
            due_ms.pop(number, None)
            return
        number = len(fired) + source.getrandbits(60)
        due_ms[number] = now_ms + source.randint(-50, 100_000)
        timers[number] = wheel.set(due_ms[number], lambda _: fire(number))

    def fire(number: int) -> None:
        assert due_ms.pop(number) <= now_ms
        fired.append(number)
        timers.pop(number)
        act()

    for _ in range(300):
        for _ in range(source.randint(0, 40)):
            act()
        now_ms += source.randint(0, 2_000)
        wheel.advance(now_ms)
        assert all(deadline_ms > now_ms - 10 for deadline_ms in due_ms.values())
        assert sum(timer.is_active for timer in timers.values()) == len(due_ms)
    now_ms += 200_000
    while due_ms:
        wheel.advance(now_ms)
        now_ms += 200_000
        for number in list(timers):
            timers.pop(number).cancel()
            due_ms.pop(number)
    assert fired
