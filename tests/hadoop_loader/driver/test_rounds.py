"""How rounds end in all: by the worst that has to be looked at, and never as if nothing had been committed."""

from __future__ import annotations

import pytest

from millstream.hadoop_loader.driver import LoadReport, Outcome
from millstream.hadoop_loader.driver.rounds import Rounds

LOADED, NOTHING_NEW, PARTIAL = Outcome.LOADED, Outcome.NOTHING_NEW, Outcome.PARTIAL
FAILED, CLAIMED, STOPPED = Outcome.FAILED, Outcome.CLAIMED, Outcome.STOPPED


@pytest.mark.parametrize(
    ("rounds", "in_all"),
    [
        ([LOADED], LOADED),
        ([LOADED, LOADED, NOTHING_NEW], NOTHING_NEW),
        ([LOADED, PARTIAL, LOADED], PARTIAL),
        ([PARTIAL, NOTHING_NEW], PARTIAL),
        ([FAILED], FAILED),
        ([LOADED, FAILED], PARTIAL),
        ([LOADED, STOPPED], STOPPED),
        ([PARTIAL, CLAIMED], CLAIMED),
    ],
)
def test_rounds_end_as_the_last_one_but_for_what_others_told(rounds: list[Outcome], in_all: Outcome) -> None:
    told = Rounds()
    for number, outcome in enumerate(rounds):
        has_entry = outcome in (LOADED, PARTIAL)
        told.add(LoadReport("run", "flights", "file:///lake", outcome=outcome, number=number if has_entry else None))

    assert told.outcome is in_all
