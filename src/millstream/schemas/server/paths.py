"""From a path as it is asked for to the one that is routed: contexts and aliases are put into the subject.

    /contexts/c/subjects/s/versions      ->  /subjects/:.c:s/versions
    /contexts/c/config                   ->  /config/:.c:
    /contexts/c/schemas/ids/1            ->  /schemas/ids/1?subject=:.c:
    /contexts/c/subjects                 ->  /subjects?subjectPrefix=:.c:
    /subjects/a/versions                 ->  /subjects/s/versions           where the config of a has the alias s

Segments are taken apart before they are decoded, so that a subject may hold a slash (%2F).
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import parse_qs, quote, unquote

from millstream.schemas.server.subjects import context_prefix

Query = dict[str, list[str]]
PARAMETERS_MAX = 100
# As they are they would be steps of the path, and be taken out of it on the way to the leader.
_DOTS = {".": "%2E", "..": "%2E%2E"}


def segments_of(raw_path: bytes) -> list[str]:
    """Return the decoded segments of a path; empty ones are dropped. Raises ValueError for what is no Unicode."""
    return [unquote(one, errors="strict") for one in raw_path.decode("ascii").split("/") if one]


def query_of(query_string: bytes) -> Query:
    """Return the parameters of a query. Raises ValueError for too many, and what is no Unicode."""
    if not query_string:
        return {}
    return parse_qs(
        query_string.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=PARAMETERS_MAX
    )


def joined(segments: list[str]) -> str:
    """Return a path whose segments hold no slash of their own."""
    return "/" + "/".join(_DOTS.get(one) or quote(one, safe=":") for one in segments)


def within_context(segments: list[str], query: Query) -> list[str]:
    """Take a leading /contexts/{context} out of a path, and put the context where it belongs. Raises ValueError.

    `query` is changed. The listing of contexts, and a context by itself, stay as they are.
    """
    if len(segments) < 3 or segments[0] != "contexts":
        return segments
    prefix = context_prefix(segments[1])
    routed = segments[2:]
    root = routed[0]
    if root in ("config", "mode"):
        if len(routed) == 1:
            return [*routed, prefix] if prefix else routed
        return [root, _prefixed(routed[1], prefix), *routed[2:]]
    if root == "schemas":
        if routed[1:2] in (["ids"], ["guids"]):
            query["subject"] = [_prefixed(query.get("subject", [""])[0], prefix)]
        elif len(routed) == 1:
            query["subjectPrefix"] = [_prefixed(query.get("subjectPrefix", [""])[0], prefix)]
        return routed
    if routed == ["subjects"]:
        query["subjectPrefix"] = [_prefixed(query.get("subjectPrefix", [""])[0], prefix)]
        return routed
    return _with_subject(routed, lambda subject: _prefixed(subject, prefix))


def with_alias(segments: list[str], query: Query, aliased: Callable[[str], str]) -> list[str]:
    """Replace the subject by the one that its alias names; `query` is changed."""
    if segments[:2] == ["schemas", "ids"] and "subject" in query:
        query["subject"] = [aliased(query["subject"][0])]
    if segments[:1] in (["config"], ["mode"]):
        return segments
    return _with_subject(segments, aliased)


def _with_subject(segments: list[str], replaced: Callable[[str], str]) -> list[str]:
    """Replace what stands behind the first `subjects`."""
    if "subjects" not in segments:
        return segments
    at = segments.index("subjects") + 1
    if at == len(segments):
        return segments
    return [*segments[:at], replaced(segments[at]), *segments[at + 1 :]]


def _prefixed(subject: str, prefix: str) -> str:
    return subject if subject.startswith((":.", ":*:")) else prefix + subject
