"""One number for all that a group's assignment depends on of its topics: where it moves, the group gets a new epoch.

It is kept with the group's epoch, so a coordinator that takes a group over sees whether topics came, went or grew while
nobody served it. The sum over topics is free of any order, so it needs no sorting.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from millstream.core.groups.consumer.steps import Steps, pieces

if TYPE_CHECKING:
    from millstream.core.cluster import ClusterImage

# More than a cluster is expected to have: a group that reads all of them hashes them with each member that comes.
_TOPICS_REMEMBERED_MAX: Final = 32_768
_BITS: Final = 64


@lru_cache(_TOPICS_REMEMBERED_MAX)
def _topic_hash(name: str, topic_id: bytes, partition_count: int) -> int:
    content = b"%s %d %s" % (topic_id, partition_count, name.encode())
    return int.from_bytes(hashlib.blake2b(content, digest_size=_BITS // 8).digest(), "big")


def topics_hash(names: Iterable[str], image: ClusterImage) -> int:
    """Return the hash of these topics as the image has them, as an int64; topics that do not exist count nothing."""
    return _as_int64(_sum(names, image))


def topics_hash_in_steps(names: Iterable[str], image: ClusterImage) -> Steps[int]:
    """Do the same in steps; the names may not change meanwhile."""
    total = 0
    for piece in pieces(names):
        total += _sum(piece, image)
        yield
    return _as_int64(total)


def _sum(names: Iterable[str], image: ClusterImage) -> int:
    total = 0
    topics = image.topics
    for name in names:
        topic = topics.get(name)
        if topic is not None:
            total += _topic_hash(name, topic.topic_id, len(topic.partitions))
    return total


def _as_int64(total: int) -> int:
    total &= (1 << _BITS) - 1
    return total - (1 << _BITS) if total >> (_BITS - 1) else total
