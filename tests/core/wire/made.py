"""Messages made by Hypothesis from the declarations: every field of every version, with values other than defaults."""

from __future__ import annotations

from typing import Any, Final

from hypothesis import strategies as st

from millstream.core.wire import ErrorCode, Message
from millstream.core.wire.fields import Field

RANGES: Final = {
    "int8": (-(2**7), 2**7 - 1),
    "int16": (-(2**15), 2**15 - 1),
    "uint16": (0, 2**16 - 1),
    "int32": (-(2**31), 2**31 - 1),
    "uint32": (0, 2**32 - 1),
    "int64": (-(2**63), 2**63 - 1),
}
# Instants, which kio turns into datetimes by way of a float: up to where that is exact to the millisecond.
INSTANT_MS_MAX: Final = 2**41
# Spans of time as int64, which kio turns into timedeltas.
SPANS: Final = {"retention_time_ms", "session_lifetime_ms"}
SPAN_MS_MAX: Final = 2**46
INSTANTS: Final = {"log_append_time_ms", "max_timestamp", "last_timestamp", "timestamp", "commit_timestamp"}
ERRORS: Final = sorted(code for code in ErrorCode if code is not ErrorCode.NONE)

# Lengths on both sides of one varint byte, and of the longest array that has a Struct of its own.
texts = st.one_of(st.text(min_size=1, max_size=6), st.sampled_from(["é" * 70, "a" * 126, "b" * 127, "c" * 128]))
blobs = st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from([b"\0" * 127, b"\xff" * 3000]))
LIST_SIZES: Final = [1, 2, 3, 12, 13]
LONG_LIST_SIZES: Final = [126, 127, 130]


def messages(cls: type[Message], *, full: bool) -> st.SearchStrategy[Message]:
    """Messages of a class with all fields of all versions.

    `full` ones have no default, no null and no empty array in them; the others have some.
    """
    return st.fixed_dictionaries({field.name: _values(field, full=full) for field in cls.__wire__.fields}).map(
        lambda values: cls(**values)
    )


def _values(field: Field, *, full: bool) -> st.SearchStrategy[Any]:
    if field.kind == "struct":
        # Below the top everything is set: a tagged struct of defaults only is not sent by some peers.
        element: st.SearchStrategy[Any] = messages(field.struct_class(), full=full or field.tag is not None)
    else:
        element = _scalars(field)
    made = element
    if field.is_array:
        sizes = [1, 2] if field.kind == "struct" else LIST_SIZES
        if field.kind.startswith("int"):
            sizes = [*sizes, *LONG_LIST_SIZES]
        made = st.sampled_from(sizes).flatmap(lambda size: st.lists(element, min_size=size, max_size=size))
    if full:
        return made
    others = [made]
    if field.is_array:
        others.append(st.builds(list))
    if field.nullable.last >= 0:
        others.append(st.none())
    if field.factory is None:
        others.append(st.just(field.default))
    return st.one_of(*others)


def _scalars(field: Field) -> st.SearchStrategy[Any]:
    default = None if field.is_array else field.default
    if field.kind == "bool":
        return st.just(not default) if not field.is_array else st.booleans()
    if field.kind == "str":
        return texts
    if field.kind in ("bytes", "record_bytes"):
        return blobs
    if field.kind == "float64":
        return st.floats(allow_nan=False).filter(lambda value: value != default)
    if field.kind == "uuid":
        return st.binary(min_size=16, max_size=16).filter(any)
    if field.name.endswith("error_code"):
        return st.sampled_from(ERRORS)
    low, high = RANGES[field.kind]
    if field.name in INSTANTS:
        low, high = 1, INSTANT_MS_MAX
    if field.name in SPANS:
        low, high = 0, SPAN_MS_MAX
    return st.integers(low, high).filter(lambda value: value != default)


def in_version(message: Message, version: int) -> Message:
    """What a message keeps in a version: defaults for fields it does not have, no null where it allows none."""
    cls = message.__class__
    kept: dict[str, Any] = {}
    for field in cls.__wire__.fields:
        if version not in field.versions:
            continue
        value = getattr(message, field.name)
        if value is None and version not in field.nullable:
            value = [] if field.is_array else {"str": "", "bytes": b"", "record_bytes": b""}[field.kind]
        elif field.kind == "struct" and value is not None:
            value = [in_version(item, version) for item in value] if field.is_array else in_version(value, version)
        kept[field.name] = value
    return cls(**kept)


def small(cls: type[Message]) -> Message:
    """One message with a value other than the default in every field, and one element in every array."""
    return cls(**{field.name: _small_value(field) for field in cls.__wire__.fields})


def _small_value(field: Field) -> Any:
    if field.kind == "struct":
        value: Any = small(field.struct_class())
    elif field.kind == "bool":
        value = not field.default
    elif field.kind in RANGES:
        value = 7
    elif field.kind == "float64":
        value = 0.5
    else:
        value = {"str": "x", "bytes": b"y", "record_bytes": b"z", "uuid": bytes(range(16))}[field.kind]
    return [value] if field.is_array else value
