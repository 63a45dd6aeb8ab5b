"""Schemas that values and keys name, as the registry has them; and whose fault it is where it gives none.

What the registry says of the one id that was asked for (there is no such schema, it cannot be put together) is the
record's fault, and the record a bad one. Everything else says nothing of the record: a registry that nobody reaches, a
password that is no longer the right one, a proxy that knows no such path. A record must not be buried for that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from uuid import UUID

from millstream.hadoop_loader.values.rows import UnknownSchemaError
from millstream.schemas.error_codes import RegistryErrorCode
from millstream.schemas.parsing import ParsedSchema, SchemaType

if TYPE_CHECKING:
    from millstream.schemas.avro.headers import Field
    from millstream.schemas.client import RegistryClient, RegistryError

UNUSABLE_MAX: Final = 1_024
"""Ids remembered that no value can be read of; over it all are forgotten."""
_DEFAULT_CONTEXT: Final = "."
_NAMES: Final = {"AVRO": "Avro", "JSON": "JSON Schema", "PROTOBUF": "Protobuf"}
# A schema that is not there, or refers to one that is not, or that the registry itself cannot make sense of.
_OF_THE_SCHEMA: Final = frozenset(
    (
        RegistryErrorCode.SUBJECT_NOT_FOUND,
        RegistryErrorCode.VERSION_NOT_FOUND,
        RegistryErrorCode.SCHEMA_NOT_FOUND,
        RegistryErrorCode.UNPROCESSABLE,
        RegistryErrorCode.INVALID_SCHEMA,
    )
)


class UnusableSchemaError(Exception):
    """No value of this schema can be read here, and asking again will not change that."""

    # Decoders make a bad value of it.
    is_outage = False


class RegistryRefusedError(Exception):
    """The registry refused an answer, and not for what was asked."""


class RegisteredSchemas:
    """Asks a registry for the schemas of a job's values, or keys."""

    def __init__(self, registry: RegistryClient | None, format_: str, field: Field = "value") -> None:
        self._registry = registry
        self._field: Field = field
        self._type = SchemaType(format_.upper())
        # Ids that values were bad for, and why: whoever sends them can make up as many as they like.
        self._unusable: dict[int, str] = {}

    def schema(self, name: int | UUID) -> ParsedSchema:
        """Return the schema of an id or a GUID.

        Raises UnusableSchemaError (LookupError without a registry) where the record is to blame, RegistryRefusedError
        and RegistryUnavailableError where it is not.
        """
        if self._registry is None:
            raise LookupError(name)
        from millstream.schemas.client import RegistryError

        registry = self._registry
        try:
            found = registry.schema_by_guid(name) if isinstance(name, UUID) else registry.schema(name)
        except RegistryError as error:
            raise _whose_fault(error, name) from error
        if found.type != self._type:
            raise UnusableSchemaError(
                f"it is one of {_NAMES[SchemaType(found.type)]}, and the job reads {_NAMES[self._type]}"
            )
        return found

    def id_of(self, guid: UUID) -> int:
        """Return the id of a GUID, in the default context where it has one there. Raises as `schema` does."""
        if self._registry is None:
            raise LookupError(guid)
        from millstream.schemas.client import RegistryError

        try:
            ids = self._registry.ids_of_guid(guid)
        except RegistryError as error:
            raise _whose_fault(error, guid) from error
        if not ids:
            raise LookupError(guid)
        return ids.get(_DEFAULT_CONTEXT, next(iter(ids.values())))

    def unknown(self, topic: str, schema_id: int) -> UnknownSchemaError:
        """Return what is to be raised for an id whose schema the topic's table lacks; raises as `schema` does."""
        return UnknownSchemaError(topic, schema_id, self.schema(schema_id).formatted("resolved"), self._field)

    def why_unusable(self, topic: str, schema_id: int) -> str:
        """Return why values of an id that the topic's table lacks are bad; raises what `unknown` returns if not."""
        reason = self._unusable.get(schema_id)
        if reason is None:
            try:
                raise self.unknown(topic, schema_id)
            except LookupError:
                reason = f"schema {schema_id} is not known"
            except UnusableSchemaError as error:
                reason = f"schema {schema_id} cannot be used: {error}"
            if len(self._unusable) >= UNUSABLE_MAX:
                self._unusable.clear()
            self._unusable[schema_id] = reason
        return reason


def _whose_fault(error: RegistryError, name: int | UUID) -> Exception:
    if error.is_outage:
        return error
    if error.code in _OF_THE_SCHEMA:
        return UnusableSchemaError(str(error))
    return RegistryRefusedError(
        f"the registry does not say what schema {name} is: {error}; see that registry.urls lead to one, and that it"
        " lets the job in"
    )
