"""AsyncRegistryClient: a schema registry's calls, awaited; each does what RegistryClient's of the same name does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar
from uuid import UUID

from millstream.schemas.client.calls import RegistryCalls, SchemaLike, Steps
from millstream.schemas.client.client import configured, unpickled
from millstream.schemas.client.config import RegistryConfig
from millstream.schemas.client.errors import RegistryError
from millstream.schemas.client.http import AwaitingHttp
from millstream.schemas.client.registered import ListedSchema, Mode, RegisteredSchema, SubjectConfig, SubjectVersion
from millstream.schemas.compat import Level
from millstream.schemas.parsing import ParsedSchema

T = TypeVar("T")


class AsyncRegistryClient:
    """RegistryClient for asyncio: never blocks the loop, but to parse a schema. Belongs to the loop that runs it."""

    def __init__(self, url: str | Sequence[str] = (), *, config: RegistryConfig | None = None, **settings: Any) -> None:
        self.settings = configured(url, config, settings)
        self.calls = RegistryCalls(self.settings.cache_entries_max)
        self._http = AwaitingHttp(self.settings)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __reduce__(self) -> tuple[Any, ...]:
        return unpickled, (type(self), self.settings)

    async def aclose(self) -> None:
        await self._http.aclose()

    async def run(self, steps: Steps[T]) -> T:
        """Run the steps of one or several calls; see `calls`."""
        try:
            exchange = next(steps)
            while True:
                try:
                    answer = await self._http(exchange)
                except RegistryError as error:
                    exchange = steps.throw(error)
                else:
                    exchange = steps.send(answer)
        except StopIteration as end:
            result: T = end.value
            return result

    def forget(self) -> None:
        self.calls.forget()

    async def schema(self, schema_id: int, *, subject: str | None = None) -> ParsedSchema:
        found = self.calls.cached_schema(schema_id, subject)
        return await self.run(self.calls.schema(schema_id, subject)) if found is None else found

    async def schema_by_guid(self, guid: UUID | str) -> ParsedSchema:
        return await self.run(self.calls.schema_by_guid(guid))

    async def ids_of_guid(self, guid: UUID | str) -> dict[str, int]:
        """The id that the schema with this GUID has, by context; asked anew each time."""
        return await self.run(self.calls.ids_of_guid(guid))

    async def schema_types(self) -> list[str]:
        return await self.run(self.calls.schema_types())

    async def versions_of(self, schema_id: int, *, deleted: bool = False) -> list[SubjectVersion]:
        return await self.run(self.calls.versions_of(schema_id, deleted=deleted))

    async def listed(
        self, prefix: str | None = None, *, latest_only: bool = False, deleted: bool = False
    ) -> list[ListedSchema]:
        return await self.run(self.calls.listed(prefix, latest_only=latest_only, deleted=deleted))

    async def subjects(self, prefix: str | None = None, *, deleted: bool = False) -> list[str]:
        return await self.run(self.calls.subjects(prefix, deleted=deleted))

    async def versions(self, subject: str, *, deleted: bool = False) -> list[int]:
        return await self.run(self.calls.versions(subject, deleted=deleted))

    async def version(self, subject: str, version: int, *, deleted: bool = False) -> RegisteredSchema:
        return await self.run(self.calls.version(subject, version, deleted=deleted))

    async def latest(self, subject: str, *, deleted: bool = False) -> RegisteredSchema:
        return await self.run(self.calls.version(subject, "latest", deleted=deleted))

    async def latest_with_metadata(self, subject: str, metadata: Mapping[str, str]) -> RegisteredSchema:
        return await self.run(self.calls.latest_with_metadata(subject, metadata))

    async def lookup(
        self, subject: str, schema: SchemaLike, *, normalize: bool = False, deleted: bool = False
    ) -> RegisteredSchema:
        return await self.run(self.calls.lookup(subject, schema, normalize=normalize, deleted=deleted))

    async def register(self, subject: str, schema: SchemaLike, *, normalize: bool = False) -> int:
        return await self.run(self.calls.register(subject, schema, normalize=normalize))

    async def referenced_by(self, subject: str, version: int) -> list[int]:
        return await self.run(self.calls.referenced_by(subject, version))

    async def delete_subject(self, subject: str, *, permanent: bool = False) -> list[int]:
        return await self.run(self.calls.delete_subject(subject, permanent=permanent))

    async def delete_version(self, subject: str, version: int, *, permanent: bool = False) -> int:
        return await self.run(self.calls.delete_version(subject, version, permanent=permanent))

    async def compatible(
        self, subject: str, schema: SchemaLike, version: int | str | None = None, *, normalize: bool = False
    ) -> list[str]:
        return await self.run(self.calls.compatible(subject, schema, version, normalize=normalize))

    async def config(self, subject: str | None = None, *, default_to_global: bool = False) -> SubjectConfig:
        return await self.run(self.calls.config(subject, default_to_global=default_to_global))

    async def set_config(
        self,
        subject: str | None = None,
        *,
        compatibility_level: Level | str | None = None,
        normalize: bool | None = None,
        alias: str | None = None,
        compatibility_group: str | None = None,
    ) -> SubjectConfig:
        level = None if compatibility_level is None else Level(compatibility_level)
        wanted = SubjectConfig(level, normalize, alias, compatibility_group)
        return await self.run(self.calls.set_config(subject, wanted))

    async def delete_config(self, subject: str | None = None) -> SubjectConfig:
        return await self.run(self.calls.delete_config(subject))

    async def mode(self, subject: str | None = None, *, default_to_global: bool = False) -> Mode:
        return await self.run(self.calls.mode(subject, default_to_global=default_to_global))

    async def set_mode(self, mode: Mode | str, subject: str | None = None, *, force: bool = False) -> Mode:
        return await self.run(self.calls.set_mode(mode, subject, force=force))

    async def delete_mode(self, subject: str | None = None) -> Mode:
        return await self.run(self.calls.delete_mode(subject))

    async def contexts(self) -> list[str]:
        return await self.run(self.calls.contexts())

    async def delete_context(self, context: str) -> None:
        await self.run(self.calls.delete_context(context))
