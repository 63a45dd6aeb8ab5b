"""Offsets that are to be loaded -> splits: pure, and the same for the same ranges.

planner.py   cutting, packing, balancing      quota.py   as much of every partition as one run may take
"""

from millstream.hadoop_loader.planning.planner import Plan, plan_splits
from millstream.hadoop_loader.planning.quota import take_share

__all__ = ["Plan", "plan_splits", "take_share"]
