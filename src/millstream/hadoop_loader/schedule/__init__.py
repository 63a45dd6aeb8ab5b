"""Jobs by cron expressions and intervals: what `millstream load serve` does.

timetable.py      the regular times       scheduled_job.py   when one job runs next, as a machine without I/O
service.py        threads that run them   page.py            health, metrics and status over HTTP
"""

from millstream.hadoop_loader.schedule.page import StatusPage
from millstream.hadoop_loader.schedule.scheduled_job import JobState, RunRecord, ScheduledJob
from millstream.hadoop_loader.schedule.service import LoadService, scheduled
from millstream.hadoop_loader.schedule.timetable import Timetable

__all__ = ["JobState", "LoadService", "RunRecord", "ScheduledJob", "StatusPage", "Timetable", "scheduled"]
