"""The configs of clients that say how a connection is protected and who the client is: TLS and SASL.

Kafka's names. Key stores are PEM, in files or as text: a JKS or PKCS12 store is read by a JVM only. `sasl.username` and
`sasl.password` are librdkafka's names for what a sasl.jaas.config line says.
"""

from __future__ import annotations

from typing import Final

from millstream.core.config.definition import (
    ConfigKey,
    ConfigType,
    ConfigValue,
    Importance,
    Validator,
    between,
    list_of,
    one_of,
    one_of_any_case,
)

SASL_MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "GSSAPI")

_STRING, _PASSWORD, _LIST, _DOUBLE, _SHORT, _LONG, _INT, _BOOLEAN = (
    ConfigType.STRING,
    ConfigType.PASSWORD,
    ConfigType.LIST,
    ConfigType.DOUBLE,
    ConfigType.SHORT,
    ConfigType.LONG,
    ConfigType.INT,
    ConfigType.BOOLEAN,
)
_HIGH, _MEDIUM, _LOW = Importance.HIGH, Importance.MEDIUM, Importance.LOW


def _pem(value: ConfigValue) -> tuple[object, str] | None:
    assert isinstance(value, str), value
    if value.upper() == "PEM":
        return None
    return value, "only PEM is read here; `keytool -exportcert -rfc` and `openssl pkcs12 -nodes` write it"


def _fraction(low: float, high: float) -> Validator:
    def check(value: ConfigValue) -> tuple[object, str] | None:
        assert isinstance(value, float), value
        return None if low <= value <= high else (value, f"it lies between {low} and {high}")

    return Validator(f"[{low},...,{high}]", check)


def _key(
    name: str,
    kind: ConfigType,
    default: ConfigValue,
    importance: Importance,
    doc: str,
    validator: Validator | None = None,
) -> ConfigKey:
    return ConfigKey(name=name, type=kind, default=default, doc=doc, validator=validator, importance=importance)


_PEM: Final = Validator("PEM", _pem)

SECURITY_CONFIGS: Final = (
    _key(
        "security.protocol",
        _STRING,
        "PLAINTEXT",
        _MEDIUM,
        "How brokers are talked to.",
        one_of_any_case("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"),
    ),
    _key("ssl.cipher.suites", _LIST, [], _LOW, "Cipher suites, by OpenSSL's names; none: OpenSSL's own choice."),
    _key(
        "ssl.enabled.protocols",
        _LIST,
        ["TLSv1.2", "TLSv1.3"],
        _MEDIUM,
        "Versions of TLS to speak.",
        list_of("TLSv1.2", "TLSv1.3"),
    ),
    _key(
        "ssl.endpoint.identification.algorithm",
        _STRING,
        "https",
        _LOW,
        "Whether a broker's certificate must name its host; empty: no.",
        one_of("https", ""),
    ),
    _key("ssl.truststore.location", _STRING, None, _HIGH, "File of the authorities' certificates; None: the system's."),
    _key("ssl.truststore.certificates", _PASSWORD, None, _HIGH, "The authorities' certificates themselves."),
    _key("ssl.truststore.password", _PASSWORD, None, _HIGH, "Not used by PEM."),
    _key("ssl.truststore.type", _STRING, "PEM", _MEDIUM, "Form of the trust store.", _PEM),
    _key("ssl.keystore.location", _STRING, None, _HIGH, "File of this client's private key and certificates."),
    _key("ssl.keystore.certificate.chain", _PASSWORD, None, _HIGH, "This client's certificates themselves."),
    _key("ssl.keystore.key", _PASSWORD, None, _HIGH, "This client's private key itself."),
    _key("ssl.keystore.password", _PASSWORD, None, _HIGH, "Not used by PEM."),
    _key("ssl.keystore.type", _STRING, "PEM", _MEDIUM, "Form of the key store.", _PEM),
    _key("ssl.key.password", _PASSWORD, None, _HIGH, "Password of the private key."),
    _key(
        "sasl.mechanism",
        _STRING,
        "GSSAPI",
        _MEDIUM,
        "How the client says who it is.",
        one_of(*SASL_MECHANISMS),
    ),
    _key("sasl.jaas.config", _PASSWORD, None, _MEDIUM, "A login module's line, for its username and password."),
    _key("sasl.username", _STRING, None, _MEDIUM, "User of PLAIN and SCRAM."),
    _key("sasl.password", _PASSWORD, None, _MEDIUM, "Password of PLAIN and SCRAM."),
    _key("sasl.kerberos.service.name", _STRING, None, _MEDIUM, "Kerberos service that the brokers run as."),
    _key("sasl.login.connect.timeout.ms", _INT, None, _LOW, "How long connecting to a token endpoint may take."),
    _key("sasl.login.read.timeout.ms", _INT, None, _LOW, "How long a token endpoint's answer may take."),
    _key(
        "sasl.login.refresh.buffer.seconds",
        _SHORT,
        300,
        _LOW,
        "A token is renewed so long before its end.",
        between(0, 3_600),
    ),
    _key("sasl.login.refresh.min.period.seconds", _SHORT, 60, _LOW, "And not before it is so old.", between(0, 900)),
    _key(
        "sasl.login.refresh.window.factor",
        _DOUBLE,
        0.8,
        _LOW,
        "Share of its life after which it is renewed.",
        _fraction(0.5, 1.0),
    ),
    _key(
        "sasl.login.refresh.window.jitter", _DOUBLE, 0.05, _LOW, "By how much that share varies.", _fraction(0.0, 0.25)
    ),
    _key("sasl.login.retry.backoff.ms", _LONG, 100, _LOW, "First pause before a token is asked for again."),
    _key("sasl.login.retry.backoff.max.ms", _LONG, 10_000, _LOW, "Longest such pause; each doubles."),
    _key("sasl.oauthbearer.token.endpoint.url", _STRING, None, _MEDIUM, "Where tokens are asked for (OAuth 2)."),
    _key("sasl.oauthbearer.client.credentials.client.id", _STRING, None, _MEDIUM, "Client to ask for a token as."),
    _key("sasl.oauthbearer.client.credentials.client.secret", _PASSWORD, None, _MEDIUM, "And its secret."),
    _key("sasl.oauthbearer.scope", _STRING, None, _MEDIUM, "Scope to ask for."),
    _key("sasl.oauthbearer.header.urlencode", _BOOLEAN, False, _LOW, "Whether id and secret are URL-encoded first."),
)
