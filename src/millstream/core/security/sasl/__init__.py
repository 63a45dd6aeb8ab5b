"""SASL mechanisms, the client's half: bytes in, bytes out (RFC 4422)."""

from millstream.core.security.sasl.mechanism import AuthenticationError, Mechanism
from millstream.core.security.sasl.oauthbearer import OAuthBearer
from millstream.core.security.sasl.plain import Plain
from millstream.core.security.sasl.scram import Scram

__all__ = ["AuthenticationError", "Mechanism", "OAuthBearer", "Plain", "Scram"]
