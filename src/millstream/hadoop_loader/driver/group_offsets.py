"""Positions committed to a consumer group, so that lag tools see how far a load is. Nothing ever reads them back here.

They follow the commit log: committed after it, and a failure is a note in the report, for the next run says them again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from millstream.core.client import TopicPartition
    from millstream.hadoop_loader.job import SourceSettings


def commit_group_offsets(source: SourceSettings, group: str, offsets: Mapping[TopicPartition, int]) -> None:
    """Set the group's offsets; the group must have no members. Raises KafkaError."""
    from millstream.core.client.admin import Admin
    from millstream.core.client.blocking import background_loop
    from millstream.core.client.group_offsets import CommittedOffset

    async def commit() -> None:
        async with Admin(source.client_configs()) as admin:
            committed = {tp: CommittedOffset(offset, metadata="millstream load") for tp, offset in offsets.items()}
            failed = await admin.alter_group_offsets(group, committed, timeout_s=source.timeout_s)
        for error in failed.values():
            if error is not None:
                raise error

    background_loop().run(commit())
