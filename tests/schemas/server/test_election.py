"""Who leads, as the group's leader decides it; and what members tell each other, in Confluent's form."""

from __future__ import annotations

import json

import pytest

from millstream.core.client.membership import JoinedMember
from millstream.schemas.server.election import DUPLICATE_URLS, NO_ERROR, Identity, Verdict, elect


def member(name: str, identity: Identity) -> JoinedMember:
    return JoinedMember(name, None, json.dumps(identity.to_json()).encode())


A = Identity("a", 8081)
B = Identity("b", 8081)


def test_the_smallest_url_leads() -> None:
    verdict = elect([member("2", B), member("1", A)])
    assert verdict == Verdict(NO_ERROR, "1", A)


def test_one_that_leads_already_goes_on() -> None:
    leading = B._replace(leads=True)
    assert elect([member("1", A), member("2", leading)]).member_id == "2"
    # Two that believe so: neither has a right to it.
    assert elect([member("1", A._replace(leads=True)), member("2", leading)]).member_id == "1"


def test_those_that_may_not_lead_do_not() -> None:
    assert elect([member("1", A._replace(eligible=False)), member("2", B)]).leader == B
    assert elect([member("1", A._replace(eligible=False))]) == Verdict(NO_ERROR, None, None)


def test_two_of_one_url_are_an_error() -> None:
    assert elect([member("1", A), member("2", A)]).error == DUPLICATE_URLS


def test_a_member_that_is_no_registry_is_passed_over() -> None:
    strangers = [JoinedMember("0", None, data) for data in (b"", b"[]", b"\xff", b'{"host":1}')]
    assert elect([*strangers, member("1", A)]) == Verdict(NO_ERROR, "1", A)


def test_the_form_is_confluents() -> None:
    assert A.to_json() == {
        "host": "a",
        "port": 8081,
        "master_eligibility": True,
        "scheme": "http",
        "version": 1,
        "leader": False,
    }
    verdict = Verdict.decode(
        b'{"error":0,"master":"m-1","master_identity":{"host":"a","port":8081,"master_eligibility":true,'
        b'"scheme":"https","version":1,"leader":true},"version":1}'
    )
    assert verdict == Verdict(0, "m-1", Identity("a", 8081, "https", leads=True))
    assert Verdict.decode(verdict.encoded()) == verdict
    assert Verdict.decode(b'{"error":0,"version":1}') == Verdict(0, None, None)
    for damaged in (b"", b"[]", b'{"master_identity":{}}'):
        with pytest.raises(ValueError):
            Verdict.decode(damaged)


def test_urls_of_all_kinds_of_hosts() -> None:
    assert A.url == "http://a:8081"
    assert Identity("::1", 1, "https").url == "https://[::1]:1"
