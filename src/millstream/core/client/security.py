"""How a client protects its connections and says who it is, as its configs have it."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from millstream.core.config.client_config import ClientConfig
from millstream.core.config.definition import ConfigError
from millstream.core.security import Mechanism, OAuthBearer, Plain, Scram, TlsError, TlsSettings, client_tls, parse_jaas

_TLS: Final = frozenset({"SSL", "SASL_SSL"})
_SASL: Final = frozenset({"SASL_PLAINTEXT", "SASL_SSL"})


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token, and when it ends (ms since 1970; None where that is not known)."""

    text: str = field(repr=False)
    expires_ms: int | None = None
    extensions: Mapping[str, str] = field(default_factory=dict)


TokenProvider = Callable[[], Awaitable[Token]]
"""Returns a token that is good now; asked anew for each connection, so that it may keep one."""


@dataclass(frozen=True, slots=True)
class ClientSecurity:
    """A TLS context, or None for plain connections; and a SASL mechanism's name with what it needs, or None."""

    tls: ssl.SSLContext | None = None
    sasl_mechanism: str | None = None
    username: str = ""
    password: str = field(default="", repr=False)
    service: str = ""
    # Of Kerberos; without, what the surroundings say.
    principal: str = ""
    keytab: str = ""
    token_provider: TokenProvider | None = None

    @classmethod
    def load(
        cls,
        config: ClientConfig,
        *,
        ssl_context: ssl.SSLContext | None = None,
        token_provider: TokenProvider | None = None,
    ) -> ClientSecurity:
        """Read the security configs. Raises ConfigError with the one to mend."""
        protocol = config.string("security.protocol").upper()
        if ssl_context is not None and protocol not in _TLS:
            raise ConfigError(f"ssl_context is given, and security.protocol is {protocol}: it would not be used")
        tls = (ssl_context or _tls(config)) if protocol in _TLS else None
        if protocol not in _SASL:
            return cls(tls)
        mechanism = config.string("sasl.mechanism")
        options = _jaas_options(config)
        username = config.string_or_none("sasl.username") or options.get("username") or ""
        password = config.string_or_none("sasl.password") or options.get("password") or ""
        service = config.string_or_none("sasl.kerberos.service.name") or options.get("serviceName") or ""
        if mechanism in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512") and not (username and password):
            raise ConfigError(f"sasl.mechanism {mechanism} needs sasl.username and sasl.password, or sasl.jaas.config")
        if mechanism == "GSSAPI" and not service:
            raise ConfigError("sasl.mechanism GSSAPI needs sasl.kerberos.service.name, most often kafka")
        if mechanism == "OAUTHBEARER" and token_provider is None:
            # It brings an HTTP client along, which no other mechanism needs.
            from millstream.core.client.token_endpoint import endpoint_of

            token_provider = endpoint_of(config)
        if mechanism == "OAUTHBEARER" and token_provider is None:
            raise ConfigError(
                "sasl.mechanism OAUTHBEARER needs a token: give sasl_token_provider=, "
                "or sasl.oauthbearer.token.endpoint.url with a client's id and secret"
            )
        keytab = options.get("keyTab", "") if options.get("useKeyTab", "").lower() == "true" else ""
        return cls(
            tls,
            mechanism,
            username,
            password,
            service,
            principal=options.get("principal", ""),
            keytab=keytab,
            token_provider=token_provider,
        )

    async def exchange(self, host: str) -> Mechanism:
        """Return a fresh SASL exchange for a connection to `host`. Raises AuthenticationError."""
        assert self.sasl_mechanism is not None
        match self.sasl_mechanism:
            case "PLAIN":
                return Plain(self.username, self.password)
            case "OAUTHBEARER":
                assert self.token_provider is not None
                token = await self.token_provider()
                return OAuthBearer(token.text, token.extensions)
            case "GSSAPI":
                from millstream.core.security.sasl.gssapi import Gssapi

                return Gssapi(self.service, host, principal=self.principal, keytab=self.keytab)
            case name:
                return Scram(name, self.username, self.password)


def _jaas_options(config: ClientConfig) -> Mapping[str, str]:
    line = config.string_or_none("sasl.jaas.config")
    if line is None:
        return {}
    try:
        return parse_jaas(line)
    except ValueError as error:
        raise ConfigError(f"sasl.jaas.config: {error}", name="sasl.jaas.config") from error


def _tls(config: ClientConfig) -> ssl.SSLContext:
    settings = TlsSettings(
        versions=tuple(config.strings("ssl.enabled.protocols")),
        cipher_suites=tuple(config.strings("ssl.cipher.suites")),
        check_hostname=config.string("ssl.endpoint.identification.algorithm") == "https",
        truststore_location=config.string_or_none("ssl.truststore.location"),
        truststore_certificates=config.string_or_none("ssl.truststore.certificates"),
        keystore_location=config.string_or_none("ssl.keystore.location"),
        keystore_certificate_chain=config.string_or_none("ssl.keystore.certificate.chain"),
        keystore_key=config.string_or_none("ssl.keystore.key"),
        key_password=config.string_or_none("ssl.key.password"),
    )
    try:
        return client_tls(settings)
    except TlsError as error:
        name = f"ssl.{error.setting.replace('_', '.')}"
        location = config.string_or_none(name) if name.endswith(".location") else None
        raise ConfigError(f"{name}: {location + ': ' if location else ''}{error.reason}", name=name) from error
