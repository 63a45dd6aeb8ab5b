"""JSON Schema: whether what is valid by a writer's schema is valid by a reader's, as Confluent's registry decides.

`shapes` reads a schema as the typed nodes the rules speak of, `comparison` walks two of them, `kinds` says what each
difference means. Some keywords do not count there: contains (before 2019-09), propertyNames, patternProperties of the
same content model, if/then/else, format, and required properties that are not described.
"""

from __future__ import annotations

from millstream.schemas.compat.incompatibility import Incompatibility
from millstream.schemas.compat.json_schema.comparison import differences
from millstream.schemas.compat.json_schema.facets import Difference
from millstream.schemas.compat.json_schema.kinds import COMPATIBLE_KINDS, sentence
from millstream.schemas.parsing.json_schema import JsonSchema

__all__ = ["COMPATIBLE_KINDS", "Difference", "differences", "json_schema_incompatibilities"]


def json_schema_incompatibilities(
    reader: JsonSchema, writer: JsonSchema, reader_is: str, writer_is: str
) -> list[Incompatibility]:
    """Return why `reader` refuses some of what `writer` allows; empty where it takes all of it."""
    if reader.text == writer.text and reader.resolved == writer.resolved:
        return []
    return [
        Incompatibility(kind, path, sentence(kind, reader_is, writer_is))
        for kind, path in differences(writer, reader)
        if kind not in COMPATIBLE_KINDS
    ]
