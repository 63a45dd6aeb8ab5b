"""Producer, Consumer and Admin for asyncio: those of `millstream`, awaited.

async with aio.Consumer("127.0.0.1:9092", group_id="loaders") as consumer:
    consumer.subscribe(["flights"])
    async for batch in consumer.batches():
        ...
"""

from millstream.core.client.admin.admin import Admin
from millstream.core.columns.consumer import Consumer
from millstream.core.columns.producer import Producer

__all__ = ["Admin", "Consumer", "Producer"]
