"""`millstream load keys`: every key of a job file, without the built documentation."""

from __future__ import annotations

import json

import pytest

from millstream.cli.app import run
from millstream.hadoop_loader.job import JobError, LoadJob
from millstream.hadoop_loader.job.reference import meaning_of, sections


@pytest.mark.parametrize("columns", [72, 100])
def test_every_key_is_listed_with_what_it_means(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert not run(["load", "keys"])
    listed = capsys.readouterr().out
    entries = [entry for _, _, found in sections() for entry in found]
    assert len(entries) > 100
    joined = " ".join(listed.split())
    for entry in entries:
        assert f"\n{entry.key} (" in listed, entry.key
        assert " ".join(meaning_of(entry).split()) in joined, entry.key
    assert "\nworker_memory_bytes (size, default 256 MB)\n" in listed
    assert "At least 32 MB." in joined
    assert max(map(len, listed.splitlines())) <= 100


def test_keys_are_asked_for_by_how_they_begin(capsys: pytest.CaptureFixture[str]) -> None:
    assert not run(["load", "keys", "destination.kerberos", "--json"])
    found = {each["key"]: each for each in json.loads(capsys.readouterr().out)}
    names = ("principal", "keytab", "cache", "renewal_s")
    assert list(found) == [f"destination.kerberos.{name}" for name in names]
    assert found["destination.kerberos.principal"]["required"]
    assert found["destination.kerberos.renewal_s"]["default"] == "1 h"

    assert run(["load", "keys", "destination.kerberoz"]) == 2
    assert "did you mean destination.kerberos" in capsys.readouterr().err


def test_a_key_that_there_is_not_names_the_command() -> None:
    with pytest.raises(JobError, match=r"\[late\] has .* \(millstream load keys late\)"):
        LoadJob.loads("late.wxyz = 1")
    with pytest.raises(JobError, match=r"a job has .* \(millstream load keys\)"):
        LoadJob.loads("qqqqq = 1")
