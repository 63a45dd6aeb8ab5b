"""SASL as Thrift has it (TSaslTransport): who asks a metastore is proven before the first call, by Kerberos.

Each message of the exchange is a status of one byte, a length of four, and that many bytes:

    client  START "GSSAPI"      OK token      OK answer ...
    server                      OK challenge  OK challenge ...  COMPLETE, or BAD | ERROR with a sentence

From then on each side sends frames, of a length of four bytes and the bytes, which is Thrift's framed transport: no
security layer is agreed on (Hadoop's `hadoop.rpc.protection` is `authentication`).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from millstream.core.security.sasl.gssapi import Gssapi
from millstream.core.security.sasl.mechanism import AuthenticationError

if TYPE_CHECKING:
    from thrift.transport.TTransport import TFramedTransport, TTransportBase

    from millstream.core.security.sasl.mechanism import Mechanism
    from millstream.hadoop_loader.job import KerberosSettings

_START, _OK, _COMPLETE = 1, 2, 5
_HEADER: Final = struct.Struct(">BI")
# Tokens of Kerberos are some kilobytes, tens of them where they carry the groups of a user.
_MESSAGE_BYTES_MAX: Final = 1 << 20


def exchange_with(service: str, host: str, kerberos: KerberosSettings | None) -> Mechanism:
    """An exchange with `service`/`host` by who `kerberos` names, else by whose tickets the process has."""
    if kerberos is None:
        return Gssapi(service, host)
    return Gssapi(service, host, principal=kerberos.principal, keytab=kerberos.keytab or "", cache=kerberos.cache or "")


def authenticated(socket: TTransportBase, exchange: Mechanism) -> TFramedTransport:
    """Prove by `exchange` who asks over an open connection; return what calls go over then.

    Raises AuthenticationError, and what the connection raises.
    """
    from thrift.transport.TTransport import TFramedTransport

    _send(socket, _START, exchange.name.encode())
    _send(socket, _OK, exchange.start())
    while True:
        status, said = _receive(socket)
        if status not in (_OK, _COMPLETE):
            raise AuthenticationError(f"the metastore refuses: {said.decode(errors='replace')}")
        if status == _COMPLETE:
            if not exchange.is_complete:
                raise AuthenticationError("the metastore ended the exchange before its time")
            return TFramedTransport(socket)
        _send(socket, _OK, exchange.respond(said) or b"")


def _send(socket: TTransportBase, status: int, data: bytes) -> None:
    socket.write(_HEADER.pack(status, len(data)) + data)
    socket.flush()


def _receive(socket: TTransportBase) -> tuple[int, bytes]:
    status, size = _HEADER.unpack(socket.readAll(_HEADER.size))
    if size > _MESSAGE_BYTES_MAX:
        raise AuthenticationError(f"the metastore sends {size} bytes; is it one that asks for Kerberos?")
    return status, socket.readAll(size) if size else b""
