"""The destination in memory keeps the promises of the real ones, or simulations on it would prove nothing."""

from __future__ import annotations

import time

import pytest
from tests.support.filesystem_kit import FileSystemConformance

from millstream.testing.faulty_filesystem import FaultyFileSystem
from millstream.testing.memory_filesystem import MemoryFileSystem


def now_ms() -> int:
    return int(time.time() * 1000)


class TestMemory(FileSystemConformance):
    """In memory."""

    @pytest.fixture
    def lake(self) -> MemoryFileSystem:
        return MemoryFileSystem(now_ms=now_ms)


class TestFaultyWithoutFaults(FileSystemConformance):
    """With a file system around it that has no faults."""

    @pytest.fixture
    def lake(self) -> FaultyFileSystem:
        return FaultyFileSystem(MemoryFileSystem(now_ms=now_ms))
