"""Stands in for the `cython` module where Cython isn't installed: what interpreted kernels use of it does nothing.

Only decorators, types in expressions and `nogil` blocks run; annotations are never evaluated.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, TypeVar

_F = TypeVar("_F", bound=Callable[..., Any])  # functions and classes

compiled = False


def ccall(function: _F) -> _F:
    """Return the function as it is."""
    return function


cfunc = inline = cclass = final = no_gc = ccall


def freelist(_size: int) -> Callable[[_F], _F]:
    """Return a decorator that changes nothing."""
    return ccall


def exceptval(*_: Any, **__: Any) -> Callable[[_F], _F]:
    """Return a decorator that changes nothing."""
    return ccall


def returns(_type: Any) -> Callable[[_F], _F]:
    """Return a decorator that changes nothing."""
    return ccall


def declare(_type: Any, value: Any = None, *, visibility: str = "private") -> Any:  # noqa: ARG001
    """Return the value as it is."""
    return value


def cast(_type: Any, value: Any) -> Any:
    """Return the value as it is."""
    return value


class _Nogil(nullcontext[None]):
    """Both `@cython.nogil` and `with cython.nogil:`."""

    def __call__(self, function: _F) -> _F:
        return function


nogil = _Nogil()
NULL = None


def __getattr__(name: str) -> Any:
    # Types such as cython.longlong, met only as arguments of `returns` and `cast`.
    if name.startswith("_"):
        raise AttributeError(name)
    return object
