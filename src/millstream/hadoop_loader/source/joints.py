"""Where the pieces of one partition meet: whether what several workers read of it is one history.

A partition that is hot is cut, and its pieces are read at different times. An unclean election between them leaves the
first piece with the old history and the next one with the new, and the position behind both with an epoch of the new
one, so that no later run would notice. Before a run commits, the leaders are therefore asked where the epoch that each
piece ended in ends by now (KIP-320): below the piece's end, its log was cut.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from millstream.core.client import Client, TopicPartition
from millstream.core.client.blocking import background_loop
from millstream.core.config.client_config import ClientConfig
from millstream.core.config.client_configs import ADMIN_CONFIGS
from millstream.core.wire import ErrorCode, KafkaError
from millstream.hadoop_loader.job import SourceSettings
from millstream.hadoop_loader.source.leaders import ask_epoch_ends
from millstream.hadoop_loader.splits import RangeRead


def read_cut_topics(source: SourceSettings, reads: Iterable[RangeRead]) -> dict[str, str]:
    """Return the topics with a partition whose pieces may be of different histories, each with a sentence.

    Asks the cluster only where a partition was read in pieces. Waits for the answers, from any thread. A partition that
    gives none is among them: its leader may be away for the very reason that is asked about.
    """
    ends = _ends_of_pieces(reads)
    if not ends:
        return {}

    async def ask() -> dict[str, str]:
        found: dict[str, str] = {}
        async with Client(ClientConfig.load(ADMIN_CONFIGS, source.client_configs())) as client:
            await client.metadata({tp.topic for tp in ends}, timeout_ms=round(source.timeout_s * 1000))
            # One question names a partition once: the first epochs of all, then the second ones.
            for number in range(max(map(len, ends.values()))):
                asked = {tp: epochs[number] for tp, epochs in ends.items() if number < len(epochs)}
                for topic, sentence in (await _ask(client, asked, source.timeout_s)).items():
                    found.setdefault(topic, sentence)
        return found

    try:
        return background_loop().run(ask())
    except KafkaError as error:
        why = f"whether its log was cut while it was read could not be asked: {error.message}"
        return dict.fromkeys((tp.topic for tp in ends), why)


def _ends_of_pieces(reads: Iterable[RangeRead]) -> dict[TopicPartition, list[tuple[int, int]]]:
    """Return (leader epoch, end offset) of partitions that were read in pieces.

    Of the pieces that ended in one epoch the last is asked about: a log that reaches its end has the others too.
    """
    pieces: dict[TopicPartition, int] = Counter()
    ends: dict[TopicPartition, dict[int, int]] = defaultdict(dict)
    for read in reads:
        tp = TopicPartition(read.topic, read.partition)
        pieces[tp] += 1
        if read.leader_epoch >= 0:
            known = ends[tp].get(read.leader_epoch, 0)
            ends[tp][read.leader_epoch] = max(known, read.next_offset)
    return {tp: sorted(epochs.items()) for tp, epochs in ends.items() if pieces[tp] > 1}


async def _ask(client: Client, ends: Mapping[TopicPartition, tuple[int, int]], timeout_s: float) -> dict[str, str]:
    epochs = {tp: leader_epoch for tp, (leader_epoch, _) in ends.items()}
    asked = await ask_epoch_ends(client, epochs, timeout_s=timeout_s, wait_s=timeout_s)
    sentences: dict[str, str] = {}
    for tp, (leader_epoch, offset) in ends.items():
        error, epoch_end = asked.errors.get(tp), asked.found.get(tp)
        if epoch_end is not None and not epoch_end.reaches(offset):
            sentences[tp.topic] = (
                f"the log of {tp} was cut while it was read: epoch {leader_epoch} was read up to offset {offset} and"
                " does not reach it any more (an unclean leader election?); the next run looks anew"
            )
        elif epoch_end is None and (error is None or error.code is not ErrorCode.UNSUPPORTED_VERSION):
            why = "its leader left it out of what it answered" if error is None else error.message
            sentences[tp.topic] = f"whether the log of {tp} was cut while it was read is not known: {why}"
    return sentences
