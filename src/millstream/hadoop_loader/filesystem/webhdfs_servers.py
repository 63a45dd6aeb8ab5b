"""The servers of an HDFS over HTTP: requests to NameNodes, one after the other, and to the DataNodes they name.

The session is that of the package `hdfs`; the requests are made here, since that package sends a rename again after a
time-out, to the next NameNode, as if nothing could have happened, and knows neither `renameoptions` nor `createparent`.
DataNodes serve the bytes; NameNodes answer with their address. Proxies of one's surroundings are not used.

    DONE                        the answer's JSON, or bytes
    a RemoteException           what its Java class means to the interface; of a standby: the next NameNode
    refused in other words      by the status: not begun, or not answered, as a proxy's server may have done it
    no answer                   not begun where no connection was made, else not answered
"""

from __future__ import annotations

import getpass
import http.client
import json
import ssl
import threading
import traceback
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit

import hdfs  # type: ignore[import-untyped]
import requests

from millstream.hadoop_loader.filesystem.errors import AccessDeniedError, FileSystemError, UnavailableError
from millstream.hadoop_loader.filesystem.hadoop_conf import namenodes, read_properties
from millstream.hadoop_loader.filesystem.remote import (
    KERBEROS_REMEDY,
    NotAuthenticatedError,
    NotBegunError,
    UnansweredError,
    java_error,
)

if TYPE_CHECKING:
    from millstream.hadoop_loader.filesystem.settings import FileSystemSettings

_PREFIX: Final = "/webhdfs/v1"
BYTES: Final = {"Content-Type": "application/octet-stream"}
# Bytes of an error's text that are read and repeated.
_TEXT_BYTES_MAX: Final = 64 * 1024
# What is answered to all that is done. Redirections (locations are asked for as JSON) are of something in between.
DONE: Final = (http.client.OK, http.client.CREATED)
# What a proxy answers, in words of its own, whose server may have done what it was asked for.
_OF_PROXIES: Final = (http.client.INTERNAL_SERVER_ERROR, http.client.BAD_GATEWAY, http.client.GATEWAY_TIMEOUT)
# Of a certificate that we do not believe, and of ours, which we lack: TLS 1.3 tells that behind its handshake.
_REFUSED_BY_TLS: Final = ("CERTIFICATE_VERIFY_FAILED", "ALERT_CERTIFICATE_REQUIRED")
_TLS_REMEDY: Final = "check ca_file and the certificate of the server"


class WebHdfsServers:
    """The NameNodes of one HDFS, and how to reach DataNodes; any thread may ask."""

    def __init__(self, uri: str, scheme: str, authority: str, settings: FileSystemSettings) -> None:
        """`uri` is said in errors; `scheme` and `authority` as of WebHdfsFileSystem. Raises ValueError."""
        kind = "https" if scheme == "swebhdfs" else "http"
        addresses = [authority] if ":" in authority else namenodes(read_properties(settings), authority, kind)
        if not addresses:
            raise ValueError(
                f"{scheme}://{authority}: neither a port nor a name service that the job or its Hadoop conf directory"
                f" describes; write {scheme}://HOST:PORT, or name the directory or the NameNodes"
            )
        self._uri = uri
        self._settings = settings
        self._kind = kind
        self._lock = threading.Lock()
        # The one asked first is the one that answered last.
        self._addresses = addresses
        self._tls = ssl.create_default_context(cafile=settings.ca_file) if kind == "https" else None
        self._session = self._new_session()

    def _new_session(self) -> requests.Session:
        session = requests.Session()
        session.trust_env = False
        session.verify = self._settings.ca_file or True
        adapter = requests.adapters.HTTPAdapter(pool_maxsize=self._settings.calls_max)
        session.mount(f"{self._kind}://", adapter)
        url = f"{self._kind}://{self._addresses[0]}"
        kerberos = self._settings.kerberos
        if kerberos is None:
            hdfs.InsecureClient(url, user=self._settings.user or getpass.getuser(), session=session)
        else:
            from millstream.hadoop_loader.filesystem.negotiate import NegotiateAuth

            session.auth = NegotiateAuth(kerberos)
        return session

    @property
    def first(self) -> str:
        """The address that is asked first."""
        with self._lock:
            return self._addresses[0]

    def ask(self, method: str, name: str, operation: str, at: str = "", **query: str | int | None) -> Any:
        """One request to one NameNode, that `at` an address or the one asked first; its JSON, or None if it answers
        with nothing. Raises what `translate` knows.
        """
        address = at or self.first
        answer = self._session.request(
            method,
            f"{self._kind}://{address}{_PREFIX}{quote(name)}",
            params={"op": operation, **{key: value for key, value in query.items() if value is not None}},
            headers=BYTES,
            timeout=self._settings.deadline_s,
            allow_redirects=False,
        )
        if answer.status_code not in DONE:
            raise RefusedError(answer.status_code, answer.content[:_TEXT_BYTES_MAX], address)
        return answer.json() if answer.content else None

    def datanode(self, location: str) -> http.client.HTTPConnection:
        """A connection to where a NameNode sent us; the caller closes it."""
        url = urlsplit(location)
        if url.scheme == "https":
            tls = self._tls or ssl.create_default_context(cafile=self._settings.ca_file)
            return http.client.HTTPSConnection(url.netloc, timeout=self._settings.deadline_s, context=tls)
        return http.client.HTTPConnection(url.netloc, timeout=self._settings.deadline_s)

    def turn_to_next(self) -> None:
        """Ask another address first."""
        with self._lock:
            self._addresses = self._addresses[1:] + self._addresses[:1]

    def translate(self, error: BaseException, path: str) -> BaseException:
        """What a refusal or a failed connection means."""
        match error:
            case RefusedError():
                problem = error.meaning(self._uri, path)
                if isinstance(problem, NotBegunError):
                    self.turn_to_next()
                return problem
            case NotAuthenticatedError():
                return AccessDeniedError(str(error), uri=self._uri, path=path, remedy=KERBEROS_REMEDY)
            case requests.exceptions.SSLError() | ssl.SSLError():
                if _is_of_handshake(error):
                    return UnavailableError(str(error), uri=self._uri, path=path, remedy=_TLS_REMEDY)
                return UnansweredError(f"{error} ({_TLS_REMEDY})")
            case requests.exceptions.ConnectTimeout():
                self.turn_to_next()
                return NotBegunError(str(error))
            case requests.exceptions.ConnectionError() if "NewConnectionError" in repr(error):
                self.turn_to_next()
                return NotBegunError(str(error))
            case requests.exceptions.RequestException() | http.client.HTTPException() | OSError():
                known = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError)
                return error if isinstance(error, known) else UnansweredError(f"{type(error).__name__}: {error}")
        return error

    def close(self) -> None:
        """Give up the connections to NameNodes."""
        self._session.close()


class RefusedError(Exception):
    """An answer that is not DONE: `status` and what was said, by `server`."""

    def __init__(self, status: int, content: bytes, server: str) -> None:
        super().__init__(f"{server} answers {status}")
        self.status = status
        self.content = content

    def meaning(self, uri: str, path: str) -> Exception:
        """What it means to the interface."""
        try:
            said = json.loads(self.content)["RemoteException"]
            java_class, message = str(said.get("javaClassName") or said["exception"]), str(said.get("message") or "")
        except (ValueError, KeyError, TypeError):
            text = f"{self}: {self.content[:200]!r}"
            if self.status == http.client.UNAUTHORIZED:
                return AccessDeniedError(text, uri=uri, path=path, remedy=KERBEROS_REMEDY)
            if self.status == http.client.SERVICE_UNAVAILABLE:
                return NotBegunError(text)
            if self.status < http.client.BAD_REQUEST or self.status in _OF_PROXIES:
                return UnansweredError(text)
            return FileSystemError(text, uri=uri, path=path)
        return java_error(java_class, message, uri=uri, path=path)


def check(answer: http.client.HTTPResponse, location: str) -> bytes:
    """The body of a DataNode's answer, which is closed then; RefusedError for one that is not DONE."""
    with answer:
        if answer.status not in DONE:
            raise RefusedError(answer.status, answer.read(_TEXT_BYTES_MAX), urlsplit(location).netloc)
        return answer.read()


def _is_of_handshake(error: BaseException) -> bool:
    """Whether TLS failed before anything was asked. A server that ends a handshake may only be about to stop."""
    if any(words in repr(error) for words in _REFUSED_BY_TLS):
        return True
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, ssl.SSLError) and not isinstance(found, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
            return any(frame.f_code.co_name == "do_handshake" for frame, _ in traceback.walk_tb(found.__traceback__))
        found = found.__cause__ or found.__context__
    return False


def target_of(location: str, name: str) -> str:
    """What to ask the DataNode of `location` for; in the path there, names are not escaped as HTTP wants it."""
    return f"{_PREFIX}{quote(name)}?{urlsplit(location).query}"
