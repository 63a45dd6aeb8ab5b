"""Compiled loops over Avro datums and Arrow's buffers, in Cython's pure-Python mode, and nothing else.

    avro_decoding   datums into Arrow's buffers, or only validated: decode_datums
    avro_encoding   Arrow's columns into datums: encode_datums

Each also runs interpreted, slower and with the same results. `native.h` and `native.pxd` hold the C that the compiled
ones share, which the `.pxd` beside each takes in; `interpreted.py` has the same functions in Python, `opcodes.py` the
numbers that programs are made of.
"""

from __future__ import annotations

from importlib import import_module

KERNELS = ("avro_decoding", "avro_encoding")


def kernels_compiled() -> dict[str, bool]:
    """Return for each kernel whether the compiled one runs."""
    return {name: import_module(f"{__name__}.{name}").is_compiled() for name in KERNELS}
