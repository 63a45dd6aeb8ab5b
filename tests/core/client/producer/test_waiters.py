"""Senders that wait: who is woken, in what order, and what becomes of those who give up meanwhile."""

from __future__ import annotations

import threading

from millstream.core.client.producer.waiters import Waiter, Waiters


def test_the_oldest_are_woken_as_far_as_the_room_goes() -> None:
    waiters, woken = Waiters(), []
    for name, size in (("a", 10), ("b", 20), ("c", 5)):
        waiters.add(Waiter("t", size, lambda name=name: woken.append(name)))  # type: ignore[misc]
    waiters.add(Waiter("t", 0, lambda: woken.append("topic")))
    waiters.wake_for_room(29)
    assert (woken, len(waiters), waiters.is_room_wanted) == (["a"], 3, True)
    waiters.wake_for_room(25)
    assert (woken, waiters.is_room_wanted) == (["a", "b", "c"], False)
    waiters.wake_for_metadata()
    assert (woken[-1], len(waiters)) == ("topic", 0)


def test_one_that_waits_anew_when_woken_is_woken_once() -> None:
    waiters, woken = Waiters(), []

    def again() -> None:
        woken.append(1)
        waiters.add(Waiter("t", 0, again))

    again()
    waiters.wake_for_metadata()
    assert (len(woken), len(waiters)) == (2, 1)


def test_giving_up_on_other_threads_never_fails_the_one_that_wakes() -> None:
    waiters, failed = Waiters(), []
    over = threading.Event()

    def come_and_give_up(lacking_bytes: int) -> None:
        while not over.is_set():
            waiter = Waiter("t", lacking_bytes, lambda: None)
            waiters.add(waiter)
            waiters.discard(waiter)

    threads = [threading.Thread(target=come_and_give_up, args=(size,)) for size in (0, 0, 1, 1)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5_000):
            waiters.wake_for_room(1)
            waiters.wake_for_metadata()
            waiters.wake_all()
    except IndexError as error:
        failed.append(error)
    over.set()
    for thread in threads:
        thread.join()
    assert (failed, len(waiters)) == ([], 0)
