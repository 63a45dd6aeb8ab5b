"""Subjects with contexts, and the paths they are asked for by."""

from __future__ import annotations

import pytest

from millstream.schemas.client.calls import RegistryCalls
from millstream.schemas.client.registered import SubjectConfig
from millstream.schemas.server.paths import joined, query_of, segments_of, with_alias, within_context
from millstream.schemas.server.subjects import (
    context_of,
    context_prefix,
    is_valid,
    is_within,
    normalized,
    referred,
    split,
)


def routed(target: str, aliases: dict[str, str] | None = None) -> str:
    """The path and query that a request comes to."""
    path, _, query_string = target.partition("?")
    query = query_of(query_string.encode())
    segments = within_context(segments_of(path.encode()), query)
    segments = with_alias(segments, query, lambda subject: (aliases or {}).get(subject, subject))
    shown = "&".join(f"{name}={value}" for name, values in query.items() for value in values)
    return joined(segments) + (f"?{shown}" if shown else "")


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("/subjects/s/versions", "/subjects/s/versions"),
        ("/subjects/a%2Fb/versions/", "/subjects/a%2Fb/versions"),
        ("/subjects/orders/versions/%2E%2E", "/subjects/orders/versions/%2E%2E"),
        ("/config/%2e", "/config/%2E"),
        ("/subjects/...", "/subjects/..."),
        ("/contexts/.c/subjects/s/versions/1", "/subjects/:.c:s/versions/1"),
        ("/contexts/c/subjects/s/versions", "/subjects/:.c:s/versions"),
        ("/contexts/:.c:/subjects/s", "/subjects/:.c:s"),
        ("/contexts/./subjects/s", "/subjects/s"),
        ("/contexts/.c/subjects/:.d:s", "/subjects/:.d:s"),
        ("/contexts/.c/subjects", "/subjects?subjectPrefix=:.c:"),
        ("/contexts/.c/subjects?subjectPrefix=x", "/subjects?subjectPrefix=:.c:x"),
        ("/contexts/.c/schemas", "/schemas?subjectPrefix=:.c:"),
        ("/contexts/.c/schemas/ids/1", "/schemas/ids/1?subject=:.c:"),
        ("/contexts/.c/schemas/ids/1?subject=s", "/schemas/ids/1?subject=:.c:s"),
        ("/contexts/.c/schemas/types", "/schemas/types"),
        ("/contexts/.c/config", "/config/:.c:"),
        ("/contexts/.c/config/s", "/config/:.c:s"),
        ("/contexts/./config", "/config"),
        ("/contexts/.c/mode", "/mode/:.c:"),
        ("/contexts/.c/compatibility/subjects/s/versions/1", "/compatibility/subjects/:.c:s/versions/1"),
        ("/contexts", "/contexts"),
        ("/contexts/.c", "/contexts/.c"),
        ("/subjects/alias/versions", "/subjects/real/versions"),
        ("/compatibility/subjects/alias/versions/1", "/compatibility/subjects/real/versions/1"),
        ("/schemas/ids/1?subject=alias", "/schemas/ids/1?subject=real"),
        ("/config/alias", "/config/alias"),
        ("/mode/subjects", "/mode/subjects"),
    ],
)
def test_contexts_and_aliases_are_put_in(asked: str, meant: str) -> None:
    assert routed(asked, {"alias": "real"}) == meant


def test_bad_addresses_are_refused() -> None:
    for bad in (b"/subjects/%ff", "/subjects/ü".encode()):
        with pytest.raises(ValueError):
            segments_of(bad)
    with pytest.raises(ValueError):
        query_of(b"&".join(b"a=1" for _ in range(200)))
    with pytest.raises(ValueError, match="colon"):
        within_context(["contexts", "a:b", "subjects"], {})


def test_subjects_are_taken_apart() -> None:
    assert split(":.c:s") == (".c", "s")
    assert split("s") == (".", "s")
    assert split(":.c") == (".c", "")
    assert split(":*:s") == ("*", "s")
    assert normalized(":.:s") == "s"
    assert normalized("s:t") == "s:t"
    assert context_of(":.c:s:t") == ".c"
    assert context_prefix(".") == ""
    assert referred(":.c:s", "t") == ":.c:t"
    assert referred(":.c:s", ":.d:t") == ":.d:t"
    assert is_within(":.c:s", ":.c:")
    assert is_within(":.c:s", ":.__GLOBAL:")
    assert not is_within("s", ":.c:")
    assert not is_within("s", "t")


def test_some_subjects_are_none() -> None:
    assert is_valid("s")
    assert is_valid(":.c:s")
    for bad in ("", "a\nb", "a\x7fb", "__GLOBAL", "__EMPTY", ":.c:", ":.__GLOBAL:s", ":.c:*"):
        assert not is_valid(bad), bad
    assert is_valid(":.c:", is_setting=True)
    assert is_valid(":.__GLOBAL:", is_setting=True)


def test_the_client_asks_for_what_was_meant() -> None:
    """A path is made shorter by its dots where they are left as they are."""
    calls = RegistryCalls(10)
    assert next(calls.set_config(".", SubjectConfig())).path == "config/%2E"
    assert next(calls.delete_subject("..")).path == "subjects/%2E%2E"
    assert next(calls.delete_context(".")).path == "contexts/%2E"
