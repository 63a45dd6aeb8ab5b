"""What the package imports, held against what it says it needs: here much more is installed than a user has."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).parents[2]
# A plugin is loaded by pytest itself; interpreted kernels do without Cython.
NOT_NEEDED = {"pytest", "cython"}


def imported(tree: ast.AST) -> Iterator[str]:
    """Yield the top names of modules that are imported when it runs, which type checkers' are not."""
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                for one in node.orelse:
                    yield from imported(one)
            case ast.Import():
                yield from (alias.name.partition(".")[0] for alias in node.names)
            case ast.ImportFrom(module=str(module), level=0):
                yield module.partition(".")[0]
            case _:
                yield from imported(node)


def named(requirements: Iterable[str]) -> set[str]:
    """The distributions' names, without those that an extra would bring."""
    return {re.split(r"[^\w.-]", one, maxsplit=1)[0].lower() for one in requirements if "extra ==" not in one}


def brought_by(distribution: str) -> set[str]:
    try:
        return named(requires(distribution) or ())
    except PackageNotFoundError:
        # Kerberos is not on every machine.
        return set()


def test_whatever_is_imported_is_asked_for() -> None:
    project: dict[str, Any] = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    extras = [one for requirements in project["optional-dependencies"].values() for one in requirements]
    asked = named(project["dependencies"] + extras) - {"millstream"}
    # As the client of WebHDFS is handed a session of requests, and the validator of JSON Schema a registry.
    there = asked.union(NOT_NEEDED, *map(brought_by, asked))
    distributions = packages_distributions()

    missing = {
        f"{path.relative_to(CHECKOUT)} imports {name}"
        for path in (CHECKOUT / "src" / "millstream").rglob("*.py")
        for name in imported(ast.parse(path.read_text()))
        if name not in sys.stdlib_module_names | {"millstream"}
        and not there & {one.lower() for one in distributions.get(name, [name])}
    }
    assert missing == set()
