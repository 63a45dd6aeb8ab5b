"""The page of the loader names what its users meet: each field of a report, each metric, each command."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import typer

from millstream.cli.load import app
from millstream.hadoop_loader.driver.metrics import LoadMetrics
from millstream.hadoop_loader.driver.report import LoadReport, Outcome, PartitionReport, TopicReport

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "loader.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", [LoadReport, TopicReport, PartitionReport])
def test_every_field_of_a_report_is_described(kind: type) -> None:
    report = PAGE[PAGE.index("| field | meaning |") :].partition("\n\n")[0]
    assert [field.name for field in dataclasses.fields(kind) if not re.search(rf"\b{field.name}\b", report)] == []


def test_every_metric_is_described() -> None:
    table = PAGE[PAGE.index("| metric |") :].partition("\n\n")[0]
    metrics = LoadMetrics()
    metrics.show_runs(dict)
    names = [family.name for one in (metrics.registry, metrics.at_work) for family in one.families()]
    assert len(names) > 20
    assert [name for name in names if f"`{name.removeprefix('millstream_loader_')}`" not in table] == []


def test_every_exit_code_is_described() -> None:
    table = PAGE[PAGE.index("| code | meaning |") :].partition("\n\n")[0]
    assert [outcome for outcome in Outcome if f"\n| {outcome.exit_code} |" not in table] == []


def test_every_command_is_shown() -> None:
    commands = typer.main.get_group(app).commands
    assert [name for name in commands if f"millstream load {name} " not in PAGE] == []
