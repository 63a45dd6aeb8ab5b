"""Renews a claim from a thread of its own, whatever the driver waits for; and tells it when the claim was lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self

from millstream.hadoop_loader.filesystem import FileSystemError

if TYPE_CHECKING:
    from millstream.hadoop_loader.commit import Claim, CommitLog, Role
    from millstream.hadoop_loader.driver.surroundings import Surroundings
    from millstream.hadoop_loader.job import LoadJob


class ClaimKeeper:
    """Renews for as long as its block runs. A renewal that fails for want of an answer is tried again at the next turn.

    Nothing depends on it for being right: a driver that was taken over is fenced by the log. It only hears of it early.
    """

    def __init__(self, claim: Claim, interval_s: float) -> None:
        self._claim = claim
        self._interval_s = interval_s
        self._ended = threading.Event()
        # What the renewal met that means the end of the run; set once, by the thread.
        self._lost: Exception | None = None
        self._thread = threading.Thread(target=self._renew, name="claim-keeper", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def check(self) -> None:
        """Raise FencedError if another driver has taken over."""
        if self._lost is not None:
            raise self._lost

    def _renew(self) -> None:
        from millstream.hadoop_loader.commit import CommitError

        while not self._ended.wait(self._interval_s):
            try:
                self._claim.renew()
            except CommitError as error:
                self._lost = error
                return
            except (FileSystemError, OSError):
                continue


@contextmanager
def claimed(world: Surroundings, job: LoadJob, log: CommitLog, role: Role, run_id: str) -> Iterator[Claim]:
    """A claim that is kept for as long as the block runs, and given back. Raises ClaimedError, CommitError."""
    from millstream.hadoop_loader.commit import CommitError

    claim = log.claim(role, owner=world.owner(), run_id=run_id)
    try:
        with ClaimKeeper(claim, world.settings(job).renewal_interval_s):
            yield claim
    finally:
        # One that cannot be given back is waited for by the next driver, and then taken.
        with suppress(CommitError, FileSystemError, OSError):
            claim.release()
