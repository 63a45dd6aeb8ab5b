"""Confluent's JavaScript client of schema registries, as a process that a test drives (SchemaClient.cjs)."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

_PROGRAM = Path(__file__).with_name("SchemaClient.cjs")


class JavaScriptError(Exception):
    """What the client threw; `code` is the registry's, where it was it."""

    def __init__(self, message: str, code: int | None) -> None:
        super().__init__(message)
        self.code = code


def node_modules() -> Path:
    """Return where the client is. Missing ones skip the test on a developer's machine and fail it under CI=true."""
    found = Path(os.environ.get("MILLSTREAM_NODE_MODULES") or _default_folder())
    node = shutil.which("node")
    if node is not None and (found / "@confluentinc" / "schemaregistry").is_dir():
        return found
    reason = "Node.js is missing" if node is None else f"no JavaScript client at {found}: `make npm` fetches it"
    if os.environ.get("CI") == "true":
        raise RuntimeError(reason)
    pytest.skip(reason)


def _default_folder() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return next(iter((cache / "millstream" / "node").glob("*/node_modules")), cache / "millstream" / "node")


class JavaScriptClient:
    """One process, one registry."""

    def __init__(self, url: str) -> None:
        environment = {**os.environ, "NODE_PATH": str(node_modules()), "NODE_NO_WARNINGS": "1"}
        self._process = subprocess.Popen(
            ["node", str(_PROGRAM), url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            text=True,
        )
        self._answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def call(self, name: str, *arguments: Any) -> Any:
        """Call a method of the registry's client."""
        return self._ask({"call": name, "arguments": arguments})["result"]

    def serialize(self, kind: str, topic: str, value: Any, **settings: Any) -> tuple[bytes, dict[str, bytes]]:
        """Return what its serializer writes, and the headers it adds."""
        answer = self._ask({"serialize": kind, "topic": topic, "value": value, **settings})
        headers = {name: base64.b64decode(held) for name, held in answer["headers"].items()}
        return base64.b64decode(answer["data"]), headers

    def deserialize(self, kind: str, topic: str, data: bytes, headers: dict[str, bytes], **settings: Any) -> Any:
        """Return what its deserializer reads."""
        shown = {name: base64.b64encode(held).decode() for name, held in headers.items()}
        command = {"deserialize": kind, "topic": topic, "data": base64.b64encode(data).decode(), "headers": shown}
        return self._ask({**command, **settings}).get("value")

    def _ask(self, command: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        answer = self._answer()
        if "error" in answer:
            raise JavaScriptError(answer["error"], answer.get("code"))
        return answer

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise AssertionError(f"the JavaScript client ended: {self._process.communicate()[1]}")
        return json.loads(line)
