"""A strict reader of the Prometheus text format 0.0.4: what a scraper would make of `/metrics`, or ValueError."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

Labels = tuple[tuple[str, str], ...]

_NAME: Final = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_META: Final = re.compile(rf"# (HELP|TYPE) ({_NAME}) (.*)\Z", re.DOTALL)
_SAMPLE: Final = re.compile(rf"({_NAME})(?:\{{(.*)\}})? (\S+)\Z", re.DOTALL)
_LABEL: Final = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\\\|\\"|\\n)*)"(,|\Z)')
_SUFFIXES: Final = {"summary": ("", "_sum", "_count"), "counter": ("",), "gauge": ("",)}


@dataclass
class MetricFamily:
    """One family as a scraper sees it."""

    kind: str
    help: str
    samples: dict[tuple[str, Labels], float] = field(default_factory=dict)


def parse(text: str) -> dict[str, MetricFamily]:
    """Read a whole exposition. Every sample must follow its own HELP and TYPE, and none may come twice."""
    if text and not text.endswith("\n"):
        raise ValueError("the last line has no end")
    families: dict[str, MetricFamily] = {}
    current = ""
    help_text: dict[str, str] = {}
    for line in text.split("\n")[:-1]:
        if line.startswith("#"):
            found = _META.match(line)
            if found is None:
                raise ValueError(f"neither HELP nor TYPE: {line!r}")
            kind, name, rest = found.groups()
            if kind == "HELP":
                help_text[name] = _unescaped(rest)
                continue
            if name in families:
                raise ValueError(f"{name} comes twice")
            if rest not in _SUFFIXES:
                raise ValueError(f"{name} is of type {rest!r}")
            current = name
            families[name] = MetricFamily(rest, help_text[name])
            continue
        found = _SAMPLE.match(line)
        if found is None:
            raise ValueError(f"no sample: {line!r}")
        name, labels, value = found.groups()
        family = families[current]
        if name not in {current + suffix for suffix in _SUFFIXES[family.kind]}:
            raise ValueError(f"{name} stands under {current}")
        key = (name, _labels(labels or ""))
        if key in family.samples:
            raise ValueError(f"{key} comes twice")
        family.samples[key] = float(value)
    return families


def _labels(text: str) -> Labels:
    labels: list[tuple[str, str]] = []
    position = 0
    while position < len(text):
        found = _LABEL.match(text, position)
        if found is None:
            raise ValueError(f"no label at {text[position:]!r}")
        labels.append((found[1], _unescaped(found[2])))
        position = found.end()
    if len({name for name, _ in labels}) != len(labels):
        raise ValueError(f"a label comes twice: {text!r}")
    return tuple(labels)


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", lambda found: "\n" if found[1] == "n" else found[1], text)
