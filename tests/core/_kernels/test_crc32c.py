"""CRC-32C: published vectors, and the compiled, the table-driven and the interpreted one against each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.kernels import HOWS, load_kernel

import millstream.core._kernels as kernels_package
from millstream.core._kernels import KERNELS, kernels_compiled


@pytest.fixture(params=HOWS)
def kernel(request: pytest.FixtureRequest) -> Any:
    return load_kernel("crc32c", request.param)


# RFC 3720, appendix B.4, and the check value of the CRC catalogues.
@pytest.mark.parametrize(
    ("data", "crc"),
    [
        (b"", 0x00000000),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(reversed(range(32))), 0x113FDB5C),
    ],
)
def test_published_vectors(kernel: Any, data: bytes, crc: int) -> None:
    assert kernel.crc32c(data) == crc
    assert kernel.crc32c_by_table(data) == crc
    assert kernel.crc32c(memoryview(bytearray(data))) == crc


# Around each stretch of the interleaved loop: 3 x 256 and 3 x 4096 bytes, and the bound for releasing the GIL.
@pytest.mark.parametrize("size", [1, 7, 8, 767, 768, 769, 12_287, 12_288, 12_289, 13_056, 16_383, 16_384, 40_001])
def test_sizes_around_the_strides(size: int) -> None:
    data = bytes((i * 7 + i // 251) & 0xFF for i in range(size))
    compiled, interpreted = load_kernel("crc32c", "compiled"), load_kernel("crc32c", "interpreted")

    expected = interpreted.crc32c(data)

    assert compiled.crc32c(data) == expected
    assert compiled.crc32c_by_table(data) == expected


@given(data=st.binary(max_size=3000), cut=st.integers(0, 3000), start=st.integers(0, 2**32 - 1))
def test_a_checksum_carries_on(data: bytes, cut: int, start: int) -> None:
    compiled, interpreted = load_kernel("crc32c", "compiled"), load_kernel("crc32c", "interpreted")

    whole = compiled.crc32c(data, start)

    assert compiled.crc32c(data[cut:], compiled.crc32c(data[:cut], start)) == whole
    assert compiled.crc32c_by_table(data, start) == whole
    assert interpreted.crc32c(data, start) == whole


def test_every_kernel_is_listed() -> None:
    files = {path.stem for path in Path(kernels_package.__file__).parent.glob("*.py")} - {
        "__init__",
        "interpreted",
        "shim",
    }
    # Other rooms' kernels may stand here too; these four are what the broker's path runs on.
    assert set(KERNELS) <= files
    assert set(kernels_compiled()) == set(KERNELS)
    for name in KERNELS:
        load_kernel(name, "compiled")
