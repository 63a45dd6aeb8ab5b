"""GSSAPI (RFC 4752): Kerberos, by the `gssapi` package of the extra `kerberos`.

The client is whoever the process's credential cache or key tab says (KRB5CCNAME, KRB5_CLIENT_KTNAME), or a principal
with a key tab of its own. A step may ask the key server and wait for it: it is for a worker thread.

Once the two ends believe each other the server names the security layers it can speak. None is spoken here: Kafka
wants none, since TLS is the layer that protects.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Final

from millstream.core.security.sasl.mechanism import AuthenticationError

if TYPE_CHECKING:
    from types import ModuleType

_NO_LAYER: Final = 1
_SIZE_MAX_BYTES: Final = 3
# Each exchange with a key tab has a cache of its own: the library's are the process's.
_caches: Final = itertools.count()


class Gssapi:
    """One exchange with the service `service`/`host`; `keytab` is a file with the keys of `principal`, or of whoever.

    `cache` is where tickets lie; with a key tab, where they are put.

    States: NEW -> NEGOTIATING (start) -> LAYER (the context stands) -> COMPLETE (no layer was agreed on).
    """

    name = "GSSAPI"

    def __init__(self, service: str, host: str, *, principal: str = "", keytab: str = "", cache: str = "") -> None:
        self._gssapi = _import_gssapi()
        self._peer = f"{service}/{host}"
        self._host_service = f"{service}@{host}"
        self._principal = principal
        self._keytab = keytab
        self._cache = cache
        self._context: Any = None
        self.is_complete = False

    def start(self) -> bytes:
        gssapi = self._gssapi
        try:
            name = gssapi.Name(self._host_service, gssapi.NameType.hostbased_service)
            self._context = gssapi.SecurityContext(name=name, creds=self._credentials(), usage="initiate")
        except gssapi.exceptions.GSSError as error:
            raise AuthenticationError(f"no Kerberos credentials for {self._peer}: {error}") from error
        return self._step(None)

    def respond(self, challenge: bytes) -> bytes | None:
        if self.is_complete:
            if challenge:
                raise AuthenticationError("the server went on with GSSAPI where there was nothing left to say")
            return None
        if not self._context.complete:
            return self._step(challenge)
        try:
            layers = self._context.unwrap(challenge).message
        except self._gssapi.exceptions.GSSError as error:
            raise AuthenticationError(f"the server's GSSAPI message does not hold: {error}") from error
        if len(layers) < 4 or not layers[0] & _NO_LAYER:
            raise AuthenticationError("the server wants a GSSAPI security layer; none is spoken here")
        # No layer, so no size of its messages, and who this is.
        chosen = bytes((_NO_LAYER, *bytes(_SIZE_MAX_BYTES))) + str(self._context.initiator_name).encode()
        try:
            answer: bytes = self._context.wrap(chosen, False).message
        except self._gssapi.exceptions.GSSError as error:
            raise AuthenticationError(f"Kerberos could not answer {self._peer}: {error}") from error
        self.is_complete = True
        return answer

    def _credentials(self) -> Any:
        """Return whose ticket is used, None for whoever the surroundings name."""
        if not (self._principal or self._keytab or self._cache):
            return None
        gssapi = self._gssapi
        name = gssapi.Name(self._principal, gssapi.NameType.kerberos_principal) if self._principal else None
        store = {}
        if self._keytab:
            store = {"client_keytab": self._keytab, "ccache": f"MEMORY:millstream-{next(_caches)}"}
        if self._cache:
            store["ccache"] = self._cache
        return gssapi.Credentials(name=name, usage="initiate", store=store or None)

    def _step(self, token: bytes | None) -> bytes:
        try:
            return self._context.step(token) or b""
        except self._gssapi.exceptions.GSSError as error:
            raise AuthenticationError(f"Kerberos does not vouch for {self._peer}: {error}") from error


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
