"""Source that encodes one class in one version. See `codec` for what it does and why."""

from __future__ import annotations

from typing import Any, Final

from millstream.core.wire.fields import SCALARS, Field, Message
from millstream.core.wire.runtime import RunPackers
from millstream.core.wire.source import Source, present, run_label, tagged

# Record bytes from this size on stay a part of their own in `encode_parts`; below it a copy is cheaper than a part.
PART_SIZE_BYTES_MIN: Final = 2048

# In a run, where an array's elements go: a run is packed by a Struct chosen by the lengths of its arrays.
_ELEMENTS: Final = "*"


class EncodeSource(Source):
    """Builds `encode(o, prefix)`: to bytes, or with `parts` to a list of buffers.

    Variables: `out` the parts so far; o objects, l lists, c counts, v values, n lengths, b and w the bytes of tagged
    fields. `large` has the indexes of the parts that are not to be copied.
    """

    def __init__(self, cls: type[Message], version: int, *, parts: bool) -> None:
        super().__init__(cls, version)
        self._parts = parts
        self._out = "out"
        # Neighbouring fields of fixed width and arrays of numbers, as (struct letter, expression, label): written by
        # one pack. "x" is a zero byte without an expression; the expression of _ELEMENTS is the list's variable.
        self._run: list[tuple[str, str, str]] = []
        self._element_letters: dict[str, str] = {}

    def function(self) -> Any:
        """Build and compile the whole."""
        self._struct(self.cls, "o", self.cls.__name__)
        self._flush()
        first = ["out = [prefix] if prefix else []"]
        if self._parts:
            first.append("large = []")
        last = "return split(out, large)" if self._parts else "return join(out)"
        return self.compile('def encode(o, prefix=b"", /):', before=[], first=first, last=last, position="None")

    def _write(self, letter: str, expression: str, label: str) -> None:
        self._run.append((letter, expression, label))

    def _flush(self) -> None:
        """Write the run."""
        if not self._run:
            return
        label = run_label([label for _, _, label in self._run])
        values = ", ".join(
            f"*{expression}" if letter == _ELEMENTS else expression
            for letter, expression, _ in self._run
            if letter != "x"
        )
        lists = [expression for letter, expression, _ in self._run if letter == _ELEMENTS]
        letters = "".join(letter for letter, _, _ in self._run)
        if lists:
            around: list[list[str]] = [[]]
            for letter, _, _ in self._run:
                if letter == _ELEMENTS:
                    around.append([])
                else:
                    around[-1].append(letter)
            packers = RunPackers(around, [self._element_letters[name] for name in lists], compact=self.flexible)
            lengths = ", ".join(f"c{name[1:]}" for name in lists)
            self.add(f"{self._out}.append({self.constant('R', packers)}[{lengths}]({values}))", label)
        elif values:
            self.add(f"{self._out}.append({self.structure('pack', letters)}({values}))", label)
        else:
            self.add(f"{self._out}.append({bytes(len(letters))!r})", label)
        self._run.clear()

    def _compact(self, value: str, label: str) -> None:
        """Write a varint behind the run: along with it where it takes one byte."""
        if not self._run:
            self.add(f"{self._out}.append(VARINTS[{value}] if {value} < 128 else varint_bytes({value}))", label)
            return
        run = list(self._run)
        self.add(f"if {value} < 128:", label)
        self.depth += 1
        self._write("B", value, label)
        self._flush()
        self.depth -= 1
        self.add("else:", label)
        self.depth += 1
        self._run = run
        self._flush()
        self.add(f"{self._out}.append(varint_bytes({value}))", label)
        self.depth -= 1

    def _struct(self, cls: type[Message], source: str, path: str) -> None:
        for field in present(cls, self.version):
            self._field(field, f"{source}.{field.name}", f"{path}.{field.name}")
        if self.flexible:
            self._tags(cls, source, path)

    def _tags(self, cls: type[Message], source: str, path: str) -> None:
        """The tagged fields that differ from their defaults, each with its tag and size."""
        known = tagged(cls, self.version)
        if not known:
            self._write("x", "", f"{path} tags")
            return
        self._flush()
        number, outer = self.number(), self._out
        tags, total = f"w{number}", f"k{number}"
        self.add(f"{total} = 0", path)
        for field in known:
            label, value = f"{path}.{field.name}", f"{source}.{field.name}"
            self.add(f"if {self._differs(field, value)}:", label)
            self.depth += 1
            self.add(f"if not {total}: {tags} = []", label)
            self.add(f"{total} += 1", label)
            self._out = f"b{self.number()}"
            self.add(f"{self._out} = []", label)
            if field.kind == "struct" and not field.is_array and not field.writes_null:
                self._struct(field.struct_class(), value, label)
            else:
                self._field(field, value, label)
            self._flush()
            self.add(f"{self._out} = join({self._out})", label)
            self.add(f"{tags} += varint_bytes({field.tag}), varint_bytes(len({self._out})), {self._out}", label)
            self._out = outer
            self.depth -= 1
        self.add(f"{outer}.append(VARINTS[{total}])", path)
        self.add(f"if {total}: {outer} += {tags}", path)

    @staticmethod
    def _differs(field: Field, value: str) -> str:
        if field.factory is list:
            return value
        if field.writes_null:
            return "True"
        return f"{value} is not None" if field.default is None else f"{value} != {field.default!r}"

    def _field(self, field: Field, source: str, label: str) -> None:
        nullable = self.version in field.nullable
        if field.is_array:
            self._array(field, source, label, nullable=nullable)
        elif field.kind in SCALARS:
            self._scalar(field.kind, source, label)
        elif field.kind == "struct":
            self._nested(field, source, label, nullable=nullable)
        else:
            self._variable(field.kind, source, label, nullable=nullable)

    def _scalar(self, kind: str, source: str, label: str) -> None:
        if kind == "uuid":
            value = f"v{self.number()}"
            self.add(f"{value} = {source}", label)
            self.add(f"if len({value}) != 16: raise bad_uuid({value})", label)
            source = value
        self._write(SCALARS[kind][0], source, label)

    def _nested(self, field: Field, source: str, label: str, *, nullable: bool) -> None:
        """A struct that is no array's element; a nullable one has a byte before it: -1 for null, 0 for a tagged one."""
        name = f"o{self.number()}"
        self.add(f"{name} = {source}", label)
        if not nullable:
            self._struct(field.struct_class(), name, label)
            return
        self._flush()
        null = r"b'\x00'" if field.writes_null else r"b'\xff'"
        self.add(f"if {name} is None: {self._out}.append({null})", label)
        self.add("else:", label)
        self.depth += 1
        self._write("b", "1", label)
        self._struct(field.struct_class(), name, label)
        self._flush()
        self.depth -= 1

    def _variable(self, kind: str, source: str, label: str, *, nullable: bool) -> None:
        """A string, bytes or record bytes: a length, then so many bytes."""
        value, size = f"v{self.number()}", f"n{self.number()}"
        self.add(f"{value} = {source}", label)
        if nullable:
            self.add(f"if {value} is None: {value} = b''; {size} = {0 if self.flexible else -1}", label)
            self.add("else:", label)
            self.depth += 1
        if kind == "str":
            self.add(f"{value} = {value}.encode()", label)
        self.add(f"{size} = len({value})" + (" + 1" if self.flexible else ""), label)
        if nullable:
            self.depth -= 1
        if self.flexible:
            self._compact(size, label)
        else:
            self._write("h" if kind == "str" else "i", size, label)
            self._flush()
        if kind == "record_bytes" and self._parts:
            self.add(f"if len({value}) >= {PART_SIZE_BYTES_MIN}: large.append(len({self._out}))", label)
        self.add(f"{self._out}.append({value})", label)

    def _array(self, field: Field, source: str, label: str, *, nullable: bool) -> None:
        number = self.number()
        items, total = f"l{number}", f"c{number}"
        self.add(f"{items} = {source}", label)
        if nullable:
            self._flush()
            null = b"\0" if self.flexible else b"\xff" * 4
            self.add(f"if {items} is None: {self._out}.append({null!r})", label)
            self.add("else:", label)
            self.depth += 1
        self.add(f"{total} = len({items})", label)
        if field.kind in SCALARS and field.kind != "uuid":
            self._write("B" if self.flexible else "i", f"{total} + 1" if self.flexible else total, label)
            self._write(_ELEMENTS, items, label)
            self._element_letters[items] = SCALARS[field.kind][0]
        else:
            self._elements(field, label, items, total)
        if nullable:
            self._flush()
            self.depth -= 1

    def _elements(self, field: Field, label: str, items: str, total: str) -> None:
        """An array written element by element."""
        if self.flexible:
            self.add(f"{total} += 1", label)
            self._compact(total, label)
        else:
            self._write("i", total, label)
            self._flush()
        item = f"o{self.number()}"
        self.add(f"for {item} in {items}:", label)
        self.depth += 1
        if field.kind == "struct":
            self._struct(field.struct_class(), item, f"{label}[]")
        elif field.kind in SCALARS:
            self._scalar(field.kind, item, f"{label}[]")
        else:
            self._variable(field.kind, item, f"{label}[]", nullable=False)
        self._flush()
        self.depth -= 1
