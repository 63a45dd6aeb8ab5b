"""A codec's source under construction: its lines, the field that each line is about, and the names it uses."""

from __future__ import annotations

import linecache
import struct
from collections.abc import Sequence
from itertools import count
from typing import Any, Final

from millstream.core.wire import runtime
from millstream.core.wire.errors import WireError
from millstream.core.wire.fields import SCALARS, Field, Message

_INDENT: Final = "    "

# What generated code meets in malformed bytes, and in fields that hold what can't be encoded.
_FAULTS: Final = (struct.error, IndexError, ValueError, AttributeError, TypeError, OverflowError)


class Source:
    """One generated function. `add` takes a line and the path of its field, such as FetchResponse.responses[].topic."""

    def __init__(self, cls: type[Message], version: int) -> None:
        self.cls = cls
        self.version = version
        self.flexible = version in cls.__wire__.flexible
        self.lines: list[str] = []
        self.labels: list[str] = []
        self.depth = 0
        self.names: dict[str, Any] = {
            "unsigned_varint": runtime.unsigned_varint,
            "varint_bytes": runtime.varint_bytes,
            "skip_tags": runtime.skip_tags,
            "overrun": runtime.overrun,
            "overcount": runtime.overcount,
            "overcrowded": runtime.overcrowded,
            "bad_null": runtime.bad_null,
            "bad_uuid": runtime.bad_uuid,
            "split": runtime.split,
            "VARINTS": runtime.ONE_BYTE_VARINTS,
            "ONCE": (None,),
            "new": object.__new__,
            "join": b"".join,
            "FAULTS": _FAULTS,
        }
        self._numbers = count()

    def number(self) -> int:
        """A number that no other variable of the function has."""
        return next(self._numbers)

    def add(self, line: str, label: str) -> None:
        """Add a line at the current depth."""
        self.lines.append(_INDENT * self.depth + line)
        self.labels.append(label)

    def constant(self, prefix: str, value: object) -> str:
        """Name `value` in the function's globals."""
        for name, known in self.names.items():
            if known is value:
                return name
        name = f"{prefix}{len(self.names)}"
        self.names[name] = value
        return name

    def structure(self, method: str, letters: str) -> str:
        """Name the `pack` or `unpack_from` of a Struct."""
        name = f"{method}_{letters}".replace("?", "bool_")
        if name not in self.names:
            self.names[name] = getattr(struct.Struct(">" + letters), method)
        return name

    def compile(self, head: str, *, before: Sequence[str], first: Sequence[str], last: str, position: str) -> Any:
        """Compile the function: `before`, and in one `try` `first`, the lines and `last`.

        `position` is the expression for how far it got, where that means something.
        """
        kind = head[len("def ") : head.index("(")]
        above = [head, *(_INDENT + line for line in before), _INDENT + "try:", *(_INDENT * 2 + line for line in first)]
        lines = [
            *above,
            *(_INDENT * 2 + line for line in self.lines),
            _INDENT * 2 + last,
            _INDENT + "except FAULTS as error:",
            _INDENT * 2 + f"raise fault(error, {position}) from error",
        ]
        file = f"<wire {self.cls.__name__} v{self.version} {kind}>"
        text = "\n".join(lines) + "\n"
        linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)  # tracebacks show the source
        scope = self.names | {"fault": self._fault(len(above))}
        exec(compile(text, file, "exec"), scope)  # noqa: S102  made from our own declarations only
        return scope[kind]

    def _fault(self, above: int) -> Any:
        """What makes the WireError: the line that raised tells the field."""
        labels, name, version = tuple(self.labels), self.cls.__name__, self.version

        def fault(error: Exception, position: int | None) -> WireError:
            line = error.__traceback__.tb_lineno - above - 1 if error.__traceback__ else -1
            label = labels[line] if 0 <= line < len(labels) else name
            reason = str(error) or error.__class__.__name__
            if position is None:
                return WireError(f"{label} can't be encoded in version {version}: {reason}")
            return WireError(f"{label} (version {version}) at byte {position}: {reason}")

        return fault


def run_label(labels: Sequence[str]) -> str:
    """What to call several neighbouring fields that one line reads or writes."""
    return labels[0] if len(labels) == 1 else f"{labels[0]} to {labels[-1].rpartition('.')[2]}"


def present(cls: type[Message], version: int) -> list[Field]:
    """The fields that a version lays out in order; tagged ones come behind them."""
    return [field for field in cls.__wire__.fields if field.tag is None and version in field.versions]


def tagged(cls: type[Message], version: int) -> list[Field]:
    """The tagged fields of a version in the order of their tags."""
    return [field for field in cls.__wire__.tagged if version in field.versions]


def element_size_min(field: Field, version: int, *, flexible: bool) -> int:
    """The fewest bytes that an array's element, or a field that is no array, takes; it bounds the counts of arrays."""
    if field.kind == "struct":
        return _struct_size_min(field.struct_class(), version, flexible=flexible)
    if field.kind in SCALARS:
        return SCALARS[field.kind][1]
    if flexible:
        return 1
    return 2 if field.kind == "str" else 4


def _struct_size_min(cls: type[Message], version: int, *, flexible: bool) -> int:
    size = 1 if flexible else 0
    for field in present(cls, version):
        if field.is_array:
            size += 1 if flexible else 4
        elif field.kind == "struct" and version in field.nullable:
            size += 1
        else:
            size += element_size_min(field, version, flexible=flexible)
    return size
