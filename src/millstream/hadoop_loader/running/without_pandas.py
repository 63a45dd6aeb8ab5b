"""Keeps pandas out of a worker's process.

pyarrow imports pandas, where it is installed, the first time it is given a list or a number, to see whether that is
one of its own: half a second of CPU and 40 MB in every worker, for nothing. Only for processes that do nothing else.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType


class _Hidden(MetaPathFinder):
    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:  # noqa: ARG002
        if fullname == "pandas":
            raise ModuleNotFoundError("pandas is kept out of the loader's workers", name=fullname)


def hide_pandas() -> None:
    """Have `import pandas` fail in this process, unless it is there already."""
    if "pandas" not in sys.modules:
        sys.meta_path.insert(0, _Hidden())
