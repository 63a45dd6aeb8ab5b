"""The properties reader, held against Java's own `java.util.Properties`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from millstream.core.config import PropertiesError, Property, read_properties
from millstream.testing.kafka import Java

TEXT = """# a comment
! another
  \t# and one with blanks before it
a=1
b = 2
c: 3
d 4
e
f=
  g  =  with trailing blanks  \t
h = one, \\
    two, \\
  # no comment here
i\\ j\\=k\\:l = m
path = C:\\\\temp\\tx
unicode = \\u00e4\\u00DF \\q\\#
even = back\\\\
next = n
=empty name
: = value
dup = first
dup = last
last = open \\"""


def test_syntax_and_lines() -> None:
    settings = read_properties(TEXT)
    assert settings["a"] == Property("1", 4)
    assert settings["h"] == Property("one, two, # no comment here", 11)
    assert settings["i j=k:l"] == Property("m", 14)
    assert settings["dup"] == Property("last", 22)
    assert settings["unicode"].value == "äß q#"


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_line_ends(newline: str) -> None:
    assert read_properties(f"a=1{newline}{newline}b=2 \\{newline}  3{newline}") == {
        "a": Property("1", 1),
        "b": Property("2 3", 3),
    }


@pytest.mark.parametrize("text", ["a=\\u12", "a=1\nb=\\uxyzw"])
def test_a_broken_escape_names_its_line(text: str) -> None:
    with pytest.raises(PropertiesError, match=f"line {text.count(chr(10)) + 1}: "):
        read_properties(text)


def test_files_are_utf_8(tmp_path: Path) -> None:
    (tmp_path / "x.properties").write_text("a=täglich\n", encoding="utf-8")
    assert read_properties(tmp_path / "x.properties")["a"].value == "täglich"


READER = """
import java.io.*;
import java.util.*;

public class Reader {
    public static void main(String[] arguments) throws IOException {
        Properties properties = new Properties();
        properties.load(new StringReader(new String(System.in.readAllBytes(), "UTF-8")));
        StringBuilder out = new StringBuilder();
        for (String name : new TreeSet<>(properties.stringPropertyNames()))
            for (String text : List.of(name, properties.getProperty(name)))
                for (char c : (text + "\\n").toCharArray())
                    out.append(c < 128 ? String.valueOf(c) : String.format("\\\\u%04x", (int) c));
        System.out.print(out);
    }
}
"""


@pytest.mark.java
def test_java_reads_the_same(jars: Path, tmp_path: Path) -> None:
    (tmp_path / "Reader.java").write_text(READER)
    answered = Java(jars).run(str(tmp_path / "Reader.java"), text=TEXT).stdout.split("\n")
    theirs = dict(zip(answered[0:-1:2], answered[1::2], strict=True))
    ours = {name: setting.value for name, setting in read_properties(TEXT).items()}
    assert {json.dumps(name)[1:-1]: json.dumps(value)[1:-1] for name, value in ours.items()} == {
        name.replace("\\", "\\\\").replace("\\\\u", "\\u"): value.replace("\\", "\\\\")
        .replace("\\\\u", "\\u")
        .replace("\t", "\\t")
        for name, value in theirs.items()
    }
