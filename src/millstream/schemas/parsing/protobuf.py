"""ProtobufSchema: text of type PROTOBUF, checked and canonical."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

from millstream.schemas.parsing.parsed_schema import ParsedSchema, Reference, SchemaType


class ProtobufSchema(ParsedSchema):
    """A parsed schema of type PROTOBUF."""

    type: ClassVar[SchemaType] = SchemaType.PROTOBUF

    @property
    def name(self) -> str | None:
        return None

    def normalized(self) -> ProtobufSchema:
        return self


def parse_protobuf(
    text: str, references: Iterable[Reference] = (), resolved: Mapping[str, str] | None = None, *, strict: bool = False
) -> ProtobufSchema:
    """Parse and check `text`."""
    return ProtobufSchema(text, references, resolved)
