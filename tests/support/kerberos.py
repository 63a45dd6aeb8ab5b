"""A Kerberos realm of a test's own: MIT's key server on a free port, its files in a folder.

with Realm(folder) as realm:
    keytab = realm.add("kafka/localhost")
    ... under realm.environment
"""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path
from typing import Final, Self

from millstream.testing.kafka import free_ports, wait_until

REALM: Final = "MILLSTREAM.TEST"
_TIMEOUT_S: Final = 60.0
# Debian keeps its programs where a user's path does not lead.
_PATH: Final = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/lib/mit/sbin"

_CLIENTS_CONFIG: Final = """\
[libdefaults]
 default_realm = {realm}
 dns_lookup_kdc = false
 dns_lookup_realm = false
 dns_canonicalize_hostname = false
 rdns = false
 udp_preference_limit = 1
[realms]
 {realm} = {{
  kdc = 127.0.0.1:{port}
 }}
[domain_realm]
 localhost = {realm}
"""
_SERVER_CONFIG: Final = """\
[kdcdefaults]
 kdc_listen = 127.0.0.1:{port}
 kdc_tcp_listen = 127.0.0.1:{port}
[realms]
 {realm} = {{
  database_name = {folder}/principal
  key_stash_file = {folder}/stash
 }}
[logging]
 kdc = FILE:{folder}/kdc.log
"""


class Realm:
    """A realm and its key server; states: STOPPED -> RUNNING (start: takes connections) -> STOPPED (stop)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (self._port,) = free_ports(1)
        self.config = folder / "krb5.conf"
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What a client's process needs to be in the realm, and in no other by its surroundings."""
        return {"KRB5_CONFIG": str(self.config), "KRB5CCNAME": f"FILE:{self._folder}/cache"}

    def add(self, name: str, *, ticket_life_s: int = 36_000) -> Path:
        """Add a principal with random keys; returns its key tab."""
        keytab = self._folder / f"{name.replace('/', '-')}.keytab"
        life = f"{ticket_life_s} seconds"
        self._run("kadmin.local", "-r", REALM, "addprinc", "-maxlife", life, "-randkey", name)
        self._run("kadmin.local", "-r", REALM, "ktadd", "-k", str(keytab), name)
        return keytab

    def start(self) -> Self:
        """Make the realm's database and run the server."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self.config.write_text(_CLIENTS_CONFIG.format(realm=REALM, port=self._port))
        values = {"realm": REALM, "port": self._port, "folder": self._folder}
        (self._folder / "kdc.conf").write_text(_SERVER_CONFIG.format(**values))
        self._run("kdb5_util", "create", "-s", "-P", "of this test only", "-r", REALM)
        self._server = subprocess.Popen(
            ["krb5kdc", "-n", "-r", REALM],
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(self._answers, _TIMEOUT_S, "the Kerberos key server")
        return self

    def stop(self) -> None:
        """End the server; nothing where it does not run."""
        server, self._server = self._server, None
        if server is not None:
            server.terminate()
            server.wait(_TIMEOUT_S)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _answers(self) -> bool:
        assert self._server is not None
        assert self._server.poll() is None, (self._folder / "kdc.log").read_text(errors="replace")[-2_000:]
        try:
            socket.create_connection(("127.0.0.1", self._port), timeout=5).close()
        except OSError:
            return False
        return True

    def _environment(self) -> dict[str, str]:
        return {**os.environ, **self.environment, "KRB5_KDC_PROFILE": f"{self._folder}/kdc.conf", "PATH": _PATH}

    def _run(self, *command: str) -> None:
        done = subprocess.run(
            command, env=self._environment(), capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
