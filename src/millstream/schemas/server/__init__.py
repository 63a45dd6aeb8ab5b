"""A schema registry that speaks Confluent's REST interface and keeps its schemas in Kafka, in Confluent's format.

state.py         what it holds; sans-I/O, fed by records      records.py, content.py, subjects.py, term.py   their form
store.py         reads the topic and writes to it             election.py     who of several instances may write
registry.py      what it does for who asks                    forwarding.py   has the leader do it
app.py, routes/  the REST interface                           openapi.py, auth.py, errors.py
settings.py      its configuration                            runner.py       the process
"""
