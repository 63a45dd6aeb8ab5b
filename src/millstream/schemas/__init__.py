"""Schemas: compatibility that explains itself, a registry, its client, serdes, and Avro at column speed.

    parsing/   compat/          schemas as parsed things, and whether one reads what another wrote
    server/    client/          the registry, and how it is asked
    serdes/    avro/            values to and from bytes: one by one, and whole columns of Arrow

    from millstream.schemas import AvroSerializer, RegistryClient

Public names are loaded on first use: nobody pays for a part that is not used.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

_HOMES: Final = {
    "avro": (
        "AvroDecoder",
        "AvroEncoder",
        "AvroValidator",
        "BadDatum",
        "Decoded",
        "JsonDecoder",
        "arrow_to_avro_schema",
        "avro_to_arrow_schema",
        "validate_datums",
    ),
    "client": (
        "AsyncRegistryClient",
        "Mode",
        "RegisteredSchema",
        "RegistryClient",
        "RegistryConfig",
        "RegistryError",
        "RegistryErrorCode",
        "RegistryUnavailableError",
        "SchemaText",
        "SubjectConfig",
        "SubjectVersion",
    ),
    "compat": ("Incompatibility", "Level", "check", "incompatibilities"),
    "parsing": ("InvalidSchemaError", "ParsedSchema", "Reference", "SchemaType", "parse"),
    "serdes": (
        "AsyncAvroDeserializer",
        "AsyncAvroSerializer",
        "AsyncJsonDeserializer",
        "AsyncJsonSerializer",
        "AsyncProtobufDeserializer",
        "AsyncProtobufSerializer",
        "AvroDeserializer",
        "AvroSerializer",
        "DeserializationError",
        "JsonDeserializer",
        "JsonSerializer",
        "ProtobufDeserializer",
        "ProtobufSerializer",
        "SerdeError",
        "SerializationError",
    ),
}
_HOME_OF: Final = {name: f"{__name__}.{module}" for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(home), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})
