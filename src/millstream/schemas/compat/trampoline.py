"""Recursion that costs no stack: schemas are graphs, and may be deeper than the interpreter allows calls to nest."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, TypeAlias, TypeVar

_Result = TypeVar("_Result")

Steps: TypeAlias = Generator["Steps[Any]", Any, _Result]
"""A generator that yields the calls it wants made, is sent their results, and returns its own."""


def run(steps: Steps[_Result]) -> _Result:
    """Run `steps` with all the calls it asks for, and return what it returns."""
    stack: list[Steps[Any]] = [steps]
    result: Any = None
    while True:
        try:
            stack.append(stack[-1].send(result))
            result = None
        except StopIteration as end:
            stack.pop()
            result = end.value
            if not stack:
                return result  # type: ignore[no-any-return]
