"""Which registry is asked next, and when a call ends."""

from __future__ import annotations

import pytest

from millstream.schemas.client.attempts import AGAIN, Attempts
from millstream.schemas.client.config import RegistryConfig
from millstream.schemas.client.errors import RegistryError, RegistryUnavailableError
from millstream.schemas.error_codes import RegistryErrorCode

ERROR = b'{"error_code": 50004, "message": "no leader"}'


def attempts(count: int = 2, *, first: int = 0, is_idempotent: bool = True, **settings: float) -> Attempts:
    urls = tuple(f"http://registry-{index}" for index in range(count))
    config = RegistryConfig(urls=urls, **settings)  # type: ignore[arg-type]
    return Attempts(config, first, 100.0, is_idempotent=is_idempotent)


def test_every_address_is_asked_before_the_first_pause_and_pauses_grow() -> None:
    trying = attempts(2, retries=2, backoff_s=0.1, backoff_s_max=0.15)
    asked = []
    for _ in range(6):
        asked.append(trying.next(100.0))
        if len(asked) < 6:
            trying.failed("refused", begun=False)
    assert [one.url[-1] for one in asked] == list("010101")
    pauses = [one.pause_s for one in asked]
    assert pauses[0] == pauses[1] == pauses[3] == pauses[5] == 0
    assert 0.08 <= pauses[2] <= 0.12
    assert 0.12 <= pauses[4] <= 0.18
    with pytest.raises(RegistryUnavailableError, match=r"http://registry-1, asked 6 times; .*registry-1: refused"):
        trying.failed("refused", begun=False)


def test_the_one_that_answered_last_is_asked_first() -> None:
    trying = attempts(3, first=2)
    assert trying.next(100.0).url == "http://registry-2"
    trying.failed("reset", begun=True)
    assert trying.next(100.0).url == "http://registry-0"
    assert trying.answered(200, b"[1]") == [1]
    assert trying.index == 0


def test_no_attempt_begins_behind_the_deadline_and_none_may_take_longer() -> None:
    trying = attempts(1, timeout_s=10, retries=100)
    assert trying.next(100.0).timeout_s == 10
    trying.failed("timed out", begun=True)
    assert trying.next(109.0).timeout_s < 1
    trying.failed("timed out", begun=True)
    with pytest.raises(RegistryUnavailableError, match="within 10 s; the last answer: http://registry-0: timed out"):
        trying.next(110.0)


def test_what_may_not_be_done_twice_is_tried_again_only_where_nothing_was_begun() -> None:
    trying = attempts(is_idempotent=False)
    trying.next(100.0)
    trying.failed("refused", begun=False)
    trying.next(100.0)
    assert trying.answered(503, b"") is AGAIN
    trying.next(100.0)
    assert trying.answered(500, ERROR) is AGAIN
    trying.next(100.0)
    with pytest.raises(RegistryUnavailableError, match="whether the registry did what was asked is not known"):
        trying.failed("reset", begun=True)
    trying = attempts(is_idempotent=False)
    trying.next(100.0)
    with pytest.raises(RegistryError, match=r"lost \(50002 OPERATION_TIMEOUT\)"):
        trying.answered(500, b'{"error_code": 50002, "message": "lost"}')


def test_a_refusal_says_what_the_registry_said() -> None:
    trying = attempts()
    trying.next(100.0)
    with pytest.raises(RegistryError) as caught:
        trying.answered(404, b'{"error_code": 40401, "message": "Subject \'x\' not found."}')
    error = caught.value
    assert (error.code, error.status, error.message) == (40401, 404, "Subject 'x' not found.")
    assert error.code == RegistryErrorCode.SUBJECT_NOT_FOUND
    assert str(error) == "Subject 'x' not found. (40401 SUBJECT_NOT_FOUND)"


@pytest.mark.parametrize("body", [b"<html>\n  Bad gateway</html>", b"", b'{"error": "no"}', b'{"error_code": "x"}'])
def test_an_answer_of_something_else_is_shown(body: bytes) -> None:
    trying = attempts(1, retries=0)
    trying.next(100.0)
    with pytest.raises(RegistryError, match="http://registry-0 answered HTTP 502: ") as caught:
        trying.answered(502, body)
    assert (caught.value.code, caught.value.status) == (502, 502)


def test_success_that_is_no_json_is_an_error() -> None:
    trying = attempts()
    trying.next(100.0)
    with pytest.raises(RegistryError, match="answered no JSON: hello"):
        trying.answered(200, b"hello")
    assert trying.answered(204, b"") is None


def test_what_one_replica_does_not_know_yet_another_may() -> None:
    config = RegistryConfig(urls=("http://registry-0", "http://registry-1"))
    missing = b'{"error_code": 40403, "message": "Schema 7 not found"}'
    trying = Attempts(config, 0, 100.0, is_idempotent=True, may_lag=True)
    assert trying.next(100.0).url == "http://registry-0"
    assert trying.answered(404, missing) is AGAIN
    assert trying.next(100.0) == ("http://registry-1", 0.0, 30.0)
    with pytest.raises(RegistryError, match="Schema 7 not found"):
        trying.answered(404, missing)
    trying = attempts()
    trying.next(100.0)
    with pytest.raises(RegistryError, match="Schema 7 not found"):
        trying.answered(404, missing)
