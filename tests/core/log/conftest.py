"""Logs on a temporary disk, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from millstream.core.log import FileSystem, LogConfig, LogDirectory, LogManager

OpenManager = Callable[..., LogManager]


@pytest.fixture
def open_manager(tmp_path: Path) -> Iterator[OpenManager]:
    """Return a function that loads `tmp_path/data`; what it opened is released at the end."""
    opened: list[LogManager] = []

    def open_manager(
        config: LogConfig | None = None, files: FileSystem | None = None, path: Path | None = None, **options: Any
    ) -> LogManager:
        manager = LogManager([LogDirectory(path or tmp_path / "data", files)], **options)
        opened.append(manager)
        manager.load(config or LogConfig(), cluster_id="a cluster")
        return manager

    yield open_manager
    for manager in opened:
        manager.release()
