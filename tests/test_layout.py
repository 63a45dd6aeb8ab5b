"""The repository as people and tools find it: the links at the top, and that lint sees every file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PARTS = ("core", "connectors", "hadoop_loader", "schemas", "streams")
LINTED = ("src", "tests", "bench", "tools")


def python_files() -> set[Path]:
    return {path for folder in LINTED for path in (ROOT / folder).rglob("*.py")}


@pytest.mark.parametrize("part", PARTS)
def test_each_part_is_found_at_the_top(part: str) -> None:
    link = ROOT / part
    assert link.is_symlink()
    assert link.resolve() == ROOT / "src" / "millstream" / part
    assert (link / "__init__.py").is_file()


def test_ruff_sees_every_file() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--show-files", *LINTED],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    seen = {Path(line) for line in done.stdout.splitlines() if line.endswith(".py")}
    assert python_files() - seen == set()
    assert len(seen) > 150


def test_mypy_sees_every_file() -> None:
    from mypy.find_sources import create_source_list
    from mypy.main import process_options

    _, options = process_options(
        ["--config-file", str(ROOT / "pyproject.toml"), *(str(ROOT / name) for name in LINTED)]
    )
    sources, _ = process_options([str(ROOT / name) for name in LINTED])
    seen = {Path(source.path).resolve() for source in sources or create_source_list([], options) if source.path}
    # A module with a stub beside it is seen as that; those there are tell where the lazy public names come from.
    stubbed = {path.with_suffix(".py") for path in seen if path.suffix == ".pyi"}
    package = ROOT / "src" / "millstream"
    assert stubbed == {package / part / "__init__.py" for part in ("", "hadoop_loader", "schemas")}
    assert python_files() - seen == stubbed


def test_the_makefile_lints_what_this_test_counts() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert f"ruff check {' '.join(LINTED)}" in makefile
    assert 'files = ["src", "tests", "bench", "tools"]' in (ROOT / "pyproject.toml").read_text()
