"""Our codecs against kio's and kafka-python's, both ways, for each API, version and direction.

A test counts what it compared, per version and peer, and fails where a combination had no case. What a peer can't do is
named in PEER_GAPS with the reason; at least one peer is left for each combination.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import Final

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.core.wire.made import in_version, messages
from tests.core.wire.peers import PEERS

from millstream.core.wire import APIS, Api, ApiKey, Message, decode, encode, encode_parts

SOAK: Final = os.environ.get("MILLSTREAM_SOAK") == "1"
EXAMPLES: Final = 200 if SOAK else 10
KINDS: Final = ("request", "response")

# (peer, API, kind) -> the versions that it can't do, and why.
PEER_GAPS: Final[dict[tuple[str, ApiKey, str], tuple[range, str]]] = {
    ("kafka-python", ApiKey.CONSUMER_GROUP_HEARTBEAT, "request"): (range(2), "it does not have KIP-848"),
    ("kafka-python", ApiKey.CONSUMER_GROUP_HEARTBEAT, "response"): (range(2), "it does not have KIP-848"),
    ("kafka-python", ApiKey.CONSUMER_GROUP_DESCRIBE, "request"): (range(2), "it does not have KIP-848"),
    ("kafka-python", ApiKey.CONSUMER_GROUP_DESCRIBE, "response"): (range(2), "it does not have KIP-848"),
}


def can(peer: str, api: Api, kind: str, version: int) -> bool:
    gap = PEER_GAPS.get((peer, api.key, kind))
    return gap is None or version not in gap[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("api", APIS.values(), ids=lambda api: api.name)
def test_every_version_both_ways(api: Api, kind: str) -> None:
    cls: type[Message] = getattr(api, kind)
    compared: Counter[tuple[str, int, str]] = Counter()

    @settings(
        max_examples=EXAMPLES,
        derandomize=not SOAK,
        deadline=None,
        database=None,
        phases=list(Phase) if SOAK else [Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    )
    @given(made=st.tuples(messages(cls, full=True), messages(cls, full=False)))
    def compare(made: tuple[Message, Message]) -> None:
        for message in made:
            for version in api.versions:
                kept = in_version(message, version)
                ours = encode(message if message is made[0] else kept, version)
                assert decode(cls, version, ours) == (kept, len(ours))
                assert decode(cls, version, memoryview(bytearray(b"head" + ours)), 4) == (kept, 4 + len(ours))
                assert b"".join(encode_parts(kept, version)) == ours
                for peer in PEERS:
                    if not can(peer.name, api, kind, version):
                        continue
                    assert peer.decode(api, kind, version, ours) == kept, (
                        f"{peer.name} reads what we write in {version}"
                    )
                    compared[peer.name, version, "encode"] += 1
                    theirs = peer.encode(api, kind, version, kept)
                    assert decode(cls, version, theirs) == (kept, len(theirs)), (
                        f"we read what {peer.name} writes in {version}"
                    )
                    compared[peer.name, version, "decode"] += 1

    compare()
    for version in api.versions:
        assert any(can(peer.name, api, kind, version) for peer in PEERS), f"no peer covers version {version}"
        for peer in PEERS:
            if can(peer.name, api, kind, version):
                for direction in ("encode", "decode"):
                    assert compared[peer.name, version, direction], f"{peer.name} {version} {direction}: no case"


def test_every_gap_is_one_of_ours() -> None:
    for (peer, key, kind), (versions, reason) in PEER_GAPS.items():
        assert peer in {known.name for known in PEERS}
        assert kind in KINDS
        assert set(versions) <= set(APIS[key].versions), f"{peer} {key.name}: {versions}"
        assert reason
