"""Each kernel twice: as it is imported, and its `.py` run interpreted."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import pytest

CORE_KERNELS = "millstream.core._kernels"
SCHEMA_KERNELS = "millstream.schemas._kernels"


def load_kernel(name: str, how: str, package: str = CORE_KERNELS) -> Any:
    """Return the kernel `compiled`, `interpreted` with Cython's own Python module, or with our `shim` of it."""
    if how == "compiled":
        kernel = importlib.import_module(f"{package}.{name}")
        if not str(kernel.__file__).endswith(tuple(EXTENSION_SUFFIXES)):
            # Wherever the project's own make runs the tests, the kernels have to be there.
            required = os.environ.get("MILLSTREAM_REQUIRE_KERNELS") == "1" or os.environ.get("CI")
            assert not required, f"{kernel.__file__} is not compiled"
            pytest.skip("not compiled")
        assert kernel.is_compiled()
        return kernel
    folder = Path(str(importlib.import_module(package).__file__)).parent
    spec = importlib.util.spec_from_file_location(f"{how}_{name}", folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    kernel = importlib.util.module_from_spec(spec)
    hidden = sys.modules.get("cython")
    if how == "shim":
        sys.modules["cython"] = None  # type: ignore[assignment]  # makes `import cython` fail
    try:
        spec.loader.exec_module(kernel)
    finally:
        if how == "shim":
            if hidden is None:
                del sys.modules["cython"]
            else:
                sys.modules["cython"] = hidden
    assert not kernel.is_compiled()
    return kernel


HOWS = ("compiled", "interpreted", "shim")
