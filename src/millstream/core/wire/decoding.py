"""Source that decodes one class in one version. See `codec` for what it does and why."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from millstream.core.wire.fields import SCALARS, Field, Message
from millstream.core.wire.runtime import ARRAY_UNPACKERS, REQUEST_ELEMENTS_MAX, Buffer
from millstream.core.wire.source import Source, element_size_min, present, run_label, tagged


class DecodeSource(Source):
    """Builds `decode(data, p)`, for a bytes object or, with `view`, for a memoryview of anything else.

    Variables: `data`, `end` its length, `p` the position, `room` the elements that a request may still have; o objects,
    l lists, n lengths and counts, q ends of lengths, r ranges.
    """

    def __init__(self, cls: type[Message], version: int, *, view: bool = False) -> None:
        super().__init__(cls, version)
        self._view = view
        # Neighbouring fields of fixed width, as (struct letter, target, label): read by one unpack when something of
        # another kind follows, whose length comes along as the last of them.
        self._run: list[tuple[str, str, str]] = []

    def function(self) -> Any:
        """Build and compile the whole."""
        self._struct(self.cls, "o", self.cls.__name__)
        before, first = ["if type(data) is not memoryview: data = memoryview(data)"], ["end = len(data)"]
        if not self._view:
            self.names["decode_view"] = self._view_decoder()
            before = ["if type(data) is not bytes: return decode_view(data, p)"]
        if any("room" in line for line in self.lines):
            first.append(f"room = {REQUEST_ELEMENTS_MAX}")
        if any("view[" in line for line in self.lines):
            first.append("view = data" if self._view else "view = memoryview(data)")
        return self.compile("def decode(data, p=0, /):", before=before, first=first, last="return o, p", position="p")

    def _view_decoder(self) -> Callable[[Buffer, int], Any]:
        """The twin for what is no bytes object, made when the first one comes."""
        made: Any = None

        def decode_view(data: Buffer, position: int) -> Any:
            nonlocal made
            if made is None:
                made = DecodeSource(self.cls, self.version, view=True).function()
            return made(data, position)

        return decode_view

    def _read(self, letter: str, target: str, label: str) -> None:
        self._run.append((letter, target, label))

    def _flush(self, *, stay: bool = False) -> None:
        """Read the run; with `stay` the position is left at its last byte."""
        if not self._run:
            return
        letters = "".join(letter for letter, _, _ in self._run)
        targets = ", ".join(target for _, target, _ in self._run)
        label = run_label([label for _, _, label in self._run])
        if letters == "B":
            self.add(f"{targets} = data[p]", label)
        elif letters == "?":
            self.add(f"{targets} = data[p] != 0", label)
        else:
            comma = "," if len(self._run) == 1 else ""
            self.add(f"{targets}{comma} = {self.structure('unpack_from', letters)}(data, p)", label)
        size = struct.calcsize(">" + letters) - (1 if stay else 0)
        if size:
            self.add(f"p += {size}", label)
        self._run.clear()

    def _length(self, letter: str, label: str) -> str:
        """Read a length or count along with the run before it.

        A compact one is still one more than it says, and the position is still at its first byte.
        """
        name = f"n{self.number()}"
        self._read("B" if self.flexible else letter, name, label)
        self._flush(stay=self.flexible)
        return name

    def _null(self, length: str, target: str, label: str, *, nullable: bool) -> None:
        """Take the null of a length or count, and open the branch for what is none."""
        self.add(f"if {length} == {0 if self.flexible else -1}:", label)
        self.depth += 1
        self.add(f"{target} = None" if nullable else "raise bad_null()", label)
        if nullable and self.flexible:
            self.add("p += 1", label)
        self.depth -= 1
        self.add("else:", label)
        self.depth += 1

    def _struct(self, cls: type[Message], target: str, path: str) -> None:
        """Make an object of `cls` in the variable `target`, and fill it."""
        self.add(f"{target} = new({self.constant('T', cls)})", path)
        read = present(cls, self.version)
        for field in cls.__wire__.fields:
            if field not in read:
                self.add(f"{target}.{field.name} = {self._default(field)}", f"{path}.{field.name}")
        for field in read:
            self._field(field, f"{target}.{field.name}", f"{path}.{field.name}")
        if self.flexible:
            self._tags(cls, target, path)
        self._flush()

    def _default(self, field: Field) -> str:
        if field.factory is None:
            return repr(field.default)
        return "[]" if field.factory is list else f"{self.constant('F', field.factory)}()"

    def _tags(self, cls: type[Message], target: str, path: str) -> None:
        known, label = tagged(cls, self.version), f"{path} tags"
        number = self.number()
        tags, tag, size, stop = f"k{number}", f"t{number}", f"s{number}", f"e{number}"
        if not known and not self._run:
            self.add("if data[p]: p = skip_tags(data, p, end)", label)
            self.add("else: p += 1", label)
            return
        self._read("B", tags, label)
        self._flush()
        if not known:
            self.add(f"if {tags}: p = skip_tags(data, p - 1, end)", label)
            return
        self.add(f"if {tags}:", label)
        self.depth += 1
        self.add(f"if {tags} > 127: {tags}, p = unsigned_varint(data, p - 1)", label)
        self.add(f"for _ in range({tags}):", label)
        self.depth += 1
        self.add(f"{tag}, p = unsigned_varint(data, p)", label)
        self.add(f"{size}, p = unsigned_varint(data, p)", label)
        self.add(f"{stop} = p + {size}", label)
        self.add(f"if {stop} > end: raise overrun({size}, end - p)", label)
        for field in known:
            label = f"{path}.{field.name}"
            self.add(f"if {tag} == {field.tag}:", label)
            self.depth += 1
            self._field(field, f"{target}.{field.name}", label)
            self._flush()
            self.add(f'if p != {stop}: raise ValueError(f"its {{{size}}} bytes hold something else")', label)
            self.depth -= 1
        self.add(f"p = {stop}", path)
        self.depth -= 2

    def _field(self, field: Field, target: str, label: str) -> None:
        nullable = self.version in field.nullable
        if field.is_array:
            self._array(field, target, label, nullable=nullable)
        elif field.kind in SCALARS:
            self._read(SCALARS[field.kind][0], target, label)
        elif field.kind == "struct":
            self._nested(field, target, label, nullable=nullable and (field.tag is None or field.writes_null))
        else:
            self._variable(field.kind, target, label, nullable=nullable)

    def _nested(self, field: Field, target: str, label: str, *, nullable: bool) -> None:
        """A struct that is no array's element; a nullable one has a byte before it: -1 for null, 0 for a tagged one."""
        number = self.number()
        if nullable:
            self._read("b", f"m{number}", label)
        self._flush()
        if nullable:
            self.add(f"if m{number} {'<=' if field.writes_null else '<'} 0: {target} = None", label)
            self.add("else:", label)
            self.depth += 1
        self._struct(field.struct_class(), f"o{number}", label)
        self.add(f"{target} = o{number}", label)
        if nullable:
            self.depth -= 1

    def _variable(self, kind: str, target: str, label: str, *, nullable: bool) -> None:
        """A string, bytes or record bytes: a length, then so many bytes."""
        size = self._length("h" if kind == "str" else "i", label)
        self._null(size, target, label, nullable=nullable)
        stop = f"q{self.number()}"
        if self.flexible:
            start = "p + 1"
            self.add(f"if {size} > 127:", label)
            self.add(f"    {size}, p = unsigned_varint(data, p)", label)
            self.add("    p -= 1", label)
            self.add(f"{stop} = p + {size}", label)
            self.add(f"if {stop} > end: raise overrun({size} - 1, end - p - 1)", label)
        else:
            start = "p"
            self.add(f"{stop} = p + {size}", label)
            self.add(f"if {stop} > end or {size} < 0: raise overrun({size}, end - p)", label)
        found = f"data[{start}:{stop}]"
        if kind == "str":
            self.add(f"{target} = " + (f'str({found}, "utf-8")' if self._view else f"{found}.decode()"), label)
        else:
            self.add(f"{target} = " + (f"bytes({found})" if kind == "bytes" else f"view[{start}:{stop}]"), label)
        self.add(f"p = {stop}", label)
        self.depth -= 1

    def _array(self, field: Field, target: str, label: str, *, nullable: bool) -> None:
        number = self._length("i", label)
        self._null(number, target, label, nullable=nullable)
        if self.flexible:
            self.add(f"if {number} > 127: {number}, p = unsigned_varint(data, p)", label)
            self.add("else: p += 1", label)
            self.add(f"{number} -= 1", label)
        scalars = field.kind in SCALARS and field.kind != "uuid"
        if not scalars:
            # One element needs neither a check nor a range: reading it finds out what is missing.
            self.add(f"if {number} == 1: r{number[1:]} = ONCE", label)
            self.add("else:", label)
            self.depth += 1
        size = element_size_min(field, self.version, flexible=self.flexible)
        least = number if size == 1 else f"{number} * {size}"
        negative = "" if self.flexible else f" or {number} < 0"
        self.add(f"if {least} > end - p{negative}: raise overcount({number}, end - p)", label)
        if self.cls.__wire__.is_request:
            self.add(f"room -= {number}", label)
            self.add("if room < 0: raise overcrowded()", label)
        if not scalars:
            self.add(f"r{number[1:]} = range({number})", label)
            self.depth -= 1
        if scalars:
            letter, width = SCALARS[field.kind]
            unpackers = self.constant("A", ARRAY_UNPACKERS[letter])
            self.add(f"{target} = list({unpackers}[{number}](data, p))", label)
            self.add(f"p += {number}" + (f" * {width}" if width > 1 else ""), label)
        else:
            self._elements(field, target, label, number)
        self.depth -= 1

    def _elements(self, field: Field, target: str, label: str, number: str) -> None:
        """An array read element by element."""
        items, item = f"l{self.number()}", f"o{self.number()}"
        self.add(f"{target} = {items} = []", label)
        self.add(f"for _ in r{number[1:]}:", label)
        self.depth += 1
        if field.kind == "struct":
            self._struct(field.struct_class(), item, f"{label}[]")
        elif field.kind in SCALARS:
            self._read(SCALARS[field.kind][0], item, f"{label}[]")
            self._flush()
        else:
            self._variable(field.kind, item, f"{label}[]", nullable=False)
        self.add(f"{items}.append({item})", label)
        self.depth -= 1
