"""HTTP's Negotiate (SPNEGO, RFC 4559) by Kerberos for `requests`, with tickets of a keytab or of a cache.

One exchange proves who asks; the server answers with a cookie of some hours, which the session keeps, so it comes back
with 401 about as often as Kerberos wants new tickets. They are got from the keytab anew whenever they are about to end.
"""

from __future__ import annotations

import base64
import threading
import time
from typing import TYPE_CHECKING, Any, Final

import requests

from millstream.hadoop_loader.filesystem.remote import NotAuthenticatedError

if TYPE_CHECKING:
    from millstream.hadoop_loader.filesystem.settings import KerberosSettings

# Tickets that end sooner than this are not used for another exchange.
_REMAINING_S_MIN: Final = 300.0


class NegotiateAuth(requests.auth.AuthBase):
    """Answers a server's 401 with a token of Kerberos. Safe for any number of threads."""

    def __init__(self, settings: KerberosSettings) -> None:
        try:
            import gssapi
        except ImportError as error:
            raise ValueError(
                "webhdfs:// with Kerberos needs gssapi: pip install 'millstream[kerberos]', with the libraries of MIT"
            ) from error
        self._gssapi: Any = gssapi
        self._settings = settings
        self._lock = threading.Lock()
        self._credentials: Any = None
        self._made = 0.0

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.register_hook("response", self._answer)
        return request

    def _answer(self, response: requests.Response, **options: Any) -> requests.Response:
        """Send the request again with a token, if that was what it lacked."""
        offered = response.headers.get("www-authenticate", "")
        request = response.request
        if response.status_code != requests.codes.unauthorized or "negotiate" not in offered.lower():
            return response
        if "Authorization" in request.headers:
            return response
        _ = response.content  # the connection is free for the next request once this one is read
        again = request.copy()
        host = again.url.split("/")[2].rpartition(":")[0] if again.url else ""
        again.headers["Authorization"] = f"Negotiate {base64.b64encode(self._token(host)).decode()}"
        # Cookies of the answer so far belong to the first try.
        answer: requests.Response = response.connection.send(again, **options)
        answer.history.append(response)
        answer.request = again
        return answer

    def _token(self, host: str) -> bytes:
        gssapi = self._gssapi
        name = gssapi.Name(f"HTTP@{host}", gssapi.NameType.hostbased_service)
        try:
            with self._lock:
                context = gssapi.SecurityContext(name=name, creds=self._fresh_credentials(), usage="initiate")
                return bytes(context.step())
        except gssapi.exceptions.GSSError as error:
            raise NotAuthenticatedError(f"{self._settings.principal}: {error}") from error

    def _fresh_credentials(self) -> Any:
        gssapi, settings = self._gssapi, self._settings
        due = time.monotonic() - self._made > settings.renewal_s
        if self._credentials is None or due or self._credentials.lifetime < _REMAINING_S_MIN:
            store = {}
            if settings.keytab is not None:
                store["client_keytab"] = settings.keytab
                # In memory, of this process alone, unless another place is named.
                store["ccache"] = settings.cache or f"MEMORY:millstream-{id(self)}-{time.monotonic_ns()}"
            elif settings.cache is not None:
                store["ccache"] = settings.cache
            who = gssapi.Name(settings.principal, gssapi.NameType.kerberos_principal)
            self._credentials = gssapi.Credentials(name=who, usage="initiate", store=store or None)
            self._made = time.monotonic()
        return self._credentials
