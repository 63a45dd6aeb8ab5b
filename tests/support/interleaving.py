"""Runs several functions in turns, one at a time, as a seed decides: each gives up its turn wherever it calls `yield_`.

Every function has a thread, of which only one ever runs: the same seed gives the same order.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

DEADLINE_S = 60.0


class Interleaving:
    """One schedule; `freeze_chance` is how often, per turn, a function is left out until all others have ended."""

    def __init__(self, seed: int, *, freeze_chance: float = 0.0) -> None:
        self._random = random.Random(seed)
        self._freeze_chance = freeze_chance
        self._turns: dict[int, threading.Semaphore] = {}
        self._back = threading.Semaphore(0)
        self._threads: dict[int, int] = {}
        self._errors: list[BaseException] = []

    def yield_(self, name: str = "") -> None:
        """Give up the turn; called by the running function."""
        mine = self._threads[threading.get_ident()]
        self._back.release()
        assert self._turns[mine].acquire(timeout=DEADLINE_S), f"no turn at {name}"

    def run(self, functions: list[Callable[[], None]]) -> None:
        """Run them all to their ends. The first error of any is raised."""
        running: dict[int, threading.Thread] = {}
        ended: set[int] = set()

        def body(index: int, function: Callable[[], None]) -> None:
            self._threads[threading.get_ident()] = index
            assert self._turns[index].acquire(timeout=DEADLINE_S), "no first turn"
            try:
                function()
            except BaseException as error:
                self._errors.append(error)
            ended.add(index)
            self._back.release()

        for index, function in enumerate(functions):
            self._turns[index] = threading.Semaphore(0)
            running[index] = threading.Thread(target=body, args=(index, function), daemon=True)
            running[index].start()
        frozen: set[int] = set()
        while running:
            awake = sorted(set(running) - frozen)
            if not awake:
                frozen.clear()
                continue
            index = self._random.choice(awake)
            if self._random.random() < self._freeze_chance:
                frozen.add(index)
                continue
            # A few calls in a row: neither lockstep nor one after the other.
            for _ in range(self._random.choice((1, 1, 2, 5, 20))):
                self._turns[index].release()
                assert self._back.acquire(timeout=DEADLINE_S), "nobody gave the turn back"
                if index in ended:
                    running.pop(index).join(DEADLINE_S)
                    break
        if self._errors:
            raise self._errors[0]
