"""Names of tables, which are directories at the destination: a topic's own, its later generations', its late records'.

    orders        the topic's first generation        orders.late      its late records
    orders.v2     the second, opened when readers of the first could not follow

A table is called as its topic, unless the job's `destination.table_names` has a rule for it. A name is kept in the
topic's document from the first record on: a rule that is changed later moves no table. Kafka's topics may have such
names themselves: of topics whose tables would share a directory only one is loaded.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from millstream.core.client.membership.topic_watch import compiled
from millstream.hadoop_loader.filesystem import NAME_BYTES_MAX

# Hive and Spark read no directories whose names begin so, and the loader keeps its own there.
_HIDDEN: Final = ("_", ".")
_OF_ANOTHER: Final = re.compile(r"(?P<topic>.+)\.(?:late|v[1-9][0-9]*)")

# A file is named by its topic (ASCII) and, at their longest, the partition, two offsets and the entry's number.
_TOPIC_LENGTH_MAX: Final = NAME_BYTES_MAX - len(f"+{2**31 - 1}+{2**63 - 1}+{2**63 - 1}+{10**12 - 1}.parquet")


def table_name(first: str, generation: int) -> str:
    """Return the name of a generation's table, by that of the first."""
    return first if generation == 1 else f"{first}.v{generation}"


class TableNames:
    """What the first table of each topic is called: as its document has it, else as the job's rules say."""

    def __init__(self, rules: Mapping[str, str], documents: Mapping[str, Mapping[str, Any]]) -> None:
        """`rules`: a pattern (RE2, whole topics) to a name, in which `\\1` stands for its first group; in order."""
        self._rules = [(compiled(pattern), name) for pattern, name in rules.items()]
        self._kept = {topic: str(document.get("table", topic)) for topic, document in documents.items()}

    def of(self, topic: str) -> str:
        """Return the name of the topic's first table."""
        if (kept := self._kept.get(topic)) is not None:
            return kept
        for pattern, name in self._rules:
            if (found := pattern.fullmatch(topic)) is not None:
                return found.expand(name)
        return topic

    def rank(self, topic: str, loaded: Collection[str]) -> tuple[int, str]:
        """Of topics that would have one table, the least has it: who has a document, then who was loaded."""
        return (0 if topic in self._kept else 1 if topic in loaded else 2), topic


def why_no_table(
    topic: str, loaded: Collection[str], coming: Collection[str] = (), names: TableNames | None = None
) -> str | None:
    """Return why `topic` cannot have a table beside the topics that are `loaded` or `coming` with it, or None.

    Who is loaded already keeps its directory. Of two that come together, the one that is named like a table of the
    other's has to wait.
    """
    names = names or TableNames({}, {})
    name = names.of(topic)
    if name.startswith(_HIDDEN) or not name:
        return (
            f"names that begin with {name[:1]!r} are hidden from readers of tables, and the loader's own: exclude it,"
            " or give it another one by destination.table_names"
        )
    if len(topic) > _TOPIC_LENGTH_MAX:
        return (
            f"the name has {len(topic)} characters, and names of its files may get longer than file systems take:"
            f" {_TOPIC_LENGTH_MAX} are the most; exclude it"
        )
    tables = {names.of(other): other for other in loaded}
    for other in {*loaded, *coming} - {topic}:
        if names.of(other) == name and names.rank(other, loaded) < names.rank(topic, loaded):
            return f"its table would be {name}, which is that of topic {other}: mend destination.table_names"
    if topic in loaded:
        return None
    owned = tables | {names.of(other): other for other in coming}
    for owner in _owners(name):
        if owner in owned:
            return _sentence(name, owned[owner])
    for other in tables:
        if name in _owners(other):
            return _sentence(other, topic)
    return None


def _owners(name: str) -> Iterator[str]:
    """The first tables, one of whose others `name` would be."""
    while (found := _OF_ANOTHER.fullmatch(name)) is not None:
        name = found["topic"]
        yield name


def _sentence(named: str, topic: str) -> str:
    return (
        f"{named} is also where records of topic {topic} go that are late, or of a schema that its first table cannot"
        " take: load one of the two into another destination, or name a table by destination.table_names"
    )
