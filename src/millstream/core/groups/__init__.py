"""The group coordinator: who consumes what together, and how far they have come. Sans-I/O, event-sourced.

One `GroupShard` serves the groups of one partition of `__consumer_offsets`; `broker/coordinators.py` feeds it and does
what it asks for. The names stand in their modules: what only asks where a group is kept does not load what serves it.
"""
