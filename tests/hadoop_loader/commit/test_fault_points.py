"""Every call of a load's and a compaction's run, with every fault there and everything that others may do there.

In memory, with a look of a reader after every single act. MILLSTREAM_SOAK=1 runs all of each matrix, else a seeded
sample. Segments are of four numbers here, so that they are filled, covered and removed while a sleeper still means to
use them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import nullcontext

import pytest
from tests.support import commit_matrices
from tests.support.commit_matrices import WORLDS, Case, prepare, run_cases
from tests.support.commit_simulation import World

from millstream.hadoop_loader.commit import Role, names

SAMPLES = {"closed": 40, "open": 20, "both": 10}


@pytest.fixture(autouse=True)
def _short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "ENTRIES_PER_SEGMENT", 4)


@pytest.mark.parametrize("kind", WORLDS)
def test_runs_without_faults(kind: str) -> None:
    world = World(**WORLDS[kind])  # type: ignore[arg-type]
    prepare(world)
    assert world.driver().run(Role.COMPACT) is not None
    assert world.driver().run(Role.LOAD) is not None
    world.finish()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", WORLDS)
@pytest.mark.parametrize("matrix", ["faults", "late_acts", "sleepers"])
def test_matrix(matrix: str, kind: str, soak: bool) -> None:
    cases: Callable[[str], Iterator[Case]] = getattr(commit_matrices, matrix)
    every = list(cases(kind))
    chosen = every if soak else random.Random(7).sample(every, SAMPLES[kind])
    run_cases(chosen, lambda seed: nullcontext(World(seed=seed, **WORLDS[kind])))  # type: ignore[arg-type]
