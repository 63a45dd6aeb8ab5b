"""Codecs made on first use: Python source for one class, one version and one direction, compiled with `exec`.

What the source does, and why it is fast enough in plain Python:

- Neighbouring fields of fixed width are one `struct` call. The length of what follows them rides along: a compact
  length is read as the one byte it nearly always is, and only a byte over 127 goes on to `unsigned_varint`.
- Nested structs and arrays are loops in the same function: no call per field, no constructor per object.
- Arrays of integers are packed together with the fields around them, by a Struct chosen by their lengths.
- Record bytes are never copied: decoding gives views of the frame, encoding hands them to one final join, or leaves
  them as parts of their own (`encode_parts`).

Every length and count is held against the bytes present before anything is allocated for it. What is malformed ends
in a WireError that names the field and the position: a table from the generated lines to the fields makes that free
until it happens.
"""

from __future__ import annotations

import linecache
import struct
from collections.abc import Callable, Sequence
from functools import cache
from itertools import count
from typing import Any, Final, Protocol, TypeAlias, TypeVar

from millstream.core.wire.errors import WireError
from millstream.core.wire.fields import SCALARS, Field, Message, Versions

M = TypeVar("M")
M_co = TypeVar("M_co", covariant=True)
Buffer: TypeAlias = bytes | bytearray | memoryview

# Record bytes from this size on stay a part of their own in `encode_parts`; a smaller copy is cheaper than a part.
PART_SIZE_BYTES_MIN: Final = 2048
# Arrays of integers up to this length have a Struct made for their length, and kept.
_PACKED_LENGTH_MAX: Final = 12

_ONE_BYTE_VARINT_MAX: Final = 0x7F
_INDENT: Final = "    "
# What generated code may meet in malformed bytes or in fields that hold what can't be encoded.
_FAULTS: Final = (struct.error, IndexError, ValueError, AttributeError, TypeError, OverflowError)


class Decoder(Protocol[M_co]):
    """Reads one message at `position`; returns it with the position behind it."""

    def __call__(self, data: Buffer, position: int = 0, /) -> tuple[M_co, int]: ...


Encoder: TypeAlias = Callable[..., bytes]
PartsEncoder: TypeAlias = Callable[..., "list[Buffer]"]


# ---- what generated code calls


def unsigned_varint(data: Buffer, position: int) -> tuple[int, int]:
    """Read an unsigned varint of at most five bytes; returns it with the position behind it."""
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte <= _ONE_BYTE_VARINT_MAX:
            if value >= 1 << 32:
                raise ValueError(f"the varint {value} has more than 32 bits")
            return value, position
        shift += 7
        if shift > 28:
            raise ValueError("the varint is longer than five bytes")


def varint_bytes(value: int) -> bytes:
    """An unsigned varint."""
    if value < 0:
        raise ValueError(f"{value} is no unsigned number")
    out = bytearray()
    while value > _ONE_BYTE_VARINT_MAX:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def skip_tags(data: Buffer, position: int, end: int) -> int:
    """Return the position behind a section of tagged fields none of which is known (KIP-482)."""
    number, position = unsigned_varint(data, position)
    for _ in range(number):
        _, position = unsigned_varint(data, position)
        size, position = unsigned_varint(data, position)
        if size > end - position:
            raise _overrun(size, end - position)
        position += size
    return position


def _overrun(size: int, present: int) -> ValueError:
    return ValueError(f"a length of {size} bytes leaves the {max(present, 0)} that are there")


def _overcount(number: int, present: int) -> ValueError:
    return ValueError(f"a count of {number} can't be in the {max(present, 0)} bytes that are there")


def _bad_null() -> ValueError:
    return ValueError("is null, which this version does not allow")


class _ArrayUnpackers(dict[int, Callable[[Buffer, int], tuple[Any, ...]]]):
    """Length of an array of scalars -> what unpacks it; kept for short arrays only."""

    def __init__(self, letter: str) -> None:
        self._letter = letter

    def __missing__(self, length: int) -> Callable[[Buffer, int], tuple[Any, ...]]:
        unpack = struct.Struct(">" + self._letter * length).unpack_from
        if length <= _PACKED_LENGTH_MAX:
            self[length] = unpack
        return unpack


class _RunPackers(dict[Any, Callable[..., bytes]]):
    """Lengths of the arrays in a run of fields -> what packs the run; kept for short arrays only.

    `formats` is the run's struct letters around the arrays, one item more than there are arrays; each array's count is
    the last letter of the item before it.
    """

    def __init__(self, formats: Sequence[str], letters: Sequence[str], compact: bool) -> None:
        self._formats, self._letters, self._compact = formats, letters, compact

    def __missing__(self, key: Any) -> Callable[..., bytes]:
        lengths = key if isinstance(key, tuple) else (key,)
        if max(lengths) > _PACKED_LENGTH_MAX:
            return self._packer_of_long(lengths)
        whole = self._formats[0]
        for length, letter, after in zip(lengths, self._letters, self._formats[1:], strict=True):
            whole += letter * length + after
        packer = self[key] = struct.Struct(">" + whole).pack
        return packer

    def _packer_of_long(self, lengths: Sequence[int]) -> Callable[..., bytes]:
        """Pack piece by piece: here a count may take more than one byte, which no struct letter says."""

        def pack(*values: Any) -> bytes:
            parts, start = [], 0
            for index, head in enumerate(self._formats):
                letters = ">" + (head[:-1] if self._compact and index < len(lengths) else head)
                used = sum(letter != "x" for letter in letters) - 1 - letters.count("16s") * 2
                parts.append(struct.pack(letters, *values[start : start + used]))
                start += used
                if index == len(lengths):
                    break
                if self._compact:
                    parts.append(varint_bytes(values[start]))
                    start += 1
                length = lengths[index]
                parts.append(struct.pack(f">{length}{self._letters[index]}", *values[start : start + length]))
                start += length
            return b"".join(parts)

        return pack


def _split(out: list[Buffer], large: list[int]) -> list[Buffer]:
    """Join what lies between the parts at the indexes in `large`."""
    parts: list[Buffer] = []
    start = 0
    for index in large:
        parts.append(b"".join(out[start:index]))
        parts.append(out[index])
        start = index + 1
    if start < len(out):
        parts.append(b"".join(out[start:]))
    return parts


_ARRAY_UNPACKERS: Final = {letter: _ArrayUnpackers(letter) for letter, _ in SCALARS.values()}
_ONE_BYTE_VARINTS: Final = tuple(bytes([value]) for value in range(_ONE_BYTE_VARINT_MAX + 1))


# ---- source under construction


class _Source:
    """Lines of one function, the field each line is about, and the constants it uses."""

    def __init__(self, cls: type[Message], version: int) -> None:
        self.cls = cls
        self.version = version
        self.flexible = version in cls.__wire__.flexible
        self.lines: list[str] = []
        self.fields: list[str] = []
        self.depth = 1
        self.names: dict[str, Any] = {
            "unsigned_varint": unsigned_varint,
            "varint_bytes": varint_bytes,
            "skip_tags": skip_tags,
            "overrun": _overrun,
            "overcount": _overcount,
            "bad_null": _bad_null,
            "split": _split,
            "VARINTS": _ONE_BYTE_VARINTS,
            "new": object.__new__,
            "join": b"".join,
            "FAULTS": _FAULTS,
        }
        self._numbers = count()

    def number(self) -> int:
        """A number that no other variable of the function has."""
        return next(self._numbers)

    def add(self, line: str, label: str) -> None:
        self.lines.append(_INDENT * self.depth + line)
        self.fields.append(label)

    def constant(self, prefix: str, value: object) -> str:
        """Give `value` a name in the function's globals."""
        for name, known in self.names.items():
            if known is value:
                return name
        name = f"{prefix}{len(self.names)}"
        self.names[name] = value
        return name

    def structure(self, method: str, letters: str) -> str:
        """Name `pack` or `unpack_from` of a Struct."""
        name = f"{method}_{letters}".replace("?", "bool_")
        if name not in self.names:
            self.names[name] = getattr(struct.Struct(">" + letters), method)
        return name

    def compile(self, kind: str, head: str, first: Sequence[str], last: Sequence[str]) -> Any:
        """Compile the lines as the body of `head`, between `first` and `last`, all in one try."""
        before = [head, "    try:", *(_INDENT * 2 + line for line in first)]
        body = [_INDENT + line for line in self.lines]
        after = [_INDENT * 2 + line for line in last]
        handler = [
            "    except FAULTS as error:",
            f"        raise fault(error, {'p' if kind == 'decode' else None}) from error",
        ]
        lines = [*before, *body, *after, *handler]
        name = f"<wire {self.cls.__name__} v{self.version} {kind}>"
        label = dict(enumerate(self.fields, len(before) + 1))
        cls_name, version = self.cls.__name__, self.version

        def fault(error: Exception, position: int | None) -> WireError:
            line = error.__traceback__.tb_lineno if error.__traceback__ else 0
            what = label.get(line, cls_name)
            reason = str(error) or error.__class__.__name__
            if position is None:
                return WireError(f"{what} can't be encoded in version {version}: {reason}")
            return WireError(f"{what} (version {version}) at byte {position}: {reason}")

        text = "\n".join(lines) + "\n"
        # So that a traceback or a debugger shows the source.
        linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
        scope = self.names | {"fault": fault}
        exec(compile(text, name, "exec"), scope)  # noqa: S102  made from our own declarations only
        return scope[kind]


def _present(cls: type[Message], version: int) -> list[Field]:
    """The fields that are laid out in order in a version; tagged ones come behind."""
    return [field for field in cls.__wire__.fields if field.tag is None and version in field.versions]


def _tagged(cls: type[Message], version: int) -> list[Field]:
    return [field for field in cls.__wire__.tagged if version in field.versions]


def _size_min(cls: type[Message], version: int, flexible: bool) -> int:
    """The fewest bytes a struct takes; it bounds the counts of arrays."""
    size = 1 if flexible else 0
    for field in _present(cls, version):
        size += _field_size_min(field, version, flexible)
    return size


def _field_size_min(field: Field, version: int, flexible: bool, *, element: bool = False) -> int:
    if field.is_array and not element:
        return 1 if flexible else 4
    if field.kind == "struct":
        if version in field.nullable and not element:
            return 1
        return _size_min(field.struct_class(), version, flexible)
    if field.kind in SCALARS:
        return SCALARS[field.kind][1]
    if flexible:
        return 1
    return 2 if field.kind == "str" else 4


# ---- decoding


class _DecodeSource(_Source):
    """Builds `decode(data, p)`. `run` holds fields of fixed width that one unpack will fill."""

    def __init__(self, cls: type[Message], version: int, *, view: bool) -> None:
        super().__init__(cls, version)
        self.view = view
        self.run: list[tuple[str, str, str]] = []

    def text(self, start: str, end: str) -> str:
        return f'str(data[{start}:{end}], "utf-8")' if self.view else f"data[{start}:{end}].decode()"

    def flush(self) -> None:
        if not self.run:
            return
        letters = "".join(letter for letter, _, _ in self.run)
        targets = [target for _, target, _ in self.run]
        label = self.run[0][2] if len(self.run) == 1 else f"{self.run[0][2]} .. {self.run[-1][2].rsplit('.')[-1]}"
        if letters in ("B", "?"):
            self.add(f"{targets[0]} = data[p]" + (" != 0" if letters == "?" else ""), label)
        else:
            left = targets[0] + "," if len(targets) == 1 else ", ".join(targets)
            self.add(f"{left} = {self.structure('unpack_from', letters)}(data, p)", label)
        self.add(f"p += {struct.calcsize('>' + letters)}", label)
        self.run.clear()

    def read(self, letter: str, target: str, label: str) -> None:
        self.run.append((letter, target, label))

    def length(self, letter: str, label: str, *, flexible: bool) -> str:
        """Read a length or count with the run before it; a compact one is still one more than it says."""
        name = f"n{self.number()}"
        self.read("B" if flexible else letter, name, label)
        self.flush()
        if flexible:
            self.add(f"if {name} > 127: {name}, p = unsigned_varint(data, p - 1)", label)
        return name

    def struct(self, cls: type[Message], target: str, path: str) -> None:
        """Make an object of `cls` in the variable `target` and fill it."""
        self.add(f"{target} = new({self.constant('T', cls)})", path)
        absent = [field for field in cls.__wire__.fields if field.tag is not None or self.version not in field.versions]
        for field in absent:
            value = self.constant("D", field.default) if field.factory is None else "[]"
            if field.factory is not None and field.factory is not list:
                value = f"{self.constant('F', field.factory)}()"
            elif field.factory is None:
                value = repr(field.default)
            self.add(f"{target}.{field.name} = {value}", f"{path}.{field.name}")
        for field in _present(cls, self.version):
            self.field(field, f"{target}.{field.name}", f"{path}.{field.name}")
        if self.flexible:
            self.tags(cls, target, path)
        self.flush()

    def tags(self, cls: type[Message], target: str, path: str) -> None:
        known = _tagged(cls, self.version)
        tags = f"k{self.number()}"
        self.read("B", tags, f"{path} tags")
        self.flush()
        if not known:
            self.add(f"if {tags}: p = skip_tags(data, p - 1, end)", f"{path} tags")
            return
        number = self.number()
        tag, size, stop = f"t{number}", f"s{number}", f"e{number}"
        self.add(f"if {tags}:", path)
        self.depth += 1
        self.add(f"if {tags} > 127: {tags}, p = unsigned_varint(data, p - 1)", f"{path} tags")
        self.add(f"for _ in range({tags}):", path)
        self.depth += 1
        self.add(f"{tag}, p = unsigned_varint(data, p)", f"{path} tags")
        self.add(f"{size}, p = unsigned_varint(data, p)", f"{path} tags")
        self.add(f"{stop} = p + {size}", f"{path} tags")
        self.add(f"if {stop} > end: raise overrun({size}, end - p)", f"{path} tags")
        for field in known:
            label = f"{path}.{field.name}"
            self.add(f"if {tag} == {field.tag}:", label)
            self.depth += 1
            self.field(field, f"{target}.{field.name}", label)
            self.flush()
            self.add(f'if p != {stop}: raise ValueError(f"its {{{size}}} bytes hold something else")', label)
            self.depth -= 1
        self.add(f"p = {stop}", path)
        self.depth -= 2

    def field(self, field: Field, target: str, label: str) -> None:
        nullable = self.version in field.nullable
        if field.is_array:
            self.array(field, target, label, nullable=nullable)
        elif field.kind in SCALARS:
            self.read(SCALARS[field.kind][0], target, label)
        elif field.kind == "struct":
            self.nested(field, target, label, nullable=nullable)
        else:
            self.variable(field.kind, target, label, nullable=nullable)

    def nested(self, field: Field, target: str, label: str, *, nullable: bool) -> None:
        name = f"o{self.number()}"
        if nullable and field.tag is None:
            mark = f"m{self.number()}"
            self.read("b", mark, label)
            self.flush()
            self.add(f"if {mark} < 0: {target} = None", label)
            self.add("else:", label)
            self.depth += 1
            self.struct(field.struct_class(), name, label)
            self.add(f"{target} = {name}", label)
            self.depth -= 1
        else:
            self.flush()
            self.struct(field.struct_class(), name, label)
            self.add(f"{target} = {name}", label)

    def variable(self, kind: str, target: str, label: str, *, nullable: bool) -> None:
        """A string, bytes or record bytes: a length, then so many bytes."""
        size = self.length("h" if kind == "str" else "i", label, flexible=self.flexible)
        stop = f"q{self.number()}"
        value = {"str": self.text("p", stop), "bytes": f"bytes(data[p:{stop}])", "record_bytes": f"view[p:{stop}]"}[
            kind
        ]
        absent = f"{size} == 0" if self.flexible else f"{size} == -1"
        self.add(f"if {absent}: " + (f"{target} = None" if nullable else "raise bad_null()"), label)
        self.add("else:", label)
        self.depth += 1
        self.add(f"{stop} = p + {size}" + (" - 1" if self.flexible else ""), label)
        if self.flexible:
            self.add(f"if {stop} > end: raise overrun({size} - 1, end - p)", label)
        else:
            self.add(f"if {stop} > end or {size} < 0: raise overrun({size}, end - p)", label)
        self.add(f"{target} = {value}", label)
        self.add(f"p = {stop}", label)
        self.depth -= 1

    def array(self, field: Field, target: str, label: str, *, nullable: bool) -> None:
        number = self.length("i", label, flexible=self.flexible)
        one = 1 if self.flexible else 0
        size = _field_size_min(field, self.version, self.flexible, element=True)
        absent = f"{number} == 0" if self.flexible else f"{number} == -1"
        self.add(f"if {absent}: " + (f"{target} = None" if nullable else "raise bad_null()"), label)
        self.add("else:", label)
        self.depth += 1
        if one:
            self.add(f"{number} -= 1", label)
        least = number if size == 1 else f"{number} * {size}"
        negative = "" if one else f" or {number} < 0"
        self.add(f"if {least} > end - p{negative}: raise overcount({number}, end - p)", label)
        if field.kind in SCALARS and field.kind != "uuid":
            letter, width = SCALARS[field.kind]
            unpackers = self.constant("A", _ARRAY_UNPACKERS[letter])
            self.add(f"{target} = list({unpackers}[{number}](data, p))", label)
            self.add(f"p += {number}" + (f" * {width}" if width > 1 else ""), label)
        else:
            self.elements(field, target, label, number)
        self.depth -= 1

    def elements(self, field: Field, target: str, label: str, number: str) -> None:
        """An array read one element at a time."""
        items, item = f"l{self.number()}", f"o{self.number()}"
        self.add(f"{target} = {items} = []", label)
        self.add(f"for _ in range({number}):", label)
        self.depth += 1
        if field.kind == "struct":
            self.struct(field.struct_class(), item, f"{label}[]")
        elif field.kind in SCALARS:
            self.read(SCALARS[field.kind][0], item, f"{label}[]")
            self.flush()
        else:
            self.variable(field.kind, item, f"{label}[]", nullable=False)
        self.add(f"{items}.append({item})", label)
        self.depth -= 1

    def function(self) -> Any:
        self.struct(self.cls, "o", self.cls.__name__)
        first = ["end = len(data)"]
        if any("view[" in line for line in self.lines):
            first.append("view = data" if self.view else "view = memoryview(data)")
        return self.compile("decode", "def decode(data, p=0, /):", first, ["return o, p"])


# ---- encoding


class _EncodeSource(_Source):
    """Builds `encode(o, prefix)`. `run` holds what one pack will write: a letter and the expression for its value.

    A letter of None marks an array of scalars; its expression is the variable that holds it, and its count precedes it.
    """

    def __init__(self, cls: type[Message], version: int, *, parts: bool) -> None:
        super().__init__(cls, version)
        self.parts = parts
        self.out = "out"
        self.run: list[tuple[str | None, str, str, str]] = []

    def write(self, letter: str, expression: str, label: str) -> None:
        self.run.append((letter, expression, label, ""))

    def flush(self) -> None:
        """Write the run by one pack."""
        if not self.run:
            return
        label = self.run[0][2] if len(self.run) == 1 else f"{self.run[0][2]} .. {self.run[-1][2].rsplit('.')[-1]}"
        values = ", ".join(expression for letter, expression, _, _ in self.run if letter != "x")
        arrays = [(expression[1:], letter) for fixed, expression, _, letter in self.run if fixed is None]
        if arrays:
            formats = [""]
            for letter, _, _, _ in self.run:
                if letter is None:
                    formats.append("")
                else:
                    formats[-1] += letter
            packers = _RunPackers(formats, [letter for _, letter in arrays], self.flexible)
            key = ", ".join(name.replace("l", "c", 1) for name, _ in arrays)
            self.add(f"{self.out}.append({self.constant('R', packers)}[{key}]({values}))", label)
        else:
            letters = "".join(letter for letter, _, _, _ in self.run if letter)
            if letters.strip("x"):
                self.add(f"{self.out}.append({self.structure('pack', letters)}({values}))", label)
            else:
                self.add(f"{self.out}.append({bytes(len(letters))!r})", label)
        self.run.clear()

    def compact(self, value: str, label: str) -> None:
        """Write a varint behind the run: with it where it takes one byte."""
        if not self.run:
            self.add(f"{self.out}.append(VARINTS[{value}] if {value} < 128 else varint_bytes({value}))", label)
            return
        run = list(self.run)
        self.add(f"if {value} < 128:", label)
        self.depth += 1
        self.write("B", value, label)
        self.flush()
        self.depth -= 1
        self.add("else:", label)
        self.depth += 1
        self.run = run
        self.flush()
        self.add(f"{self.out}.append(varint_bytes({value}))", label)
        self.depth -= 1

    def struct(self, cls: type[Message], source: str, path: str) -> None:
        for field in _present(cls, self.version):
            self.field(field, f"{source}.{field.name}", f"{path}.{field.name}")
        if self.flexible:
            self.tags(cls, source, path)

    def tags(self, cls: type[Message], source: str, path: str) -> None:
        known = _tagged(cls, self.version)
        if not known:
            self.write("x", "", f"{path} tags")
            return
        self.flush()
        tags, number = f"w{self.number()}", f"k{self.number()}"
        self.add(f"{number} = 0", path)
        outer = self.out
        for field in known:
            label, value = f"{path}.{field.name}", f"{source}.{field.name}"
            if field.factory is list:
                self.add(f"if {value}:", label)
            elif field.default is None:
                self.add(f"if {value} is not None:", label)
            else:
                self.add(f"if {value} != {field.default!r}:", label)
            self.depth += 1
            self.add(f"if not {number}: {tags} = []", label)
            self.add(f"{number} += 1", label)
            self.out = f"b{self.number()}"
            self.add(f"{self.out} = []", label)
            if field.kind == "struct" and not field.is_array:
                self.struct(field.struct_class(), value, label)
            else:
                self.field(field, value, label)
            self.flush()
            self.add(f"{self.out} = join({self.out})", label)
            self.add(f"{tags} += varint_bytes({field.tag}), varint_bytes(len({self.out})), {self.out}", label)
            self.out = outer
            self.depth -= 1
        self.add(f"{self.out}.append(varint_bytes({number}) if {number} else b'\\0')", path)
        self.add(f"if {number}: {self.out} += {tags}", path)

    def field(self, field: Field, source: str, label: str) -> None:
        nullable = self.version in field.nullable
        if field.is_array:
            self.array(field, source, label, nullable=nullable)
        elif field.kind in SCALARS:
            self.write(SCALARS[field.kind][0], source, label)
        elif field.kind == "struct":
            self.nested(field, source, label, nullable=nullable)
        else:
            self.variable(field.kind, source, label, nullable=nullable)

    def nested(self, field: Field, source: str, label: str, *, nullable: bool) -> None:
        name = f"o{self.number()}"
        self.add(f"{name} = {source}", label)
        if not nullable:
            self.struct(field.struct_class(), name, label)
            return
        self.flush()
        self.add(f"if {name} is None: {self.out}.append(b'\\xff')", label)
        self.add("else:", label)
        self.depth += 1
        self.write("b", "1", label)
        self.struct(field.struct_class(), name, label)
        self.flush()
        self.depth -= 1

    def variable(self, kind: str, source: str, label: str, *, nullable: bool) -> None:
        value, size = f"v{self.number()}", f"n{self.number()}"
        encoded = f"{value} = {source}.encode()" if kind == "str" else f"{value} = {source}"
        one = " + 1" if self.flexible else ""
        if nullable:
            self.add(f"{value} = {source}", label)
            self.add(f"if {value} is None: {value} = b''; {size} = {0 if self.flexible else -1}", label)
            self.add("else:", label)
            self.depth += 1
            if kind == "str":
                self.add(f"{value} = {value}.encode()", label)
            self.add(f"{size} = len({value}){one}", label)
            self.depth -= 1
        else:
            self.add(encoded, label)
            self.add(f"{size} = len({value}){one}", label)
        if self.flexible:
            self.compact(size, label)
        else:
            self.write("h" if kind == "str" else "i", size, label)
            self.flush()
        if kind == "record_bytes" and self.parts:
            self.add(f"if len({value}) >= {PART_SIZE_BYTES_MIN}: large.append(len({self.out}))", label)
        self.add(f"{self.out}.append({value})", label)

    def array(self, field: Field, source: str, label: str, *, nullable: bool) -> None:
        number = self.number()
        items, length = f"l{number}", f"c{number}"
        self.add(f"{items} = {source}", label)
        scalars = field.kind in SCALARS and field.kind != "uuid"
        if nullable:
            self.flush()
            null = "b'\\0'" if self.flexible else "b'\\xff\\xff\\xff\\xff'"
            self.add(f"if {items} is None: {self.out}.append({null})", label)
            self.add("else:", label)
            self.depth += 1
        self.add(f"{length} = len({items})", label)
        if scalars:
            self.write("B" if self.flexible else "i", f"{length} + 1" if self.flexible else length, label)
            self.run.append((None, f"*{items}", label, SCALARS[field.kind][0]))
        else:
            self.elements(field, label, items, length)
        if nullable:
            self.flush()
            self.depth -= 1

    def elements(self, field: Field, label: str, items: str, length: str) -> None:
        """An array written one element at a time."""
        if self.flexible:
            self.add(f"{length} += 1", label)
            self.compact(length, label)
        else:
            self.write("i", length, label)
            self.flush()
        item = f"o{self.number()}"
        self.add(f"for {item} in {items}:", label)
        self.depth += 1
        before = len(self.lines)
        if field.kind == "struct":
            self.struct(field.struct_class(), item, f"{label}[]")
        elif field.kind in SCALARS:
            self.write(SCALARS[field.kind][0], item, f"{label}[]")
        else:
            self.variable(field.kind, item, f"{label}[]", nullable=False)
        self.flush()
        assert len(self.lines) > before, f"{label} has elements without fields"
        self.depth -= 1

    def function(self) -> Any:
        self.struct(self.cls, "o", self.cls.__name__)
        self.flush()
        first = ["out = [prefix] if prefix else []"]
        if self.parts:
            first.append("large = []")
        last = "return split(out, large)" if self.parts else "return join(out)"
        return self.compile("encode", 'def encode(o, prefix=b"", /):', first, [last])


# ---- the public face


def _check(cls: type, version: int) -> None:
    assert hasattr(cls, "__wire__"), f"{cls.__name__} was not declared by @message"
    versions: Versions = cls.__wire__.versions
    if version not in versions:
        raise WireError(f"{cls.__name__} has versions {versions}, not {version}")


@cache
def decoder(cls: type[M], version: int) -> Decoder[M]:
    """The generated function (data, position=0) -> (message, position behind it); it raises WireError.

    Strings, bytes and numbers are copies; record bytes are views of `data`, which must outlive them.
    """
    _check(cls, version)
    declared: Any = cls
    from_bytes = _DecodeSource(declared, version, view=False).function()
    from_view: Any = None

    def decode(data: Buffer, position: int = 0, /) -> tuple[M, int]:
        nonlocal from_view
        if type(data) is bytes:
            found: tuple[M, int] = from_bytes(data, position)
            return found
        if from_view is None:
            from_view = _DecodeSource(declared, version, view=True).function()
        found = from_view(memoryview(data), position)
        return found

    return decode


@cache
def encoder(cls: type, version: int) -> Encoder:
    """The generated function (message, prefix=b"") -> bytes: `prefix` (a header) and the message in one join."""
    _check(cls, version)
    made: Encoder = _EncodeSource(cls, version, parts=False).function()
    return made


@cache
def parts_encoder(cls: type, version: int) -> PartsEncoder:
    """Like `encoder`, to a list of buffers in which each large run of record bytes is a part of its own, uncopied."""
    _check(cls, version)
    made: PartsEncoder = _EncodeSource(cls, version, parts=True).function()
    return made


def decode(cls: type[M], version: int, data: Buffer, position: int = 0) -> tuple[M, int]:
    """Read a message of a version at `position`; returns it with the position behind it. Raises WireError."""
    return decoder(cls, version)(data, position)


def encode(message: object, version: int, prefix: bytes = b"") -> bytes:
    """The bytes of a message in a version, behind `prefix`. A field that the version does not have is left out."""
    return encoder(message.__class__, version)(message, prefix)


def encode_parts(message: object, version: int, prefix: bytes = b"") -> list[Buffer]:
    """Like `encode`, as parts for a vectored write: record bytes of PART_SIZE_BYTES_MIN and more aren't copied."""
    return parts_encoder(message.__class__, version)(message, prefix)
