"""The rounds of `make fuzz`: a seeded short form; in a soak a minute of them under AddressSanitizer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).parents[3] / "tools" / "fuzz_avro.py"
LONG = os.environ.get("MILLSTREAM_SOAK") == "1"


@pytest.mark.slow
def test_damaged_datums() -> None:
    options = ["--sanitize", "--seconds", "60"] if LONG else ["--seconds", "1"]
    command = [sys.executable, str(FUZZ), "--seed", "1", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "good" in done.stdout
