"""Clients of ours on the protected listeners of Apache Kafka: TLS, mutual TLS, every SASL mechanism but GSSAPI.

That one is in `test_kerberos.py`.
"""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import ssl
import threading
import time
from collections.abc import Iterator
from typing import ClassVar

import pytest
from tests.support.secured_kafka import PASSWORD, SECURITY, USER, Secured

from millstream.core.client import Client
from millstream.core.client.security import Token
from millstream.core.config import ConfigError
from millstream.core.net import TlsFailedError
from millstream.core.security import AuthenticationError
from millstream.core.wire import KafkaError

pytestmark = pytest.mark.java


async def brokers(port: int, **configs: object) -> int:
    async with Client(f"127.0.0.1:{port}", request_timeout_ms=20_000, **configs) as client:  # type: ignore[arg-type]
        return len((await client.metadata([])).brokers)


async def test_tls_with_an_authority_given_as_file_and_as_text(secured: Secured) -> None:
    authority = secured.certificates.authority
    assert await brokers(secured.tls_port, security_protocol="SSL", ssl_truststore_location=str(authority)) == 1
    text = authority.read_text().replace("\n", "\\n")
    assert await brokers(secured.tls_port, security_protocol="ssl", ssl_truststore_certificates=text) == 1
    context = ssl.create_default_context(cafile=str(authority))
    assert await brokers(secured.tls_port, security_protocol="SSL", ssl_context=context) == 1


async def test_a_broker_that_nobody_vouches_for_is_not_talked_to(secured: Secured) -> None:
    with pytest.raises(TlsFailedError, match="its certificate is not to be trusted"):
        await brokers(secured.tls_port, security_protocol="SSL")


async def test_mutual_tls(secured: Secured) -> None:
    given = {"security_protocol": "SSL", "ssl_truststore_location": str(secured.certificates.authority)}
    client = secured.certificates.client
    assert await brokers(secured.mutual_port, **given, ssl_keystore_location=str(client)) == 1
    key, mark, chain = client.read_text().partition("-----BEGIN CERTIFICATE-----")
    texts = {"ssl_keystore_key": key, "ssl_keystore_certificate_chain": mark + chain}
    assert await brokers(secured.mutual_port, **given, **texts) == 1
    with pytest.raises(KafkaError):
        await brokers(secured.mutual_port, **given)


async def test_tls_where_the_listener_has_none_and_the_reverse(secured: Secured) -> None:
    with pytest.raises(KafkaError, match=r"security\.protocol|closed the connection"):
        await brokers(secured.sasl_port, security_protocol="SSL", ssl_endpoint_identification_algorithm="")
    with pytest.raises(KafkaError):
        await brokers(secured.tls_port)


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
@pytest.mark.parametrize("protocol", ["SASL_PLAINTEXT", "SASL_SSL"])
async def test_passwords(secured: Secured, mechanism: str, protocol: str) -> None:
    port = secured.sasl_tls_port if protocol == "SASL_SSL" else secured.sasl_port
    given = {"security_protocol": protocol, "sasl_mechanism": mechanism}
    if protocol == "SASL_SSL":
        given["ssl_truststore_location"] = str(secured.certificates.authority)
    assert await brokers(port, **given, sasl_username=USER, sasl_password=PASSWORD) == 1
    jaas = f'{SECURITY}.any.LoginModule required username="{USER}" password="{PASSWORD}";'
    assert await brokers(port, **given, sasl_jaas_config=jaas) == 1
    with pytest.raises(AuthenticationError, match="refused these credentials") as raised:
        await brokers(port, **given, sasl_username=USER, sasl_password="wrong")
    assert "wrong" not in str(raised.value)


async def test_a_session_is_renewed_before_it_ends(secured: Secured) -> None:
    async with Client(
        f"127.0.0.1:{secured.sasl_port}",
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="PLAIN",
        sasl_username=USER,
        sasl_password=PASSWORD,
    ) as client:
        first = await client.connection()
        began = time.monotonic()
        while (now := await client.connection()) is first:
            assert time.monotonic() - began < 60
            await client.metadata([])
        assert first.is_open or not first.connection.in_flight
        assert now.is_open
        await client.metadata([])


def _unsecured_token(lifetime_s: int = 3600) -> str:
    """A JWT that nobody signed, as Kafka's own test mode takes them."""

    def part(content: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")

    now = int(time.time())
    return f"{part({'alg': 'none'})}.{part({'sub': USER, 'iat': now - 5, 'exp': now + lifetime_s})}."


async def test_tokens(secured: Secured) -> None:
    asked = 0

    async def provide() -> Token:
        nonlocal asked
        asked += 1
        return Token(_unsecured_token())

    configs = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "OAUTHBEARER"}
    assert await brokers(secured.sasl_port, **configs, sasl_token_provider=provide) == 1
    assert asked >= 1

    async def expired() -> Token:
        return Token(_unsecured_token(-3600))

    with pytest.raises(AuthenticationError):
        await brokers(secured.sasl_port, **configs, sasl_token_provider=expired)
    with pytest.raises(ConfigError, match="sasl_token_provider"):
        await brokers(secured.sasl_port, **configs)


class _Endpoint(http.server.BaseHTTPRequestHandler):
    requests: ClassVar[list[tuple[str, str]]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.requests.append((self.headers["Authorization"], body))
        known = self.headers["Authorization"] == f"Basic {base64.b64encode(b'loader:pass').decode()}"
        answer = json.dumps({"access_token": _unsecured_token(), "expires_in": 3600, "token_type": "Bearer"}).encode()
        self.send_response(200 if known else 401)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Say nothing on standard error."""


@contextlib.contextmanager
def token_endpoint() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Endpoint)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/token"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(30)


async def test_tokens_from_an_endpoint(secured: Secured) -> None:
    configs = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "OAUTHBEARER"}
    with token_endpoint() as url:
        configs["sasl_oauthbearer_token_endpoint_url"] = url
        configs["sasl_oauthbearer_client_credentials_client_id"] = "loader"
        configs["sasl_oauthbearer_scope"] = "kafka"
        secret = "sasl_oauthbearer_client_credentials_client_secret"
        assert await brokers(secured.sasl_port, **configs, **{secret: "pass"}) == 1
        assert _Endpoint.requests[-1][1] == "grant_type=client_credentials&scope=kafka"
        with pytest.raises(AuthenticationError, match="refuses this client: 401"):
            await brokers(secured.sasl_port, **configs, **{secret: "other"})


async def test_configs_that_cannot_work_say_so(secured: Secured) -> None:
    for configs, sentence in (
        ({"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN"}, "needs sasl.username and sasl.password"),
        ({"security_protocol": "SASL_SSL"}, "GSSAPI needs sasl.kerberos.service.name"),
        (
            {"security_protocol": "SSL", "ssl_truststore_location": "nowhere.pem"},
            "ssl.truststore.location: nowhere.pem",
        ),
        ({"security_protocol": "SSL", "ssl_keystore_key": "x"}, "ssl.keystore.key"),
        ({"ssl_context": ssl.create_default_context()}, "it would not be used"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            await brokers(secured.tls_port, **configs)
    with pytest.raises(AuthenticationError, match=r"it takes PLAIN|needs the extra `kerberos`"):
        await brokers(
            secured.sasl_port,
            security_protocol="SASL_PLAINTEXT",
            sasl_mechanism="GSSAPI",
            sasl_kerberos_service_name="kafka",
        )
