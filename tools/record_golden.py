"""Record golden bytes: what real clients and Apache Kafka say to each other, into tests/core/wire/golden.

    python -m tools.record_golden [CLIENT ...]

A proxy stands between the clients and one Apache Kafka. It keeps each request and each response with the API and the
version they were sent in, and rewrites what Kafka answers to ApiVersions: first to the newest versions that Millstream
implements, then to older and older ones, so that the clients speak those as well. Kafka talks to itself through the
proxy too (WriteTxnMarkers), which makes "Apache Kafka" one of the clients.

Kept is one frame per client, API, version and direction: the longest of up to 4 KB. One file per client.
"""

from __future__ import annotations

import argparse
import json
import socket
import struct
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tools.golden_clients import CLIENTS, GoldenClient, Kafka

from millstream.core.wire import (
    APIS,
    ApiKey,
    WireError,
    decode,
    encode,
    encode_response_header,
    parse_request_header,
    parse_response_header,
)
from millstream.core.wire.messages.api_versions import ApiVersionsResponse
from millstream.testing.kafka import ApacheKafka, free_ports

GOLDEN: Final = Path(__file__).parent.parent / "tests" / "core" / "wire" / "golden"
FRAME_SIZE_BYTES_MAX: Final = 4096
# How far below the newest version each pass goes.
PASSES: Final = (0, 1, 2, 3, 4, 5, 7, 9)
CLIENT_ID_PREFIX: Final = "golden-"
USER, PASSWORD = "golden", "golden-secret"

_SIZE: Final = struct.Struct(">i")
_Key = tuple[str, int, int, str]  # client, API key, version, "request" or "response"


class Recorder:
    """The frames kept so far; shared by the proxy's threads."""

    def __init__(self, folder: str) -> None:
        """`folder` is Kafka's; in what is kept, another path of the same length stands for it."""
        self._folder = folder.encode()
        self._neutral = b"/var/lib/kafka".ljust(len(folder), b"-")[: len(folder)]
        self.frames: dict[_Key, bytes] = {}
        self.below = 0
        self._lock = threading.Lock()

    def keep(self, client: str, api_key: int, version: int, kind: str, frame: bytes) -> None:
        """Keep a frame if it is the best so far for what it is."""
        api = APIS.get(ApiKey(api_key)) if api_key in ApiKey.__members__.values() else None
        if api is None or version not in api.versions or len(frame) > FRAME_SIZE_BYTES_MAX:
            return
        frame = frame.replace(self._folder, self._neutral)
        with self._lock:
            key = (client, api_key, version, kind)
            self.frames[key] = max(self.frames.get(key, b""), frame, key=len)

    def lower(self, version: int, frame: bytes) -> bytes:
        """The answer to ApiVersions with the ranges that this pass lets clients see."""
        correlation_id, position = parse_response_header(ApiKey.API_VERSIONS, version, frame)
        response, _ = decode(
            ApiVersionsResponse, 0 if frame[position : position + 2] != b"\0\0" else version, frame, position
        )
        kept = []
        for listed in response.api_keys:
            if listed.api_key not in ApiKey.__members__.values():
                continue
            api = APIS[ApiKey(listed.api_key)]
            floor = max(listed.min_version, api.version_min)
            listed.max_version = max(floor, min(listed.max_version, api.version_max) - self.below)
            kept.append(listed)
        response.api_keys = kept
        response.finalized_features = []  # transactions of the second protocol need versions that are not offered
        return encode(response, version, encode_response_header(ApiKey.API_VERSIONS, version, correlation_id))


class Proxy:
    """Forwards one listening port to one of Kafka's, frame by frame; one thread per direction of a connection."""

    def __init__(self, port: int, target: int, recorder: Recorder, broker_name: str) -> None:
        self._target, self._recorder, self._broker_name = target, recorder, broker_name
        self._server = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return
            asked: dict[int, tuple[str, int, int]] = {}
            threading.Thread(target=self._forward, args=(client, server, asked, True), daemon=True).start()
            threading.Thread(target=self._forward, args=(server, client, asked, False), daemon=True).start()

    def _forward(
        self, source: socket.socket, target: socket.socket, asked: dict[int, tuple[str, int, int]], from_client: bool
    ) -> None:
        with source, source.makefile("rb") as stream:
            try:
                while len(head := stream.read(4)) == _SIZE.size:
                    frame = stream.read(_SIZE.unpack(head)[0])
                    frame = self._request(frame, asked) if from_client else self._response(frame, asked)
                    target.sendall(_SIZE.pack(len(frame)) + frame)
                target.shutdown(socket.SHUT_WR)
            except OSError:
                return  # either side hung up

    def _request(self, frame: bytes, asked: dict[int, tuple[str, int, int]]) -> bytes:
        try:
            header, _ = parse_request_header(frame)
        except WireError:
            return frame
        client = header.client_id or ""
        name = client.removeprefix(CLIENT_ID_PREFIX) if client.startswith(CLIENT_ID_PREFIX) else self._broker_name
        asked[header.correlation_id] = (name, header.api_key, header.api_version)
        self._recorder.keep(name, header.api_key, header.api_version, "request", frame)
        return frame

    def _response(self, frame: bytes, asked: dict[int, tuple[str, int, int]]) -> bytes:
        if len(frame) < _SIZE.size:
            return frame  # a bare SASL token, after SaslHandshake version 0
        (correlation_id,) = _SIZE.unpack_from(frame)
        name, api_key, version = asked.pop(correlation_id, ("", -1, -1))
        self._recorder.keep(name, api_key, version, "response", frame)
        return self._recorder.lower(version, frame) if api_key == ApiKey.API_VERSIONS else frame


def kafka_properties(folder: Path, ports: list[int], proxies: list[int], controller: int) -> dict[str, str]:
    """A node with a plain and a SASL listener, both advertised as the proxies."""
    login = "org.apache.kafka.common.security.plain.PlainLoginModule required"
    return {
        "listeners": f"PLAINTEXT://127.0.0.1:{ports[0]},SASL_PLAINTEXT://127.0.0.1:{ports[1]},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{proxies[0]},SASL_PLAINTEXT://127.0.0.1:{proxies[1]}",
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.sasl_plaintext.plain.sasl.jaas.config": f'{login} user_{USER}="{PASSWORD}";',
        "log.dirs": f"{folder}/data,{folder}/data2",
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    }


def attempt(name: str, story: Callable[[], object]) -> None:
    """Tell one story. At old versions some calls are impossible; what was said until then is golden all the same."""
    try:
        story()
    except Exception as error:  # noqa: BLE001  clients raise what they like
        print(f"    {name}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:160])


def record(clients: list[GoldenClient]) -> None:
    """Run every story of every client at each pass, and write what was said after each."""
    broker_name = "Apache Kafka 4.3.0"
    *ports, controller = free_ports(5)
    with tempfile.TemporaryDirectory() as folder:
        recorder = Recorder(folder)
        properties = kafka_properties(Path(folder), ports[:2], ports[2:], controller)
        kafka = ApacheKafka(Path(folder), properties=properties, port=ports[0])
        proxies = [Proxy(ports[2], ports[0], recorder, broker_name), Proxy(ports[3], ports[1], recorder, broker_name)]
        with kafka:
            for recorder.below in PASSES:
                for client in clients:
                    place = Kafka(
                        bootstrap=f"127.0.0.1:{ports[2]}",
                        sasl_bootstrap=f"127.0.0.1:{ports[3]}",
                        user=USER,
                        password=PASSWORD,
                        client_id=CLIENT_ID_PREFIX + client.name,
                        topic=f"golden-{client.module}-{recorder.below}",
                        java=kafka.java,
                    )
                    print(f"pass {recorder.below}: {client.name}", flush=True)
                    for name, story in client.stories(place):
                        attempt(name, story)
                write(recorder.frames, broker_name)
        for proxy in proxies:
            proxy.close()


def write(frames: dict[_Key, bytes], broker_name: str) -> None:
    """One file per client, sorted, a frame a line."""
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for name in sorted({client for client, *_ in frames if client}):
        lines = [
            json.dumps({"api": ApiKey(key).name, "version": version, "kind": kind, "frame": frame.hex()})
            for (client, key, version, kind), frame in sorted(frames.items())
            if client == name
        ]
        head = json.dumps({"client": name, "broker": broker_name})
        path = GOLDEN / f"{name.lower().replace(' ', '-').replace('(', '').replace(')', '').replace(',', '')}.jsonl"
        path.write_text("\n".join([head, *lines]) + "\n")
        print(f"{path.name}: {len(lines)} frames", flush=True)


def main() -> int:
    """Record everything, or what the named clients say."""
    parser = argparse.ArgumentParser(description="Record golden bytes from real clients.")
    parser.add_argument("clients", nargs="*", help="kafka-python, aiokafka, confluent-kafka, java; all by default")
    arguments = parser.parse_args()
    chosen = [client for client in CLIENTS if not arguments.clients or client.module in arguments.clients]
    record(chosen)
    return 0


if __name__ == "__main__":
    sys.exit(main())
