"""JsonSchema: text of type JSON, checked and canonical."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

from millstream.schemas.parsing.parsed_schema import ParsedSchema, Reference, SchemaType


class JsonSchema(ParsedSchema):
    """A parsed schema of type JSON."""

    type: ClassVar[SchemaType] = SchemaType.JSON

    @property
    def name(self) -> str | None:
        return None

    def normalized(self) -> JsonSchema:
        return self


def parse_json_schema(
    text: str, references: Iterable[Reference] = (), resolved: Mapping[str, str] | None = None
) -> JsonSchema:
    """Parse and check `text`."""
    return JsonSchema(text, references, resolved)
