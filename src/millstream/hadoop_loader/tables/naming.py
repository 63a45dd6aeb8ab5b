"""Names of tables, which are directories at the destination: a topic's own, its later generations', its late records'.

    orders        the topic's first generation        orders.late      its late records
    orders.v2     the second, opened when readers of the first could not follow

Kafka's topics may have such names themselves: two topics whose tables would share a directory are not both loaded.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Final

from millstream.hadoop_loader.filesystem import NAME_BYTES_MAX

_HIDDEN: Final = "_"  # Hive and Spark read no directories whose names begin so, and the loader keeps its own there
_OF_ANOTHER: Final = re.compile(r"(?P<topic>.+)\.(?:late|v[1-9][0-9]*)")

# A file is named by its topic (ASCII) and, at their longest, the partition, two offsets and the entry's number.
_TOPIC_LENGTH_MAX: Final = NAME_BYTES_MAX - len(f"+{2**31 - 1}+{2**63 - 1}+{2**63 - 1}+{10**12 - 1}.parquet")


def table_name(topic: str, generation: int) -> str:
    """Return the name of a generation's table."""
    return topic if generation == 1 else f"{topic}.v{generation}"


def why_no_table(topic: str, loaded: Collection[str], coming: Collection[str] = ()) -> str | None:
    """Return why `topic` cannot have a table beside the topics that are `loaded` or `coming` with it, or None.

    Who is loaded already keeps its directory. Of two that come together, the one that is named like a table of the
    other's has to wait.
    """
    if topic.startswith(_HIDDEN):
        return f"names that begin with {_HIDDEN!r} are hidden from readers of tables, and the loader's own: exclude it"
    if len(topic) > _TOPIC_LENGTH_MAX:
        return (
            f"the name has {len(topic)} characters, and names of its files may get longer than file systems take:"
            f" {_TOPIC_LENGTH_MAX} are the most; exclude it"
        )
    if topic in loaded:
        return None
    for owner in _owners(topic):
        if owner in loaded or owner in coming:
            return _sentence(topic, owner)
    for other in loaded:
        if topic in _owners(other):
            return _sentence(other, topic)
    return None


def _owners(name: str) -> Iterator[str]:
    """The topics one of whose tables `name` would be."""
    while (found := _OF_ANOTHER.fullmatch(name)) is not None:
        name = found["topic"]
        yield name


def _sentence(named: str, topic: str) -> str:
    return (
        f"{named} is also where records of topic {topic} go that are late, or of a schema that its first table cannot"
        " take: load one of the two into another destination"
    )
