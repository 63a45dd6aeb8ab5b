"""RegistryState: what records come to, in whatever order, whole or compacted, from one leader or from two."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.schemas.parsing import Reference
from millstream.schemas.server.content import Content
from millstream.schemas.server.records import NOOP, Key, KeyType, SchemaRecord, Value
from millstream.schemas.server.state import Applied, RegistryState
from millstream.schemas.server.term import Mark, ids_value, leader_headers, read_mark, term_headers


class Log:
    """A topic: records with the headers of their writers."""

    def __init__(self) -> None:
        self.records: list[tuple[int, Key, Value, Mark]] = []
        self.state = RegistryState()

    def append(self, key: Key, value: Value, mark: Mark | None = None) -> Applied:
        offset = len(self.records)
        self.records.append((offset, key, value, mark or Mark()))
        return self.state.apply(key, value, offset, 1_000 + offset, mark or Mark())

    def schema(self, subject: str, version: int, schema_id: int, text: str = "", **fields: Any) -> Applied:
        references = fields.pop("references", ())
        content = Content("AVRO", text or f'"{subject}{version}"', references)
        deleted = bool(fields.pop("deleted", False))
        return self.append(Key(KeyType.SCHEMA, subject, version), SchemaRecord(schema_id, content, deleted), **fields)

    def compacted(self, end: int | None = None) -> RegistryState:
        """What somebody reads after the records before `end` (None: all) were compacted: of each key the newest."""
        end = len(self.records) if end is None else end
        newest = {key: offset for offset, key, _, _ in self.records[:end]}
        state = RegistryState()
        for offset, key, value, mark in self.records:
            if offset >= end or newest[key] == offset:
                state.apply(key, value, offset, 1_000 + offset, mark)
        return state


def seen(state: RegistryState) -> dict[str, Any]:
    """Everything that questions could find out."""
    subjects = sorted(state.subjects())
    versions = {
        (one.subject, one.version): (one.id, one.content.digest, one.deleted)
        for subject in subjects
        for one in state.versions(subject)
    }
    return {
        "versions": versions,
        "latest": {subject: getattr(state.latest(subject), "version", None) for subject in subjects},
        "ids": {
            (context, schema_id): sorted((one.subject, one.version) for one in state.versions_of_id(context, schema_id))
            for context in (".", ".c")
            for schema_id in range(20)
        },
        "referrers": {place: state.referrers(*place) for place in versions},
        "configs": dict(state.configs()),
        "modes": {subject: state.mode(subject) for subject in (None, "a", "b", ":.c:", ":.c:a")},
        "contexts": state.contexts(),
    }


def test_ids_and_versions_follow_the_records() -> None:
    log = Log()
    log.schema("a", 1, 1)
    log.schema("a", 2, 2)
    log.schema("b", 1, 2, '"a2"')
    state = log.state
    assert [one.version for one in state.versions("a")] == [1, 2]
    assert {(one.subject, one.version) for one in state.versions_of_id(".", 2)} == {("a", 2), ("b", 1)}
    assert (state.next_id("."), state.next_id(".c"), state.next_version("a"), state.next_version("x")) == (3, 1, 3, 1)
    assert state.find_id(".", 2, "b") is state.find_version("b", 1)
    assert state.find_id(".", 2, "c") is None
    assert state.find_content(".", Content("AVRO", '"a2"')) == (2, {"a": 2, "b": 1})


@pytest.mark.parametrize("gone", [1, 3])
def test_an_id_in_two_versions_of_a_subject_stays_when_one_goes_for_good(gone: int) -> None:
    log = Log()
    for version, schema_id, text in ((1, 1, '"int"'), (2, 2, '"long"'), (3, 1, '"int"')):
        log.schema("a", version, schema_id, text)
    state = log.state
    assert state.find_id(".", 1) is state.find_version("a", 3)
    log.schema("a", gone, 1, '"int"', deleted=True)
    # The one that is left stands for the id as soon as the other is soft-deleted, and after.
    left = state.find_version("a", 4 - gone)
    assert state.find_id(".", 1) is left
    log.append(Key(KeyType.SCHEMA, "a", gone), None)
    assert left is not None
    assert state.find_id(".", 1) is left
    assert state.find_content(".", left.content) == (1, {"a": 4 - gone})
    assert seen(log.compacted()) == seen(state)
    log.append(Key(KeyType.SCHEMA, "a", 4 - gone), None)
    assert state.find_id(".", 1) is None
    assert state.find_content(".", left.content) is None


def test_an_id_in_two_versions_names_the_one_that_a_deletion_of_the_subject_left() -> None:
    log = Log()
    log.schema("a", 1, 1, '"int"')
    log.schema("a", 3, 1, '"int"')
    log.append(Key(KeyType.DELETE_SUBJECT, "a"), {"subject": "a", "version": 1})
    assert log.state.find_id(".", 1) is log.state.find_version("a", 3)
    log.schema("a", 3, 1, '"int"', deleted=True)
    log.append(Key(KeyType.CLEAR_SUBJECT, "a"), {"subject": "a"})
    assert log.state.find_id(".", 1) is None


def test_soft_deleted_versions_stay_by_id_and_count_for_numbers() -> None:
    log = Log()
    log.schema("a", 1, 1)
    log.schema("a", 2, 2)
    log.append(Key(KeyType.DELETE_SUBJECT, "a"), {"subject": "a", "version": 2})
    state = log.state
    assert state.latest("a") is None
    assert state.find_id(".", 2) is not None
    assert state.next_version("a") == 3
    assert state.has_subject("a", deleted=True)
    assert not state.has_subject("a", deleted=False)
    log.schema("a", 3, 1, '"a1"')
    assert [(one.version, one.deleted) for one in state.versions("a")] == [(1, True), (2, True), (3, False)]


def test_what_is_gone_for_good_leaves_nothing_but_its_number() -> None:
    log = Log()
    log.schema("base", 1, 1)
    log.schema("a", 1, 2, references=(Reference("r", "base", 1),))
    assert log.state.referrers("base", 1) == {(".", 2)}
    log.append(Key(KeyType.SCHEMA, "a", 1), None)
    state = log.state
    assert list(state.subjects()) == ["base"]
    assert state.find_id(".", 2) is None
    assert state.referrers("base", 1) == set()
    assert state.find_content(".", Content("AVRO", '"a1"')) is None
    assert state.next_id(".") == 3


def test_an_id_is_not_given_out_again_when_its_schema_was_compacted_away() -> None:
    log = Log()
    log.schema("a", 1, 7)
    log.append(NOOP, ids_value(log.state.highest_ids()))
    log.append(Key(KeyType.SCHEMA, "a", 1), None)
    state = log.compacted()
    assert state.find_id(".", 7) is None
    assert state.next_id(".") == 8


def test_contexts_are_registries_of_their_own() -> None:
    log = Log()
    log.append(Key(KeyType.CONTEXT, ".c"), {"tenant": "default", "context": ".c"})
    log.schema("a", 1, 1)
    log.schema(":.c:a", 1, 1, '"other"')
    state = log.state
    assert state.contexts() == [".", ".c"]
    found = [state.find_id(context, 1) for context in (".", ".c")]
    assert [one.content.text for one in found if one is not None] == ['"a1"', '"other"']
    assert state.matching(":.c:") == [":.c:a"]
    assert state.matching("") == ["a"]
    assert sorted(state.matching(None)) == [":.c:a", "a"]


def test_references_are_within_the_context_unless_they_say_otherwise() -> None:
    log = Log()
    log.schema(":.c:a", 1, 1, references=(Reference("r", "base", 1), Reference("q", ":.d:base", 2)))
    assert log.state.referrers(":.c:base", 1) == {(".c", 1)}
    assert log.state.referrers(":.d:base", 2) == {(".c", 1)}
    assert log.state.referrers("base", 1) == set()


def test_settings_fall_back_from_subject_to_context_to_all() -> None:
    log = Log()
    state = log.state
    log.append(Key(KeyType.CONFIG, ":.__GLOBAL:"), {"compatibilityLevel": "NONE"})
    assert state.config_around("a") == {"compatibilityLevel": "NONE"}
    assert state.config_around(":.c:a") == {"compatibilityLevel": "NONE"}
    log.append(Key(KeyType.CONFIG, None), {"compatibilityLevel": "FULL"})
    log.append(Key(KeyType.CONFIG, ":.c:"), {"subject": ":.c:", "compatibilityLevel": "FORWARD"})
    assert state.config_around("a") == {"compatibilityLevel": "FULL"}
    assert state.config_around(":.c:a") == {"compatibilityLevel": "FORWARD"}
    assert state.config_around(":.d:a") == {"compatibilityLevel": "NONE"}
    log.append(Key(KeyType.MODE, ":.c:"), {"subject": ":.c:", "mode": "IMPORT"})
    assert (state.mode_around(":.c:a"), state.mode_around("a")) == ("IMPORT", None)
    log.append(Key(KeyType.MODE, ":.c:"), None)
    assert state.mode_around(":.c:a") is None


def test_clearing_a_subject_forgets_what_was_soft_deleted() -> None:
    log = Log()
    log.schema("a", 1, 1, deleted=True)
    log.schema("a", 2, 2)
    log.schema("b", 1, 3, deleted=True)
    log.append(Key(KeyType.CLEAR_SUBJECT, "a"), {"subject": "a"})
    assert {(one.subject, one.version) for name in ("a", "b") for one in log.state.versions(name)} == {
        ("a", 2),
        ("b", 1),
    }
    log.append(Key(KeyType.CLEAR_SUBJECT, None), {})
    assert list(log.state.subjects()) == ["a"]


def test_a_record_that_gives_an_id_another_schema_is_passed_over_and_repaired() -> None:
    log = Log()
    log.schema("a", 1, 1)
    assert log.schema("b", 1, 1, '"another"') is Applied.DUPLICATE_ID
    assert log.schema("a", 1, 1, '"another"') is Applied.DUPLICATE_ID
    state = log.state
    assert list(state.subjects()) == ["a"]
    repairs = dict(state.repairs())
    assert repairs[Key(KeyType.SCHEMA, "b", 1)] is None
    kept = repairs[Key(KeyType.SCHEMA, "a", 1)]
    assert isinstance(kept, SchemaRecord)
    assert kept.content.text == '"a1"'
    for key, value in list(state.repairs()):
        log.append(key, value)
    assert not state.damaged
    assert seen(log.compacted()) == seen(state)


def test_records_of_a_former_leader_change_nothing() -> None:
    log = Log()
    log.append(NOOP, None, Mark(begins_term=True))
    assert log.state.term == 0
    log.schema("a", 1, 1, mark=Mark(term=0))
    log.append(NOOP, None, Mark(begins_term=True))
    before = seen(log.state)
    stale = Mark(term=0)
    assert log.schema("a", 2, 2, mark=stale) is Applied.FENCED
    assert log.append(Key(KeyType.SCHEMA, "a", 1), None, stale) is Applied.FENCED
    assert log.append(Key(KeyType.DELETE_SUBJECT, "a"), {"subject": "a", "version": 9}, stale) is Applied.FENCED
    assert log.append(Key(KeyType.CONFIG, "a"), {"compatibilityLevel": "NONE"}, stale) is Applied.FENCED
    assert log.append(Key(KeyType.MODE, None), {"mode": "READONLY"}, stale) is Applied.FENCED
    assert seen(log.state) == before
    assert log.schema("a", 2, 2, mark=Mark(term=2)) is Applied.ACCEPTED
    # Without a mark, as another registry writes them, they hold.
    assert log.schema("a", 3, 3) is Applied.ACCEPTED
    for key, value in list(log.state.repairs()):
        assert log.append(key, value, Mark(term=2)) is Applied.ACCEPTED
    assert not log.state.damaged
    assert seen(log.compacted()) == seen(log.state)


def test_terms_hold_where_the_record_that_began_them_is_compacted_away() -> None:
    state = RegistryState()
    content = Content("AVRO", '"int"')
    assert (
        state.apply(Key(KeyType.SCHEMA, "a", 1), SchemaRecord(1, content, False), 5, 0, Mark(term=3))
        is Applied.ACCEPTED
    )
    assert (
        state.apply(Key(KeyType.SCHEMA, "b", 1), SchemaRecord(1, content, False), 9, 0, Mark(term=7))
        is Applied.ACCEPTED
    )
    assert (
        state.apply(Key(KeyType.SCHEMA, "c", 1), SchemaRecord(1, content, False), 10, 0, Mark(term=3)) is Applied.FENCED
    )


def test_headers_say_what_they_said() -> None:
    assert read_mark(()) == Mark()
    assert read_mark([("other", b"x")]) == Mark()
    assert read_mark(leader_headers("http://a:1")) == Mark(begins_term=True)
    assert read_mark(term_headers(17)) == Mark(term=17)
    for damaged in (b"", b"-1", b"x", b"9" * 40, None):
        assert read_mark([("millstream.term", damaged)]) == Mark()


def test_records_of_unknown_kinds_are_counted_and_passed_over() -> None:
    state = RegistryState()
    assert state.apply_record(b'{"keytype":"ASSOC","tenant":"default"}', b"{}", 0, 0, Mark()) is Applied.UNKNOWN
    assert state.apply_record(None, b"x", 1, 0, Mark()) is Applied.UNKNOWN
    key = Key(KeyType.SCHEMA, "a", 1).encoded()
    assert state.apply_record(key, b'{"id":1}', 2, 0, Mark()) is Applied.UNKNOWN
    assert state.passed_over[Applied.UNKNOWN] == 3
    assert state.counts() == {"subjects": 0, "versions": 0, "schemas": 0, "contexts": 1}


subjects = st.sampled_from(["a", "b", ":.c:a"])
numbers = st.integers(1, 4)
operations = st.lists(
    st.one_of(
        st.tuples(st.just("register"), subjects, numbers),
        st.tuples(st.just("soft"), subjects, numbers),
        st.tuples(st.just("hard"), subjects, numbers),
        st.tuples(st.just("delete"), subjects, numbers),
        st.tuples(st.just("config"), st.sampled_from([None, "a", ":.c:"]), numbers),
        st.tuples(st.just("stale"), subjects, numbers),
        st.tuples(st.just("election"), subjects, numbers),
    ),
    max_size=40,
)


@settings(deadline=None, max_examples=100)
@given(operations)
def test_a_compacted_log_holds_the_same(steps: list[tuple[str, str | None, int]]) -> None:
    """As a leader writes it: ids ascend, what is rejected is repaired. Then compaction takes nothing away."""
    log = Log()
    log.append(NOOP, ids_value({}), Mark(begins_term=True))
    term, stale = 0, None
    for kind, subject, number in steps:
        mark = Mark(term=term)
        name = subject or ""
        state = log.state
        version = state.find_version(name, number)
        if kind == "election":
            stale, term = term, len(log.records)
            log.append(NOOP, ids_value(state.highest_ids()), Mark(begins_term=True))
        elif kind == "register":
            context = ".c" if name.startswith(":.c:") else "."
            log.schema(name, state.next_version(name), state.next_id(context), f'"{len(log.records)}"', mark=mark)
        elif kind == "soft" and version is not None:
            log.append(version.key, version.record(deleted=True), mark)
        elif kind == "hard" and version is not None and version.deleted:
            log.append(NOOP, ids_value(state.highest_ids()), mark)
            log.append(version.key, None, mark)
        elif kind == "delete" and state.has_subject(name, deleted=False):
            last = max(one.version for one in state.versions(name) if not one.deleted)
            log.append(Key(KeyType.DELETE_SUBJECT, name), {"subject": name, "version": last}, mark)
        elif kind == "config":
            log.append(Key(KeyType.CONFIG, subject), {"compatibilityLevel": f"L{number}"}, mark)
        elif kind == "stale" and stale is not None:
            old = Mark(term=stale)
            assert log.schema(name, number, 100 + len(log.records), mark=old) is Applied.FENCED
            log.append(Key(KeyType.DELETE_SUBJECT, name), {"subject": name, "version": number}, old)
            log.append(Key(KeyType.CONFIG, subject), {"compatibilityLevel": "STALE"}, old)
        for key, value in list(log.state.repairs()):
            log.append(key, value, Mark(term=term))
        assert not log.state.damaged
    # Also where the cleaner has come no further than this, between a rejected record and its repair as anywhere.
    for end in range(len(log.records) + 1):
        assert seen(log.compacted(end)) == seen(log.state), end
        assert log.compacted(end).highest_ids() == log.state.highest_ids()


@pytest.mark.parametrize("value", [{"version": "x"}, {}, {"version": None}])
def test_a_damaged_deletion_deletes_nothing(value: dict[str, Any]) -> None:
    log = Log()
    log.schema("a", 1, 1)
    log.append(Key(KeyType.DELETE_SUBJECT, "a"), value)
    assert log.state.latest("a") is not None
