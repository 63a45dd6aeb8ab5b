"""Make docs/compatibility.md: every API and version that is served, and which clients and tools were seen to send it.

    python -m tools.compatibility            write the page
    python -m tools.compatibility --check    fail where it is not what would be written

What is served comes from the code (`HANDLERS`, `APIS`). What clients send comes from `tests/interop/requests.json`,
which `pytest tests/interop/test_compatibility.py --rerecord` writes from the broker's own counters while each of them
runs against it. What differs from Kafka on purpose is a table of its own, `tools/differences.py`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from tools.differences import DIFFERENCES

from millstream.core.broker.handlers import HANDLERS
from millstream.core.wire import APIS

ROOT: Final = Path(__file__).parent.parent
PAGE: Final = ROOT / "docs" / "compatibility.md"
RESULTS: Final = ROOT / "tests" / "interop" / "requests.json"

# API name -> the versions that were sent.
Requests = Mapping[str, list[int]]


class Speaker(NamedTuple):
    """A client or a tool, what of it ran, and what it sent."""

    name: str
    runs: list[str]
    requests: Requests


def load() -> list[Speaker]:
    """Return what the tests recorded."""
    return [Speaker(**entry) for entry in json.loads(RESULTS.read_text())] if RESULTS.exists() else []


def save(speakers: Iterable[Speaker]) -> None:
    """Write what the tests recorded."""
    entries = [
        {"name": each.name, "runs": each.runs, "requests": dict(sorted(each.requests.items()))}
        for each in sorted(speakers)
    ]
    RESULTS.write_text(json.dumps(entries, indent=1, ensure_ascii=False) + "\n")


def page(speakers: list[Speaker]) -> str:
    """Return the page."""
    return "\n".join(_lines(speakers)) + "\n"


def _lines(speakers: list[Speaker]) -> Iterator[str]:
    served = [APIS[key] for key in sorted(HANDLERS)]
    clients = [each for each in speakers if not each.name.endswith(".sh")]
    tools = [each for each in speakers if each.name.endswith(".sh")]
    yield "# APIs and clients\n"
    yield (
        "<!-- Made by `python -m tools.compatibility` from the table of handlers and what the tests recorded; a test "
        "holds it against both. -->\n"
    )
    yield f"A broker of this version serves {len(served)} APIs of Kafka's protocol.\n"
    yield (
        "The columns say in which versions each client sent its requests when the tests ran it against the broker; a "
        "dash stands for an API that it was not seen to use. Kafka's tools are one column; what each of them sends "
        "stands below.\n"
    )
    columns = [*(each.name for each in clients), "Kafka's tools"]
    sent = [*(each.requests for each in clients), _together(tools)]
    yield from _table(
        ("key", "API", "versions", *columns),
        (
            (
                int(api.key),
                api.name,
                _versions(list(api.versions)),
                *(_versions(each.get(api.name, [])) for each in sent),
            )
            for api in served
        ),
    )
    yield ""
    yield "Versions below the first of a range are refused; a client that asks learns the ranges by ApiVersions."
    for api in served:
        if api.advertised_min < api.version_min:
            yield (
                f"{api.name} is announced from {api.advertised_min} on, since older clients read more into the range "
                "than what they send."
            )
    yield ""
    unserved = [api.name for key, api in sorted(APIS.items()) if key not in HANDLERS]
    if unserved:
        yield f"Known to the codecs and not served yet: {', '.join(unserved)}.\n"
    yield "## What ran\n"
    yield from _table(("client", "what the tests make it do"), ((each.name, ", ".join(each.runs)) for each in clients))
    yield ""
    yield from _table(
        ("tool", "how it was run", "requests"),
        (
            (f"`{each.name}`", ", ".join(f"`{run}`" for run in each.runs), ", ".join(sorted(each.requests)))
            for each in tools
        ),
    )
    yield ""
    yield from _differences()


def _differences() -> Iterator[str]:
    yield "## What differs from Apache Kafka 4.3 on purpose\n"
    yield (
        "Requests that are served are answered as a single Kafka 4.3 answers them; tests ask both and compare. These "
        "are the exceptions, and what else an operator may notice. An API or a version that is missing above is not "
        "served yet.\n"
    )
    yield from _table(
        ("what", "here", "Kafka", "why", "decided in"),
        ((*each[:4], f"`{each.where.removeprefix('src/millstream/')}`") for each in DIFFERENCES),
    )


def _versions(versions: list[int]) -> str:
    if not versions:
        return "-"
    runs: list[list[int]] = []
    for version in sorted(versions):
        if runs and version == runs[-1][1] + 1:
            runs[-1][1] = version
        else:
            runs.append([version, version])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def _together(speakers: Iterable[Speaker]) -> Requests:
    found: dict[str, set[int]] = {}
    for speaker in speakers:
        for name, versions in speaker.requests.items():
            found.setdefault(name, set()).update(versions)
    return {name: sorted(versions) for name, versions in found.items()}


def _table(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> Iterator[str]:
    head = list(columns)
    yield "| " + " | ".join(head) + " |"
    yield "|" + " --- |" * len(head)
    for row in rows:
        yield "| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |"


def main() -> int:
    """Write the page, or check it."""
    parser = argparse.ArgumentParser(description="Make docs/compatibility.md.")
    parser.add_argument("--check", action="store_true", help="fail where the page is not up to date")
    wanted = page(load())
    if parser.parse_args().check:
        if not PAGE.exists() or PAGE.read_text() != wanted:
            print("docs/compatibility.md is not up to date: run `python -m tools.compatibility`", file=sys.stderr)
            return 1
        return 0
    PAGE.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
