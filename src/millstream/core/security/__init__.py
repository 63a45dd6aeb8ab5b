"""SASL mechanisms (the client's half) and TLS contexts; pure."""

from millstream.core.security.jaas import parse_jaas
from millstream.core.security.sasl import AuthenticationError, Mechanism, OAuthBearer, Plain, Scram
from millstream.core.security.tls import TlsError, TlsSettings, client_tls

__all__ = [
    "AuthenticationError",
    "Mechanism",
    "OAuthBearer",
    "Plain",
    "Scram",
    "TlsError",
    "TlsSettings",
    "client_tls",
    "parse_jaas",
]
