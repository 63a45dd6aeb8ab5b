"""The broker's copy of the cluster's metadata, kept equal to the store; owned by the event loop.

`commit` takes a plan (a function from the image to operations) and not operations, because a conflict means planning
again on the image that won. Plans that wait for the same store round trip go into one commit: creating a thousand
topics by a thousand requests costs a few syncs, not a thousand.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from millstream.core.cluster.image import ClusterImage
from millstream.core.cluster.operations import AdvanceProducerIds, Operation
from millstream.core.cluster.slices import Slices
from millstream.core.cluster.store import (
    ChangesGoneError,
    CommitResult,
    MetadataStore,
    SessionLostError,
    StoreWriteError,
)
from millstream.core.wire import ErrorCode, KafkaError

Plan = Callable[[ClusterImage], Iterable[Operation]]
Subscriber = Callable[[ClusterImage, ClusterImage], None]

PLANS_PER_COMMIT_MAX: Final = 1000
ATTEMPTS_MAX: Final = 100
PRODUCER_ID_BLOCK_SIZE: Final = 1000  # Kafka's, so that adopted and own blocks look alike
PRODUCER_ID_MAX: Final = 2**63 - 1

_log = logging.getLogger(__name__)


class ProducerIdBlock(NamedTuple):
    """The producer ids first_id to first_id + size - 1, given to one broker and to nobody else, ever."""

    first_id: int
    size: int


class _Waiter(NamedTuple):
    plan: Plan
    done: asyncio.Future[ClusterImage]


class ClusterMetadata:
    """The current image, and the one way to change it.

    States: NEW -> STARTED (start: the image is loaded) -> CLOSED (close).
    """

    def __init__(
        self,
        store: MetadataStore,
        *,
        reopen: Callable[[], MetadataStore] | None = None,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """Hold `store`; after a lost session `reopen` makes the next one, without it every later commit fails."""
        self._store = store
        self._reopen = reopen
        self._random_bytes = random_bytes
        # The newest image known here. Moves by commits of ours and by catching up after a conflict; versions only grow.
        self._image = ClusterImage()
        self._subscribers: list[Subscriber] = []
        # Plans not yet in a commit. Invariant: not empty => _committer runs.
        self._waiting: list[_Waiter] = []
        self._committer: asyncio.Task[None] | None = None

    @property
    def image(self) -> ClusterImage:
        """The newest image; keep it in a local where one decision reads it twice."""
        return self._image

    async def start(self) -> ClusterImage:
        """Load the image; call it once, before anything else."""
        self._image, version = await self._store.load()
        assert self._image.version == version, f"image of version {self._image.version}, store at {version}"
        return self._image

    async def close(self) -> None:
        """Wait for the commits under way and close the store."""
        while self._committer is not None:
            await asyncio.wait([self._committer])
        await self._store.close()

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        """Call `callback(old, new)` after each change, on the loop; the returned function ends that."""
        self._subscribers.append(callback)
        return lambda: self._subscribers.remove(callback)

    async def commit(self, plan: Plan) -> ClusterImage:
        """Commit what `plan` returns for the current image; return the image that shows it.

        `plan` is pure and may be called again after a conflict; a long one is a generator, and others run between its
        operations. What it raises is raised here and nothing is changed; an empty plan changes nothing. Raises
        KafkaError KAFKA_STORAGE_ERROR if the store did not take it, and REQUEST_TIMED_OUT if nobody can say whether it
        did.
        """
        waiter = _Waiter(plan, asyncio.get_running_loop().create_future())
        self._waiting.append(waiter)
        if self._committer is None:
            self._committer = asyncio.create_task(self._commit_waiting(), name="metadata-commit")
        return await waiter.done

    async def allocate_producer_ids(self, size: int = PRODUCER_ID_BLOCK_SIZE) -> ProducerIdBlock:
        """Return a block of producer ids that no broker has had before; after a crash its rest is never used."""
        first_id = -1

        def plan(image: ClusterImage) -> Iterable[Operation]:
            nonlocal first_id
            first_id = image.next_producer_id
            if first_id > PRODUCER_ID_MAX - size:
                raise KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR, f"no producer ids are left behind {first_id}")
            return [AdvanceProducerIds(first_id + size)]

        await self.commit(plan)
        return ProducerIdBlock(first_id, size)

    async def _commit_waiting(self) -> None:
        try:
            while self._waiting:
                batch = [waiter for waiter in self._waiting[:PLANS_PER_COMMIT_MAX] if not waiter.done.done()]
                del self._waiting[:PLANS_PER_COMMIT_MAX]
                try:
                    await self._commit_batch(batch)
                except Exception as error:  # noqa: BLE001 - the waiters get it, whatever it is
                    _fail(batch, error)
        finally:
            self._committer = None

    async def _commit_batch(self, batch: list[_Waiter]) -> None:
        for _ in range(ATTEMPTS_MAX):
            base = self._image
            planned, operations, batch = await _plan(base, batch)
            if not operations:
                return _complete(batch, base)
            token = self._random_bytes(16)
            try:
                result = await self._store.commit(base.version, operations, token=token)
            except StoreWriteError as error:
                raise KafkaError(
                    ErrorCode.KAFKA_STORAGE_ERROR, f"the metadata store refused the change: {error}"
                ) from error
            except SessionLostError:
                # Nothing was sent: the session had ended before.
                await self._open_again()
                result = CommitResult.CONFLICT
            if result is CommitResult.COMMITTED:
                self._publish(planned)
                return _complete(batch, planned)
            if self._store.session_lost:
                await self._open_again()
            happened = await self._catch_up(token)
            if result is CommitResult.UNKNOWN and happened is None:
                raise KafkaError(
                    ErrorCode.REQUEST_TIMED_OUT,
                    "the metadata store's session broke and its history does not say whether the change was made; "
                    "look before you try again",
                )
            if happened:
                return _complete(batch, self._image)
        raise KafkaError(ErrorCode.REQUEST_TIMED_OUT, f"{ATTEMPTS_MAX} other changes came first; try again")

    async def _open_again(self) -> None:
        if self._reopen is None:
            raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, "the metadata store's session is lost; restart this broker")
        _log.warning("the metadata store's session is lost; opening a new one")
        await self._store.close()
        self._store = self._reopen()

    async def _catch_up(self, token: bytes) -> bool | None:
        # Bring the image to the store's; return whether the commit with `token` is in it, None if that is not known.
        try:
            changes = await self._store.changes(self._image.version)
        except ChangesGoneError:
            image, _ = await self._store.load()
            self._publish(image)
            return None
        image = self._image
        for change in changes:
            image = image.apply(change.version, change.operations)
        if changes:
            self._publish(image)
        return any(change.token == token for change in changes)

    def _publish(self, image: ClusterImage) -> None:
        old, self._image = self._image, image
        assert image.version >= old.version, f"version {image.version} after {old.version}"
        for callback in tuple(self._subscribers):
            try:
                callback(old, image)
            except Exception:  # noqa: BLE001 - one reader must not take the metadata from the others
                _log.exception("a subscriber of the metadata failed at version %d", image.version)


async def _plan(base: ClusterImage, batch: list[_Waiter]) -> tuple[ClusterImage, list[Operation], list[_Waiter]]:
    # Each plan sees what the plans before it make; one that raises leaves nothing and fails alone. The image cannot
    # move in the pauses: only the committer moves it, and that is who waits here.
    image = base
    operations: list[Operation] = []
    planned: list[_Waiter] = []
    slices = Slices()
    for waiter in batch:
        own: list[Operation] = []
        try:
            for operation in waiter.plan(image):
                own.append(operation)
                await slices.pause()
            if own:
                draft = image.draft()
                for operation in own:
                    draft.apply(operation)
                    await slices.pause()
                image = draft.image(base.version + 1)
        except Exception as error:  # noqa: BLE001 - it goes to the one who made the plan
            _fail([waiter], error)
            continue
        operations += own
        planned.append(waiter)
    return image, operations, planned


def _complete(batch: list[_Waiter], image: ClusterImage) -> None:
    for waiter in batch:
        if not waiter.done.done():
            waiter.done.set_result(image)


def _fail(batch: list[_Waiter], error: Exception) -> None:
    for waiter in batch:
        if not waiter.done.done():
            waiter.done.set_exception(error)
