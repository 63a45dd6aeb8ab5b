"""What a registry's process loads: neither Arrow nor the broker, nor what the command line needs."""

from __future__ import annotations

import subprocess
import sys

_LOADED = """
import sys
import millstream.cli.serve_registry, millstream.schemas.server.runner
from millstream.schemas.parsing import parse
for kind, text in (("AVRO", '"int"'), ("JSON", '{"type":"object"}'), ("PROTOBUF", 'syntax = "proto3"; message M {}')):
    parse(kind, text)
print(*{name.partition(".")[0] for name in sys.modules}, *(name for name in sys.modules if "millstream." in name))
"""


def test_neither_arrow_nor_the_broker_is_loaded() -> None:
    done = subprocess.run([sys.executable, "-c", _LOADED], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "millstream.schemas.server.app" in loaded
    for heavy in ("pyarrow", "numpy", "typer", "rich", "millstream.core.broker", "millstream.core.columns"):
        assert heavy not in loaded, heavy
