"""A machine without a working C compiler: the build goes on with the interpreted twins, unless kernels are required."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("required", ["0", "1"])
def test_a_compiler_that_fails(required: str, tmp_path: Path) -> None:
    build = subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--force", "-b", str(tmp_path / "lib"), "-t", str(tmp_path / "temp")],
        cwd=ROOT,
        env=os.environ | {"CC": "/bin/false", "MILLSTREAM_REQUIRE_KERNELS": required},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert (build.returncode == 0) is (required == "0"), build.stderr
    assert not list((tmp_path / "lib").rglob("*.so"))


INTERPRETED = """
import sys
sys.modules["cython"] = None

class NoExtensions:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("millstream.core._kernels."):
            from importlib.util import spec_from_file_location
            file = path[0] + "/" + name.rpartition(".")[2] + ".py"
            return spec_from_file_location(name, file)

sys.meta_path.insert(0, NoExtensions())
from millstream.core._kernels import kernels_compiled
from millstream.core.records import AppendRules, BatchBuilder, iter_records, validate_batch
builder = BatchBuilder()
builder.append(5, b"k", b"v")
assert validate_batch(builder.build(), AppendRules(), 5).count == 1
assert not any(kernels_compiled().values()), kernels_compiled()
print("interpreted")
"""


def test_records_run_without_a_compiler_and_without_cython() -> None:
    run = subprocess.run([sys.executable, "-c", INTERPRETED], capture_output=True, text=True, timeout=60, check=False)
    assert run.stdout == "interpreted\n", run.stderr
