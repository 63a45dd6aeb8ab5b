"""Transactions as the cleaner walks over them: which batches were aborted, which markers have nothing left to end.

A marker may go once no batch of its transaction is left in the log (and then waits for its delete horizon, as a
tombstone does): until then readers need it to know where the transaction ended. The same holds for the entry in the
transaction index. Imitates what Kafka's cleaner keeps, so that either can go on where the other stopped.
"""

from __future__ import annotations

from collections.abc import Iterable

from millstream.core.log.transaction_index import AbortedTransaction


class CleanedTransactions:
    """What is known of the transactions at one point of a walk over a log, from its start on."""

    def __init__(self, aborted: Iterable[AbortedTransaction]) -> None:
        """`aborted` are the transactions aborted in the part of the log that is walked."""
        self._waiting = sorted(set(aborted), key=lambda each: each.first_offset, reverse=True)
        # By producer id: the aborted transaction the walk is inside of, and whether a batch of it was seen.
        self._aborting: dict[int, AbortedTransaction] = {}
        self._seen: set[int] = set()
        # Producers with a batch of a committed transaction seen.
        self._committing: set[int] = set()
        # Aborted transactions that still have batches and ended since `take_kept`: they stay in the index.
        self._kept: list[AbortedTransaction] = []

    def copy(self) -> CleanedTransactions:
        """Return this point of the walk, to go on from here once more."""
        copied = CleanedTransactions(())
        copied._waiting = list(self._waiting)
        copied._aborting = dict(self._aborting)
        copied._seen, copied._committing = set(self._seen), set(self._committing)
        copied._kept = list(self._kept)
        return copied

    def see_batch(self, producer_id: int, last_offset: int) -> bool:
        """A transactional batch with records; return whether it was aborted."""
        self._begin_up_to(last_offset)
        if producer_id in self._aborting:
            self._seen.add(producer_id)
            return True
        self._committing.add(producer_id)
        return False

    def see_marker(self, producer_id: int, last_offset: int, *, committed: bool) -> bool:
        """A marker; return whether nothing of its transaction is left."""
        self._begin_up_to(last_offset)
        if committed:
            left = producer_id in self._committing
            self._committing.discard(producer_id)
            return not left
        aborted = self._aborting.pop(producer_id, None)
        # One that the index does not know of is taken for committed while its batches pass, and keeps its marker.
        left = producer_id in self._seen or producer_id in self._committing
        self._seen.discard(producer_id)
        self._committing.discard(producer_id)
        if aborted is not None and left:
            self._kept.append(aborted)
        return not left

    def take_kept(self) -> list[AbortedTransaction]:
        """Return the entries for the transaction index of what was walked since the last call."""
        kept, self._kept = self._kept, []
        return kept

    def _begin_up_to(self, offset: int) -> None:
        waiting = self._waiting
        while waiting and waiting[-1].first_offset <= offset:
            transaction = waiting.pop()
            self._aborting.setdefault(transaction.producer_id, transaction)
