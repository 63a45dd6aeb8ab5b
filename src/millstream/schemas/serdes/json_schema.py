"""JSON values with a JSON Schema: the standard library writes and reads them, jsonschema checks them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Hashable
from typing import Any, ClassVar, Generic
from urllib.parse import urljoin

from millstream.schemas.parsing import ParsedSchema, SchemaType
from millstream.schemas.serdes.deserializer import AsyncDeserializer, Deserialization, Deserializer, Reader
from millstream.schemas.serdes.framing import MessagePath
from millstream.schemas.serdes.serializer import AsyncSerializer, R, Serialization, Serializer, Writer

_Check = Callable[[Any], None]


class _JsonSerialization(Serialization[R], Generic[R]):
    """Writes JSON; see Serialization for the rest.

    `to_dict` makes what json takes of a value; `validate` checks each value against the schema before it is written.
    """

    type: ClassVar[SchemaType] = SchemaType.JSON

    def __init__(
        self,
        registry: R,
        schema: ParsedSchema | str | None = None,
        *,
        to_dict: Callable[[Any], Any] | None = None,
        validate: bool = True,
        **settings: Any,
    ) -> None:
        super().__init__(registry, schema, **settings)
        self._to_dict = to_dict
        self._validate = validate

    def _writer(self, schema: ParsedSchema | None, kind: Hashable) -> tuple[Writer, None]:  # noqa: ARG002
        to_dict = self._to_dict
        schema = self._schema if schema is None else schema
        assert schema is not None, "what was not given was fetched"
        check = validator(schema) if self._validate else None
        encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode

        def write(value: Any) -> bytes:
            document = value if to_dict is None else to_dict(value)
            if check is not None:
                check(document)
            return encode(document).encode()

        return write, None


class JsonSerializer(_JsonSerialization[Any], Serializer):
    """Values to JSON, blocking."""


class AsyncJsonSerializer(_JsonSerialization[Any], AsyncSerializer):
    """Values to JSON, awaited."""


class _JsonDeserialization(Deserialization[R], Generic[R]):
    """Reads JSON; see Deserialization for the rest.

    `validate` checks each value against the reader's schema, or the writer's where there is none; `from_dict` makes
    something of it.
    """

    type: ClassVar[SchemaType] = SchemaType.JSON

    def __init__(
        self,
        registry: R,
        reader_schema: ParsedSchema | str | None = None,
        *,
        from_dict: Callable[[Any], Any] | None = None,
        validate: bool = True,
        **settings: Any,
    ) -> None:
        super().__init__(registry, reader_schema, **settings)
        self._from_dict = from_dict
        self._validate = validate

    def _reader(self, writer: ParsedSchema, reader: ParsedSchema | None, path: MessagePath | None) -> Reader:  # noqa: ARG002
        from_dict = self._from_dict
        check = validator(writer if reader is None else reader) if self._validate else None

        def read(data: bytes) -> Any:
            value = json.loads(data)
            if check is not None:
                check(value)
            return value if from_dict is None else from_dict(value)

        return read


class JsonDeserializer(_JsonDeserialization[Any], Deserializer):
    """JSON to values, blocking."""


class AsyncJsonDeserializer(_JsonDeserialization[Any], AsyncDeserializer):
    """JSON to values, awaited."""


def validator(schema: ParsedSchema) -> _Check:
    """Return a function that raises ValueError, with place and reason, for what is no value of `schema`.

    Only the schema's own references are followed: nothing is fetched from an address that a schema holds.
    """
    from jsonschema import Draft7Validator
    from jsonschema.exceptions import best_match
    from jsonschema.validators import validator_for
    from referencing import Registry, Resource
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT7

    from millstream.schemas.parsing.json_schema import with_arrays_first

    document = with_arrays_first(json.loads(schema.text))
    base = document.get("$id", "") if isinstance(document, dict) else ""
    registry: Registry[Any] = Registry()
    for name, text in schema.resolved.items():
        resource = Resource.from_contents(with_arrays_first(json.loads(text)), default_specification=DRAFT7)
        registry = registry.with_resources([(name, resource), (urljoin(base, name), resource)])
    checking = validator_for(document, default=Draft7Validator)(document, registry=registry)

    def check(value: Any) -> None:
        try:
            error = best_match(checking.iter_errors(value))
        except Unresolvable as missing:
            raise ValueError(f"the schema refers to {missing.ref!r}, which is none of its references") from missing
        except re.error as error:
            # Other languages' regular expressions have more: `\p{L}`.
            raise ValueError(f"Python can't read the schema's pattern {error.pattern!r}: {error.msg}") from error
        if error is not None:
            raise ValueError(f"{error.json_path}: {error.message}")

    return check
