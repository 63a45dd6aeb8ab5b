"""The commit log of a table root: reading it, claiming it, committing to it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from millstream.hadoop_loader.commit.entries import CompactDraft, Entry, LoadDraft, Role
from millstream.hadoop_loader.commit.state import TableState
from millstream.hadoop_loader.filesystem import FileSystem


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitSettings:
    """The protocol's numbers. Only tests have reason to change the first three."""

    claim_timeout_s: float = 60.0  # a claim whose counter stood still for so long may be taken over
    renewal_interval_s: float = 10.0
    entries_per_checkpoint: int = 100
    snapshot_retention_s: float = 24 * 3_600.0
    apply_threads: int = 8


class Claim(Protocol):
    """The right to commit under one role, until a higher claim of it is published. Made by CommitLog.claim."""

    role: Role
    epoch: int
    number: int
    run_id: str
    owner: str
    state: TableState  # as of the last entry this claim has seen; moved on by commit

    def renew(self) -> None:
        """Raise the counter; call it every `renewal_interval_s` from a thread. FencedError once taken over."""
        ...

    def staging(self, split: int, attempt: int) -> str:
        """Make the directory for one attempt at a split, and return its path. FileNotFoundError once taken over."""
        ...

    def release(self) -> None:
        """Give the role back at once, so that the next driver need not watch for `claim_timeout_s`."""
        ...


class CommitLogInterface(Protocol):
    """CommitLog(filesystem, settings=CommitSettings(), *, monotonic, wait, now_ms, random)."""

    def __init__(
        self,
        filesystem: FileSystem,
        settings: CommitSettings = ...,
        *,
        monotonic: Callable[[], float],
        wait: Callable[[float], None],
        now_ms: Callable[[], int],
        random: random.Random,
    ) -> None: ...

    def read(self, number: int | None = None) -> TableState:
        """The state now, or as it was at `number`, while the log still has that. Changes nothing."""
        ...

    def unapplied(self) -> Entry | None:
        """The last entry, if it is not fully applied yet. Changes nothing."""
        ...

    def claim(self, role: Role, *, owner: str, run_id: str) -> Claim:
        """Apply the last entry, and take the role. ClaimedError while its owner is at work."""
        ...

    def commit(self, claim: Claim, draft: LoadDraft | CompactDraft) -> Entry:
        """Publish, settle, rebase, apply. When it returns all of it is visible."""
        ...

    def clean(self, claim: Claim) -> None:
        """Delete what lower epochs of the role, entries and trash left behind; write a checkpoint if due."""
        ...
