"""Avro's own Java implementation as an oracle: one JVM that answers questions about schemas (AvroTool.java)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from millstream.testing.kafka import Java


class AvroJarsMissingError(Exception):
    """There are no jars; `make jars` fetches them."""


class JavaIncompatibility(NamedTuple):
    """What SchemaCompatibility tells: the kind, the place, and what it has to add."""

    kind: str
    path: str
    detail: str


def avro_jars() -> Path:
    """Return the folder of Avro's jars: where MILLSTREAM_AVRO_JARS says, else in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(os.environ.get("MILLSTREAM_AVRO_JARS") or cache / "millstream" / "java" / "avro-1.12.1")
    if not any(folder.glob("avro-*.jar")):
        raise AvroJarsMissingError(f"no Avro jars in {folder}: run `make jars`")
    return folder


class AvroTool:
    """The tool, running until the end of a `with`. Schemas are JSON on one line, without tabs."""

    def __init__(self, jars: Path, classes: Path) -> None:
        Java(jars).compile(Path(__file__).with_name("AvroTool.java"), classes)
        command = ["java", "-XX:TieredStopAtLevel=1", "-cp", f"{jars}/*:{classes}", "AvroTool"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()

    def parse(self, schema: str) -> tuple[str, ...] | None:
        """Return the canonical text, the parsing canonical form and its fingerprint; None for an invalid schema."""
        answer = self._ask("parse", schema)
        return None if answer[0] == "invalid" else tuple(answer[1:])

    def pair(self, reader: str, writer: str) -> list[JavaIncompatibility] | None:
        """Return the incompatibilities, None where Java can't tell: an alias names a field that is there itself."""
        answer = self._ask("pair", reader, writer)
        if answer[0] == "ambiguous":
            return None
        assert answer[0] == "ok", answer
        return [JavaIncompatibility(*answer[start : start + 3]) for start in range(1, len(answer), 3)]

    def make(self, writer: str, count: int, seed: int) -> list[bytes] | None:
        """Return datums of a schema made at random, None where it is none or has no values."""
        answer = self._ask("make", writer, str(count), str(seed))
        return None if answer[0] == "invalid" else [bytes.fromhex(word[1:]) for word in answer[1:]]

    def read(self, reader: str, writer: str, datums: list[bytes]) -> list[bytes | str] | None:
        """Return each datum as the reader's, or why it cannot be read; None where a schema is invalid."""
        answer = self._ask("read", reader, writer, *(f"x{datum.hex()}" for datum in datums))
        if answer[0] == "invalid":
            return None
        return [word[1:] if word.startswith("!") else bytes.fromhex(word[1:]) for word in answer[1:]]

    def _ask(self, *words: str) -> list[str]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\t".join(words) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line.endswith("\n"), f"the tool ended at {words}"
        return line[:-1].split("\t")
