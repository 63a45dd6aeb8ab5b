"""A process's own peak of memory, whoever started it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from millstream.core.metrics import process

MB = 2**20


def test_what_the_parent_held_is_not_a_childs_peak() -> None:
    held = bytearray(300 * MB)
    held[::4096] = b"x" * len(held[::4096])
    code = """
from millstream.core.metrics.process import peak_memory_bytes
before = peak_memory_bytes()
held = b"x" * (50 << 20)
print(before, peak_memory_bytes())
"""

    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    before, after = map(int, found.stdout.split())
    assert before < 100 * MB
    assert 40 * MB < after - before < 60 * MB
    assert len(held) == 300 * MB


@pytest.mark.parametrize("said", [None, "Name:\tpython\nVmRSS:\t1 kB\n"])
def test_a_system_that_does_not_say_is_asked_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str | None
) -> None:
    status = tmp_path / "status"
    if said is not None:
        status.write_text(said)
    monkeypatch.setattr(process, "_STATUS", status)
    assert process.peak_memory_bytes() > 10 * MB
