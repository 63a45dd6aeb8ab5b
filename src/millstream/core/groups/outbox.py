"""The way out of a shard: records in their order, and answers that wait for them.

An answer shows state, and state that is not in the log yet may be taken back. So every answer, reads included, leaves
once the high watermark covers the last record that was appended before it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from millstream.core.groups.effects import Append, Emit, KeyedRecord, Respond


class Outbox:
    """Numbers the appends of one shard and holds back answers. Owned by the shard."""

    __slots__ = ("_emit", "_waiting", "appended", "committed")

    def __init__(self, emit: Emit) -> None:
        self._emit: Emit | None = emit
        # Numbers of the last append that was asked for, and of the last one that is committed.
        # Invariant: committed <= appended.
        self.appended = 0
        self.committed = 0
        # (number of the append it waits for, answer), in the order they were given.
        self._waiting: deque[tuple[int, Respond]] = deque()

    def append(self, records: list[KeyedRecord], size_bytes: int) -> None:
        """Write records, which take up to `size_bytes`, as one batch; none at all is nothing to do."""
        if records and self._emit is not None:
            self.appended += 1
            self._emit(Append(self.appended, records, size_bytes))

    def respond(self, reply: object, response: object) -> None:
        """Answer once everything appended up to now is committed."""
        if self._emit is None:
            return
        respond = Respond(reply, response)
        if self.committed == self.appended:
            self._emit(respond)
        else:
            self._waiting.append((self.appended, respond))

    def handle_committed(self, number: int) -> None:
        """Everything up to this append is committed: send the answers that waited for it."""
        assert self.committed <= number <= self.appended, f"{number} is not in {self.committed}..{self.appended}"
        self.committed = number
        if self._emit is None:
            return
        while self._waiting and self._waiting[0][0] <= number:
            self._emit(self._waiting.popleft()[1])

    def waiting_for(self, number: int) -> Iterator[object]:
        """Yield the replies whose answers wait for this append or one before it."""
        for waits_for, respond in self._waiting:
            if waits_for > number:
                return
            yield respond.reply

    def close(self) -> None:
        """Emit nothing any more: what was appended may never be committed, and what waits is for others to refuse."""
        self._emit = None
        self._waiting.clear()
