"""Spark's JVMs start quickly here, however they are started."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.support.spark_reader import QUICK_JVM


@pytest.fixture(scope="module", autouse=True)
def quick_jvms() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JDK_JAVA_OPTIONS", QUICK_JVM)
        yield
