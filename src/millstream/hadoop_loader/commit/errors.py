"""Why a driver may not go on, by what its caller has to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from millstream.hadoop_loader.commit.entries import Entry


class CommitError(Exception):
    """Base of what stops a commit; the message says what an operator can do."""

    # The caller's own entry, where the error came behind its publishing: it counts, and the next run goes on with it.
    published: Entry | None = None


class ClaimedError(CommitError):
    """Another driver is at work under this role: come back later."""

    def __init__(self, role: str, owner: str, run_id: str) -> None:
        super().__init__(f"{owner} (run {run_id}) is at work as {role} and renews its claim; run again when it is done")
        self.role, self.owner, self.run_id = role, owner, run_id

    def __reduce__(self) -> tuple[object, ...]:
        return (ClaimedError, (self.role, self.owner, self.run_id))


class FencedError(CommitError):
    """A later claim of the same role took over: this driver stops, touches nothing more, and its work is done again."""


class UnsettledError(CommitError):
    """Whether an entry was published could not be found out. Nothing was cleaned; the next run finds out."""


class UnappliedError(CommitError):
    """The last entry is published and not fully applied (quota, permissions, no answer): the next run goes on."""


class LostFileError(CommitError):
    """A file of the last entry is neither where it was staged nor where it belongs. Nothing was touched."""


class CorruptLogError(CommitError):
    """An entry or a checkpoint does not have the bytes that were written, or is of a version newer than this one."""


class CompactionConflictError(CommitError):
    """Nothing is left to replace: every directory of the draft has other files than when it was compacted."""
