"""One run of a load job, from the claim to the report; and what else is asked of a destination.

load.py        run_load: the order of a run, and what its failures become
finishing.py   what a run does behind its commit, or where nothing is new; failures.py what is remembered of failed ones
problems.py    what a run may meet, as sentences; surroundings.py what it takes from the world
attempts.py    which split runs next, which is tried again, which topics are given up; pure
schemas.py     tables' schemas at the start of a run, and schemas that splits met and nobody knew
closing.py     watermarks of record time, and the directories they close; pure
audit.py       offsets against rows and gaps; pure
report.py      what a run did: LoadReport, as JSON and in sentences
observer.py    what a run tells while it runs; progress.py adds it up for a display, metrics.py for Prometheus,
               and metrics_file.py for its node exporter
group_offsets.py   positions committed to a consumer group, for lag tools
directories.py, anew.py           directories closed and emptied; a topic that is loaded once more
verify.py, status.py, replay.py   a destination re-checked; how it stands; dead letters decoded again
"""

from millstream.hadoop_loader.driver.load import run_load
from millstream.hadoop_loader.driver.report import LoadReport, Outcome

__all__ = ["LoadReport", "Outcome", "run_load"]
