"""Which entries catalogs were told of: what one run could not tell, or never came to, another one does, once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.table_roots import TableRoot

from millstream.hadoop_loader import catalogs
from millstream.hadoop_loader.catalogs import CatalogError
from millstream.hadoop_loader.commit import LoadDraft, Role, TableState
from millstream.hadoop_loader.driver import LoadReport, reporting
from millstream.hadoop_loader.driver.telling import bring_catalogs_up_to_date, catalogs_lack
from millstream.hadoop_loader.job import DestinationSettings, HiveSettings, LoadJob, SourceSettings, ValueSettings
from millstream.testing.memory_filesystem import MemoryFileSystem

JOB = LoadJob(
    name="orders",
    source=SourceSettings(bootstrap_servers="127.0.0.1:9092", topics=("orders",)),
    value=ValueSettings(format="raw"),
    destination=DestinationSettings(uri="file:///lake", formats=frozenset({"parquet"})),
    hive=HiveSettings(),
)


class Root(TableRoot):
    """A root whose entries say which job made them."""

    def committed_by(self, job: str) -> TableState:
        claim = self.claim(Role.LOAD)
        self.log.commit(claim, LoadDraft(report={"job": job}))
        claim.release()
        return self.log.read()

    def lacks(self, job: LoadJob = JOB) -> bool:
        return catalogs_lack(job, self.filesystem, self.log.read())

    def tell(self, state: TableState | None = None) -> list[str]:
        return bring_catalogs_up_to_date(JOB, self.filesystem, state or self.log.read(), "a-run").problems


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path, MemoryFileSystem())


Answers = Callable[[Exception | list[str]], None]


@pytest.fixture
def catalog(monkeypatch: pytest.MonkeyPatch) -> Answers:
    """Sets what telling comes to from now on."""

    def answers(answer: Exception | list[str]) -> None:
        def tell(*_: object, **__: object) -> list[str]:
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr(catalogs, "tell_catalogs", tell)

    answers([])
    return answers


def test_what_was_told_is_not_told_again(root: Root, catalog: Answers) -> None:
    assert not root.lacks(), "of a root that has nothing there is nothing to tell"
    root.committed_by("orders")
    assert root.lacks()
    assert not root.lacks(replace(JOB, hive=None))
    assert root.tell() == []
    assert not root.lacks()
    assert root.lacks(replace(JOB, hive=HiveSettings(database="lake"))), "another catalog was told nothing"
    for _ in range(2):
        root.committed_by("orders")
        assert root.lacks()
        root.tell()
    assert not root.lacks()


def test_what_could_not_be_told_is_still_lacking(root: Root, catalog: Answers) -> None:
    root.committed_by("orders")
    catalog(["Hive: it is away"])
    assert root.tell() == ["Hive: it is away"]
    assert root.lacks()
    catalog(CatalogError("Hive: it is away"))
    told = bring_catalogs_up_to_date(JOB, root.filesystem, root.log.read(), "a-run")
    assert told == (["Hive: it is away"], True)
    assert root.lacks()
    catalog([])
    root.tell()
    assert not root.lacks()


def test_a_compaction_beside_a_load_may_lower_the_number_and_never_hides_an_entry(root: Root, catalog: Answers) -> None:
    before = root.committed_by("orders")
    after = root.committed_by("orders")
    root.tell(after)
    root.tell(before)
    assert root.lacks()


def test_entries_of_another_job_are_told_by_that_job(root: Root, catalog: Answers) -> None:
    root.committed_by("orders")
    root.tell()
    root.committed_by("clicks")
    assert not root.lacks()
    # Once so many came that the job's own may be among those that are not shown any more, they are told again, once.
    for _ in range(25):
        root.committed_by("clicks")
    assert root.lacks()
    root.tell()
    assert not root.lacks()


@pytest.mark.parametrize("found", [b"", b"{", b"[]", b'{"number": null}'])
def test_a_number_that_cannot_be_read_is_none(root: Root, catalog: Answers, found: bytes) -> None:
    root.committed_by("orders")
    root.tell()
    path = "_millstream/reports/told+orders.json"
    root.filesystem.delete(path)
    with root.filesystem.create(path) as file:
        file.write(found)
    assert root.lacks()
    root.tell()
    assert not root.lacks()


def test_reports_are_bounded_and_take_nothing_of_other_jobs_along(
    root: Root, catalog: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "REPORTS_KEPT", 2)
    for job in ("orders", "clicks", "views"):
        reporting.keep(root.filesystem, f"told+{job}.json", b"{}", "a-run")
    for number in range(1, 5):
        reporting.keep_report(root.filesystem, LoadReport("a-run", "orders", "file:///lake", number=number))

    names = [status.name for status in root.filesystem.list(reporting.REPORTS)]
    assert names == [
        "000000000003.json",
        "000000000004.json",
        *(f"told+{job}.json" for job in ("clicks", "orders", "views")),
    ]
