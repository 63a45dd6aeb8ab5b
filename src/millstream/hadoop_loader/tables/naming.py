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
# Of the documents of topics that were loaded anew, which name the tables that they had before; no topic has a slash.
FORMER: Final = "_former/"
_OF_ANOTHER: Final = re.compile(r"(?P<topic>.+)\.(?:late|v[1-9][0-9]*)")

# A file is named by its topic (ASCII) and, at their longest, the partition, two offsets and the entry's number.
_TOPIC_LENGTH_MAX: Final = NAME_BYTES_MAX - len(f"+{2**31 - 1}+{2**63 - 1}+{2**63 - 1}+{10**12 - 1}.parquet")

GENERATIONS_MAX: Final = 100
"""Tables of one topic: each is a directory, and a topic of so many kinds of records wants other names for them."""
TABLE_NAME_LENGTH_MAX: Final = NAME_BYTES_MAX - len(f".v{GENERATIONS_MAX}.late")


def table_name(first: str, generation: int) -> str:
    """Return the name of a generation's table, by that of the first."""
    return first if generation == 1 else f"{first}.v{generation}"


def former_tables(documents: Mapping[str, Any], topic: str | None = None) -> list[str]:
    """Return the tables that topics had before they were loaded anew, those of one topic or all, oldest first."""
    wanted = [key for key in documents if key.startswith(FORMER)] if topic is None else [f"{FORMER}{topic}"]
    return [str(name) for key in wanted for name in documents.get(key, {}).get("tables", ())]


def are_of_one(first: str, other: str) -> bool:
    """Whether `other` is a name of a first table, or of a later generation or late records of it."""
    return first == other or first in _owners(other)


class TableNames:
    """What the first table of each topic is called: as its document has it, else as the job's rules say."""

    def __init__(self, rules: Mapping[str, str], documents: Mapping[str, Mapping[str, Any]]) -> None:
        """`rules`: a pattern (RE2, whole topics) to a name, in which `\\1` stands for its first group; in order."""
        self._rules = [(compiled(pattern), name) for pattern, name in rules.items()]
        self._kept = {
            topic: str(document.get("table", topic))
            for topic, document in documents.items()
            if not topic.startswith(FORMER)
        }
        # What nobody has any more, and nobody else may have: files of another topic are there.
        self.former = frozenset(former_tables(documents))
        self._owners_of_former = {owner: name for name in self.former for owner in _owners(name)}

    def of(self, topic: str) -> str:
        """Return the name of the topic's first table."""
        if (kept := self._kept.get(topic)) is not None:
            return kept
        for pattern, name in self._rules:
            if (found := pattern.fullmatch(topic)) is not None:
                return found.expand(name)
        return topic

    def former_at(self, topic: str, name: str) -> str | None:
        """Return the former table that `name` is; of a topic that has no table yet, also one that it is another of, or
        that is another of it."""
        if name in self.former or topic in self._kept:
            return name if name in self.former else None
        held = next((owner for owner in _owners(name) if owner in self.former), None)
        return held or self._owners_of_former.get(name)

    def rank(self, topic: str, loaded: Collection[str]) -> tuple[int, str]:
        """Of topics that would have one table, the least has it: who has a document, then who was loaded."""
        return (0 if topic in self._kept else 1 if topic in loaded else 2), topic


def why_no_table(
    topic: str, loaded: Collection[str], coming: Collection[str] = (), names: TableNames | None = None
) -> str | None:
    """Return why `topic` cannot have a table beside others, as `why_no_tables` says of all of them, or None."""
    return why_no_tables({topic, *coming}, loaded, names).get(topic)


def why_no_tables(coming: Collection[str], loaded: Collection[str], names: TableNames | None = None) -> dict[str, str]:
    """Return why topics that are `coming` cannot have tables beside those that are `loaded`; without those that can.

    Who is loaded already keeps its directory. Of two that come together, the one that is named like a table of the
    other's has to wait.
    """
    names = names or TableNames({}, {})
    name_of = {topic: names.of(topic) for topic in {*loaded, *coming}}
    # Whose each table is, of all of them and of the loaded ones; and of which loaded table a name could be another one.
    holders = {
        name_of[topic]: topic for topic in sorted(name_of, key=lambda one: names.rank(one, loaded), reverse=True)
    }
    owned_by = {owner: name_of[topic] for topic in loaded for owner in _owners(name_of[topic])}
    reasons: dict[str, str] = {}
    for topic in coming:
        name = name_of[topic]
        reason = _why_no_name(topic, name)
        if reason is None and (former := names.former_at(topic, name)) is not None:
            beside = "which" if former == name else f"beside {former}, which"
            reason = (
                f"its table would be {name}, {beside} is of a topic that was loaded anew: mend destination.table_names"
            )
        if reason is None and holders[name] != topic:
            reason = f"its table would be {name}, which is that of topic {holders[name]}: mend destination.table_names"
        if reason is None and topic not in loaded:
            owner = next((one for one in _owners(name) if one in holders), None)
            if owner is not None:
                reason = _sentence(name, holders[owner])
            elif name in owned_by:
                reason = _sentence(owned_by[name], topic)
        if reason is not None:
            reasons[topic] = reason
    return reasons


def _why_no_name(topic: str, name: str) -> str | None:
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
    if len(name) > TABLE_NAME_LENGTH_MAX:
        return (
            f"its table would have a name of {len(name)} characters, and {TABLE_NAME_LENGTH_MAX} are the most: mend"
            " destination.table_names"
        )
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
