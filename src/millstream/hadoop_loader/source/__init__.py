"""What the topics of a job hold now, and what of it is to be loaded.

snapshot.py   the source at one moment       reading.py    asks the cluster for it, leaders.py partition by partition
topics.py     which topics are the job's
findings.py   what does not fit              reconcile.py  positions against the snapshot, pure
joints.py     whether pieces of a partition that were read are one history
"""

from millstream.hadoop_loader.source.findings import Finding, FindingKind, Severity
from millstream.hadoop_loader.source.joints import read_cut_topics
from millstream.hadoop_loader.source.reading import read_snapshot, read_source
from millstream.hadoop_loader.source.reconcile import Reconciled, reconcile
from millstream.hadoop_loader.source.snapshot import EpochEnd, MissingTopic, PartitionNow, SourceSnapshot, TopicNow

__all__ = [
    "EpochEnd",
    "Finding",
    "FindingKind",
    "MissingTopic",
    "PartitionNow",
    "Reconciled",
    "Severity",
    "SourceSnapshot",
    "TopicNow",
    "read_cut_topics",
    "read_snapshot",
    "read_source",
    "reconcile",
]
