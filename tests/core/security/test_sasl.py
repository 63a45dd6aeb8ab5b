"""The client's half of each SASL mechanism, against the RFCs' own examples and against servers that lie."""

from __future__ import annotations

import base64
import hashlib
import hmac
import pickle

import pytest

from millstream.core.security import AuthenticationError, OAuthBearer, Plain, Scram, parse_jaas


def test_plain_is_rfc_4616() -> None:
    plain = Plain("tim", "tanstaaftanstaaf")
    assert plain.start() == b"\0tim\0tanstaaftanstaaf"
    assert plain.respond(b"") is None
    assert plain.is_complete


def test_plain_takes_no_challenge_and_no_nul() -> None:
    with pytest.raises(AuthenticationError, match="3 bytes"):
        Plain("a", "b").respond(b"abc")
    with pytest.raises(AuthenticationError, match="NUL"):
        Plain("a\0", "b")


def test_scram_is_rfc_7677() -> None:
    scram = Scram("SCRAM-SHA-256", "user", "pencil", nonce=lambda: "rOprNGfwEbeRWgbNEkqO")
    assert scram.start() == b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
    challenge = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    assert scram.respond(challenge) == (
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    )
    assert not scram.is_complete
    assert scram.respond(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=") is None
    assert scram.is_complete


class ScramServer:
    """The other half, written down from RFC 5802."""

    def __init__(self, digest: str, password: str) -> None:
        self.digest = digest
        self.salt = b"some salt"
        self.salted = hashlib.pbkdf2_hmac(digest, password.encode(), self.salt, 8192)
        self.first = ""
        self.challenge = ""

    def begin(self, message: bytes) -> bytes:
        self.first = message.decode().removeprefix("n,,")
        nonce = self.first.rpartition("r=")[2]
        self.challenge = f"r={nonce}server,s={base64.b64encode(self.salt).decode()},i=8192"
        return self.challenge.encode()

    def finish(self, message: bytes) -> bytes:
        without_proof, _, proof = message.decode().rpartition(",p=")
        signed = f"{self.first},{self.challenge},{without_proof}".encode()
        client_key = hmac.digest(self.salted, b"Client Key", self.digest)
        stored = hashlib.new(self.digest, client_key).digest()
        signature = hmac.digest(stored, signed, self.digest)
        shown = bytes(a ^ b for a, b in zip(base64.b64decode(proof), signature, strict=True))
        if shown != client_key:
            return b"e=invalid-proof"
        server_key = hmac.digest(self.salted, b"Server Key", self.digest)
        return b"v=" + base64.b64encode(hmac.digest(server_key, signed, self.digest))


@pytest.mark.parametrize(("name", "digest"), [("SCRAM-SHA-256", "sha256"), ("SCRAM-SHA-512", "sha512")])
@pytest.mark.parametrize("user", ["ann", "a=b,c", "Zoë"])
def test_scram_with_a_server(name: str, digest: str, user: str) -> None:
    scram, server = Scram(name, user, "s3cret"), ScramServer(digest, "s3cret")
    answer = scram.respond(server.begin(scram.start()))
    assert answer is not None
    assert server.first.startswith(f"n={user.replace('=', '=3D').replace(',', '=2C')},")
    assert scram.respond(server.finish(answer)) is None
    assert scram.is_complete


def test_scram_nonces_differ() -> None:
    assert Scram("SCRAM-SHA-256", "a", "b").start() != Scram("SCRAM-SHA-256", "a", "b").start()


def test_scram_tells_a_server_that_does_not_know_the_password() -> None:
    scram, server = Scram("SCRAM-SHA-512", "ann", "s3cret"), ScramServer("sha512", "s3cret")
    answer = scram.respond(server.begin(scram.start()))
    assert answer is not None
    with pytest.raises(AuthenticationError, match="does not know this user's password"):
        scram.respond(b"v=" + base64.b64encode(bytes(64)))
    assert not scram.is_complete
    with pytest.raises(AuthenticationError, match="refused SCRAM-SHA-512: invalid-proof"):
        scram.respond(b"e=invalid-proof")


@pytest.mark.parametrize(
    ("challenge", "sentence"),
    [
        (b"r=other,s=AAAA,i=4096", "does not begin with this client's"),
        (b"r=mine,s=AAAA,i=4096", "does not begin with this client's"),
        (b"r=mine2,s=AAAA,i=4095", "4095 SCRAM-SHA-256 iterations"),
        (b"r=mine2,s=AAAA,i=1000000000", "1000000000 SCRAM-SHA-256 iterations"),
        (b"r=mine2,s=AAAA,i=many", "0 SCRAM-SHA-256 iterations"),
        (b"r=mine2,s=,i=4096", "4096 SCRAM-SHA-256 iterations"),
        (b"r=mine2,s=?,i=4096", "no base64"),
        (b"\xff", "is not text"),
        (b"nonsense", "no list of fields"),
        (b"e=unknown-user", "refused SCRAM-SHA-256: unknown-user"),
    ],
)
def test_scram_refuses_bad_challenges(challenge: bytes, sentence: str) -> None:
    scram = Scram("SCRAM-SHA-256", "user", "pencil", nonce=lambda: "mine")
    with pytest.raises(AuthenticationError, match=sentence) as raised:
        scram.respond(challenge)
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)


def test_oauthbearer_is_rfc_7628() -> None:
    bearer = OAuthBearer("token", {"traceId": "123"})
    assert bearer.start() == b"n,,\x01auth=Bearer token\x01traceId=123\x01\x01"
    assert bearer.respond(b"") is None
    assert bearer.is_complete


@pytest.mark.parametrize(
    ("said", "why"), [(b'{"status":"invalid_token"}', "invalid_token"), (b"{", "does not say why"), (b"[]", "say why")]
)
def test_oauthbearer_acknowledges_a_refusal_and_tells_it(said: bytes, why: str) -> None:
    bearer = OAuthBearer("token")
    assert bearer.respond(said) == b"\x01"
    with pytest.raises(AuthenticationError, match=why):
        bearer.respond(b"")
    assert not bearer.is_complete
    with pytest.raises(AuthenticationError, match="control character"):
        OAuthBearer("token\x01auth=other")


def test_jaas_lines() -> None:
    module = "org.apache.kafka.common.security.plain.PlainLoginModule"
    line = f'{module} required\n username="ann" password="a\\"b;c d" debug=true;'
    assert parse_jaas(line) == {"username": "ann", "password": 'a"b;c d', "debug": "true"}
    assert parse_jaas(f"{module} REQUIRED;") == {}


@pytest.mark.parametrize("line", ["", "nonsense", 'Module required password="s3cret', "Module required s3cret;"])
def test_bad_jaas_lines_are_refused_without_showing_them(line: str) -> None:
    with pytest.raises(ValueError, match="NAME=") as raised:
        parse_jaas(line)
    assert "s3cret" not in str(raised.value)
