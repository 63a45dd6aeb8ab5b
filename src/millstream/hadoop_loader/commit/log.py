"""The commit log of a table root: reading it, claiming it, committing to it. The protocol's shell.

One call of `commit` goes: catch up with the log (a later claim of the role ends it), apply its last entry if that is
not done, publish ours at the next number, settle, apply. If the number is another's it begins again, on what is there
now. So no entry is published before the one before it is applied, and at most one ever needs repair. A crash anywhere
leaves what the next `claim` finds and completes.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from millstream.hadoop_loader.commit import names
from millstream.hadoop_loader.commit.applying import Applier
from millstream.hadoop_loader.commit.checkpoints import write_checkpoint
from millstream.hadoop_loader.commit.claims import Claim, Counter, counter_prefix, counters_of, make_child, watch
from millstream.hadoop_loader.commit.cleaning import Cleaner
from millstream.hadoop_loader.commit.compacting import CompactionStager
from millstream.hadoop_loader.commit.decisions import Settled, load_entry
from millstream.hadoop_loader.commit.entries import CompactDraft, Entry, EntryKind, LoadDraft, Role
from millstream.hadoop_loader.commit.errors import CommitError, CorruptLogError, FencedError, UnsettledError
from millstream.hadoop_loader.commit.publishing import Publisher
from millstream.hadoop_loader.commit.reading import LogRead, LogReader
from millstream.hadoop_loader.commit.state import ClaimRecord, TableState
from millstream.hadoop_loader.filesystem import FileSystem, FileSystemError, UnknownOutcomeError

CLAIM_ATTEMPTS: Final = 50
COMMIT_ATTEMPTS: Final = 100
# A checkpoint is due earlier once so many files have changed: reading the state must stay cheap.
CHANGES_PER_CHECKPOINT: Final = 200_000
# From so many on that are due and were not written it is told where somebody looks.
CHECKPOINTS_MISSED_MAX: Final = 3
_RUN_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitSettings:
    """The protocol's numbers. Only tests have reason to change the first three."""

    claim_timeout_s: float = 60.0  # a claim whose counter stood still for so long may be taken over
    renewal_interval_s: float = 10.0
    entries_per_checkpoint: int = 100
    snapshot_retention_s: float = 24 * 3_600.0
    threads: int = 8  # that make calls when an entry has many files


class CommitLog:
    """One table root's log. Safe for one driver's thread; a Claim's `renew` may run beside it."""

    def __init__(
        self,
        filesystem: FileSystem,
        settings: CommitSettings = CommitSettings(),
        *,
        monotonic: Callable[[], float],
        wait: Callable[[float], None],
        watch_wait: Callable[[float], None] | None = None,
        on_watch: Callable[[ClaimRecord], None] = lambda _record: None,
        now_ms: Callable[[], int],
        random: random.Random,
    ) -> None:
        """`wait` lets time go by until it is known what became of a publish, and must come to its end.

        `watch_wait`, by default the same, does so while another's claim is watched, timed by `monotonic`: what it
        raises ends the claim, of which there is nothing yet. `on_watch` is told of each claim that is watched for some
        time. `now_ms` is shown to people, and a hint.
        """
        self._filesystem = filesystem
        self._settings = settings
        self._monotonic = monotonic
        self._watch_wait = watch_wait or wait
        self._on_watch = on_watch
        self._now_ms = now_ms
        self._random = random
        self._reader = LogReader(filesystem, settings.threads)
        self._publisher = Publisher(filesystem, self._reader, wait=wait, random=random)
        self._applier = Applier(filesystem, self._reader)
        self._cleaner = Cleaner(filesystem, self._reader, settings.snapshot_retention_s)
        self._compaction = CompactionStager(filesystem, self._reader)

    def read(self, number: int | None = None) -> TableState:
        """The state now, or as it was at `number`, while the log still has that (LookupError). Changes nothing."""
        return self._reader.read(number).state

    def unapplied(self) -> Entry | None:
        """The last entry, if it may not be fully applied yet. Changes nothing."""
        last = self._reader.read().last
        return None if last is None or self._reader.is_applied(last) else last

    def held_claims(self, state: TableState) -> frozenset[Role]:
        """The roles whose last claim was not given back: its owner is at work, or died. Changes nothing."""
        return frozenset(
            role
            for role, claim in state.claims.items()
            if counters_of(self._reader, counter_prefix(claim.number, claim.run_id))
        )

    def claim(self, role: Role, *, owner: str, run_id: str) -> Claim:
        """Apply the last entry, and take the role. ClaimedError while its owner is at work.

        `owner` is shown to people (host, process); `run_id` must be new for every run that was ever made.
        """
        if not _RUN_ID.fullmatch(run_id):
            raise ValueError(f"run id {run_id!r}: use at most 64 letters, digits, '.', '_' and '-'")
        still: ClaimRecord | None = None
        for _ in range(CLAIM_ATTEMPTS):
            read = self._reader.read()
            record = read.state.claims.get(role)
            if record is not None and record != still and self._watch(record):
                still = record
                continue  # time has passed: look again
            self._apply_last(read)
            claim = self._publish_claim(read.state, role, owner, run_id)
            if claim is not None:
                try:
                    make_child(self._filesystem, claim.staging_directory)
                except BaseException:
                    claim.release()
                    raise
                return claim
        raise CommitError(f"{self._filesystem.uri}: others took {CLAIM_ATTEMPTS} numbers in a row; run again later")

    def commit(self, claim: Claim, draft: LoadDraft | CompactDraft) -> Entry:
        """Publish, settle, rebase, apply. When it returns, all of the draft is visible.

        Raises FencedError, FileSystemError (nothing of it is committed), CompactionConflictError (nothing is left to
        replace), UnsettledError, UnappliedError (the next run completes it), LostFileError. An error that comes behind
        the publishing has the entry as `published`.
        """
        if claim.is_unsettled:
            raise UnsettledError(
                f"{self._filesystem.uri}: an entry of {claim.owner} may still be on its way; claim anew"
            )
        token = self._token()
        compaction = self._compaction.begin(draft) if isinstance(draft, CompactDraft) else None
        for _ in range(COMMIT_ATTEMPTS):
            self._catch_up(claim)
            envelope = self._envelope(claim, claim.state, token)
            if compaction is not None:
                entry = compaction.entry(claim.state, envelope)
            else:
                assert isinstance(draft, LoadDraft)
                entry = load_entry(draft, claim.state, envelope=envelope)
            if self._publish(claim, entry) is Settled.PUBLISHED:
                claim.state.fold(entry)
                claim.last, claim.last_is_applied = entry, False
                try:
                    self._apply_last_of(claim)
                except CommitError as error:
                    error.published = entry
                    raise
                self._checkpoint_if_due(claim.state)
                return entry
        raise CommitError(f"{self._filesystem.uri}: others took {COMMIT_ATTEMPTS} numbers in a row; run again later")

    def clean(self, claim: Claim) -> list[str]:
        """Write a checkpoint if one is due, delete what lower epochs and old entries left.

        Returns a sentence for a checkpoint that could not be written, and for each thing that could not be deleted; no
        error of it is a reason to end a run.
        """
        told = self._checkpoint_if_due(claim.state) if claim.last_is_applied else []
        return told + self._cleaner.clean(claim)

    def entries_without_checkpoint(self, state: TableState) -> int:
        """How many entries up to `state` no checkpoint covers, if those are far too many: else 0. Changes nothing.

        Each run tries to write one, so what keeps it from that stays until somebody does something about it.
        """
        since = state.number - self._reader.newest_checkpoint()
        return since if since > CHECKPOINTS_MISSED_MAX * self._settings.entries_per_checkpoint else 0

    def cleaning_is_due(self, role: Role) -> bool:
        """Whether a claim of the role would find something to delete that is past its time. Changes nothing.

        By this machine's clock, so it is a hint; what is deleted is decided under a claim, by the file system's own.
        """
        return self._cleaner.is_due(role, self._now_ms())

    def _watch(self, record: ClaimRecord) -> bool:
        is_told = False

        def wait(seconds: float) -> None:
            nonlocal is_told
            if not is_told:
                is_told = True
                self._on_watch(record)
            self._watch_wait(seconds)

        timeout_s = self._settings.claim_timeout_s
        return watch(self._reader, record, timeout_s, monotonic=self._monotonic, wait=wait)

    def _apply_last(self, read: LogRead) -> None:
        if read.last is not None and not self._reader.is_applied(read.last):
            self._applier.apply(read.last)

    def _publish_claim(self, state: TableState, role: Role, owner: str, run_id: str) -> Claim | None:
        if state.number == 0:
            for directory in names.HOME_DIRECTORIES:
                self._filesystem.make_directory(directory)
        number = state.number + 1
        counter = Counter(self._filesystem, self._reader, number, run_id)
        counter.make()
        entry = Entry(
            number, EntryKind.CLAIM, role, state.epoch + 1, run_id, owner, state.number, self._now_ms(), self._token()
        )
        try:
            is_ours = self._publisher.publish(entry) is Settled.PUBLISHED
        except FencedError:
            is_ours = False
        if not is_ours:
            with suppress(FileSystemError, OSError):
                counter.remove()
            return None
        state.fold(entry)
        return Claim(self._filesystem, self._reader, state, entry, counter)

    def _catch_up(self, claim: Claim) -> None:
        state = claim.state
        while (entry := self._reader.entry(state.number + 1)) is not None:
            state.fold(entry)
            claim.last, claim.last_is_applied = entry, False
        if not self._has_its_runs(state):
            # Others have written checkpoints and cleaned up for longer than what one stands on is kept. A load asks as
            # well: segments may have gone with the runs, and then there seem to be no entries behind this state.
            read = self._reader.read()
            assert read.last is not None, f"a log with {claim.number} has entries"
            state = claim.state = read.state
            claim.last, claim.last_is_applied = read.last, False
        claim.check_fenced(state)
        self._apply_last_of(claim)

    def _has_its_runs(self, state: TableState) -> bool:
        """Whether the files of the inventory that `state` stands on are there."""
        if not state.files.runs:
            return True
        there = {status.path for status in self._reader.list(names.INVENTORY)}
        return all(run.path in there for run in state.files.runs)

    def _apply_last_of(self, claim: Claim) -> None:
        if not claim.last_is_applied:
            self._applier.apply(claim.last)
            claim.last_is_applied = True

    def _envelope(self, claim: Claim, state: TableState, token: str) -> Entry:
        return Entry(
            number=state.number + 1,
            kind=EntryKind.ABORT,
            role=claim.role,
            epoch=claim.epoch,
            run_id=claim.run_id,
            owner=claim.owner,
            base=state.number,
            at_ms=self._now_ms(),
            token=token,
        )

    def _publish(self, claim: Claim, entry: Entry) -> Settled:
        claim.is_unsettled = True
        try:
            settled = self._publisher.publish(entry)
        except (FileSystemError, FencedError):
            claim.is_unsettled = False  # nothing was published, for certain
            raise
        claim.is_unsettled = False
        return settled

    def _checkpoint_if_due(self, state: TableState) -> list[str]:
        # A run does without one: whatever goes wrong, the next run tries again, and `status` is red if that lasts.
        try:
            since = state.number - self._reader.newest_checkpoint()
            if since < self._settings.entries_per_checkpoint and state.files.changes < CHANGES_PER_CHECKPOINT:
                return []
            if not self._has_its_runs(state) and self._has_its_runs(self._reader.read().state):
                return []  # nothing is damaged: it stands on a checkpoint of long ago, and the next run on a new one
            write_checkpoint(self._filesystem, state, self._token())
        except (FileNotFoundError, UnknownOutcomeError):
            # The other role's cleaning took what was about to be renamed, or it may be there after all.
            return []
        except (FileSystemError, OSError, CorruptLogError) as error:
            return [f"the checkpoint that is due could not be written: {error}"]
        return []

    def _token(self) -> str:
        return f"{self._random.getrandbits(48):012x}"
