"""What the commands on groups take: which groups, and which of their partitions."""

from __future__ import annotations

from typing import Annotated

import typer

from millstream.cli.options import partitions_of
from millstream.core.client import Client, GroupListing, GroupType, TopicPartition, list_groups
from millstream.core.wire.embedded_protocol import CONSUMER_PROTOCOL_TYPE

Groups = Annotated[list[str] | None, typer.Argument(metavar="GROUP", help="Names of groups.", show_default=False)]
AllGroups = Annotated[bool, typer.Option("--all-groups", help="Every consumer group of the cluster.")]
Partitions = Annotated[
    list[str],
    typer.Option("--topic", "-t", metavar="TOPIC[:0,1]", help="All its partitions, or these; repeatable."),
]


def check_named(names: list[str] | None, all_groups: bool) -> None:
    """Raise BadParameter unless groups are named, or all are meant."""
    if bool(names) == all_groups:
        raise typer.BadParameter("name groups, or give --all-groups")


async def groups_of(client: Client, names: list[str] | None, all_groups: bool) -> list[str]:
    """Return the groups that were named, or all consumer groups. Raises BadParameter where it is neither or both.

    Groups of other kinds (Connect's workers, schema registries) are meant only where they are named, as in Kafka's.
    """
    check_named(names, all_groups)
    if names:
        return list(dict.fromkeys(names))
    return [one.group_id for one in await list_groups(client) if is_of_consumers(one)]


def is_of_consumers(group: GroupListing) -> bool:
    """Whether a group reads topics, or has only committed offsets."""
    return group.type in {GroupType.CLASSIC, GroupType.CONSUMER, GroupType.UNKNOWN} and group.protocol_type in {
        "",
        CONSUMER_PROTOCOL_TYPE,
    }


async def parse_partitions(client: Client, texts: list[str]) -> list[TopicPartition]:
    """Read TOPIC and TOPIC:0,1 as partitions that exist. Raises KafkaError, BadParameter."""
    found: list[TopicPartition] = []
    for text in texts:
        topic, colon, listed = text.partition(":")
        indexes = [part.strip() for part in listed.split(",")] if colon else []
        if not all(index.isascii() and index.isdigit() for index in indexes):
            raise typer.BadParameter(
                f"{text!r} names no partitions: write flights or flights:0,1", param_hint="--topic"
            )
        found += await partitions_of(client, topic, [int(index) for index in indexes] or None)
    return list(dict.fromkeys(found))
