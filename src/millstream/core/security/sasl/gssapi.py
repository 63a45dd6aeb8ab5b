"""GSSAPI (RFC 4752): Kerberos, by the `gssapi` package of the extra `kerberos`.

Once the two ends believe each other the server names the security layers it can speak; Kafka wants none, since TLS is
the layer that protects.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from millstream.core.security.sasl.mechanism import AuthenticationError

if TYPE_CHECKING:
    from types import ModuleType

_NO_LAYER: Final = 1


class Gssapi:
    """One exchange with the service `service`/`host`, as whoever the credential cache or key tab names.

    States: NEW -> NEGOTIATING (start) -> LAYER (the context stands) -> COMPLETE (no layer was agreed on).
    """

    name = "GSSAPI"

    def __init__(self, service: str, host: str) -> None:
        self._gssapi = _import_gssapi()
        try:
            name = self._gssapi.Name(f"{service}@{host}", self._gssapi.NameType.hostbased_service)
            self._context: Any = self._gssapi.SecurityContext(name=name, usage="initiate")
        except self._gssapi.exceptions.GSSError as error:
            raise AuthenticationError(f"no Kerberos ticket for {service}/{host}: {error}") from error
        self.is_complete = False

    def start(self) -> bytes:
        return self._step(None)

    def respond(self, challenge: bytes) -> bytes | None:
        if self.is_complete:
            if challenge:
                raise AuthenticationError("the broker went on with GSSAPI where there was nothing left to say")
            return None
        if not self._context.complete:
            return self._step(challenge)
        try:
            layers = self._context.unwrap(challenge).message
        except self._gssapi.exceptions.GSSError as error:
            raise AuthenticationError(f"the broker's GSSAPI message does not hold: {error}") from error
        if len(layers) < 4 or not layers[0] & _NO_LAYER:
            raise AuthenticationError("the broker wants a GSSAPI security layer; Kafka's protocol has none")
        self.is_complete = True
        user = str(self._context.initiator_name).encode()
        answer: bytes = self._context.wrap(bytes((_NO_LAYER, 0, 0, 0)) + user, False).message
        return answer

    def _step(self, token: bytes | None) -> bytes:
        try:
            return self._context.step(token) or b""
        except self._gssapi.exceptions.GSSError as error:
            raise AuthenticationError(f"Kerberos: {error}") from error


def _import_gssapi() -> ModuleType:
    try:
        import gssapi
    except ImportError as error:
        raise AuthenticationError(
            "sasl.mechanism GSSAPI needs the extra `kerberos` (pip install 'millstream[kerberos]'); "
            "the other mechanisms are PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 and OAUTHBEARER"
        ) from error
    module: ModuleType = gssapi
    return module
