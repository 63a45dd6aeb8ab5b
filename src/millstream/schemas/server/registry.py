"""What a registry does for those who ask: writes, and who may do them.

Every write runs on the leader, one at a time, in three steps: decide on the state, which holds all of the log; append;
read back. Where a record did not come to what was decided (another instance leads by now) the caller is told so, and
the group elects anew.

States, as a leader: not leading -> `lead` (a term begins: the log is read to its end, what former leaders damaged is
repaired) -> leading -> `resign`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from millstream.core.metrics import Registry as MetricsRegistry
from millstream.core.metrics import Summary
from millstream.schemas.error_codes import RegistryErrorCode
from millstream.schemas.server.catalog import (
    IMPORT,
    IMPORT_MODES,
    LATEST,
    MODES,
    READ_ONLY_MODES,
    READWRITE,
    CanonicalTask,
    Catalog,
    SchemaRequest,
    request_of,
)
from millstream.schemas.server.content import Content
from millstream.schemas.server.election import Identity, LeaderElection
from millstream.schemas.server.errors import RegistryRefusal, subject_not_found, version_not_found
from millstream.schemas.server.records import NOOP, TENANT, Key, KeyType, SchemaRecord, Value
from millstream.schemas.server.settings import RegistryConfig
from millstream.schemas.server.state import ID_MAX, Applied, RegistryState, Version
from millstream.schemas.server.store import SchemaStore, Write
from millstream.schemas.server.subjects import DEFAULT_CONTEXT, context_of, is_context, is_valid, split
from millstream.schemas.server.term import ids_value, leader_headers, term_headers

_logger: Final = logging.getLogger(__name__)

# Work on schemas of more characters than this leaves the loop's thread.
INLINE_CHARACTERS_MAX: Final = 32_768
# Heartbeats by which an instance knows that the leader has left.
_HEARTBEATS: Final = 2
# Records written and awaited together, at most.
WRITES_MAX: Final = 500


class NotLeadingError(Exception):
    """Another instance leads; `leader` says which, None where nobody is known to."""

    def __init__(self, leader: Identity | None) -> None:
        super().__init__("this instance does not lead")
        self.leader = leader


class Registry:
    """One instance of the registry; owned by the loop."""

    def __init__(self, config: RegistryConfig) -> None:
        self.config = config
        self.state = RegistryState()
        self.catalog = Catalog(config, self.state)
        self.store = SchemaStore(config, self.state)
        self.store.on_replaced = self._doubt_term
        self.store.on_damaged = self._repair_soon
        # Repairs what was damaged while this instance leads; one at a time.
        self._repairing: asyncio.Task[None] | None = None
        self.election: LeaderElection | None = None
        # The offset of the record that began this instance's leadership; None while it does not lead.
        self._term: int | None = None
        # The term in which the write side was taken; only with the lock.
        self._term_taken: int | None = None
        self._lock = asyncio.Lock()
        self.metrics = MetricsRegistry()
        self._answers = self.metrics.summary(
            "millstream_registry_request_us", "How long requests took to answer, in microseconds.", "method", "path"
        )
        self._count_state()

    async def start(self, port: int) -> None:
        """Read the topic and join the group, as reached by others on `port`."""
        await self.store.start()
        scheme, address = self.config.advertised(port)
        identity = Identity(address.host, address.port, scheme, self.config.boolean("leader.eligibility"))
        self.election = LeaderElection(self.config, identity, lead=self._lead, resign=self._resign)
        self.election.start()

    async def close(self) -> None:
        """Leave the group and end everything."""
        if self.election is not None:
            await self.election.close()
        if self._repairing is not None:
            self._repairing.cancel()
            await asyncio.gather(self._repairing, return_exceptions=True)
        await self.store.close()

    @property
    def is_healthy(self) -> bool:
        """Whether the topic is being read."""
        return self.store.failure is None

    def metrics_of_endpoint(self, method: str, path: str) -> Summary:
        """Return what counts the requests of an endpoint."""
        return self._answers.labels(method, path)

    def _count_state(self) -> None:
        self.metrics.computed(
            "millstream_registry_held",
            "What the registry holds.",
            "gauge",
            ("what",),
            lambda: [((what,), float(count)) for what, count in self.state.counts().items()],
        )
        self.metrics.computed(
            "millstream_registry_records_passed_over",
            "Records of the topic that had no effect.",
            "gauge",
            ("why",),
            lambda: [((why.name,), float(count)) for why, count in self.state.passed_over.items()],
        )
        self.metrics.read_gauge(
            "millstream_registry_is_leader", "Whether this instance leads.", lambda: float(self.is_leading)
        )

    # Leading.

    @asynccontextmanager
    async def leading(self) -> AsyncIterator[None]:
        """Have the write side, as the leader. Raises NotLeadingError."""
        assert self.election is not None, "started"
        leader = await self.election.known_leader(self.config.seconds("kafkastore.timeout.ms"))
        async with self._lock:
            if self._term is None or not self.election.is_leading:
                raise NotLeadingError(leader)
            self._term_taken = self._term
            # Before anything else is written, so that a rejected record is the last of its key as briefly as can be.
            if self._holds_term:
                await self._repair(self._term)
            yield

    async def leader(self) -> Identity | None:
        """Return who leads, waiting a while until somebody does."""
        assert self.election is not None, "started"
        return await self.election.known_leader(self.config.seconds("kafkastore.timeout.ms"))

    async def is_left(self, leader: Identity) -> bool:
        """Whether the group says, with the next heartbeats, that `leader` leads no more."""
        assert self.election is not None, "started"
        timeout_s = _HEARTBEATS * self.config.seconds("leader.election.heartbeat.interval.ms")
        return await self.election.wait_until_left(leader, timeout_s)

    @property
    def is_leading(self) -> bool:
        """Whether this instance leads, as far as it knows."""
        return self.election is not None and self.election.is_leading

    async def _lead(self) -> None:
        assert self.election is not None, "started"
        begin = Write(NOOP, ids_value(self.state.highest_ids()), leader_headers(self.election.identity.url))
        ((offset, _),) = await self.store.write([begin])
        # Whatever lies before it has been read now; whatever a former leader appends behind it counts for nobody.
        self._term = offset
        await self._repair(offset)
        _logger.info("leading from offset %d on", offset)

    def _doubt_term(self) -> None:
        """The log is another one: a term in it has to be begun anew."""
        if self.election is not None:
            self.election.doubt("the topic of schemas is another one")

    def _resign(self) -> None:
        self._term = None
        _logger.info("leading no more")

    @property
    def _holds_term(self) -> bool:
        """Whether no other term has begun in what was read: what is written in this one counts."""
        return self._term is not None and self.state.term == self._term

    def _repair_soon(self) -> None:
        # One that has lost its term would damage the key again, and two such would go on so for ever.
        if self.is_leading and self._holds_term and (self._repairing is None or self._repairing.done()):
            self._repairing = asyncio.create_task(self._take_to_repair(), name="repair")

    async def _take_to_repair(self) -> None:
        try:
            async with self.leading():
                pass
        except (NotLeadingError, RegistryRefusal) as error:
            _logger.warning("what is damaged is not repaired now: %s", error)

    async def _repair(self, term: int) -> None:
        """Write again, as it should be, what rejected records stand in front of."""
        while repairs := list(self.state.repairs()):
            _logger.warning("%d records are written again in place of rejected ones", len(repairs))
            await self._append(term, repairs)

    async def _write(self, *records: tuple[Key, Value]) -> None:
        """Write what was decided since the write side was taken. Raises NotLeadingError, RegistryRefusal."""
        # In a later term of this instance others may have written meanwhile: what was decided holds no more.
        if self._term is None or self._term != self._term_taken:
            raise NotLeadingError(None)
        await self._append(self._term, records)

    async def _append(self, term: int, records: Sequence[tuple[Key, Value]]) -> None:
        headers = term_headers(term)
        for start in range(0, len(records), WRITES_MAX):
            writes = [Write(key, value, headers) for key, value in records[start : start + WRITES_MAX]]
            try:
                outcomes = await self.store.write(writes)
            except RegistryRefusal as error:
                if error.code is not RegistryErrorCode.SCHEMA_TOO_LARGE:
                    self._doubt_write()
                raise
            for offset, applied in outcomes:
                if applied is not Applied.ACCEPTED:
                    self._doubt(offset, applied)

    def _doubt_write(self) -> None:
        """Records of a write that failed may still reach the log: in another term they count for nothing."""
        assert self.election is not None, "started"
        self.election.doubt("a write failed, and may be done later")

    def _doubt(self, offset: int, applied: Applied) -> None:
        """A record of ours was rejected: another instance has written meanwhile."""
        assert self.election is not None, "started"
        _logger.error("record %d of this leader is rejected: %s", offset, applied.value)
        self.election.doubt("another instance writes")
        raise RegistryRefusal(
            RegistryErrorCode.STORE_ERROR, f"Write to the Kafka store was rejected: {applied.value}; try again"
        )

    # Registering.

    async def find(
        self, subject: str, request: SchemaRequest, *, normalize: bool, deleted: bool = False
    ) -> Version | None:
        """Return the version a schema is registered as, in the subject or, in the default context, in any other one."""
        contexts = self.state.contexts()[1:] if context_of(subject) == DEFAULT_CONTEXT else []
        for context in [None, *contexts]:
            within = subject if context is None else f":{context}:{subject}"
            if context is not None and not self.state.has_subject(within, deleted=deleted):
                continue
            try:
                normalizes = self.catalog.normalizes(within, normalize)
                await self._parse_ahead(within, [request], normalize=normalizes)
                await self._read_ahead(within, request, normalize=normalizes, deleted=deleted)
                found = self.catalog.registered(within, request, normalize=normalizes, deleted=deleted)
            except RegistryRefusal:
                if context is None:
                    raise
                continue  # what it refers to is not in that context
            if found is not None:
                return found
        return None

    async def registered(self, subject: str, request: SchemaRequest, *, normalize: bool) -> Version | None:
        """Return the version that a request to register asks for where it is there and nothing is to be done."""
        if not request.text.strip():
            return None
        normalize = self.catalog.normalizes(subject, normalize)
        await self._parse_ahead(subject, [request], normalize=normalize)
        await self._read_ahead(subject, request, normalize=normalize)
        found = self.catalog.registered(subject, request, normalize=normalize)
        if found is None or (request.id >= 0 and request.id != found.id):
            return None
        if request.version == LATEST:
            return found if found is self.state.latest(subject) else None
        return found if request.version in (0, found.version) else None

    async def _parse_ahead(
        self, subject: str, requests: Iterable[SchemaRequest], *, normalize: bool, strict: bool = False
    ) -> None:
        """Have large schemas parsed on a thread, so that what follows finds them parsed. Raises RegistryRefusal."""
        for request in requests:
            task = self.catalog.parsing(subject, request, normalize=normalize, strict=strict)
            if task.weight > INLINE_CHARACTERS_MAX and not self.catalog.is_parsed(task):
                self.catalog.keep(task, await asyncio.to_thread(task.run))

    async def _read_ahead(
        self, subject: str, request: SchemaRequest, *, normalize: bool, deleted: bool = False
    ) -> None:
        """Have many versions that a schema may be the same as read on a thread. Raises RegistryRefusal."""
        tasks = self.catalog.unread(subject, request, normalize=normalize, deleted=deleted)
        if sum(task.parsing.weight for task in tasks) > INLINE_CHARACTERS_MAX:
            for task, digest in zip(tasks, await asyncio.to_thread(_run_all, tasks), strict=True):
                self.catalog.keep_canonical(task, digest)

    async def formatted(self, version: Version, form: str) -> str:
        """Return a registered schema's text in another form. Raises RegistryRefusal."""
        request = request_of(version.content)
        await self._parse_ahead(version.subject, [request], normalize=False)
        parsed = self.catalog.parse(version.subject, request)
        if self.catalog.parsing(version.subject, request).weight > INLINE_CHARACTERS_MAX:
            return await asyncio.to_thread(parsed.formatted, form)
        return parsed.formatted(form)

    async def _compare(
        self, subject: str, request: SchemaRequest, previous: Sequence[Version], *, normalize: bool
    ) -> list[str]:
        strict = request.id < 0 and self.catalog.validates(subject)
        await self._parse_ahead(subject, [request], normalize=normalize, strict=strict)
        new = self.catalog.parse(subject, request, normalize=normalize, strict=strict)
        earlier = self.catalog.earlier(subject, request, previous)
        await self._parse_ahead(subject, [request_of(one.content) for one in earlier], normalize=False)
        comparison = self.catalog.comparison(subject, new, earlier)
        weight = self.catalog.parsing(subject, request).weight
        weight += sum(self.catalog.parsing(one.subject, request_of(one.content)).weight for one in earlier)
        if weight > INLINE_CHARACTERS_MAX:
            return await asyncio.to_thread(comparison.run)
        return comparison.run()

    async def register(self, subject: str, request: SchemaRequest, *, normalize: bool, force: bool = False) -> Version:
        """Register a schema under a subject, as the leader; return its version. Raises RegistryRefusal."""
        catalog, state = self.catalog, self.state
        mode = catalog.mode(subject)
        self._check_writable(subject)
        if request.id >= 0 and mode not in IMPORT_MODES:
            raise _not_permitted(subject, "is not in import mode")
        if request.id < 0 and mode != READWRITE:
            raise _not_permitted(subject, "is not in read-write mode")
        previous = [one for one in state.versions(subject) if not one.deleted]
        if mode not in IMPORT_MODES:
            request = catalog.inherited(request, previous[-1] if previous else None)
        if not request.text.strip():
            raise RegistryRefusal(RegistryErrorCode.INVALID_SCHEMA, "Empty schema")
        normalize = catalog.normalizes(subject, normalize) and mode not in IMPORT_MODES
        found = await self.registered(subject, request, normalize=normalize)
        if found is not None:
            return found
        strict = request.id < 0 and catalog.validates(subject)
        await self._parse_ahead(subject, [request], normalize=normalize, strict=strict)
        parsed = catalog.parse(subject, request, normalize=normalize, strict=strict)
        if mode not in IMPORT_MODES and not force:
            messages = await self._compare(subject, request, previous, normalize=normalize)
            if messages:
                raise RegistryRefusal(
                    RegistryErrorCode.INCOMPATIBLE_SCHEMA,
                    f'Schema being registered is incompatible with an earlier schema for subject "{subject}", '
                    f"details: [{', '.join(messages)}]",
                )
        version = self._version_for(subject, request, is_import=mode in IMPORT_MODES)
        content = catalog.content(parsed, request)
        schema_id = self._id_for(subject, request, content)
        key = Key(KeyType.SCHEMA, subject, version)
        # The same schema was registered before and deleted since: that version gives way to the new one, once it is
        # there, so that the id stands for the schema at every moment.
        giving_way: list[tuple[Key, Value]] = [
            (old.key, None)
            for old in state.versions(subject)
            if old.deleted and old.id == schema_id and old.version < version
            if not catalog.referrers(subject, old.version, deleted=True)
        ]
        new = key, SchemaRecord(schema_id, content, deleted=False)
        await self._write(*self._announcement(subject), new, *giving_way)
        written = state.find_version(subject, version)
        if written is None or written.content != content or written.id != schema_id:
            raise RegistryRefusal(
                RegistryErrorCode.STORE_ERROR,
                f"{subject!r} version {version} was written over by another instance; try again",
            )
        return written

    def _version_for(self, subject: str, request: SchemaRequest, *, is_import: bool) -> int:
        following = self.state.next_version(subject)
        if request.version <= 0:
            return following
        if request.version != following and not is_import:
            raise RegistryRefusal(RegistryErrorCode.INVALID_SCHEMA, "Version is not one more than previous version")
        return request.version

    def _id_for(self, subject: str, request: SchemaRequest, content: Content) -> int:
        """Return the id for a schema to be registered: the one it was given, or has in the context, or a new one."""
        context = context_of(subject)
        known = self.state.find_content(context, content)
        if request.id < 0:
            if known is not None and known[1]:
                return known[0]
            schema_id = self.state.next_id(context)
            if schema_id > ID_MAX:
                raise RegistryRefusal(RegistryErrorCode.STORE_ERROR, f"context {context!r} has used up all ids")
            return schema_id
        holder = self.state.find_id(context, request.id)
        if holder is not None and holder.content != content:
            raise RegistryRefusal(
                RegistryErrorCode.OPERATION_NOT_PERMITTED,
                f"Overwrite new schema with id {request.id} in context {split(subject).prefix} is not permitted.",
            )
        return request.id

    def _announcement(self, subject: str) -> list[tuple[Key, Value]]:
        context = context_of(subject)
        if self.state.is_announced(context):
            return []
        return [(Key(KeyType.CONTEXT, context), {"tenant": TENANT, "context": context})]

    async def check(
        self, subject: str, request: SchemaRequest, previous: Sequence[Version], *, normalize: bool
    ) -> list[str]:
        """Return what keeps a schema from following `previous`. Raises RegistryRefusal."""
        if not request.text.strip():
            raise RegistryRefusal(RegistryErrorCode.INVALID_SCHEMA, "Empty schema")

        normalize = self.catalog.normalizes(subject, normalize)
        return await self._compare(subject, request, previous, normalize=normalize)

    # Deleting.

    async def delete_version(self, subject: str, number: int, *, permanent: bool) -> int:
        """Delete a version (LATEST: the highest), softly, or for good once that was done; return its number."""
        state = self.state
        version = state.latest(subject) if number == LATEST else state.find_version(subject, number)
        if version is None:
            if not state.has_subject(subject, deleted=True):
                raise subject_not_found(subject)
            raise version_not_found(number)
        if version.deleted and not permanent:
            raise RegistryRefusal(
                RegistryErrorCode.VERSION_SOFT_DELETED,
                f"Subject '{subject}' Version {number} was soft deleted. Set permanent=true to delete permanently",
            )
        self._check_writable(subject)
        self._check_unreferenced(version, permanent=permanent)
        if not permanent:
            await self._write((version.key, version.record(deleted=True)))
            return version.version
        if not version.deleted:
            raise RegistryRefusal(
                RegistryErrorCode.VERSION_NOT_SOFT_DELETED,
                f"Subject '{subject}' Version {version.version} was not deleted first before being permanently deleted",
            )
        await self._write(*self._ids_kept([version]), (version.key, None))
        if not state.versions(subject):
            await self._delete_settings(subject)
        return version.version

    async def delete_subject(self, subject: str, *, permanent: bool) -> list[int]:
        """Delete the versions of a subject, softly, or for good those that are; return their numbers."""
        state = self.state
        if not state.has_subject(subject, deleted=True):
            raise subject_not_found(subject)
        if not permanent and not state.has_subject(subject, deleted=False):
            raise RegistryRefusal(
                RegistryErrorCode.SUBJECT_SOFT_DELETED,
                f"Subject '{subject}' was soft deleted. Set permanent=true to delete permanently",
            )
        self._check_writable(subject)
        versions = [one for one in state.versions(subject) if permanent or not one.deleted]
        for version in versions:
            self._check_unreferenced(version, permanent=permanent, besides=subject)
            if permanent and not version.deleted:
                raise RegistryRefusal(
                    RegistryErrorCode.SUBJECT_NOT_SOFT_DELETED,
                    f"Subject '{subject}' was not deleted first before being permanently deleted",
                )
        numbers = [one.version for one in versions]
        if not permanent:
            key = Key(KeyType.DELETE_SUBJECT, subject)
            await self._write((key, {"subject": subject, "version": max(numbers, default=0)}))
            return numbers
        # From the highest down: a version may refer to those below it.
        gone: list[tuple[Key, Value]] = [(one.key, None) for one in reversed(versions)]
        await self._write(*self._ids_kept(versions), *gone)
        await self._delete_settings(subject)
        return numbers

    def _ids_kept(self, going: Sequence[Version]) -> list[tuple[Key, Value]]:
        """Note how far ids were given out, where the schema that has the highest one goes for good."""
        highest = self.state.highest_ids()
        if any(one.id == highest.get(context_of(one.subject)) for one in going):
            return [(NOOP, ids_value(highest))]
        return []

    async def _delete_settings(self, subject: str) -> None:
        writes: list[tuple[Key, Value]] = []
        if self.state.mode(subject) is not None:
            writes.append((Key(KeyType.MODE, subject), None))
        if self.state.config(subject) is not None:
            writes.append((Key(KeyType.CONFIG, subject), None))
        if writes:
            await self._write(*writes)

    def _check_unreferenced(self, version: Version, *, permanent: bool, besides: str | None = None) -> None:
        for context, schema_id in self.catalog.referrers(version.subject, version.version, deleted=permanent):
            holders = self.state.versions_of_id(context, schema_id)
            if any(one.subject != besides and (permanent or not one.deleted) for one in holders):
                raise RegistryRefusal(
                    RegistryErrorCode.REFERENCE_EXISTS,
                    f"One or more references exist to the schema {{magic=1,keytype=SCHEMA,subject={version.subject},"
                    f"version={version.version}}}.",
                )

    async def delete_context(self, context: str) -> None:
        """Delete a context that has no subjects any more."""
        if self.state.has_subject(context, deleted=True):
            raise RegistryRefusal(
                RegistryErrorCode.CONTEXT_NOT_EMPTY, f"The specified context '{context}' is not empty."
            )
        await self._write((Key(KeyType.CONTEXT, context_of(context)), None))

    # Settings.

    async def update_config(self, subject: str | None, changes: dict[str, Any]) -> dict[str, Any]:
        """Set fields of a config, None to take one out; return what is set then."""
        self._check_writable(subject)
        config = {**(self.state.config(subject) or {}), **changes}
        config = {name: value for name, value in config.items() if value is not None}
        named = {} if subject is None else {"subject": subject}
        await self._write((Key(KeyType.CONFIG, subject), {**named, **config}))
        return config

    async def delete_config(self, subject: str | None) -> None:
        """Have a subject, or all, fall back on what is around them."""
        self._check_writable(subject)
        await self._write((Key(KeyType.CONFIG, subject), None))

    async def update_mode(self, subject: str | None, mode: str | None, *, force: bool) -> None:
        """Set a mode, None to take it out. IMPORT needs `force` where there are schemas."""
        self._check_mutable()
        if mode is not None and mode not in MODES:
            raise invalid_mode()
        writes: list[tuple[Key, Value]] = []
        if mode == IMPORT and self.catalog.mode(subject) != IMPORT and not force:
            if self.state.has_subject(subject, deleted=False):
                raise RegistryRefusal(
                    RegistryErrorCode.OPERATION_NOT_PERMITTED, "Cannot import since found existing subjects"
                )
            going = [one for name in self.state.matching(subject) for one in self.state.versions(name)]
            for version in going:
                self._check_unreferenced(version, permanent=True)
            writes += self._ids_kept(going)
            writes += [(version.key, None) for version in going]
            writes.append((Key(KeyType.CLEAR_SUBJECT, subject), {} if subject is None else {"subject": subject}))
        named = {} if subject is None else {"subject": subject}
        writes.append((Key(KeyType.MODE, subject), None if mode is None else {**named, "mode": mode}))
        await self._write(*writes)

    async def delete_mode(self, subject: str | None, *, recursive: bool) -> None:
        """Take a mode out; with `recursive` those of the subjects in a context as well."""
        self._check_mutable()
        writes: list[tuple[Key, Value]] = [(Key(KeyType.MODE, subject), None)]
        if recursive and (subject is None or is_context(subject)):
            writes += [(Key(KeyType.MODE, one), None) for one in self.state.modes_within(subject)]
        await self._write(*writes)

    def _check_mutable(self) -> None:
        if not self.config.boolean("mode.mutability"):
            raise RegistryRefusal(RegistryErrorCode.OPERATION_NOT_PERMITTED, "Mode changes are not allowed")

    def _check_writable(self, subject: str | None) -> None:
        if self.catalog.mode(subject) in READ_ONLY_MODES:
            raise _not_permitted(subject, "is in read-only mode")


def _run_all(tasks: Iterable[CanonicalTask]) -> list[bytes | None]:
    return [task.run() for task in tasks]


def check_subject(subject: str, *, is_setting: bool = False) -> None:
    """Raise RegistryRefusal for a subject that nothing may be written under."""
    if not is_valid(subject, is_setting=is_setting):
        raise RegistryRefusal(
            RegistryErrorCode.INVALID_SUBJECT, f"The specified subject '{subject}' is not a valid subject."
        )


def invalid_mode() -> RegistryRefusal:
    """Return the refusal of a mode that is none."""
    return RegistryRefusal(RegistryErrorCode.INVALID_MODE, f"Invalid mode. Valid values are {', '.join(MODES)}")


def _not_permitted(subject: str | None, why: str) -> RegistryRefusal:
    prefix = split(subject or "").prefix
    return RegistryRefusal(RegistryErrorCode.OPERATION_NOT_PERMITTED, f"Subject {subject} in context {prefix} {why}")
