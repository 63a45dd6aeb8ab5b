"""The documentation's table of settings, and the job files it shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from millstream.hadoop_loader.job import JobError, LoadJob
from millstream.hadoop_loader.job.reference import default_of, kind_of, meaning_of, reference_lines, sections
from millstream.hadoop_loader.job.setting import duration_s, size_bytes

# What an example needs beside it: before its table, and in it.
CONTEXT = {
    "partitioning.fields": ("", 'kind = "fields"\n'),
    "compaction.deduplicate_by": ('metadata_columns = ["partition", "offset"]\n', ""),
}
REQUIRED = {"name", "source", "source.bootstrap_servers", "source.topics", "destination", "destination.uri"}
# What else a job with such a part in it must have; Kerberos for a metastore its package, which not every machine has.
LACKING = {"registry.urls", "compaction.deduplicate_by", "hive.kerberos_service"}
DOCS = Path(__file__).resolve().parents[3] / "docs"


def test_every_setting_is_documented() -> None:
    page = "\n".join(reference_lines())
    for key, _, entries in sections():
        part = page.split(f"## `[{key}]`" if key else "## Top of the file")[1].split("\n## ")[0] if entries else ""
        for entry in entries:
            assert f"| `{entry.name}` | {kind_of(entry)} | " in part, entry.key
            assert len(entry.setting.meaning) > 10
            assert entry.setting.meaning.rstrip().endswith((".", "`")), entry.key


def test_defaults_and_limits_are_shown_as_they_are_written() -> None:
    shown = {entry.key: (default_of(entry), meaning_of(entry)) for _, _, entries in sections() for entry in entries}
    assert shown["worker_memory_bytes"][0] == "`256 MB`"
    assert "At least 32 MB." in shown["worker_memory_bytes"][1]
    assert shown["destination.snapshot_retention_s"][0] == "`24 h`"
    assert shown["source.topics"][0] == ""
    assert shown["source.bootstrap_servers"][0] == "**must be given**"
    assert shown["encoding.parquet.dictionary"][0] == "`true`"


def test_examples_of_settings_are_what_they_are_of() -> None:
    for _, _, entries in sections():
        for entry in entries:
            if not entry.setting.example:
                continue
            table = f"[{entry.key.rpartition('.')[0]}]\n" if "." in entry.key else ""
            before, inside = CONTEXT.get(entry.key, ("", ""))
            text = f"{before}{table}{inside}{entry.name} = {entry.setting.example}\n"
            with pytest.raises(ValueError) as caught:
                LoadJob.loads(text)
            wrong = [problem for problem in getattr(caught.value, "problems", ()) if problem.key == entry.key]
            assert not wrong, wrong


def test_job_files_of_the_documentation_are_read(tmp_path: Path) -> None:
    text = (DOCS / "loader.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```toml\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    jobs = []
    for number, block in enumerate(blocks):
        # Those that others include say what they are called.
        named = re.match(r"# (\S+\.toml)\n", block)
        path = tmp_path / (named[1] if named else f"{number}.toml")
        path.write_text(block)
        if re.search(r"^name = ", block, re.MULTILINE):
            jobs.append(path)
    assert len(jobs) >= 5
    for path in jobs:
        LoadJob.load(path)


def test_parts_of_job_files_have_keys_that_there_are() -> None:
    """Blocks that are no whole job lack what must be given, and nothing else is wrong with them."""
    text = (DOCS / "loader.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```toml\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    parts = [block for block in blocks if not re.search(r"^name = ", block, re.MULTILINE)]
    assert len(parts) >= 5
    for block in parts:
        # Two ways of one thing, a line each, are no TOML.
        ways = block.splitlines() if block.startswith("kerberos") else [block]
        for way in ways:
            with pytest.raises(JobError) as caught:
                LoadJob.loads(way.replace("kerberos =", "destination.kerberos ="))
            told = {problem.key: str(problem) for problem in caught.value.problems}
            assert told.keys() <= REQUIRED | LACKING, told


@pytest.mark.parametrize(
    ("text", "amount"),
    [("1 B", 1), ("1KB", 1024), ("1.5 mb", 1.5 * 2**20), ("2 GiB", 2**31), ("1_000 kB", 1000 * 1024)],
)
def test_sizes(text: str, amount: float) -> None:
    assert size_bytes(text) == amount


@pytest.mark.parametrize(("text", "amount"), [("10 ms", 0.01), ("1.5 s", 1.5), ("10 min", 600), ("1 d", 86400)])
def test_durations(text: str, amount: float) -> None:
    assert duration_s(text) == amount


@pytest.mark.parametrize("text", ["", "10", "-1 MB", "1 MB 2", "1 month", "MB", "1e3 MB"])
def test_amounts_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="write"):
        size_bytes(text)
    with pytest.raises(ValueError, match="write"):
        duration_s(text)
