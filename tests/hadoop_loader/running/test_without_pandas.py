"""A worker never pays for pandas, though pyarrow would import it."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys
from millstream.hadoop_loader.running.without_pandas import hide_pandas
hide_pandas()
import pyarrow as pa, pyarrow.compute as pc
assert pc.add(pa.array([1, 2]), 1).to_pylist() == [2, 3]
print("pandas" in sys.modules)
"""


def test_pyarrow_does_without_it() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60)
    assert done.stdout == "False\n", done.stderr
