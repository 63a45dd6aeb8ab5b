"""Records <-> Arrow, and the Producer and Consumer with Arrow on them that `millstream` and `millstream.aio` name.

    schema.py      the columns of records             gathering.py   fetched pieces to a record batch
    outgoing.py    which columns of a table are sent  encoding.py    tables to encoded batches, by partition
    consumer.py, producer.py                     the asyncio faces: those of `core.client` with Arrow
    blocking_consumer.py, blocking_producer.py   the same without await, caller.py  whose thread they are

pyarrow is loaded by the first call that needs it, not by importing a face.
"""
