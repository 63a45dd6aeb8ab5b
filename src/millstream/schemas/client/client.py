"""RegistryClient: a schema registry's calls, without await."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar
from uuid import UUID

from millstream.schemas.client.calls import RegistryCalls, SchemaLike, Steps
from millstream.schemas.client.config import RegistryConfig, with_urls
from millstream.schemas.client.errors import RegistryError
from millstream.schemas.client.http import BlockingHttp
from millstream.schemas.client.registered import ListedSchema, Mode, RegisteredSchema, SubjectConfig, SubjectVersion
from millstream.schemas.compat import Level
from millstream.schemas.parsing import ParsedSchema

T = TypeVar("T")


class RegistryClient:
    """Asks schema registries that speak Confluent's REST interface; for any thread.

        with RegistryClient("http://127.0.0.1:8081") as registry:
            schema_id = registry.register("flights-value", '{"type": "record", ...}')
            registry.schema(schema_id)

    Several URLs are replicas of one registry: where one does not answer the next is asked. Settings are the fields of
    RegistryConfig, as keywords. Answers that never change are remembered, up to `cache_entries_max`. Every call ends
    within `timeout_s`: in a result, in RegistryError, or in RegistryUnavailableError. In a forked process the client
    goes on with connections of its own; pickled, it takes its settings along and nothing else.
    """

    def __init__(self, url: str | Sequence[str] = (), *, config: RegistryConfig | None = None, **settings: Any) -> None:
        """Make a client; nothing is connected before a call. Raises ValueError, TypeError for wrong settings."""
        self.settings = configured(url, config, settings)
        self.calls = RegistryCalls(self.settings.cache_entries_max)
        self._http = BlockingHttp(self.settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return unpickled, (type(self), self.settings)

    def close(self) -> None:
        """Close the connections. A call after that opens new ones."""
        self._http.close()

    def run(self, steps: Steps[T]) -> T:
        """Run the steps of one or several calls; see `calls`."""
        try:
            exchange = next(steps)
            while True:
                try:
                    answer = self._http(exchange)
                except RegistryError as error:
                    exchange = steps.throw(error)
                else:
                    exchange = steps.send(answer)
        except StopIteration as end:
            result: T = end.value
            return result

    def forget(self) -> None:
        """Forget all answers: the next calls ask the registry."""
        self.calls.forget()

    def schema(self, schema_id: int, *, subject: str | None = None) -> ParsedSchema:
        """The schema with this id, with what it refers to. `subject` says in which context, where there are several."""
        found = self.calls.cached_schema(schema_id, subject)
        return self.run(self.calls.schema(schema_id, subject)) if found is None else found

    def schema_by_guid(self, guid: UUID | str) -> ParsedSchema:
        """The schema with this GUID: one for the same schema in every registry."""
        return self.run(self.calls.schema_by_guid(guid))

    def ids_of_guid(self, guid: UUID | str) -> dict[str, int]:
        """The id that the schema with this GUID has, by context; asked anew each time."""
        return self.run(self.calls.ids_of_guid(guid))

    def schema_types(self) -> list[str]:
        """The types of schemas the registry takes."""
        return self.run(self.calls.schema_types())

    def versions_of(self, schema_id: int, *, deleted: bool = False) -> list[SubjectVersion]:
        """Where the schema with this id is registered."""
        return self.run(self.calls.versions_of(schema_id, deleted=deleted))

    def listed(
        self, prefix: str | None = None, *, latest_only: bool = False, deleted: bool = False
    ) -> list[ListedSchema]:
        """All versions of all subjects, or the latest of each; `prefix` takes subjects that begin so."""
        return self.run(self.calls.listed(prefix, latest_only=latest_only, deleted=deleted))

    def subjects(self, prefix: str | None = None, *, deleted: bool = False) -> list[str]:
        """The subjects; `prefix` takes those that begin so, `deleted` those softly deleted too."""
        return self.run(self.calls.subjects(prefix, deleted=deleted))

    def versions(self, subject: str, *, deleted: bool = False) -> list[int]:
        """The versions of a subject."""
        return self.run(self.calls.versions(subject, deleted=deleted))

    def version(self, subject: str, version: int, *, deleted: bool = False) -> RegisteredSchema:
        """One version of a subject."""
        return self.run(self.calls.version(subject, version, deleted=deleted))

    def latest(self, subject: str, *, deleted: bool = False) -> RegisteredSchema:
        """The latest version of a subject, asked anew each time."""
        return self.run(self.calls.version(subject, "latest", deleted=deleted))

    def latest_with_metadata(self, subject: str, metadata: Mapping[str, str]) -> RegisteredSchema:
        """The latest version of a subject whose metadata has these properties."""
        return self.run(self.calls.latest_with_metadata(subject, metadata))

    def lookup(
        self, subject: str, schema: SchemaLike, *, normalize: bool = False, deleted: bool = False
    ) -> RegisteredSchema:
        """Which version of a subject this schema is. A text is one of type AVRO."""
        return self.run(self.calls.lookup(subject, schema, normalize=normalize, deleted=deleted))

    def register(self, subject: str, schema: SchemaLike, *, normalize: bool = False) -> int:
        """Make the schema a version of a subject, where it is none yet; return its id. A text is one of type AVRO."""
        return self.run(self.calls.register(subject, schema, normalize=normalize))

    def referenced_by(self, subject: str, version: int) -> list[int]:
        """The ids of the schemas that refer to this version."""
        return self.run(self.calls.referenced_by(subject, version))

    def delete_subject(self, subject: str, *, permanent: bool = False) -> list[int]:
        """Delete a subject softly, or, once that is done, for good; return the versions it had."""
        return self.run(self.calls.delete_subject(subject, permanent=permanent))

    def delete_version(self, subject: str, version: int, *, permanent: bool = False) -> int:
        """Delete a version softly, or, once that is done, for good; return it."""
        return self.run(self.calls.delete_version(subject, version, permanent=permanent))

    def compatible(
        self, subject: str, schema: SchemaLike, version: int | str | None = None, *, normalize: bool = False
    ) -> list[str]:
        """Why the schema cannot become the subject's next version; nothing: it can.

        With `version` (a number or "latest") it is held against that one only.
        """
        return self.run(self.calls.compatible(subject, schema, version, normalize=normalize))

    def config(self, subject: str | None = None, *, default_to_global: bool = False) -> SubjectConfig:
        """What is configured for a subject, or for all."""
        return self.run(self.calls.config(subject, default_to_global=default_to_global))

    def set_config(
        self,
        subject: str | None = None,
        *,
        compatibility_level: Level | str | None = None,
        normalize: bool | None = None,
        alias: str | None = None,
        compatibility_group: str | None = None,
    ) -> SubjectConfig:
        """Configure a subject, or all; what is not given stays."""
        level = None if compatibility_level is None else Level(compatibility_level)
        return self.run(self.calls.set_config(subject, SubjectConfig(level, normalize, alias, compatibility_group)))

    def delete_config(self, subject: str | None = None) -> SubjectConfig:
        """Forget what is configured for a subject, or for all; return what it was."""
        return self.run(self.calls.delete_config(subject))

    def mode(self, subject: str | None = None, *, default_to_global: bool = False) -> Mode:
        """What a subject allows, or all."""
        return self.run(self.calls.mode(subject, default_to_global=default_to_global))

    def set_mode(self, mode: Mode | str, subject: str | None = None, *, force: bool = False) -> Mode:
        """Set what a subject allows, or all."""
        return self.run(self.calls.set_mode(mode, subject, force=force))

    def delete_mode(self, subject: str | None = None) -> Mode:
        """Forget a subject's mode; return what it was."""
        return self.run(self.calls.delete_mode(subject))

    def contexts(self) -> list[str]:
        """The contexts: spaces of ids and subjects of their own. "." is the default one."""
        return self.run(self.calls.contexts())

    def delete_context(self, context: str) -> None:
        """Delete a context that holds nothing any more."""
        self.run(self.calls.delete_context(context))


def configured(url: str | Sequence[str], config: RegistryConfig | None, settings: Mapping[str, Any]) -> RegistryConfig:
    """Return the config of a client's arguments. Raises ValueError, TypeError."""
    if config is not None:
        if url or settings:
            raise TypeError("a config has everything: no URL and no settings beside it")
        return config
    # The address is a placeholder until with_urls has read the real ones.
    return with_urls(url, RegistryConfig(urls=("",), **settings)) if url else RegistryConfig(urls=(), **settings)


def unpickled(kind: type[Any], config: RegistryConfig) -> Any:
    """Make a client of what was pickled of it."""
    return kind(config=config)
