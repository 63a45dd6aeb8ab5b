"""What every parsed schema offers, whatever its type, and the way to one: `parse`.

Identity is (type, text, references), as Confluent's registry identifies schemas: two texts that differ in white space
are one schema since `text` is canonical for its type; two that differ in a doc string are two.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import ClassVar, Final, NamedTuple

SCHEMA_SIZE_BYTES_MAX: Final = 4 * 1024 * 1024
"""The most characters a schema may have together with what it refers to: a broker's largest record is 1 MB."""

NESTING_DEPTH_MAX: Final = 200
"""How deep a schema may nest: each level costs frames of the interpreter's stack, which must never run out."""


class SchemaType(StrEnum):
    """The schema types of Confluent's registry, by the names its REST interface uses."""

    AVRO = "AVRO"
    JSON = "JSON"
    PROTOBUF = "PROTOBUF"


class Reference(NamedTuple):
    """A schema another one uses: the name it is used by, and the subject and version where it lies."""

    name: str
    subject: str
    version: int


class InvalidSchemaError(ValueError):
    """The text is no valid schema of its type; the message says what is wrong, and where."""


class ParsedSchema(ABC):
    """A valid schema: its canonical text, its references, and what its type knows about it. Immutable."""

    type: ClassVar[SchemaType]

    def __init__(self, text: str, references: Iterable[Reference] = (), resolved: Mapping[str, str] | None = None):
        if len(text) > SCHEMA_SIZE_BYTES_MAX:
            # What is stored must be taken again.
            raise InvalidSchemaError(f"the canonical text has {len(text)} characters, over {SCHEMA_SIZE_BYTES_MAX}")
        self._text = text
        self.references = tuple(references)
        self.resolved: Mapping[str, str] = dict(resolved or {})

    @property
    def text(self) -> str:
        """The canonical text, as Confluent's registry stores and returns it for this type."""
        return self._text

    @property
    @abstractmethod
    def name(self) -> str | None:
        """The full name of the record or first message (JSON Schema: the title), None where there is none."""

    def formatted(self, form: str) -> str:
        """Return the text in another form a registry may be asked for; `text` for those that a type does not know.

        Avro knows `resolved`, the references written out; Protobuf `serialized`, the file's descriptor in base64.
        """
        del form
        return self._text

    @abstractmethod
    def normalized(self) -> ParsedSchema:
        """The schema in the form that equal ones share, as Confluent's `normalize=true` makes it."""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ParsedSchema):
            return NotImplemented
        return (self.type, self.text, self.references) == (other.type, other.text, other.references)

    def __hash__(self) -> int:
        return hash((self.type, self.text, self.references))

    def __repr__(self) -> str:
        return f"<{self.type} schema {self.name or ''} {self.text[:60]!r}>"


def parse(
    schema_type: SchemaType | str,
    text: str,
    references: Iterable[Reference] = (),
    resolved: Mapping[str, str] | None = None,
    *,
    strict: bool = False,
) -> ParsedSchema:
    """Parse and check `text`; `resolved` holds the text of every reference by name, those of references included.

    `strict` is for schemas that are new: it refuses what older registries took and can't be undone there (in Avro
    defaults that don't fit their fields, names beyond ASCII). What a registry holds is parsed without.

    Raises InvalidSchemaError for what is no valid schema of that type, over the bounds, or refers to what isn't given.
    """
    try:
        schema_type = SchemaType(schema_type)
    except ValueError:
        known = ", ".join(SchemaType)
        raise InvalidSchemaError(f"{schema_type!r} is no schema type; known are {known}") from None
    if schema_type is SchemaType.AVRO:
        from millstream.schemas.parsing.avro import parse_avro

        return parse_avro(text, references, resolved, strict=strict)
    if schema_type is SchemaType.JSON:
        from millstream.schemas.parsing.json_schema import parse_json_schema

        return parse_json_schema(text, references, resolved, strict=strict)
    from millstream.schemas.parsing.protobuf import parse_protobuf

    return parse_protobuf(text, references, resolved, strict=strict)
