"""The kinds of differences between two JSON Schemas, by Confluent's names, and what each means to a reader.

A difference is named for what happened from the writer's schema to the reader's: MAX_LENGTH_ADDED is a maxLength that
the reader's schema has and the writer's has not. What is not in COMPATIBLE_KINDS makes the schemas incompatible.
"""

from __future__ import annotations

from typing import Final

COMPATIBLE_KINDS: Final = frozenset(
    [
        "ID_CHANGED",
        "DESCRIPTION_CHANGED",
        "TITLE_CHANGED",
        "DEFAULT_CHANGED",
        "SCHEMA_REMOVED",
        "TYPE_EXTENDED",
        "MAX_LENGTH_INCREASED",
        "MAX_LENGTH_REMOVED",
        "MIN_LENGTH_DECREASED",
        "MIN_LENGTH_REMOVED",
        "PATTERN_REMOVED",
        "MAXIMUM_INCREASED",
        "MAXIMUM_REMOVED",
        "MINIMUM_DECREASED",
        "MINIMUM_REMOVED",
        "EXCLUSIVE_MAXIMUM_INCREASED",
        "EXCLUSIVE_MAXIMUM_REMOVED",
        "EXCLUSIVE_MINIMUM_DECREASED",
        "EXCLUSIVE_MINIMUM_REMOVED",
        "MULTIPLE_OF_REDUCED",
        "MULTIPLE_OF_REMOVED",
        "REQUIRED_ATTRIBUTE_WITH_DEFAULT_ADDED",
        "REQUIRED_ATTRIBUTE_REMOVED",
        "DEPENDENCY_ARRAY_NARROWED",
        "DEPENDENCY_ARRAY_REMOVED",
        "DEPENDENCY_SCHEMA_REMOVED",
        "MAX_PROPERTIES_INCREASED",
        "MAX_PROPERTIES_REMOVED",
        "MIN_PROPERTIES_DECREASED",
        "MIN_PROPERTIES_REMOVED",
        "ADDITIONAL_PROPERTIES_ADDED",
        "ADDITIONAL_PROPERTIES_EXTENDED",
        "UNEVALUATED_PROPERTIES_ADDED",
        "UNEVALUATED_PROPERTIES_EXTENDED",
        "PROPERTY_WITH_EMPTY_SCHEMA_ADDED_TO_OPEN_CONTENT_MODEL",
        "REQUIRED_PROPERTY_WITH_DEFAULT_ADDED_TO_UNOPEN_CONTENT_MODEL",
        "OPTIONAL_PROPERTY_ADDED_TO_UNOPEN_CONTENT_MODEL",
        "PROPERTY_WITH_FALSE_REMOVED_FROM_CLOSED_CONTENT_MODEL",
        "PROPERTY_REMOVED_FROM_OPEN_CONTENT_MODEL",
        "PROPERTY_ADDED_IS_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL",
        "PROPERTY_REMOVED_IS_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL",
        "MAX_ITEMS_INCREASED",
        "MAX_ITEMS_REMOVED",
        "MIN_ITEMS_DECREASED",
        "MIN_ITEMS_REMOVED",
        "MAX_CONTAINS_INCREASED",
        "MAX_CONTAINS_REMOVED",
        "MIN_CONTAINS_DECREASED",
        "MIN_CONTAINS_REMOVED",
        "UNIQUE_ITEMS_REMOVED",
        "ADDITIONAL_ITEMS_ADDED",
        "ADDITIONAL_ITEMS_EXTENDED",
        "UNEVALUATED_ITEMS_ADDED",
        "UNEVALUATED_ITEMS_EXTENDED",
        "ITEM_WITH_EMPTY_SCHEMA_ADDED_TO_OPEN_CONTENT_MODEL",
        "ITEM_ADDED_TO_CLOSED_CONTENT_MODEL",
        "ITEM_WITH_FALSE_REMOVED_FROM_CLOSED_CONTENT_MODEL",
        "ITEM_REMOVED_FROM_OPEN_CONTENT_MODEL",
        "ITEM_ADDED_IS_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL",
        "ITEM_REMOVED_IS_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL",
        "ENUM_ARRAY_EXTENDED",
        "COMBINED_TYPE_EXTENDED",
        "PRODUCT_TYPE_NARROWED",
        "SUM_TYPE_EXTENDED",
        "NOT_TYPE_NARROWED",
    ]
)

# What is wrong, and what helps; {reader} and {writer} are what the two schemas are called.
_OPEN: Final = (
    "the {reader} schema describes what the {writer} one leaves open to any value; remove it, or give it the schema"
    " true, or close the content model (additionalProperties: false) in a version before"
)
_SENTENCES: Final[dict[str, str]] = {
    "SCHEMA_ADDED": "the {reader} schema describes what the {writer} one does not; remove it",
    "TYPE_CHANGED": "the type differs between the {reader} and the {writer} schema; keep it, or allow both by anyOf",
    "TYPE_NARROWED": "the {reader} schema wants an integer where the {writer} one allows any number; allow numbers",
    "REQUIRED_ATTRIBUTE_ADDED": (
        "the {reader} schema requires the property, which the {writer} one leaves out; make it optional, or give it a"
        " default"
    ),
    "REQUIRED_PROPERTY_ADDED_TO_UNOPEN_CONTENT_MODEL": (
        "the {reader} schema requires a property that the {writer} one does not know; make it optional, or give it a"
        " default"
    ),
    "REQUIRED_PROPERTY_ADDED_TO_OPEN_CONTENT_MODEL": _OPEN,
    "REQUIRED_PROPERTY_WITH_DEFAULT_ADDED_TO_OPEN_CONTENT_MODEL": _OPEN,
    "OPTIONAL_PROPERTY_ADDED_TO_OPEN_CONTENT_MODEL": _OPEN,
    "ITEM_ADDED_TO_OPEN_CONTENT_MODEL": _OPEN.replace("additionalProperties: false", "no further items"),
    "PROPERTY_REMOVED_FROM_CLOSED_CONTENT_MODEL": (
        "the {reader} schema allows no properties but its own and lacks one of the {writer} schema; keep it, or allow"
        " additionalProperties"
    ),
    "ITEM_REMOVED_FROM_CLOSED_CONTENT_MODEL": (
        "the {reader} schema allows no items but its own and lacks one of the {writer} schema; keep it, or allow more"
    ),
    "PROPERTY_REMOVED_NOT_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL": (
        "the {reader} schema lacks a property of the {writer} one, and what it allows of others does not take it; keep"
        " it, or widen additionalProperties"
    ),
    "ITEM_REMOVED_NOT_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL": (
        "the {reader} schema lacks an item of the {writer} one, and what it allows of others does not take it; keep it,"
        " or widen what further items may be"
    ),
    "PROPERTY_ADDED_NOT_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL": (
        "the {reader} schema has a property that does not take all the {writer} one allows under its name; widen it"
    ),
    "ITEM_ADDED_NOT_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL": (
        "the {reader} schema has an item that does not take all the {writer} one allows there; widen it"
    ),
    "ENUM_ARRAY_NARROWED": "the {reader} schema lacks values that the {writer} one has; keep them",
    "ENUM_ARRAY_CHANGED": "the values of the {reader} schema are not those of the {writer} one; keep these, only add",
    "COMBINED_TYPE_CHANGED": (
        "allOf, anyOf or oneOf of the {writer} schema is another in the {reader} one; keep it, or go over to anyOf"
    ),
    "COMBINED_TYPE_SUBSCHEMAS_CHANGED": (
        "the {reader} schema has no place for each alternative of the {writer} one; keep every alternative, or widen it"
    ),
    "PRODUCT_TYPE_EXTENDED": "the {reader} schema wants more by allOf than the {writer} one does; remove what is new",
    "SUM_TYPE_NARROWED": "the {reader} schema lacks alternatives that the {writer} one has; keep them",
    "NOT_TYPE_EXTENDED": "the {reader} schema forbids by `not` more than the {writer} one does; forbid no more",
    "MULTIPLE_OF_EXPANDED": "multipleOf is larger in the {reader} schema than in the {writer} one; use a divisor of it",
    "MULTIPLE_OF_CHANGED": "multipleOf of the {reader} schema does not divide that of the {writer} one; use a divisor",
    "PATTERN_CHANGED": "the pattern differs between the {reader} and the {writer} schema; keep it, or remove it",
    "DEPENDENCY_ARRAY_EXTENDED": "a property of the {reader} schema depends on more than in the {writer} one; not more",
    "DEPENDENCY_ARRAY_CHANGED": "a property of the {reader} schema depends on others than in the {writer} one; keep it",
    "UNRESOLVED_REFERENCE": "a $ref leads to what is not at hand; register it, and name it among the references",
    "TOO_MANY_COMPARISONS": "the schemas have too many parts to be compared; split them up",
}
_BY_ENDING: Final = (
    ("_ADDED", "the {reader} schema has a restriction here that the {writer} one does not have; remove it"),
    ("_REMOVED", "the {reader} schema allows nothing more here, the {writer} one does; allow it"),
    ("_NARROWED", "the {reader} schema allows less here than the {writer} one; allow as much"),
    ("_INCREASED", "the lower bound is higher in the {reader} schema than in the {writer} one; do not raise it"),
    ("_DECREASED", "the upper bound is lower in the {reader} schema than in the {writer} one; do not lower it"),
)


def sentence(kind: str, reader_is: str, writer_is: str) -> str:
    """Return what an incompatible difference means, and what helps."""
    template = _SENTENCES.get(kind) or next(text for ending, text in _BY_ENDING if kind.endswith(ending))
    return template.format(reader=reader_is, writer=writer_is)
