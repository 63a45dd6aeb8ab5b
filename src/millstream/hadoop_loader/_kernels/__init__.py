"""Compiled loops of the loader, in Cython's pure-Python mode, and nothing else.

    datums    Avro datums copied behind each other into a block: gather_datums; the schemas values name: read_ids
    rows      rows sorted by a column of numbers: sort_rows

They also run interpreted, slower and with the same results. `native.h` and `native.pxd` hold what C is needed.
"""

from __future__ import annotations

from importlib import import_module

KERNELS = ("datums", "rows")


def kernels_compiled() -> dict[str, bool]:
    """Return for each kernel whether the compiled one runs; `millstream doctor` tells."""
    return {name: import_module(f"{__name__}.{name}").is_compiled() for name in KERNELS}
