"""CRC-32C (Castagnoli) of a buffer, the checksum of record batches (KIP-98; RFC 3720 appendix B.4 has test vectors)."""

from __future__ import annotations

try:
    import cython
except ModuleNotFoundError:
    from millstream.core._kernels import shim as cython

if cython.compiled:
    from cython.cimports.millstream.core._kernels.native import crc_by_table_of, crc_in_hardware, crc_of
else:
    from millstream.core._kernels.interpreted import crc_by_table_of, crc_in_hardware, crc_of

# Below this many bytes the work is shorter than letting other threads run.
_NOGIL_BYTES = cython.declare(cython.Py_ssize_t, 16384)


def crc32c(data: cython.const[cython.uchar][::1], crc: cython.uint = 0) -> int:
    """Return the CRC-32C of `data`, carried on from `crc`; large buffers are summed with the GIL released."""
    size: cython.Py_ssize_t = len(data)
    result: cython.uint = crc
    if size:
        base: cython.p_const_uchar = cython.address(data[0]) if cython.compiled else data
        if size < _NOGIL_BYTES:
            result = crc_of(base, 0, size, crc)
        else:
            with cython.nogil:
                result = crc_of(base, 0, size, crc)
    return result


def crc32c_by_table(data: cython.const[cython.uchar][::1], crc: cython.uint = 0) -> int:
    """Return the same without the processor's instruction; tests hold the two against each other."""
    size: cython.Py_ssize_t = len(data)
    if not size:
        return crc
    base: cython.p_const_uchar = cython.address(data[0]) if cython.compiled else data
    return crc_by_table_of(base, 0, size, crc)


def is_compiled() -> bool:
    """Whether this is the compiled kernel; `millstream doctor` tells."""
    return cython.compiled


def is_hardware() -> bool:
    """Whether the processor's CRC instruction is used."""
    return crc_in_hardware() != 0
